"""The operator's allowance: what may be stored, counted so that stores running at once cannot overshoot it."""

from collections.abc import Callable
from typing import Final

import attrs

from fsn.core.errors import DiskFull, StorageError

__all__ = ["DEFAULT_RESERVE_BYTES", "Quota", "Reservation"]

DEFAULT_RESERVE_BYTES: Final = 64 * 1024 * 1024
"""Left free on the disk whatever the allowance says, so that the index, its write-ahead log and the logs can always be written."""


@attrs.define
class Reservation:
    """Bytes set aside for one chunk on its way to the disk. Exactly one of `commit` and `release` settles it; later calls do nothing."""

    _quota: "Quota"
    size_bytes: int
    _open: bool = True

    def commit(self) -> None:
        """The chunk is stored: the bytes are used from now on."""
        self._settle(used=self.size_bytes)

    def release(self) -> None:
        """The chunk was not stored, or was there already."""
        self._settle(used=0)

    def _settle(self, *, used: int) -> None:
        if self._open:
            self._open = False
            self._quota.settle(self.size_bytes, used=used)


@attrs.define
class Quota:
    """Bytes of chunks used and reserved against an allowance. To be used from one thread (the event loop's).

    Counts the bytes of chunks, not the blocks under them: on a file system of 4 KiB blocks a full chunk occupies 1.6 % more.
    """

    capacity_bytes: int
    used_bytes: int
    disk_free_bytes: Callable[[], int]
    reserve_bytes: int = DEFAULT_RESERVE_BYTES
    reserved_bytes: int = 0
    trash_bytes: int = 0
    """In the trash: not counted, for it is removed as soon as its room is wanted (`excess_bytes`)."""

    def reserve(self, size_bytes: int) -> Reservation:
        """Set bytes aside. Raises `DiskFull` when the allowance, or the disk above its reserve, has not so many left;
        `StorageError` when the disk does not say."""
        if size_bytes > self._allowance_left():
            raise DiskFull(
                f"{size_bytes} bytes are wanted; {self._allowance_left()} are left of {self.capacity_bytes} allowed"
            )
        if size_bytes > self._disk_left():
            raise DiskFull(
                f"{size_bytes} bytes are wanted; the disk has {self._disk_left()} above its reserve of {self.reserve_bytes}"
            )
        self.reserved_bytes += size_bytes
        return Reservation(self, size_bytes)

    def settle(self, reserved_bytes: int, *, used: int) -> None:
        """End a reservation; `used` of its bytes are stored now."""
        self.reserved_bytes -= reserved_bytes
        self.used_bytes += used

    def give_back(self, size_bytes: int) -> None:
        """Deleted chunks free their bytes."""
        self.used_bytes -= size_bytes

    def free_bytes(self) -> int:
        """What could be reserved now, never negative; nothing on a disk that does not say how much it has."""
        try:
            return max(0, min(self._allowance_left(), self._disk_left()))
        except StorageError:
            return 0

    def excess_bytes(self) -> int:
        """How many bytes of trash are in the way of what is stored and reserved."""
        if not self.trash_bytes:
            return 0
        over_allowance = self.used_bytes + self.reserved_bytes + self.trash_bytes - self.capacity_bytes
        over_disk = self.reserved_bytes + self.reserve_bytes - self.disk_free_bytes()
        return min(max(0, over_allowance, over_disk), self.trash_bytes)

    def _allowance_left(self) -> int:
        return self.capacity_bytes - self.used_bytes - self.reserved_bytes

    def _disk_left(self) -> int:
        return self.disk_free_bytes() + self.trash_bytes - self.reserved_bytes - self.reserve_bytes
