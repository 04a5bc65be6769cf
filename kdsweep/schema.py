"""Print the JSON Schema of a sweep file, which lets an editor complete and check it: `python -m kdsweep.schema`."""

import argparse
import sys
from collections.abc import Sequence

from kdsweep.system.process import ends_with_its_reader

EPILOG = """\
An editor with YAML support (VS Code with Red Hat's extension, PyCharm, Neovim) reads it where the first line of a sweep names it:
  python -m kdsweep.schema > schema.json
  # yaml-language-server: $schema=schema.json
"""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.schema") -> int:
    """Print the schema; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print the JSON Schema of a sweep file: every key with its meaning, default and range.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    from kdsweep.config.schema import schema_text  # imports the YAML reader, which --help does not need

    print(schema_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
