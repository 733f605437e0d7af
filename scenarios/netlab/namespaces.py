"""Anonymous network namespaces, held by file descriptors: no /run/netns, no mount, no privilege outside the wrapper."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

__all__ = ["CommandFailed", "Namespace"]

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_COMMAND_SECONDS: Final = 60.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


class CommandFailed(Exception):
    """A program that set the network up refused; the text has its words and what it was given."""


class Namespace:
    """A network namespace that lives as long as `fd` or a process in it. The methods block; call them from any thread."""

    def __init__(self) -> None:
        self.fd = _in_thread(_open_new)
        self.inode = os.fstat(self.fd).st_ino

    @property
    def path(self) -> str:
        """A path for other programs, as long as this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, function: Callable[[], T]) -> T:
        """`function()` in the namespace; a socket made there stays there."""

        def inside() -> T:
            _checked(_libc.setns(self.fd, _CLONE_NEWNET))
            return function()

        return _in_thread(inside)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process in the namespace: a child has the namespaces of the thread that forks it.

        (Never with PR_SET_PDEATHSIG, which would kill it when that thread ends.)
        """
        return self.call(lambda: subprocess.Popen(command, **options))

    def run(self, command: Sequence[str], text: str = "", *, check: bool = True) -> str:
        """Run a program to its end with `text` as its input, and return what it said. Raises CommandFailed unless `check` is off."""
        done = self.call(
            lambda: subprocess.run(command, input=text, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
        )
        # `ip -batch` goes on after some mistakes and ends with 0
        if check and (done.returncode or (command[0] == "ip" and done.stderr)):
            raise CommandFailed(f"{' '.join(command)}: code {done.returncode}: {done.stderr.strip()}\n{text}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Some `ip` commands in one process."""
        self.run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))

    def nft(self, rules: str) -> None:
        """Load nftables rules, all or none."""
        self.run(["nft", "-f", "-"], rules)

    def set_sysctls(self, values: dict[str, int]) -> None:
        """Set kernel variables of the namespace, by their paths below /proc/sys."""

        def write() -> None:
            for name, value in values.items():
                Path("/proc/sys", name).write_text(str(value))

        self.call(write)

    def pids(self) -> list[int]:
        """The processes in the namespace, ours excepted."""
        return [pid for pid, inode in _inodes() if inode == self.inode]

    def close(self) -> None:
        """Let go; harmless to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _open_new() -> int:
    _checked(_libc.unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _inodes() -> list[tuple[int, int]]:
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - thousands of names, no paths wanted
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                found.append((int(entry), os.stat(f"/proc/{entry}/ns/net").st_ino))  # noqa: PTH116
            except OSError:
                continue  # gone meanwhile, or a zombie
    return found


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Outcome(Generic[T]):
    value: T
    error: BaseException | None = None


def _in_thread(function: Callable[[], T]) -> T:
    """Run in a throw-away thread, whose namespace is its own: that of the process stays what it is."""
    outcome = _Outcome[T]()

    def run() -> None:
        try:
            outcome.value = function()
        except BaseException as error:  # noqa: BLE001 - handed over to the caller
            outcome.error = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
