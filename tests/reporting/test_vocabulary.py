"""A student with fewer pieces than its tokenizer: in the leaderboard, in W&B's summary and in the answer."""

from dataclasses import replace
from pathlib import Path

from makers import make_full

from kdsweep.analysis.leaderboard import column_names, table
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import read_trial
from kdsweep.records.schema import VOCABULARY
from kdsweep.records.writing import TrialFolder
from kdsweep.reporting.build import build_report


def test_the_leaderboard_and_the_answer_say_what_is_left_of_the_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make_full(folder)
    plain = build_report(folder)
    assert not set(VOCABULARY) & {*column_names((), plain.rows), *table(plain.rows)[0]}
    assert "pieces" not in dict(plain.questions)["Which student to ship?"]
    best = trial_folder(folder, TrialId("distilled", 0))
    result = read_trial(best).result
    assert result is not None and not set(VOCABULARY) & set(result.summary())
    fewer = replace(
        result, vocabulary_pieces=6796, vocabulary_whole=30522, val_unknown_share=0.0003, val_recut_share=0.8025
    )
    TrialFolder(best).finish(fewer)
    report = build_report(folder)
    first, other = table(report.rows)[0], table(report.rows)[-1]
    expected = [6796, 30522, 0.0003, 0.8025, None, None]
    assert [first[name] for name in VOCABULARY] == [fewer.summary()[name] for name in VOCABULARY] == expected
    assert [other[name] for name in VOCABULARY] == [None] * 6
    assert list(first) == column_names(tuple(report.records.sweep.search), report.rows)
    said = dict(report.questions)["Which student to ship?"].replace("\N{NO-BREAK SPACE}", " ")
    assert "It has 6,796 of its tokenizer's 30,522 pieces: of the validation texts 80.2 % are cut otherwise" in said
    assert "and 0.03 % of their pieces are unknown to it" in said
    TrialFolder(best).finish(replace(fewer, test_unknown_share=0.0, test_recut_share=0.5))
    said = dict(build_report(folder).questions)["Which student to ship?"].replace("\N{NO-BREAK SPACE}", " ")
    assert "of the test texts 50.0 % are cut otherwise, and 0.00 % of their pieces are unknown to it" in said
