"""What a link does to packets: values, checked where they are written."""

import attrs
from attrs.validators import ge, le, lt

__all__ = ["CABLE", "Link"]


@attrs.frozen(kw_only=True)
class Link:
    """A host's or a router's way up, the same in both directions. Without any figure it is a plain cable, as fast as the kernel."""

    delay_seconds: float = attrs.field(default=0.0, validator=ge(0.0))
    """One way."""
    jitter_seconds: float = attrs.field(default=0.0, validator=ge(0.0))
    """The delay varies by so much either way; packets keep their order."""
    loss: float = attrs.field(default=0.0, validator=[ge(0.0), lt(1.0)])
    """Share of packets lost, drawn from a generator with the lab's seed."""
    rate_bits: float = attrs.field(default=0.0, validator=ge(0.0))
    """Bits a second; 0 for no limit."""
    queue_seconds: float = attrs.field(default=0.2, validator=[ge(0.0), le(60.0)])
    """What the link may be behind before it drops the newest packets; counts with `rate_bits`."""

    @property
    def is_wired(self) -> bool:
        """Whether packets go through our wire (wire.py) and not straight through the kernel."""
        return bool(self.delay_seconds or self.jitter_seconds or self.loss or self.rate_bits)


CABLE = Link()
