"""The inbox between a connection's reader and the application."""

import pytest
import trio
from hypercorn.typing import ASGIReceiveEvent
from trio.testing import wait_all_tasks_blocked

from fsn.web.front.inbox import MESSAGE_BYTES, Inbox

LIMIT = 4096


def body(size: int) -> ASGIReceiveEvent:
    return {"type": "http.request", "body": bytes(size), "more_body": True}


async def _nothing() -> None:
    pass


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(LIMIT, _nothing)


async def test_a_full_inbox_holds_the_reader_until_something_is_taken(inbox: Inbox) -> None:
    """`put` waits at the limit and goes on once the application has taken enough."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, body(LIMIT))
        await wait_all_tasks_blocked()
        assert (inbox.size_bytes, len(nursery.child_tasks)) == (LIMIT + MESSAGE_BYTES, 1)
        await inbox.receive()
        await wait_all_tasks_blocked()
        assert (inbox.size_bytes, len(nursery.child_tasks)) == (0, 0)


async def test_many_tiny_messages_fill_the_inbox_like_few_large_ones() -> None:
    """A body in chunks of one byte is held back by what its messages weigh, long before its bytes reach the limit."""
    inbox = Inbox(64 * 1024, _nothing)
    count = 0
    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                nonlocal count
                for count in range(1, 64 * 1024):  # noqa: B007
                    await inbox.put(body(1))

            nursery.start_soon(push)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert count <= 64 * 1024 // MESSAGE_BYTES


@pytest.mark.parametrize("end", ["close", "disconnect"])
async def test_the_end_of_a_request_frees_the_reader(inbox: Inbox, end: str) -> None:
    """A reader that waits at the limit is let go when the application ends or the client leaves, and never waits again."""
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inbox.put, body(LIMIT))
            await wait_all_tasks_blocked()
            if end == "close":
                inbox.close()
            else:
                await inbox.put({"type": "http.disconnect"})
        await inbox.put(body(10_000))


async def test_a_disconnect_is_told_again_and_again(inbox: Inbox) -> None:
    """After the client has left, what it sent can still be read, and then every read says so."""
    await inbox.put(body(3))
    await inbox.put({"type": "http.disconnect"})
    with trio.fail_after(1):
        kinds = [(await inbox.receive())["type"] for _ in range(3)]
    assert kinds == ["http.request", "http.disconnect", "http.disconnect"]


async def test_who_wants_to_know_of_a_departure_is_called_once() -> None:
    """At once when the client goes, or has gone; not after the application has ended."""
    calls: list[str] = []
    early, late, ended = (Inbox(LIMIT, _nothing) for _ in range(3))
    early.call_when_gone(lambda: calls.append("early"))
    assert calls == []
    for inbox in (early, late):
        await inbox.put({"type": "http.disconnect"})
        await inbox.put({"type": "http.disconnect"})
    late.call_when_gone(lambda: calls.append("late"))
    assert calls == ["early", "late"]
    ended.call_when_gone(lambda: calls.append("ended"))
    ended.close()
    await ended.put({"type": "http.disconnect"})
    assert calls == ["early", "late"]


async def test_the_first_read_and_no_other_asks_for_the_body() -> None:
    """`before_body` is awaited once, before the first message is taken."""
    calls: list[str] = []

    async def before_body() -> None:
        calls.append("asked")

    inbox = Inbox(LIMIT, before_body)
    await inbox.put(body(1))
    await inbox.put(body(1))
    assert calls == []
    await inbox.receive()
    await inbox.receive()
    assert calls == ["asked"]
