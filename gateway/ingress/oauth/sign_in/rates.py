"""Rates of requests that need no credential: a bucket for each address, and one for all of them together."""

from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from gateway.calls.limits.meters import RateLimited
from policies.cache import BoundedCache

ADDRESSES_MAX: Final = 10_000
KEEP_SECONDS: Final = 600.0
PER_ADDRESS, IN_TOTAL = 30.0, 240.0  # requests a minute that begin something


def address_of(request: Request) -> str:
    """The address of the peer, or what a trusted proxy says of it."""
    return request.client.host if request.client else ""


class _Bucket:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at

    def missing_seconds(self, per_minute: float, now: float) -> float:
        """Fills the bucket; the seconds until it has a token, 0 where it has one."""
        self.tokens = min(per_minute, self.tokens + (now - self.at) * per_minute / 60)
        self.at = now
        return 0.0 if self.tokens >= 1 else (1 - self.tokens) * 60 / per_minute


class AddressRates:
    """Token buckets of one kind of request in one process. `now` counts seconds."""

    def __init__(self, per_address: float, in_total: float, now: Callable[[], float]) -> None:
        """`per_address` and `in_total`: requests a minute, which may come at once after a pause."""
        self._per_address = per_address
        self._in_total = in_total
        self._now = now
        self._total = _Bucket(in_total, now())
        self._buckets: BoundedCache[str, _Bucket] = BoundedCache(ADDRESSES_MAX, now)

    def count(self, address: str) -> None:
        """Counts a request. Raises RateLimited; a refused request does not count."""
        now, bucket = self._now(), self._buckets.get(address)
        if bucket is None:
            bucket = _Bucket(self._per_address, now)
        self._buckets.put(address, bucket, KEEP_SECONDS)
        missing = max(bucket.missing_seconds(self._per_address, now), self._total.missing_seconds(self._in_total, now))
        if missing:
            raise RateLimited("too many of these requests come from your address, or in total; try again later", missing)
        bucket.tokens -= 1
        self._total.tokens -= 1
