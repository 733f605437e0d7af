"""How a command ends: the exit code of each error, and the group that turns an error into one line and that code."""

import json
import os
import sys
from typing import Any

import click

from fsn.core.errors import (
    ConfigError,
    Conflict,
    Forbidden,
    FsnError,
    Invalid,
    NotFound,
    PeerError,
    Refused,
    StorageError,
    TooFewCopies,
    TooFewNodes,
    Unauthorized,
)
from fsn.runtime.groups import leaves_of

__all__ = ["EXIT_CODES", "ReportingGroup", "error_of_group", "exit_code", "json_option", "print_json"]

EXIT_CODES: dict[type[FsnError], int] = {
    FsnError: 1,
    Invalid: 2,
    Unauthorized: 3,
    Forbidden: 3,
    NotFound: 4,
    Conflict: 5,
    Refused: 6,
    PeerError: 7,
    TooFewNodes: 7,
    TooFewCopies: 7,
    StorageError: 8,
    ConfigError: 9,
}
"""By class; a class that is not here ends like its nearest parent. 2 is also what a wrong command line ends with."""

INTERRUPTED = 130
"""128 + SIGINT, as a shell would say."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: who read our output (`| head`) has had enough."""

_AS_JSON = "fsn.json"


def exit_code(error: FsnError) -> int:
    """The exit code of the program that ends with `error`."""
    return next(EXIT_CODES[cls] for cls in type(error).__mro__ if cls in EXIT_CODES)


def error_of_group(group: BaseException) -> BaseException | None:
    """What a group (nurseries make them) amounts to for the user: an interruption, else its first FsnError.

    None when there is anything else in it: that is a bug, and deserves its traceback.
    """
    leaves = list(leaves_of(group))
    interrupted = next((leaf for leaf in leaves if isinstance(leaf, KeyboardInterrupt)), None)
    if interrupted is not None:
        return interrupted
    return leaves[0] if all(isinstance(leaf, FsnError | BrokenPipeError) for leaf in leaves) else None


def _report(context: click.Context, error: FsnError) -> None:
    # one line, but for configurations: those list every mistake by its key
    text = str(error) if isinstance(error, ConfigError) else " ".join(str(error).split())
    click.echo(f"{context.find_root().info_name}: {text}", err=True)
    if context.meta.get(_AS_JSON):
        print_json({"error": {"code": error.code, "message": error.message, **error.facts}})


def _end(context: click.Context, error: BaseException) -> None:
    """Leave with the right code; returns only when `error` is no business of ours."""
    match error:
        case FsnError():
            _report(context, error)
            context.exit(exit_code(error))
        case KeyboardInterrupt() | click.Abort():
            click.echo("", err=True)
            context.exit(INTERRUPTED)
        case BrokenPipeError():
            # Python flushes stdout once more at its end; it must find somewhere to write
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(BROKEN_PIPE)


class ReportingGroup(click.Group):
    """A click group whose commands may raise FsnErrors, alone or in groups, and need not think of exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command; errors end in one line on stderr (with --json also one document on stdout) and a code."""
        try:
            return super().invoke(ctx)
        except (FsnError, KeyboardInterrupt, click.Abort, BrokenPipeError) as error:
            _end(ctx, error)
        except BaseExceptionGroup as group:
            told = error_of_group(group)
            if told is None:
                raise
            _end(ctx, told)
        return None


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    context.meta[_AS_JSON] = value
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_remember_json,
    is_eager=True,
    help="Print exactly one JSON document on standard output, also for an error.",
)
"""The `--json` flag; the command gets `as_json: bool`."""


def print_json(document: object) -> None:
    """`document` (plain JSON types) on stdout, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))
