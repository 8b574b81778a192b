"""Rate limits (G3): so many calls in a while, by institution and for the token endpoint by address."""

from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from api.problems import Problem


@dataclass(frozen=True)
class Pace:
    """At most `amount` calls within any `seconds`."""

    name: str
    amount: int
    seconds: int

    def share(self, processes: int) -> RateLimitItem:
        """What one of so many processes lets through, so that together they let through no more than a part more."""
        return RateLimitItemPerSecond(-(-self.amount // processes), self.seconds)


CALLS = Pace("calls", 50, 1)
CLAIMS = Pace("claims", 20, 4)  # 5 a second, 20 at once
TOKENS = Pace("tokens", 20, 10)
ADDRESSES = Pace("addresses", 200, 10)

PACES: Mapping[tuple[str, str], Pace] = {("POST", "/v1/financing-requests/{fr_id}/claims"): CLAIMS}
"""Operations with a pace of their own beside that of every call: a lost claim costs as much as a won one."""


class Limits:
    """Counts in this process alone: a share of the limit for each, and no round trip to anybody.

    Args:
        processes: how many share the limits.
        lifted: count nothing, for a load test.
    """

    def __init__(self, processes: int = 1, *, lifted: bool = False) -> None:
        self._processes = processes
        self._lifted = lifted
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def count(self, request: Request, pace: Pace, who: str) -> None:
        """Count a call of `who`; the answer to `request` tells how many are left.

        Raises:
            Problem: rate-limited, with the seconds after which to try again.
        """
        if self._lifted:
            return
        item = pace.share(self._processes)
        allowed = await self._windows.hit(item, pace.name, who)
        stats = await self._windows.get_window_stats(item, pace.name, who)
        wait = max(1, -(-int(1000 * (stats.reset_time - _now(stats.reset_time))) // 1000))
        request.scope["state"]["rate"] = {
            "RateLimit-Policy": f'"{pace.name}";q={item.amount};w={pace.seconds}',
            "RateLimit": f'"{pace.name}";r={stats.remaining};t={wait}',
        }
        if not allowed:
            raise Problem("rate-limited", retry_after_seconds=wait)
