"""Fires deadlines. Every process runs one; the database gives each due row to one of them (S3)."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from api.database import Overloaded, Pool, in_transaction
from api.metrics import DEADLINES

if TYPE_CHECKING:
    from api.service import Service

PAUSE_SECONDS = 0.5
"""Short enough for a deadline to fire at most 2 s late at the 99th percentile."""

log = structlog.get_logger()


async def swept(pool: Pool) -> list[str]:
    """Fire all that is due now, one transaction each; what was fired, in order.

    Raises:
        Overloaded: the database is out of reach; what was fired until then stays fired.
    """
    fired: list[str] = []
    while (what := await in_transaction(pool, lambda c: c.fetchval("SELECT hall.sweep()"))) is not None:
        fired.append(what)
    return fired


async def sweep(service: "Service") -> None:
    """Sweep until the service closes; a database out of reach is waited for."""
    while not service.closing.is_set():
        try:
            for what in await swept(service.pool):
                DEADLINES.labels(what).inc()
        except Overloaded:
            log.warning("the sweeper waits for the database")
        # Not wait_for: in Python 3.11 it drops a cancellation that meets the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS):
                await service.closing.wait()
