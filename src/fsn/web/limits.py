"""How much one user, or one address, may ask of this coordinator: rates of requests, logins and registrations, and transfers at once."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import trio

from fsn.core.errors import RateLimited, Unauthorized
from fsn.core.rates import Rate, give_back, source_network, take
from fsn.web.client_address import client_address, parse_networks
from fsn.web.config import LimitsConfig
from fsn.web.quart_front import current_request

__all__ = ["Buckets", "Limits", "Slots"]

REMEMBERED = 50_000
"""Buckets of one kind that are kept, about 10 MB of them when all are in use."""
REQUEST_BURST_SECONDS = 10
"""A user who rested may send the requests of so many seconds at once."""
TRANSFER_RETRY_SECONDS = 1
Now = Callable[[], float]


class Buckets:
    """A token bucket for each key. Without a rate nothing is limited.

    At most `remembered` are kept: one that is full again is forgotten, and beyond that the one that was asked for the longest ago, which
    then is like new. So somebody with very many addresses gains nothing that new addresses would not have given anyway.
    """

    def __init__(
        self, what: str, rate: Rate | None, now: Now = trio.current_time, *, remembered: int = REMEMBERED
    ) -> None:
        """`what` is limited, for the message: "requests"."""
        self._what = what
        self._rate = rate
        self._now = now
        self._remembered = remembered
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: Hashable) -> None:
        """Take a token of `key`. Raises RateLimited when there is none, with the seconds until there is one."""
        if self._rate is None:
            return
        now = self._now()
        taken = take(self._rate, self._full_at.get(key, now), now)
        self._full_at[key] = taken.full_at
        self._full_at.move_to_end(key)
        self._forget(now)
        if taken.wait_seconds:
            raise _too_often(self._what, self._rate, taken.wait_seconds)

    def give_back(self, key: Hashable) -> None:
        """Undo one `take`."""
        if self._rate is not None and key in self._full_at:
            self._full_at[key] = give_back(self._rate, self._full_at[key])

    def _forget(self, now: float) -> None:
        for _ in range(2):  # one more than came in
            key = next(iter(self._full_at), None)
            if key is None or (self._full_at[key] > now and len(self._full_at) <= self._remembered):
                return
            del self._full_at[key]


class Slots:
    """How many of something each key may have at the same time. A limit of 0 limits nothing."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._held: Counter[Hashable] = Counter()

    @contextmanager
    def hold(self, key: Hashable) -> Iterator[None]:
        """One of them, for the length of the block. Raises RateLimited (`too_many_transfers`) when all are held."""
        if self._limit and self._held[key] >= self._limit:
            raise RateLimited(
                f"{self._limit} {self._what} at once are allowed for one user, and as many are under way: wait for one to end",
                code="too_many_transfers",
                limit=self._limit,
                retry_after_seconds=TRANSFER_RETRY_SECONDS,
            )
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


class Limits:
    """All limits of one coordinator process; others over the same database have buckets of their own."""

    def __init__(
        self, config: LimitsConfig, *, trusted_proxies: Sequence[str] = (), now: Now = trio.current_time
    ) -> None:
        self._trusted = parse_networks(trusted_proxies)
        self._requests = Buckets("requests", _rate(config.requests_per_second, 1, REQUEST_BURST_SECONDS), now)
        self._logins = Buckets("logins from one address", _rate(config.logins_per_minute, 60), now)
        self._failed_logins = Buckets("failed logins to one account", _rate(config.failed_logins_per_minute, 60), now)
        self._registrations = Buckets("registrations from one address", _rate(config.registrations_per_hour, 3600), now)
        self.uploads = Slots("uploads", config.uploads_at_once)
        self.downloads = Slots("downloads", config.downloads_at_once)

    def count_request(self, asker: Hashable | None = None) -> None:
        """One request of `asker`, or of its address when nobody knows who asks. Raises RateLimited when it is one too many."""
        self._requests.take(self._source() if asker is None else asker)

    async def count_unrouted(self) -> None:
        """A hook before each request: one that leads to no operation passes no guard, and counts for its address."""
        if current_request().url_rule is None:
            self.count_request()

    def count_registration(self) -> None:
        """One try to make an account. Raises RateLimited when its address makes too many."""
        self._registrations.take(self._source())

    @contextmanager
    def login(self, email: str) -> Iterator[None]:
        """One try to log in to an account that may or may not exist; it counts against the account if it ends with Unauthorized.

        Raises RateLimited when the address tries too often, or too many tries for the account have failed, wherever they came from.
        """
        account = blake2b(email.lower().encode(errors="replace"), digest_size=16).digest()
        self._logins.take(self._source())
        self._failed_logins.take(account)
        has_failed = False
        try:
            yield
        except Unauthorized:
            has_failed = True
            raise
        finally:
            if not has_failed:
                self._failed_logins.give_back(account)

    def _source(self) -> str:
        request = current_request()
        peer = (request.scope.get("client") or ("<local>",))[0]
        if self._trusted:
            peer = client_address(peer, ",".join(request.headers.getlist("X-Forwarded-For")), self._trusted)
        return source_network(peer)


def _rate(count: float, seconds: float, periods_at_once: int = 1) -> Rate | None:
    return Rate(count / seconds, max(1, int(count * periods_at_once))) if count else None


def _too_often(what: str, rate: Rate, wait_seconds: float) -> RateLimited:
    return RateLimited(
        f"too many {what}: {rate.burst} at once and {rate.per_second * 60:g} a minute are allowed; try again in {wait_seconds:.1f} s",
        retry_after_seconds=round(wait_seconds, 3),
    )
