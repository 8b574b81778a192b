"""The running service: what its requests share, what runs beside them, and how it starts and stops."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

from api.clients import forget_expired
from api.cursors import Cursors, cursors_of
from api.database import Pool, pool_of
from api.engines import Engines, keep_engines_ready
from api.hub import Hub, follow_feed, tend_streams
from api.limits import Limits
from api.sequencer import sequence
from api.settings import Settings
from api.sweeper import sweep
from api.tokens import Tokens

log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""A task that ran this long begins anew with the first pause."""


@dataclass
class Service:
    """What the requests of one process share: `request.app.state.service`.

    Attributes:
        url: the database's, for a connection of one's own (LISTEN); holds a password.
        issuer: our name as an authorisation server, the one `aud` of a client assertion.
        engines: the scoring engines; who the champion is, the registry in `Settings.models_folder` says.
        hub: the feed in this process, and its streams.
        acted: set when this process changed the hall, so that its sequencer does not wait for its next turn.
        closing: set as the process is told to end; whoever holds a stream open closes it then.
    """

    pool: Pool
    settings: Settings
    url: str
    issuer: str
    cursors: Cursors
    engines: Engines
    tokens: Tokens = field(default_factory=Tokens)
    limits: Limits = field(default_factory=Limits)
    hub: Hub = field(default_factory=Hub)
    acted: asyncio.Event = field(default_factory=asyncio.Event)
    closing: asyncio.Event = field(default_factory=asyncio.Event)


Background: TypeAlias = Callable[[Service], Awaitable[None]]

BACKGROUND: tuple[Background, ...] = (
    forget_expired, sequence, follow_feed, tend_streams, sweep, keep_engines_ready,
)  # fmt: skip
"""What runs beside the requests in every process, each for ever: one that ends or fails is started again."""


@asynccontextmanager
async def running(settings: Settings, url: str, issuer: str) -> AsyncGenerator[Service]:
    """The service of one process on a migrated database.

    Args:
        settings: of this process.
        url: where the owner connects.
        issuer: see `Service`.
    """
    async with pool_of(url, most=settings.pool_size) as pool:
        service = Service(
            pool=pool,
            settings=settings,
            url=url,
            issuer=settings.issuer or issuer,
            cursors=await cursors_of(pool),
            engines=Engines(settings.models_folder()),
            limits=Limits(processes=settings.processes, lifted=not settings.rate_limits),
        )
        tasks = [asyncio.create_task(supervised(one, service), name=one.__name__) for one in BACKGROUND]
        try:
            yield service
        finally:
            service.closing.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def supervised(work: Background, service: Service) -> None:
    """Run `work` for ever: after a fault it is logged and started again, after pauses that grow up to ten seconds."""
    clock = asyncio.get_running_loop().time
    pause = FIRST_PAUSE_SECONDS
    while True:
        began = clock()
        try:
            await work(service)
            log.info("background task ended", task=work.__name__)
        except Exception as error:  # noqa: BLE001  (nobody else is there to catch it, and it must not end the others)
            log.warning("background task failed", task=work.__name__, fault=type(error).__name__)
        if service.closing.is_set():
            return
        pause = FIRST_PAUSE_SECONDS if clock() - began > STEADY_SECONDS else pause
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
