"""Fires deadlines. Every process runs one; the database gives each due row to one of them (S3).

A row whose firing raises a fault of its own does not hold the others up: the database keeps it in
`hall.stuck_deadline`, opens a case and tries it again later. A pass that fails as a whole is counted and logged, and
the next one follows.
"""

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncGenerator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from api.database import Connection, Overloaded, Pool, in_transaction
from api.metrics import DEADLINES, REGISTRY

if TYPE_CHECKING:
    from api.service import Service

PAUSE_SECONDS = 0.5
"""Short enough for a deadline to fire at most 2 s late at the 99th percentile."""

SWEEPERS = 3
"""Connections of a process that fire what is due at once."""
TURNS = 8
"""Kinds of deadlines, as `hall.sweep` counts them."""

_STUCK = Gauge(
    "jifen_deadlines_stuck", "Deadlines that could not be fired and wait for another try",
    registry=REGISTRY, multiprocess_mode="livemax",
)  # fmt: skip
_FAULTS = Counter("jifen_sweeper_faults", "Passes of this process's sweeper that failed", registry=REGISTRY)

log = structlog.get_logger()


async def swept(pool: Pool) -> AsyncGenerator[str]:
    """Fire all that is due now, one transaction each, the kinds by turns, and say what was fired; see `hall.sweep`.

    Raises:
        Overloaded: the database is out of reach; what was fired until then stays fired.
    """
    for turn in count():

        async def fire(connection: Connection, first: int = turn) -> str | None:
            return await connection.fetchval("SELECT hall.sweep($1)", first % TURNS)

        what = await in_transaction(pool, fire)
        if what is None:
            return
        yield what


async def sweep(service: "Service") -> None:
    """Sweep until the service closes, over several connections at once; a database out of reach is waited for.

    A row belongs to one of them, and one that waits for a lock holds no other up.
    """
    async with TaskGroup() as sweepers:
        for _ in range(SWEEPERS):
            sweepers.create_task(_sweep(service))


async def _sweep(service: "Service") -> None:
    while not service.closing.is_set():
        try:
            await _pass(service.pool)
        except Overloaded:
            log.warning("the sweeper waits for the database")
        except Exception as error:  # noqa: BLE001  (deadlines go on, whatever became of one pass)
            _FAULTS.inc()
            # Its sentence may quote a row.
            log.error(  # noqa: TRY400
                "a pass of the sweeper failed", fault=type(error).__name__, sqlstate=getattr(error, "sqlstate", None)
            )
        # Not wait_for: in Python 3.11 it drops a cancellation that meets the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS):
                await service.closing.wait()


async def _pass(pool: Pool) -> None:
    async for what in swept(pool):
        if what.startswith("stuck "):
            _, subject, sqlstate = what.split(" ")
            log.error("a deadline cannot be fired", subject=subject, sqlstate=sqlstate)
        else:
            DEADLINES.labels(what).inc()
    _STUCK.set(await in_transaction(pool, _standing))


async def _standing(connection: Connection) -> int:
    count: int | None = await connection.fetchval("SELECT count(*) FROM hall.stuck_deadline")
    return count or 0
