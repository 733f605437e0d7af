"""May this file come in, and as what? Names, sizes, replicas, credits and nodes are looked at before anything is kept."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import attrs

from fsn.coord.catalog import StoredFile, Upload
from fsn.coord.config import UploadConfig
from fsn.coord.database.charges import standing
from fsn.coord.database.pool import Pool
from fsn.coord.keyring import Keyring
from fsn.coord.membership import Membership
from fsn.coord.pricing import Pricing
from fsn.core.chunking import CHUNK_BYTES, MAX_FILE_BYTES
from fsn.core.errors import InsufficientCredits, Invalid, TooLarge
from fsn.core.ids import FileId, UploadId, UserId
from fsn.core.names import check_filename
from fsn.core.tariff import storage_cost
from fsn.core.units import MicroCredits, format_credits
from fsn.runtime.clock import Clock

__all__ = ["MOST_REPLICAS", "Admission"]

MOST_REPLICAS = 10
SHOWN_MICRO = 10_000
"""Below a hundredth of a credit two decimals do not show what is missing."""


@attrs.frozen
class Admission:
    """Lets uploads in, or says why not."""

    db: Pool
    membership: Membership
    keyring: Keyring
    clock: Clock
    random_bytes: Callable[[int], bytes]
    config: UploadConfig
    pricing: Pricing

    async def admit(self, user: UserId, filename: str, size_bytes: int | None, replicas: int | None) -> Upload:
        """A new upload with a fresh key, kept nowhere yet. `size_bytes` is None for a stream of unknown length.

        Raises Invalid, TooLarge, TooFewNodes, InsufficientCredits.
        """
        copies = self.replicas(replicas)
        check_filename(filename)
        if size_bytes is not None:
            self.check_size(size_bytes)
        if size_bytes != 0:
            self.membership.require(copies)
        await self.check_credits(user, size_bytes or 0, copies)
        return self._new_upload(user, filename, size_bytes, copies)

    async def cost(self, size_bytes: int, replicas: int | None) -> MicroCredits:
        """Micro-credits for storing a file for 30 days, if its upload begins now."""
        return storage_cost(size_bytes, self.replicas(replicas), await self.pricing.price())

    def replicas(self, replicas: int | None) -> int:
        """How many replicas a file gets whose upload asks for so many (None: the default). Raises Invalid."""
        wanted = self.config.replicas if replicas is None else replicas
        if not 1 <= wanted <= MOST_REPLICAS:
            raise Invalid(f"replicas must be 1 to {MOST_REPLICAS}; got {wanted}")
        return wanted

    def check_size(self, size_bytes: int) -> None:
        """Raises Invalid or TooLarge for a size that no file has here."""
        limit = min(self.config.max_file_bytes, MAX_FILE_BYTES)
        if size_bytes < 0:
            raise Invalid(f"a file's size is 0 or more bytes; got {size_bytes}")
        if size_bytes > limit:
            raise TooLarge(f"a file may have up to {limit} bytes here; this one has {size_bytes} or more", wanted=limit)

    async def check_credits(self, user: UserId, size_bytes: int, copies: int) -> None:
        """Raises InsufficientCredits for a file that the balance or the budget does not cover, before anything is stored for it; when it is
        charged they are looked at again."""
        cost = await self.cost(size_bytes, copies)
        if not cost:
            return
        found = await standing(self.db, user, self.clock())
        if found.past_due_since is not None:
            raise InsufficientCredits(
                f"storing the files that are there is not paid since {found.past_due_since:%Y-%m-%d}: the account takes no new ones before"
                f" credits are bought; the balance is {format_credits(found.balance)}",
                code="past_due",
                found=format_credits(found.balance),
            )
        if cost > (balance := found.balance):
            short = f" ({cost - balance} micro-credits are missing)" if cost - balance < SHOWN_MICRO else ""
            raise InsufficientCredits(
                f"storing this file costs {format_credits(cost)} credits; the balance is {format_credits(balance)}{short}",
                wanted=format_credits(cost),
                found=format_credits(balance),
            )
        if refusal := found.budget.refusal(cost):
            raise refusal

    def _new_upload(self, user: UserId, filename: str, size_bytes: int | None, copies: int) -> Upload:
        now, file_id = self.clock(), FileId(self._new_id())
        drawn = self.keyring.draw(file_id)
        file = StoredFile(
            id=file_id, user_id=user, name=filename, size_bytes=size_bytes, chunk_bytes=CHUNK_BYTES, pieces=copies,
            status="uploading", master_key_id=drawn.master_key_id, wrapped_key=drawn.wrapped, wrap_secret=drawn.secret,
            created_at=now, ready_at=None,
        )  # fmt: skip
        expires_at = now + timedelta(hours=self.config.expire_hours)
        return Upload(id=UploadId(self._new_id()), file=file, key=drawn.key, state="open", expires_at=expires_at)

    def _new_id(self) -> UUID:
        return UUID(bytes=self.random_bytes(16), version=4)
