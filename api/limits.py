"""Rate limits (G3): so many calls a second, by institution, and for the token endpoint by client and address.

Counted by the generic cell rate algorithm: one time a caller, by which what he took would be regained. The list of call
times that a moving window keeps costs more than the calls themselves where 57 banks race.
Source: ITU-T I.371, annex A.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor

from starlette.requests import Request

from api.problems import Problem

MOST_CALLERS = 20_000
"""Above so many the ones that regained everything are forgotten."""


@dataclass(frozen=True)
class Pace:
    """`burst` calls at once, regained at `per_second`."""

    name: str
    per_second: float
    burst: int


CALLS = Pace("calls", 50, 50)
CLAIMS = Pace("claims", 5, 20)
LOOKS = Pace("looks", 200, 2_000)
"""Enterprises whose limit a bank asks for, however many a call."""

TOKENS = Pace("tokens", 2, 20)
ADDRESSES = Pace("addresses", 20, 200)

PACES: Mapping[tuple[str, str], Pace] = {("POST", "/v1/financing-requests/{fr_id}/claims"): CLAIMS}
"""Operations with a pace of their own beside that of every call: a lost claim costs as much as a won one."""


class Limits:
    """Counts in this process alone: each takes its share of the limit, and asks nobody.

    Args:
        processes: how many share the limits.
        lifted: count nothing, for a load test.
        clock: seconds that never go back.
    """

    def __init__(
        self, processes: int = 1, *, lifted: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._processes = processes
        self._lifted = lifted
        self._clock = clock
        self._regained_at: dict[tuple[str, str], float] = {}

    def count(self, request: Request, pace: Pace, who: str, many: int = 1) -> None:
        """Count a call of `who`, or one that is worth `many`; the answer to `request` tells how many are left.

        What is worth more than the whole burst, or than this process's share of it, passes once all is regained, and is
        then paid for: the pace holds over time, and nothing is refused for ever.

        Raises:
            Problem: rate-limited, with the seconds after which to try again.
        """
        if self._lifted:
            return
        burst = ceil(pace.burst / self._processes)
        each = self._processes / pace.per_second
        now = self._clock()
        if len(self._regained_at) > MOST_CALLERS:
            self._regained_at = {one: at for one, at in self._regained_at.items() if at > now}
        owed = max(now, self._regained_at.get((pace.name, who), now)) - now
        regained = now + owed + many * each
        wait = min(owed, regained - now - burst * each)
        # A hair of tolerance: sums of floats must not refuse the last call of a burst.
        allowed = wait <= 1e-9
        if allowed:
            self._regained_at[pace.name, who] = regained
            owed = regained - now
        left = max(0, floor(burst - owed / each + 1e-6))
        request.scope["state"]["rate"] = {
            "RateLimit-Policy": f'"{pace.name}";q={burst};w={ceil(burst * each)}',
            "RateLimit": f'"{pace.name}";r={left};t={ceil(owed)}',
        }
        if not allowed:
            raise Problem("rate-limited", retry_after_seconds=max(1, ceil(wait)))
