"""A small process that ends a demo's daemons when the demo itself was killed and cannot.

It reads lines from its standard input, a pipe that only the demo holds: `+PID` and `-PID` for a process group that began or ended,
`remove FOLDER` for what is to go at last, `done` when nothing is left to do. The end of the pipe without `done` means that the demo
is dead. (A daemon cannot notice that by itself: its parent may rightly be anything, and PR_SET_PDEATHSIG is Linux's alone.)
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress

__all__ = ["main"]

GRACE_SECONDS = 40.0
"""A coordinator lets requests end for up to 30 s, and stops its PostgreSQL after that."""


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal_all(groups: set[int], number: int) -> None:
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _end_all(groups: set[int], grace_seconds: float) -> None:
    _signal_all(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while any(map(_is_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal_all(groups, signal.SIGKILL)


def main() -> None:
    """Listen until the pipe ends."""
    groups: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        word = line.rstrip("\n")
        if word == "done":
            return
        if word.startswith("+"):
            groups.add(int(word[1:]))
        elif word.startswith("-"):
            groups.discard(int(word[1:]))
        elif word.startswith("remove "):
            folders.append(word.removeprefix("remove "))
    _end_all(groups, GRACE_SECONDS)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
