"""Steps that befall the disks of nodes, and what their owners do to them."""

import attrs
from attrs.validators import ge, gt, in_, le

from fsn.sim.cheating import HOW
from fsn.sim.nodes import SimNode
from fsn.sim.steps import OnNodes, Stage

__all__ = ["Cheat", "Disks", "DropChunks", "Rot"]


@attrs.frozen(kw_only=True)
class Disks(OnNodes):
    """Something is wrong with their disks from now on; what is not named is right again."""

    verb = "disks"
    is_full: bool = False
    """Nothing more is taken."""
    delay_seconds: float = attrs.field(default=0.0, validator=ge(0))
    """Each read and write takes so long."""
    read_errors: float = attrs.field(default=0.0, validator=[ge(0), le(1)])
    """The share of reads that fail."""
    is_failing: bool = False
    """Nothing can be read or written."""
    corrupts: bool = False
    """What is read has a flipped bit."""
    refuses: bool = False
    """Chunks are neither given nor taken."""
    drops_new: bool = False
    """New chunks are acknowledged and not kept."""
    lies_about_sync: bool = False
    """What was stored is lost at a power cut."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        own = [field.name for field in attrs.fields(Disks) if field.name not in attrs.fields_dict(OnNodes)]
        node.set_faults(**{name: getattr(self, name) for name in own})


@attrs.frozen(kw_only=True)
class Cheat(OnNodes):
    """They answer proof challenges like this from now on; users' chunks they serve as before."""

    verb = "cheat"
    how: str = attrs.field(validator=in_(HOW))
    """forgets, keeps_hashes, truncates, other_copy, old_proof, refuses, silent, lies_about_time, proxies, slow_disk; honest ends it."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.set_faults(proofs=self.how)


@attrs.frozen(kw_only=True)
class Rot(OnNodes):
    """Bits flip on their disks."""

    verb = "rot"
    chunks: int = attrs.field(default=1, validator=gt(0))
    """In so many chunks of each."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.rot(self.chunks)


@attrs.frozen(kw_only=True)
class DropChunks(OnNodes):
    """Their owners throw chunks away, and go on claiming to hold them."""

    verb = "drop_chunks"
    part: float = attrs.field(default=0.5, validator=[gt(0), le(1)])
    """Of the chunks."""

    async def befall(self, node: SimNode, stage: Stage) -> None:
        """See `OnNodes`."""
        node.drop_chunks(self.part)
