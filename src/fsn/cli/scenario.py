"""`fsn scenario`: stories of simulated networks, played from a seed, with a timeline and a verdict."""

from collections.abc import Callable
from pathlib import Path

import click

from fsn.cli.exits import EXIT_CODES, json_option, print_json
from fsn.core.errors import Conflict
from fsn.sim.story import Story, Verdict, builtin_stories, find_story, load_story, play_story
from fsn.sim.timeline import Event, format_time

__all__ = ["scenario"]

QUIET = frozenset({"get"})
"""Events that are shown with --all only: invariants read files all the time."""


@click.group()
def scenario() -> None:
    """Play stories of simulated networks: the real code, in virtual time, the same events for the same seed."""


@scenario.command("list")
@json_option
def list_stories(as_json: bool) -> None:
    """List the stories that come with the program."""
    stories = {name: load_story(file) for name, file in builtin_stories().items()}
    if as_json:
        print_json({"stories": [{"name": name, "title": story.title} for name, story in stories.items()]})
        return
    for name, story in stories.items():
        click.echo(f"{name:<20} {story.title}")


@scenario.command()
@click.argument("story")
def show(story: str) -> None:
    """Print the file of STORY: a start for one of your own."""
    found = builtin_stories().get(story, Path(story))
    find_story(story)
    click.echo(found.read_text("utf-8"), nl=False)


@scenario.command()
@click.argument("stories", nargs=-1, required=True)
@json_option
def check(stories: tuple[str, ...], as_json: bool) -> None:
    """Say whether STORIES can be played; every mistake by its place in the file."""
    found = [(name, find_story(name)) for name in stories]
    if as_json:
        print_json({"stories": [{"name": name, "title": story.title} for name, story in found]})
        return
    for name, story in found:
        click.echo(f"{name}: {story.title}, {len(story.steps)} steps")


@scenario.command(epilog="\b\nExit codes: 0 all held, 5 something did not, 9 the story cannot be read.")
@click.argument("story")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Decides all chance.")
@click.option("--dsn", help="A PostgreSQL server whose role may create databases; by default an embedded one.")
@click.option("--all", "show_all", is_flag=True, help="Show reads, too.")
@click.option("--quiet", "-q", is_flag=True, help="Print the verdict only.")
@json_option
def run(story: str, seed: int, dsn: str | None, show_all: bool, quiet: bool, as_json: bool) -> None:
    """Play STORY, a TOML file or the name of one that comes with the program.

    \b
    Examples:
      fsn scenario run node_dies --seed 7
      fsn scenario show node_dies > mine.toml && fsn scenario run mine.toml
    """
    told = find_story(story)
    if not as_json and not quiet:
        _introduce(told)
    verdict = play_story(told, seed, dsn=dsn, listener=None if as_json or quiet else _shower(show_all))
    if as_json:
        print_json(verdict.as_json())
    else:
        _conclude(verdict)
    if not verdict.is_good:
        raise click.exceptions.Exit(EXIT_CODES[Conflict])


def _introduce(story: Story) -> None:
    click.echo(f"{story.title}: {story.tells}")
    network = story.network
    click.echo(f"{network.nodes} nodes, {network.coordinators} coordinator(s), {len(story.steps)} steps\n")


def _shower(show_all: bool) -> Callable[[Event], None]:
    def show(event: Event) -> None:
        if show_all or event.what not in QUIET:
            click.echo(str(event))

    return show


def _conclude(verdict: Verdict) -> None:
    click.echo("")
    for violation in verdict.violations:
        click.echo(f"VIOLATED {violation.invariant} at {format_time(violation.at).strip()}: {violation.details}")
    for failure in verdict.failures:
        click.echo(f"WANTED   {failure}")
    state = "held" if verdict.is_good else "BROKEN"
    click.echo(
        f"{verdict.title}: {state} (seed {verdict.seed}; {format_time(verdict.virtual_seconds).strip()} in"
        f" {verdict.real_seconds:.1f} s; {verdict.files} files owed, {verdict.lost} lost, {verdict.refused} uploads refused;"
        f" {len(verdict.events)} events, digest {verdict.digest})"
    )
    if not verdict.is_good:
        click.echo(f"Again: the same story with --seed {verdict.seed}")
