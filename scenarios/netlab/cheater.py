"""A storage node that cheats at proofs, as a program: `python scenarios/netlab/cheater.py HOW FOLDER`.

All else is the product's own; the folder is one that `fsn node init` made.
"""

import sys
from functools import partial
from pathlib import Path

import trio

from fsn.cli.admin import load
from fsn.daemon.node import run_node
from fsn.runtime.logs import configure_logs
from fsn.sim.cheating import HOW, CheatingProving, nobody_else_has

__all__ = ["main"]


def main(how: str, folder: str) -> None:
    """Run the node until SIGTERM. SystemExit for a way to cheat that there is not."""
    found = next((each for each in HOW if each == how), None)
    if found is None:
        raise SystemExit(f"one of {', '.join(HOW)} is wanted; got {how}")
    config = load(Path(folder))
    configure_logs(config.log)
    proving = partial(CheatingProving, how=lambda: found, other_copy=nobody_else_has)
    trio.run(partial(run_node, config, make_proving=proving))


if __name__ == "__main__":
    main(*sys.argv[1:])
