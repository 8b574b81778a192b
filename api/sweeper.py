"""Fires deadlines. Every process runs one; the database gives each due row to one of them (S3)."""

import asyncio

from api.database import Overloaded, Pool, in_transaction
from api.service import Service

PAUSE_SECONDS = 0.5  # so that a deadline fires at most 2 s late at the 99th percentile


async def swept(pool: Pool) -> list[str]:
    """Fire all that is due now, one transaction each; what was fired, in order."""
    fired: list[str] = []
    while (what := await in_transaction(pool, lambda c: c.fetchval("select hall.sweep()"))) is not None:
        fired.append(what)
    return fired


async def sweep(service: Service) -> None:
    """Sweep until the service closes. A database out of reach is waited for."""
    while not service.closing.is_set():
        try:
            for what in await swept(service.pool):
                service.metrics.deadlines.labels(what).inc()
        except Overloaded:
            service.log.warning("sweep_waits_for_database")
        try:
            await asyncio.wait_for(service.closing.wait(), PAUSE_SECONDS)
        except TimeoutError:
            continue
