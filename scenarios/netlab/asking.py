"""Questions over HTTP from a host of the lab, without a process there: quick enough to ask ten times a second."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from scenarios.netlab.machines import Machine

__all__ = ["ask"]

ANSWER_SECONDS = 3.0


async def ask(machine: Machine, url: str, *, within_seconds: float = ANSWER_SECONDS) -> Any | None:
    """What GET `url` answers, as JSON, whatever its status; None when nobody answers in time."""
    parts = urlsplit(url)

    def get() -> Any | None:
        connection = http.client.HTTPConnection(parts.netloc, timeout=within_seconds)
        try:
            connection.request("GET", parts.path)
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    return await machine.in_thread(get)
