"""How a story written in Python is played: a network, the invariants after it, a timeline, and the seed of what did not hold."""

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import click

import fsn
from fsn.sim import simulate
from fsn.sim.invariants import Invariants
from fsn.sim.timeline import Event

__all__ = ["Tell", "play", "tell_at_the_command_line"]

Tell: TypeAlias = Callable[[fsn.Network, Invariants], Awaitable[None]]
"""A story. It raises AssertionError where something is not as it should be."""


def play(tell: Tell, *, seed: int, listener: Callable[[Event], None] | None = None, **network: Any) -> str:
    """Play it in a trio run of its own; the digest of its timeline. `network` is what `fsn.Network` takes.

    Raises AssertionError, with the seed, where the story does or an invariant is violated at its end.
    """
    return simulate(partial(_play, tell, seed, listener, network))


async def _play(tell: Tell, seed: int, listener: Callable[[Event], None] | None, network: dict[str, Any]) -> str:
    async with fsn.Network(seed=seed, **network) as net:
        if listener is not None:
            net.listeners.append(listener)
        invariants = Invariants(net)
        try:
            await tell(net, invariants)
            violations = await invariants.check()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            invariants.close()
        assert not violations, f"seed {seed}: {violations}"
        return net.timeline.digest()


def tell_at_the_command_line(tell: Tell, **network: Any) -> None:
    """`--seed 7`, `--dsn` and `--quiet`; ends with 5 when something did not hold."""

    @click.command(help=sys.modules[tell.__module__].__doc__)
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Decides all chance.")
    @click.option("--dsn", help="A PostgreSQL server; by default an embedded one.")
    @click.option("--quiet", "-q", is_flag=True, help="Print the verdict only.")
    def main(seed: int, dsn: str | None, quiet: bool) -> None:
        try:
            digest = play(tell, seed=seed, dsn=dsn, listener=None if quiet else click.echo, **network)
        except AssertionError as error:
            click.echo(f"BROKEN: {error}")
            sys.exit(5)
        click.echo(f"held (seed {seed}, digest {digest})")

    main()
