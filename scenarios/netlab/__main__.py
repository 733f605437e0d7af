"""`python -m scenarios.netlab COMMAND...`: run a command inside the wrapper of entering.py, with its exit code; 77 where no lab can be."""

import shutil
import sys

from scenarios.netlab.entering import NoLab, enter

SKIPPED = 77
"""The exit code that automake and others take for "skipped"."""


def main(command: list[str]) -> int:
    """Does not return when the command could be started."""
    if not command:
        print("usage: python -m scenarios.netlab COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    if shutil.which(command[0]) is None:
        print(f"netlab: there is no program {command[0]!r}", file=sys.stderr)
        return 127
    try:
        enter(command)
    except NoLab as reason:
        print(f"netlab: no laboratory here: {reason}", file=sys.stderr)
        return SKIPPED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
