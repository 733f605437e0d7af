"""The barrier around a stream handler: whatever it does, its stream ends and the daemon does not."""

from contextlib import suppress

import structlog
import trio

from fsn.p2p.transport.base import Stream, StreamHandler

__all__ = ["run_handler"]

_log = structlog.get_logger("fsn.p2p")


async def run_handler(handler: StreamHandler, stream: Stream) -> None:
    """Run the handler and end the stream: cleanly (all it sent arrives) when it returns, by a reset when it raises."""
    try:
        await handler(stream)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            await stream.send_eof()
    except trio.BrokenResourceError as error:
        _log.debug("stream_lost", peer=stream.peer, protocol=stream.protocol, reason=str(error))
    except Exception:  # noqa: BLE001 - the barrier: a handler's bug must not end the daemon
        _log.exception("stream_handler_failed", peer=stream.peer, protocol=stream.protocol)
    finally:
        await trio.aclose_forcefully(stream)
