"""Exit codes: every error has one, and a failing command ends in one line and that code."""

import json
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from fsn.cli.exits import EXIT_CODES, ReportingGroup, exit_code, json_option
from fsn.core import errors


def _all_errors(cls: type[errors.FsnError] = errors.FsnError) -> Iterator[type[errors.FsnError]]:
    yield cls
    for below in cls.__subclasses__():
        yield from _all_errors(below)


EXPECTED = {
    errors.Invalid: 2,
    errors.Unauthorized: 3,
    errors.Forbidden: 3,
    errors.NotFound: 4,
    errors.Conflict: 5,
    errors.InsufficientCredits: 6,
    errors.TooLarge: 6,
    errors.QuotaExceeded: 6,
    errors.PeerTimeout: 7,
    errors.PeerRefused: 7,
    errors.TooFewNodes: 7,
    errors.TooFewCopies: 7,
    errors.DiskFull: 8,
    errors.Corrupt: 8,
    errors.ConfigError: 9,
    errors.FsnError: 1,
}


@pytest.mark.parametrize("cls", list(_all_errors()))
def test_every_error_has_a_code(cls: type[errors.FsnError]) -> None:
    """Each class, also one added later, ends with its own or its parent's code; only the root itself ends with 1."""
    code = exit_code(cls.__new__(cls))
    assert code == EXPECTED.get(cls, code)
    assert 1 <= code <= 9
    assert (code == 1) == (cls is errors.FsnError)


def test_the_table_is_whole() -> None:
    """Every direct child of the root is in the table."""
    assert {cls for cls in errors.FsnError.__subclasses__() if cls.__module__.startswith("fsn.core")} <= set(EXIT_CODES)


def run(error: BaseException, *arguments: str) -> Result:
    @click.group(cls=ReportingGroup)
    def program() -> None: ...

    @program.command()
    @json_option
    def fail(as_json: bool) -> None:
        raise error

    return CliRunner().invoke(program, ["fail", *arguments], prog_name="fsn")


def test_one_line_on_stderr() -> None:
    """An error is one line on stderr, and nothing on stdout."""
    result = run(errors.NotFound("there is no\nsuch file"))
    assert (result.exit_code, result.stdout, result.stderr) == (4, "", "fsn: there is no such file\n")


def test_json() -> None:
    """With --json stdout is one document with code, message and facts."""
    result = run(errors.TooFewNodes(wanted=3, found=1), "--json")
    assert result.exit_code == 7
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["wanted"], error["found"]) == ("too_few_nodes", 3, 1)
    assert "3 storage nodes" in error["message"]


def test_groups() -> None:
    """An error inside the groups that nurseries make is as good as a bare one; interruption comes first."""
    inner = ExceptionGroup("", [errors.DiskFull("no space")])
    assert run(ExceptionGroup("", [inner])).exit_code == 8
    assert run(BaseExceptionGroup("", [errors.Invalid("x"), KeyboardInterrupt()])).exit_code == 130


def test_bugs_keep_their_traceback() -> None:
    """What is no FsnError is not dressed up as one, in a group neither."""
    assert isinstance(run(ZeroDivisionError()).exception, ZeroDivisionError)
    group = ExceptionGroup("", [errors.Invalid("x"), ZeroDivisionError()])
    assert run(group).exception is group


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(error: BaseException) -> None:
    """Ctrl-C ends quietly with 130."""
    result = run(error)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")
