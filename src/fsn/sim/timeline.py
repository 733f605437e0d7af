"""What happened in a simulation, in order: what was done to it, and what the product logged."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import attrs
import structlog

__all__ = ["Event", "Timeline", "acting_as", "format_time"]

_who: ContextVar[str] = ContextVar("who acts in the simulation", default="network")
_UNREPEATABLE = frozenset({"exc_info", "seconds", "stack_info"})
"""Facts of log lines that depend on the machine."""


@attrs.frozen
class Event:
    """Something that happened: when (virtual seconds), to or by whom, what, and facts about it in the order of their names."""

    at: float
    who: str
    what: str
    facts: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self.facts)
        return f"{format_time(self.at)}  {self.who:<14} {self.what} {facts}".rstrip()

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"at": round(self.at, 6), "who": self.who, "what": self.what, "facts": dict(self.facts)}


class Timeline:
    """Events in the order in which they happened. `now` is asked for the time of each; `listeners` are told of each."""

    def __init__(self, now: Callable[[], float], listeners: Sequence[Callable[[Event], None]] = ()) -> None:
        self.events: list[Event] = []
        self._listeners = listeners
        self._now = now
        self._names: dict[str, str] = {}

    def name(self, text: str, name: str) -> None:
        """Facts that are `text` (a node's id, a peer id) are shown as `name` from now on."""
        self._names[text] = name

    def note(self, who: str, what: str, /, **facts: object) -> None:
        """Something has happened."""
        shown = tuple(sorted((key, self._shown(value)) for key, value in facts.items()))
        event = Event(self._now(), who, what, shown)
        self.events.append(event)
        for listener in self._listeners:
            listener(event)

    def digest(self) -> str:
        """A hash over all events: two runs with equal digests were equal."""
        found = blake2b(digest_size=16)
        for event in self.events:
            found.update(f"{event.at!r} {event}\n".encode())
        return found.hexdigest()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """In this block whatever the product logs (from `info` on) becomes an event, and goes nowhere else."""
        before, was_configured = structlog.get_config(), structlog.is_configured()
        structlog.configure(
            processors=[self._take],
            wrapper_class=structlog.make_filtering_bound_logger("info"),
            cache_logger_on_first_use=False,
        )
        try:
            yield
        finally:
            structlog.configure(**before) if was_configured else structlog.reset_defaults()

    def _take(self, _: Any, __: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
        what = str(line.pop("event"))
        facts = {key: value for key, value in line.items() if key not in _UNREPEATABLE}
        if error := line.get("exc_info"):
            facts["error"] = repr(error)
        self.note(_who.get(), what, **facts)
        raise structlog.DropEvent

    def _shown(self, value: object) -> str:
        if isinstance(value, float):
            return f"{value:.6g}"
        text = str(value)
        if text in self._names:
            return self._names[text]
        for known, name in self._names.items():
            if known in text:
                text = text.replace(known, name)
        return text


@contextmanager
def acting_as(who: str) -> Iterator[None]:
    """What is logged in this block, and by tasks that it starts, is `who`'s."""
    token = _who.set(who)
    try:
        yield
    finally:
        _who.reset(token)


def format_time(seconds: float) -> str:
    """E.g. "3 d 04:05:06.789"."""
    whole = timedelta(seconds=int(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    millis = int((seconds - int(seconds)) * 1000)
    return f"{whole.days:>3} d {hours:02}:{rest // 60:02}:{rest % 60:02}.{millis:03}"
