"""Faults that halls of this kind have had, put into this one on purpose (reliability.md §2).

A mutant is an edit of the database's functions, with the constraints that would still refuse its effect taken away:
the question is whether the checkers see what passes then. Or it is another door, where the fault lies in how the
service would use the database.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import asyncpg
import orjson
from numpy.random import Generator

from api.database import Connection, Pool, _prepared
from tests.hall.doors import Answer, BySql, Racer, Unanswered, refusal


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which stands there once, in a function's source."""

    function: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        name: of reliability.md.
        fault: in words.
        race: the scenario of test_mutants.py that should bring it out.
        caught_by: checkers and invariants that must see it.
        edits: of functions.
        without: statements that take other defences away.
        door: from the service's pool, the owner's address and the draws; the usual one unless the fault is in it.
    """

    name: str
    fault: str
    race: str
    caught_by: frozenset[str]
    edits: tuple[Edit, ...] = ()
    without: tuple[str, ...] = ()
    door: Callable[[Pool, str, Generator], AbstractAsyncContextManager[BySql]] = lambda service, _owner, _draw: (
        nullcontext(BySql(service))
    )


async def put_in(owner: Connection, mutant: Mutant) -> None:
    """Put the fault into the database."""
    for edit in mutant.edits:  # one by one: two edits may be of one function
        source = await owner.fetchval(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'hall'::regnamespace AND proname = $1",
            edit.function,
        )
        assert source is not None, f"{mutant.name}: there is no function hall.{edit.function}"
        assert source.count(edit.old) == 1, f"{mutant.name}: {edit.old!r} does not stand once in {edit.function}"
        await owner.execute(source.replace(edit.old, edit.new))
    for statement in mutant.without:
        await owner.execute(statement)


# --------------------------------------------------------------------------------------------- faults of the service


class KeyAfterCommit(BySql):
    """M4: the act is committed, then its key in a transaction of its own; the process may die between the two."""

    def __init__(self, owner: Pool, draw: Generator) -> None:
        super().__init__(owner)
        self._draw = draw

    @classmethod
    @asynccontextmanager
    async def on(cls, owner: str, draw: Generator) -> AsyncGenerator[Self]:
        """On connections of the owner: the service's role may not write what this fault writes."""
        session = {"search_path": "hall"}
        async with asyncpg.create_pool(owner, min_size=8, max_size=12, init=_prepared, server_settings=session) as pool:
            yield cls(pool, draw)

    async def once(self, racer: Racer, act: str, args: dict[str, Any], key: str) -> Answer:
        known = await self._pool.fetchrow(
            "SELECT status, body FROM hall.seen($1, 'POST', $2, $3, $4)", racer.who, act, key, bytes(32)
        )
        if known is not None and known["status"] is not None:
            return Answer(known["status"], known["body"].encode())
        cause = await self._pool.fetchval("SELECT hall.uuid7()")
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT set_config('hall.cause', $1, true)", str(cause))
                told = await connection.fetchval(f"SELECT hall.act_{act}($1, $2)", racer.bank.actor, args)
        except asyncpg.PostgresError as error:
            return refusal(error)
        if self._draw.random() < 0.02:
            raise Unanswered("died between the two")
        status = told.get("status", 409)
        body = orjson.dumps(told.get("body") or {"type": f"/problems/{told['refused']}"}).decode()
        await self._pool.execute(
            "INSERT INTO hall.idempotency (id, client_id, method, path, key, fingerprint, status, body) "
            "VALUES ($1, $2, 'POST', $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            cause, racer.who, act, key, bytes(32), status, body,
        )  # fmt: skip
        return Answer(status, body.encode())


