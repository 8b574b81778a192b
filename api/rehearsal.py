"""A rehearsal of the hall: the real service in a process of its own, simulated banks and enterprises that use it.

Only what happens before the hall opens is done past the API: the parties are founded and the park is loaded. From then
on everything goes by HTTP. The hall's clock stands at the park's day and is moved on when nobody wants what is left.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as day_time
from pathlib import Path
from typing import Any, cast

import numpy as np

from api.database import Connection, connected, pool_of
from api.loading import load
from api.logs import log_as_json
from api.migrating import prepare
from api.postgres import Postgres
from api.serving import address_of, listening_on, run, served
from api.settings import Settings
from api.simulated_banks import Clock, Errands, SimulatedBank
from api.simulated_client import Client, connections
from api.simulated_enterprises import PORTALS, Applicant, Portal
from api.simulated_parties import Bank, Identity, found, new_identity
from data_contracts.errors import JifenError

BEIJING = timezone(timedelta(hours=8))
OPENS = day_time(9, 30)
"""When the rehearsal begins, by the hall's clock."""

START_SECONDS = 60
END_SECONDS = 6
AT_ONCE = 6
"""So many enterprises apply at the same time."""

LOOK_SECONDS = 0.25
QUIET_LOOKS = 4
"""Nothing is under way and nothing was published for so many looks: the hall is at rest."""

LONGEST_SECONDS = 300.0
POLICY = "settings: {gate_waits_for_working_time: 0, gate_ms: 250}\n"
"""The operator's own values: nobody waits for the morning, and the gate opens a quarter of a second after the card."""

Told = Callable[[str], None]


class ServiceEnded(JifenError):
    """The service did not come up, or it ended while it was needed."""

    code = "service-ended"


# ---------------------------------------------------------------------------------------------------------- the service


