"""`python -m scenarios`: every story, in TOML and in Python, and many random lives, in processes of their own, a few at a time.

    python -m scenarios --lives 100 --days 30 --jobs 2 --first-seed 1

Prints a line for each as it ends and what did not hold; ends with 0 when all held. `make scenarios` runs it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from fsn.coord.database.scratch import scratch_server
from fsn.sim.story import builtin_stories

LIFE: Final = "random_life"
IN_PYTHON: Final = ("kill_a_node", "own_policy", "two_coordinators")
"""Modules of this package that tell a story."""
MOST_SECONDS: Final = 5400
"""For one story; alone on a machine a year of twenty nodes takes a third of it, all others a tenth at most."""


@attrs.frozen
class Play:
    """One story with one seed."""

    story: str
    """A name or a file."""
    seed: int

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{Path(self.story).stem} --seed {self.seed}"


@click.command()
@click.option("--lives", type=click.IntRange(0), default=100, show_default=True, help="Random lives, a seed each.")
@click.option("--days", type=click.IntRange(1), default=30, show_default=True, help="Of each life.")
@click.option("--first-seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes at a time.")
@click.option("--dsn", help="A PostgreSQL server; by default an embedded one for all.")
def main(lives: int, days: int, first_seed: int, jobs: int, dsn: str | None) -> None:
    """Play all stories once, and so many random lives."""
    with tempfile.TemporaryDirectory() as folder:
        life = _life_of(days, Path(folder))
        plays = [Play(name, first_seed) for name in builtin_stories() if name != LIFE]
        plays += [Play(name, first_seed) for name in IN_PYTHON]
        plays += [Play(str(life), first_seed + number) for number in range(lives)]
        if dsn is not None:
            sys.exit(trio.run(_play_all, plays, jobs, dsn))
        with scratch_server() as own:
            sys.exit(trio.run(_play_all, plays, jobs, own))


def _life_of(days: int, folder: Path) -> Path:
    """The story of a life with so many days."""
    text = builtin_stories()[LIFE].read_text("utf-8")
    file = folder / f"life_of_{days}_days.toml"
    file.write_text(text.replace("\ndays = 30\n", f"\ndays = {days}\n"), "utf-8")
    return file


async def _play_all(plays: list[Play], jobs: int, dsn: str) -> int:
    broken: list[Play] = []
    room, began = trio.CapacityLimiter(jobs), time.monotonic()

    async def run(play: Play) -> None:
        async with room:
            if not await _play(play, dsn):
                broken.append(play)

    async with trio.open_nursery() as nursery:
        for play in plays:
            nursery.start_soon(run, play)
    print(f"{len(plays) - len(broken)} of {len(plays)} held, in {time.monotonic() - began:.0f} s")
    for play in broken:
        print(
            f"  again: {'python -m scenarios.' if play.story in IN_PYTHON else 'fsn scenario run '}{play.story} --seed {play.seed}"
        )
    return 5 if broken else 0


async def _play(play: Play, dsn: str) -> bool:
    if play.story in IN_PYTHON:
        command, tell = [sys.executable, "-m", f"scenarios.{play.story}", "--quiet"], _tell_verdict
    else:
        command, tell = [sys.executable, "-m", "fsn.cli.main", "scenario", "run", play.story, "--json"], _tell
    command += ["--seed", str(play.seed), "--dsn", dsn]
    with trio.move_on_after(MOST_SECONDS):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        return tell(play, done)
    print(f"{play.name}: BROKEN, not finished after {MOST_SECONDS} s", flush=True)
    return False


def _tell_verdict(play: Play, done: "subprocess.CompletedProcess[bytes]") -> bool:
    text = done.stdout.decode().strip() if done.returncode in {0, 5} else f"BROKEN\n{done.stderr.decode()}"
    print(f"{play.name}: {text}", flush=True)
    return done.returncode == 0


def _tell(play: Play, done: "subprocess.CompletedProcess[bytes]") -> bool:
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)
        is_good, seconds = bool(verdict["good"]), verdict["real_seconds"]
    except (ValueError, KeyError):
        print(f"{play.name}: BROKEN\n{done.stdout.decode()}{done.stderr.decode()}", flush=True)
        return False
    print(
        f"{play.name}: {'held' if is_good else 'BROKEN'} ({seconds:.0f} s, {verdict['files']} files, {verdict['lost']} lost)",
        flush=True,
    )
    for violation in verdict["violations"]:
        print(f"  violated {violation['invariant']} at {violation['at']:.0f} s: {violation['details']}", flush=True)
    for failure in verdict["failures"]:
        print(f"  wanted {failure}", flush=True)
    return is_good


if __name__ == "__main__":
    main()
