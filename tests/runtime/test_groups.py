"""One error out of a group: which one, and what becomes of its history."""

import pytest
import trio

from fsn.core.errors import FsnError, Invalid, NotFound, Unavailable
from fsn.runtime.groups import leaves_of, sole_error


def test_a_group_of_one_becomes_that_one() -> None:
    """However deep it lies."""
    error = KeyError("x")
    with pytest.raises(KeyError) as caught, sole_error():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [error])])
    assert caught.value is error


def test_of_several_errors_of_ours_the_first_is_raised() -> None:
    """What a caller can act on is one error."""
    with pytest.raises(NotFound, match="first"), sole_error():
        raise ExceptionGroup("g", [ExceptionGroup("i", [NotFound("first")]), Invalid("second")])


def test_a_bug_among_them_is_not_hidden() -> None:
    """A group that holds anything foreign stays whole."""
    with pytest.RaisesGroup(NotFound, ZeroDivisionError), sole_error():
        raise ExceptionGroup("g", [NotFound("ours"), ZeroDivisionError()])


def test_ctrl_c_is_not_hidden() -> None:
    """Nor is what ends the program."""
    with pytest.RaisesGroup(NotFound, KeyboardInterrupt), sole_error():
        raise BaseExceptionGroup("g", [NotFound("ours"), KeyboardInterrupt()])


def test_an_error_without_a_group_passes() -> None:
    """Nothing is changed about it."""
    with pytest.raises(FsnError, match="plain"), sole_error():
        raise FsnError("plain")


def test_the_cause_stays() -> None:
    """The log still says what an error came from."""
    cause = OSError("broken pipe")
    error = Unavailable("the database is away")
    error.__cause__ = cause
    with pytest.raises(Unavailable) as caught, sole_error():
        raise ExceptionGroup("g", [error])
    assert caught.value.__cause__ is cause


def test_leaves_come_in_order() -> None:
    """Depth first, left to right."""
    a, b, c = ValueError(), KeyError(), OSError()
    assert list(leaves_of(ExceptionGroup("g", [ExceptionGroup("i", [a, b]), c]))) == [a, b, c]
    assert list(leaves_of(a)) == [a]


async def test_a_cancelled_block_is_cancelled() -> None:
    """A cancellation alone passes through, to the scope that it belongs to."""
    with trio.CancelScope() as scope, sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


async def test_an_error_of_a_child_wins_over_the_cancellation_of_its_siblings() -> None:
    """The failure of one task is what the block raises."""

    async def child() -> None:
        raise Invalid("no")

    with trio.fail_after(1), pytest.raises(Invalid), sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(child)
