"""Where labs can run: a wrapper of fresh namespaces, for root and for ordinary users alike, and the question whether it is possible.

In the wrapper nothing outside can be reached over the network, and nothing inside can be. Processes, interfaces, rules and the files
under /dev/shm are gone when it ends, even by SIGKILL: the kernel drops them with the namespaces.
"""

import functools
import os
import shutil
import subprocess
import sys
from typing import Final, Never

__all__ = ["INSIDE", "NoLab", "enter", "is_inside", "why_not"]

INSIDE: Final = "NETLAB_INSIDE"
"""The environment variable that is set inside the wrapper."""
_TOOLS: Final = ("unshare", "mount", "ip", "nft")
_PROBE_SECONDS: Final = 60.0

# sh stays as process 1: it reaps orphans. The loopback device of a new namespace is down. A private /dev/shm takes all files of the
# lab, and PostgreSQL's shared memory: it needs no disk, is writable for every user, and leaves nothing behind. Names of hosts are
# resolved by a copy of /etc/hosts, which labs write to (names.py).
_PREPARE: Final = (
    "ip link set lo up && mount -t tmpfs -o mode=1777,size=8g tmpfs /dev/shm"
    " && cp /etc/hosts /dev/shm/hosts && chmod u+w /dev/shm/hosts && mount --bind /dev/shm/hosts /etc/hosts"
)
_RUN: Final = f'{_PREPARE} || exit 77; "$@"; exit $?'
_PROBE: Final = (
    f"{_PREPARE} && ip link add nlp0 type veth peer name nlp1 && ip link add nlp2 type bridge"
    " && nft add table ip nlp && nft 'add chain ip nlp p { type nat hook postrouting priority 100; }'"
    " && nft add rule ip nlp p masquerade && nft add table netdev nlq"
    " && nft 'add chain netdev nlq q { type filter hook egress device nlp0 priority 0; policy drop; }' && echo usable"
)


class NoLab(Exception):
    """This machine cannot host a lab; the text says why."""


def is_inside() -> bool:
    """Whether this process runs in the wrapper."""
    return INSIDE in os.environ


@functools.cache
def why_not() -> str | None:
    """None when a lab can run on this machine, else the reason in words."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
    if missing:
        return f"missing programs: {', '.join(missing)} (see tools/netlab.sh)"
    return _why_refused()


def _why_refused() -> str | None:
    try:
        tried = subprocess.run(
            [*_wrapper(), "sh", "-c", _PROBE],
            capture_output=True, text=True, timeout=_PROBE_SECONDS, env=_environment(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"making namespaces took more than {_PROBE_SECONDS:.0f} s"
    if "usable" in tried.stdout:
        return None
    return f"this kernel or container refuses: {tried.stderr.strip()[-300:] or f'exit code {tried.returncode}'}"


def enter(command: list[str]) -> Never:
    """Become `command` inside the wrapper; in it already, simply become it. Raises NoLab where that is impossible."""
    if not is_inside():
        if reason := why_not():
            raise NoLab(reason)
        command = [*_wrapper(), "sh", "-c", _RUN, "netlab", *command]
    sys.stdout.flush()
    os.execvpe(command[0], command, {**_environment(), INSIDE: "1", "TMPDIR": "/dev/shm"})


def _wrapper() -> list[str]:
    # --map-current-user keeps the caller's user id (PostgreSQL refuses 0), --keep-caps leaves the capabilities to `ip` and `nft`
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *as_user, "--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]


def _path() -> str:
    """An ordinary user's path on Debian lacks the folders of `ip` and `nft`."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _path()}
