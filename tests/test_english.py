"""Docstrings begin with a verb: in functions and modules as a command ("Return …"), in classes about the class ("Holds …")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kdsweep"

VERBS = """
accept add agree allow answer append apply arrange ask assert assign average begin bind bound bring build call cancel carry change
check choose clear close collect combine compare compile complete compute connect continue convert copy correct count create cut
decide decode declare define delete derive describe divide do download draw drop embed encode end enqueue enter estimate evaluate
exchange exclude execute explain export extend fail fetch fill find fine-tune finish fit fix fold follow forget format forward free gather
give group guard handle hash have hold identify import include initialise insert inspect interpret join judge keep leave let limit list
load lock log look make map mark match measure merge move name note offer open order pack pad parse pass pick place plan plot pool
predict prepare print project provide prune publish put queue raise rank read record recover reduce refuse release remember remove
rename render repeat replace report reproduce require reset resolve restore resume return run sample save say search select send
separate set settle share shorten show shrink simulate skip sort split spread start state stop store suggest sum supply switch take
tell test time tokenise train translate trim try turn undo unpack update upload use verify wait warn watch weigh wrap write
yield
"""
"""What may begin a docstring; add a verb where none of these fits."""


def docstrings(room: str) -> Iterator[tuple[str, str, type[ast.AST]]]:
    for path in sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name == room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                where = f"{path.relative_to(PACKAGE)}: {getattr(node, 'name', 'module')}"
                yield where, text, type(node)


def about(verb: str) -> str:
    """The form that a class's docstring takes: it holds, it does, it tries."""
    if verb == "have":
        return "has"
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


@pytest.mark.parametrize("room", sorted({path.parent.name for path in PACKAGE.rglob("*.py")}))
def test_a_docstring_begins_with_a_verb(room: str) -> None:
    allowed = {ast.ClassDef: {about(verb).capitalize() for verb in VERBS.split()}}
    commands = {verb.capitalize() for verb in VERBS.split()}
    others = [
        f"{where}: {text.splitlines()[0]}"
        for where, text, kind in docstrings(room)
        if text.split()[0].rstrip(",:;") not in allowed.get(kind, commands)
    ]
    assert others == []