class AnswerBeforeCommit(BySql):
    """M5: the answer leaves, and the commit follows, unless the process dies before.

    Args:
        service: as the service.
        draw: which processes die.
        deaths: the share of them.
        seconds: by which the commit is late.
    """

    def __init__(self, service: Pool, draw: Generator, deaths: float, seconds: float) -> None:
        super().__init__(service)
        self._draw = draw
        self._deaths = deaths
        self._seconds = seconds
        self._after: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def on(
        cls, service: Pool, draw: Generator, deaths: float = 0.02, seconds: float = 0.001
    ) -> AsyncGenerator[Self]:
        """All commits have followed when the block ends."""
        door = cls(service, draw, deaths, seconds)
        yield door
        await asyncio.gather(*door._after)

    async def once(self, racer: Racer, act: str, args: dict[str, Any], key: str) -> Answer:
        connection = await self._pool.acquire()
        block = connection.transaction()
        await block.start()
        try:
            row = await connection.fetchrow(
                "SELECT * FROM hall.once($1, 'POST', $2, $3, $4, $2, $5, $6, 'en', 'trace')",
                racer.who, act, key, bytes(32), racer.bank.actor, args,
            )  # fmt: skip
        except BaseException as error:
            await block.rollback()
            await self._pool.release(connection)
            if isinstance(error, asyncpg.PostgresError):
                return refusal(error)
            raise
        task = asyncio.create_task(self._end(connection, block, dies=self._draw.random() < self._deaths))
        self._after.add(task)
        task.add_done_callback(self._after.discard)
        assert row is not None
        return Answer(row["status"], row["body"].encode())

    async def _end(self, connection: Any, block: Any, *, dies: bool) -> None:
        await asyncio.sleep(self._seconds)
        await (block.rollback() if dies else block.commit())
        await self._pool.release(connection)


class StaleReads(BySql):
    """M11: reads come from a cache that nobody empties for 200 ms."""

    def __init__(self, service: Pool) -> None:
        super().__init__(service)
        self._kept: dict[str, tuple[float, Answer]] = {}

    async def read(self, racer: Racer, fr: str) -> Answer:
        now = asyncio.get_running_loop().time()
        until, kept = self._kept.get(fr, (0.0, None))
        if kept is None or now >= until:
            kept = await super().read(racer, fr)
            self._kept[fr] = (now + 0.2, kept)
        return kept


# ------------------------------------------------------------------------------------------------------- the mutants


_TWO_WINNERS_PASS = (
    "ALTER TABLE hall.round DROP CONSTRAINT never_more_winners_than_slots",
    "ALTER TABLE hall.claim DROP CONSTRAINT one_winner_a_slot",
)
_GUARD = " and state = 'open' and at >= opens_at and at < closes_at and taken < slots"

MUTANTS = (
    Mutant(
        "M1",
        "the guarded update lost its guard, and the unique slot is gone",
        "contested",
        frozenset({"checker", "I2"}),
        (Edit("act_grab", "if shown.state = 'taken' then", "if false then"), Edit("act_grab", _GUARD, "")),
        _TWO_WINNERS_PASS,
    ),
    Mutant(
        "M2",
        "SELECT, then UPDATE, in READ COMMITTED",
        "contested",
        frozenset({"checker", "I1"}),
        (
            Edit("act_grab", "n = shown.n for no key update;", "n = shown.n;"),
            Edit("act_grab", "set taken = taken + 1,", "set taken = shown.taken + 1,"),
            Edit("act_grab", _GUARD, ""),
        ),
        _TWO_WINNERS_PASS,
    ),
    Mutant(
        "M4",
        "the key is written after the commit of what it is for",
        "contested",
        frozenset({"I20"}),
        door=lambda _service, owner, draw: KeyAfterCommit.on(owner, draw),
    ),
    Mutant(
        "M5",
        "the answer leaves before the commit",
        "contested",
        frozenset({"I18"}),
        door=lambda service, _owner, draw: AnswerBeforeCommit.on(service, draw),
    ),
    Mutant(
        "M7",
        "what is free is read without a lock, then reserved",
        "limits",
        frozenset({"I5"}),
        (
            Edit(
                "reserve",
                "held := hall.locked_exposure(fr.uscc);",
                "select * into held from hall.exposure where uscc = fr.uscc;",
            ),
        ),
        ("ALTER TABLE hall.exposure DROP CONSTRAINT never_over_lend",),
    ),
    Mutant(
        "M9",
        "a reservation is not voided when its last claim ends",
        "rounds",
        frozenset({"I8"}),
        (Edit("void_reservation", "if r.id is null then return; end if;", "return;"),),
    ),
    Mutant(
        "M10",
        "claims held are counted without the lock of their counter",
        "caps",
        frozenset({"I14"}),
        (Edit("take_hold", "perform 1 from hall.quota where owner = p_institution for no key update;", ""),),
    ),
    Mutant(
        "M11",
        "reads come from a stale cache",
        "contested",
        frozenset({"checker"}),
        door=lambda service, _owner, _draw: nullcontext(StaleReads(service)),
    ),
)
"""M6 is caught in test_sequencer.py, M13 in test_kills.py; docs/reliability.md says which are not tried."""
