"""`fsn` and the plan's names for two of its parts; each command's module is imported only when that command runs."""

from collections.abc import Mapping
from importlib import import_module

import attrs
import click
from click.shell_completion import CompletionItem

from fsn.cli.exits import ReportingGroup
from fsn.core.version import VERSION

__all__ = ["coordinator_main", "fsn", "main", "storage_node_main"]


@attrs.frozen
class _Place:
    """Where a command lives, and what the list of commands says of it without importing it."""

    module: str
    name: str
    help: str

    def load(self) -> click.Command:
        command = getattr(import_module(self.module), self.name)
        assert isinstance(command, click.Command)
        return command


_COMMANDS: Mapping[str, _Place] = {
    "register": _Place("fsn.cli.accounts", "register", "Make an account and log in."),
    "login": _Place("fsn.cli.accounts", "login", "Log in; the token is kept for this server."),
    "logout": _Place("fsn.cli.accounts", "logout", "Forget the token kept for this server."),
    "put": _Place("fsn.cli.files", "put", "Upload files, or standard input."),
    "get": _Place("fsn.cli.files", "get", "Download a file by id or name."),
    "ls": _Place("fsn.cli.files", "ls", "List your files."),
    "rm": _Place("fsn.cli.files", "rm", "Delete files for good."),
    "balance": _Place("fsn.cli.accounts", "balance", "Show your credits."),
    "quote": _Place("fsn.cli.accounts", "quote", "Show what storing so many bytes costs."),
    "demo": _Place("fsn.cli.demo", "demo", "Run a whole network on this machine."),
    "scenario": _Place("fsn.cli.scenario", "scenario", "Play stories of simulated networks."),
    "coordinator": _Place("fsn.cli.coordinator", "coordinator", "Run and administer a coordinator."),
    "node": _Place("fsn.cli.node", "node", "Run and administer a storage node."),
}


class LazyGroup(ReportingGroup):
    """A group that imports a command's module when the command is used: the daemons' libp2p alone takes 2 s to import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they are best explained."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of this name."""
        place = _COMMANDS.get(cmd_name)
        return None if place is None else place.load()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, which would ask the loaded command for its name: it has the name that it was called by."""
        _, command, rest = super().resolve_command(ctx, args)
        return args[0], command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `fsn --help`, from the table: importing twelve commands to describe them would take seconds."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names that begin so, from the table as well."""
        found = [CompletionItem(name, help=p.help) for name, p in _COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


_EPILOG = """\b
Examples:
  fsn demo                              a whole network on this machine, in a minute
  fsn register ann@example.com          make an account at http://localhost:8080
  fsn put photo.jpg                     upload
  fsn get photo.jpg -o copy.jpg         download

\b
FSN_URL names the coordinator, FSN_TOKEN and FSN_PASSWORD stand in for the kept token and the prompt.
Completion: eval "$(_FSN_COMPLETE=bash_source fsn)" in ~/.bashrc (zsh_source and fish_source for others).
Exit codes: 2 invalid, 3 not allowed, 4 not found, 5 conflict, 6 refused otherwise, 7 network, 8 storage, 9 configuration.
"""


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="fsn", message="%(prog)s %(version)s")
def fsn() -> None:
    """A federated storage network: your files, sealed, on several machines of strangers."""


def _run_part(name: str, program: str) -> None:
    """One sub-command under a program name of its own, with the same exits."""
    part = _COMMANDS[name].load()
    assert isinstance(part, click.Group)

    @click.group(cls=ReportingGroup, name=program, commands=part.commands, help=part.help, epilog=part.epilog)
    @click.version_option(VERSION, prog_name=program, message="%(prog)s %(version)s")
    def alone() -> None: ...

    alone(prog_name=program)


def main() -> None:
    """`fsn ...`; does not return."""
    fsn(prog_name="fsn")


def coordinator_main() -> None:
    """`coordinator ...` is `fsn coordinator ...`."""
    _run_part("coordinator", "coordinator")


def storage_node_main() -> None:
    """`storage-node ...` is `fsn node ...`."""
    _run_part("node", "storage-node")


if __name__ == "__main__":
    main()
