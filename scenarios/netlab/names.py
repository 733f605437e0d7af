"""Names for addresses of the lab, as a DNS server would tell them: in the wrapper's own /etc/hosts, which every look-up reads anew."""

import fcntl
from pathlib import Path
from typing import Final

__all__ = ["Names"]

_HOSTS: Final = Path("/etc/hosts")


class Names:
    """The names of one lab. Several labs write to the one file, each below a domain of its own; the methods block."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def point(self, name: str, address: str) -> str:
        """From now on `name` (below the lab's domain) leads to `address`, and nowhere else; the full name."""
        full = f"{name}.{self._domain}"
        self._rewrite(without=f" {full}\n", more=f"{address} {full}\n")
        return full

    def forget_all(self) -> None:
        """No name of this lab leads anywhere."""
        self._rewrite(without=f".{self._domain}\n")

    def _rewrite(self, *, without: str, more: str = "") -> None:
        with _HOSTS.open(
            "r+"
        ) as hosts:  # in place: another file under the same name would not be seen through the mount
            fcntl.flock(hosts, fcntl.LOCK_EX)
            kept = [line for line in hosts if not line.endswith(without)]
            hosts.seek(0)
            hosts.write("".join([*kept, more]))
            hosts.truncate()
