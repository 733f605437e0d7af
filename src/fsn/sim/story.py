"""Stories: a network and what befalls it, told in a TOML file, played from a seed, judged by invariants and expectations."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import ge, gt

from fsn.coord.services import ServicesConfig
from fsn.core.errors import ConfigError
from fsn.runtime.config import ByteSize, built_section, read_toml
from fsn.sim.invariants import Invariants, Violation
from fsn.sim.network import CAPACITY_BYTES, Network, default_config, simulate
from fsn.sim.steps import Stage, Step
from fsn.sim.timeline import Event
from fsn.sim.verbs import VERBS

__all__ = ["Story", "StoryNetwork", "Verdict", "builtin_stories", "find_story", "load_story", "play", "play_story"]


@attrs.frozen(kw_only=True)
class StoryNetwork:
    """What there is at the beginning."""

    nodes: int = attrs.field(default=5, validator=ge(0))
    """Each in a /24 network of its own."""
    coordinators: int = attrs.field(default=1, validator=ge(1))
    """All over one database."""
    heartbeat_seconds: float = attrs.field(default=60.0, validator=gt(0))
    """How often nodes report; three missing reports are silence, unless the policy says otherwise."""
    shortest_rest_seconds: float = attrs.field(default=30.0, validator=ge(0))
    """Background work looks no more often than this; 0: as the product does. Large values make long lives cheap."""
    capacity: ByteSize = attrs.field(default=ByteSize(CAPACITY_BYTES), validator=gt(ByteSize(0)))
    """Of each node."""
    find_out_hours: float = attrs.field(default=48.0, validator=gt(0))
    """A replica that a node does not list may be counted for so long."""


@attrs.frozen
class Story:
    """A story that can be played."""

    title: str
    tells: str
    network: StoryNetwork
    policy: ServicesConfig
    steps: tuple[Step, ...]


@attrs.frozen
class Verdict:
    """How a story went."""

    title: str
    seed: int
    violations: Sequence[Violation]
    failures: Sequence[str]
    """Expectations that were not met."""
    events: Sequence[Event] = attrs.field(repr=False)
    digest: str
    """Of all events: the same for the same story, seed and version."""
    virtual_seconds: float
    real_seconds: float
    files: int
    """Owed to users at the end."""
    lost: int
    refused: int
    """Uploads."""

    @property
    def is_good(self) -> bool:
        """Whether everything held."""
        return not self.violations and not self.failures

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "title": self.title, "seed": self.seed, "good": self.is_good, "digest": self.digest,
            "violations": [attrs.asdict(each) for each in self.violations], "failures": list(self.failures),
            "virtual_seconds": round(self.virtual_seconds, 3), "real_seconds": round(self.real_seconds, 3),
            "files": self.files, "lost": self.lost, "refused": self.refused,
            "events": [event.as_json() for event in self.events],
        }  # fmt: skip


def load_story(file: Path) -> Story:
    """The story in `file`. Raises ConfigError that lists every mistake by its place: what was wanted, what was found."""
    return _story(read_toml(file), str(file))


def find_story(name_or_file: str) -> Story:
    """A file, or one of our own by its name. Raises ConfigError."""
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.exists():
        return load_story(path)
    stories = builtin_stories()
    if name_or_file not in stories:
        raise ConfigError(f"a file or one of {', '.join(stories)} is wanted; found {name_or_file!r}")
    return load_story(stories[name_or_file])


def builtin_stories() -> dict[str, Path]:
    """The stories that come with the program, by name, in alphabetical order."""
    folder = Path(str(resources.files("fsn.sim") / "stories"))
    return {file.stem: file for file in sorted(folder.glob("*.toml"))}


def play_story(
    story: Story, seed: int, *, dsn: str | None = None, listener: Callable[[Event], None] | None = None
) -> Verdict:
    """Play it, from beginning to end, in a trio run of its own; `listener` is told of each event as it happens."""
    return simulate(partial(play, story, seed, dsn=dsn, listener=listener))


async def play(
    story: Story, seed: int, *, dsn: str | None = None, listener: Callable[[Event], None] | None = None
) -> Verdict:
    """The same inside a run of `simulate`."""
    began, given = time.monotonic(), story.network
    net = Network(
        nodes=given.nodes,
        coordinators=given.coordinators,
        seed=seed,
        dsn=dsn,
        config=story.policy,
        heartbeat_seconds=given.heartbeat_seconds,
        shortest_rest_seconds=given.shortest_rest_seconds,
        capacity_bytes=given.capacity,
    )
    if listener is not None:
        net.listeners.append(listener)
    async with net:
        invariants = Invariants(net, find_out_seconds=given.find_out_hours * 3600)
        try:
            stage = Stage(net, invariants)
            for step in story.steps:
                await step.perform(stage)
                await invariants.check()
        finally:
            invariants.close()
        return Verdict(
            title=story.title, seed=seed, violations=invariants.violations, failures=stage.failures,
            events=list(net.timeline.events), digest=net.timeline.digest(), virtual_seconds=net.now,
            real_seconds=time.monotonic() - began, files=len(stage.files()), lost=len(invariants.lost),
            refused=stage.refused,
        )  # fmt: skip


def _story(tree: dict[str, Any], name: str) -> Story:
    mistakes: list[str] = []
    known = ("title", "tells", "network", "policy", "steps")
    mistakes += [f"{key}: unknown; {', '.join(known)} are known" for key in tree if key not in known]
    title, tells = (_text(tree, key, mistakes) for key in ("title", "tells"))
    network = built_section(StoryNetwork, tree.get("network", {}), "network", mistakes)
    given = network or StoryNetwork()
    default = default_config(given.heartbeat_seconds, given.shortest_rest_seconds)
    policy = built_section(ServicesConfig, tree.get("policy", {}), "policy", mistakes, default)
    steps = _steps(tree.get("steps"), mistakes)
    if mistakes or network is None or policy is None:
        raise ConfigError(f"{name}: {'; '.join(mistakes)}", mistakes=mistakes)
    return Story(title, tells, network, policy, tuple(steps))


def _text(tree: dict[str, Any], key: str, mistakes: list[str]) -> str:
    value = tree.get(key)
    if not isinstance(value, str) or not value.strip():
        mistakes.append(f"{key}: text is wanted, found {'nothing' if value is None else repr(value)}")
        return ""
    return value


def _steps(given: object, mistakes: list[str]) -> list[Step]:
    if not isinstance(given, list) or not given:
        mistakes.append('steps: one or more [[steps]] are wanted, each with do = "..."')
        return []
    return [step for number, table in enumerate(given, 1) if (step := _step(table, f"steps[{number}]", mistakes))]


def _step(table: object, key: str, mistakes: list[str]) -> Step | None:
    verb = table.get("do") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(verb, str) or verb not in VERBS:
        mistakes.append(f"{key}.do: one of {', '.join(sorted(VERBS))} is wanted, found {verb!r}")
        return None
    return built_section(VERBS[verb], {name: value for name, value in table.items() if name != "do"}, key, mistakes)
