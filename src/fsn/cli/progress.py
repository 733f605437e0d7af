"""Progress bars, on a terminal only; they go to stderr so that stdout stays what it is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["ShowProgress", "open_progress", "printable"]

ShowProgress = Callable[[int, int | None], None]
"""Told the bytes done and the bytes in all (None: not known)."""


def printable(text: str) -> str:
    """`text` from a stranger, safe to show: nothing in it can move the cursor or change colours."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _new_bar() -> "Progress":
    # imported here: rich's progress bars take 0.2 s to import, which a command in a pipe need not pay
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


@contextmanager
def open_progress(label: str) -> Iterator[ShowProgress | None]:
    """A bar for one transfer, as a callable to be told; None when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with _new_bar() as bar:
        task = bar.add_task(printable(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