@contextmanager
def serving(settings: Settings, log: Path, port: int = 0) -> Generator[str]:
    """The service in a process of its own while the block runs; its address.

    It ends with this process, however that ends. A Ctrl-C at the keyboard is for this process, which then ends it.

    Args:
        settings: of the service; its database is the embedded one under their home.
        log: where it logs.
        port: to listen at, on this machine alone; 0: any that is free.

    Raises:
        ServiceEnded: it does not come up.
    """
    listening = listening_on("127.0.0.1", port)
    address = address_of(listening)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_service, args=(settings, listening, log, theirs), name="hall"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
        listening.close()
        theirs.close()
    try:
        if not ours.poll(START_SECONDS) or not _received(ours):
            raise ServiceEnded(f"The service did not come up; {log} says why.")
        yield address
    finally:
        process.terminate()
        process.join(END_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _received(pipe: Any) -> bool:  # noqa: ANN401  (the two ends of a pipe are of a kind that differs by system)
    try:
        return bool(pipe.recv())
    except EOFError:
        return False


def _service(settings: Settings, listening: socket.socket, log: Path, ready: Any) -> None:  # noqa: ANN401
    """What the service's process does."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    log_as_json()
    run(_served(settings, listening, ready))


async def _served(settings: Settings, listening: socket.socket, ready: Any) -> None:  # noqa: ANN401
    parent = multiprocessing.parent_process()
    assert parent is not None  # only `serving` starts this
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_reader(parent.sentinel, ended.set)
    async with (
        Postgres(settings.data_folder() / "postgres", settings.postgres_bin) as postgres,
        served(settings, postgres.url(), listening),
    ):
        ready.send("open")
        await ended.wait()
        loop.remove_reader(parent.sentinel)


# --------------------------------------------------------------------------------------------------------- preparation


@dataclass(frozen=True)
class Prepared:
    """A hall that is founded and loaded, and not yet open.

    Attributes:
        url: of the database, as its owner.
        engineer: a second client of the first bank, for whoever wants to try the API.
    """

    url: str
    clock: Clock
    banks: Sequence[Bank]
    bank_clients: Sequence[Identity]
    portals: Sequence[Identity]
    engineer: Identity


async def prepared(settings: Settings, park: Path, as_of: date, banks: Sequence[Bank], tell: Told) -> Prepared:
    """Bring the embedded database to its schema, load the park and found the parties.

    Args:
        settings: whose `data_folder` has the running server.
        park: folder of source files.
        as_of: the day of the hall's clock.
        banks: that the hall does not know yet.
        tell: told what is being done.
    """
    url = Postgres(settings.data_folder() / "postgres", settings.postgres_bin).url()
    tell("the schema")
    await prepare(url, settings.hall_policy)
    async with _owner(url) as connection:
        clock = Clock(datetime.combine(as_of, OPENS, BEIJING) - datetime.now(UTC))
        await set_clock(connection, clock)
        tell("banks, outlets, products, subscriptions")
        banks = await found(connection, banks, as_of.isoformat())
        tell("clients and their keys")
        clients = [await new_identity(connection, one.name, "bank", one.id) for one in banks]
        portals = [await new_identity(connection, one, "portal") for one in PORTALS]
        engineer = await new_identity(connection, "an engineer's own program", "bank", banks[0].id)
    async with pool_of(url, most=2) as pool:
        await load(pool, park, tell)
    return Prepared(url, clock, banks, clients, portals, engineer)


@asynccontextmanager
async def _owner(url: str) -> AsyncGenerator[Connection]:
    async with connected(url, server_settings={"search_path": "hall, public", "timezone": "UTC"}) as connection:
        yield connection


async def set_clock(connection: Connection, clock: Clock) -> None:
    """Set the hall's clock, as the owner of the database alone may."""
    await connection.execute(
        """
        INSERT INTO hall.clock_offset (tenant, "offset") VALUES ('default', $1)
        ON CONFLICT (tenant) DO UPDATE SET "offset" = excluded."offset"
        """,
        clock.offset,
    )


# ------------------------------------------------------------------------------------------------------------ the race


@dataclass
class Race:
    """Simulated parties at work in an open hall.

    Attributes:
        connection: as the owner of the database, to look at the hall's state and to move its clock.
        moved: how often the clock was moved on to the end of a round that nobody took.
    """

    connection: Connection
    clock: Clock
    banks: Sequence[SimulatedBank]
    portals: Sequence[Portal]
    errands: Errands
    streams: Sequence[asyncio.Task[None]]
    seconds: float = 0.0
    moved: int = 0

    @property
    def claims(self) -> Counter[str]:
        """What became of all grabs."""
        return sum((bank.claims for bank in self.banks), Counter())

    @property
    def clients(self) -> list[Client]:
        """Of all parties."""
        return [one.client for one in (*self.banks, *self.portals)]

    def dismiss_banks(self) -> None:
        """The banks close their streams and race no more."""
        for stream in self.streams[: len(self.banks)]:
            stream.cancel()

    async def run(self, who: Sequence[Applicant], tell: Told) -> None:
        """Let everybody apply, and go on until the hall is at rest."""
        began = time.monotonic()
        waiting = iter(list(enumerate(who)))
        applying = [asyncio.create_task(self._apply(waiting)) for _ in range(AT_ONCE)]
        try:
            await self._until_rest(applying, began, tell)
        finally:
            for task in applying:
                task.cancel()
            await asyncio.gather(*applying, return_exceptions=True)
        self.seconds = time.monotonic() - began

    async def _apply(self, waiting: Iterator[tuple[int, Applicant]]) -> None:
        for place, who in waiting:
            await self.portals[place % len(self.portals)].apply(who)

    async def _until_rest(self, applying: Sequence[asyncio.Task[None]], began: float, tell: Told) -> None:
        quiet, head = 0, -1
        while time.monotonic() - began < LONGEST_SECONDS:
            await asyncio.sleep(LOOK_SECONDS)
            for task in applying:
                if task.done():
                    task.result()
            states, now_at = await self._state()
            tell(", ".join(f"{count} {name}" for name, count in states.items()))
            is_still = now_at == head and self.errands.busy == 0 and all(task.done() for task in applying)
            quiet, head = (quiet + 1 if is_still else 0), now_at
            if quiet >= QUIET_LOOKS:
                if not states.get("broadcast"):
                    return
                await self._move_on()
                quiet = 0
        raise ServiceEnded(f"The hall did not come to rest within {LONGEST_SECONDS:.0f} s.")

    async def _state(self) -> tuple[dict[str, int], int]:
        rows = await self.connection.fetch(
            """
            SELECT state, count(*) AS count FROM hall.financing_request GROUP BY state
            ORDER BY array_position('{draft,quoted,broadcast,claimed,offered,accepted,signed}', state), state
            """
        )
        head = await self.connection.fetchval("SELECT head FROM hall.feed_state WHERE tenant = 'default'")
        return {row["state"]: row["count"] for row in rows}, cast("int", head)

    async def _move_on(self) -> None:
        """Nobody wants what is left: move the clock on to the end of the first round, as if the hours had passed."""
        ends = await self.connection.fetchval("SELECT min(closes_at) FROM hall.round WHERE state = 'open'")
        if ends is not None:
            self.clock.offset += max(ends - self.clock.now(), timedelta(0)) + timedelta(milliseconds=100)
            await set_clock(self.connection, self.clock)
            self.moved += 1


@asynccontextmanager
async def opened(hall: Prepared, address: str, seed: int) -> AsyncGenerator[Race]:
    """The parties with their streams open, ready to race; they leave at the end of the block."""
    async with connections(address) as http, _owner(hall.url) as connection, asyncio.TaskGroup() as group:
        errands = Errands(group)

        def client(who: Identity) -> Client:
            return Client(http, address, who.client_id, who.kid, who.key)

        banks = [
            SimulatedBank(bank, client(who), hall.clock, errands, np.random.default_rng([seed, place]))
            for place, (bank, who) in enumerate(zip(hall.banks, hall.bank_clients, strict=True))
        ]
        portals = [
            Portal(channel, client(who), hall.clock, errands, np.random.default_rng([seed, 1000 + place]))
            for place, (channel, who) in enumerate(zip(PORTALS, hall.portals, strict=True))
        ]
        streams = [group.create_task(one.client.follow(one.take)) for one in (*banks, *portals)]
        async with asyncio.timeout(START_SECONDS):
            for one in (*banks, *portals):
                await one.client.connected.wait()
        try:
            yield Race(connection, hall.clock, banks, portals, errands, streams)
        finally:
            for stream in streams:
                stream.cancel()
