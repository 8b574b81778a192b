"""The feed as the database keeps it: who reads which of its events, from where, and what was acknowledged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from asyncpg import Record

from api.calls import Caller
from api.database import Connection, Pool
from api.problems import Problem

_CURSOR = re.compile(r"([1-9]\d{0,8})\.(0|[1-9]\d{0,17})(?:\.(?:0|[1-9]\d{0,17}))?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed: all up to `sequence` was received."""

    epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.sequence}"


def cursor_of(text: str) -> Cursor:
    """The place named by `<epoch>.<sequence>`, or by the id of an event, which has `.<prev>` behind it.

    Raises:
        Problem: bad-cursor.
    """
    named = _CURSOR.fullmatch(text)
    if named is None:
        raise Problem("bad-cursor")
    return Cursor(int(named[1]), int(named[2]))


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose events a client reads: those of an institution or one of its outlets, of an enterprise, or of a portal.

    Attributes:
        outlet_id: with `outlet_no`, where the reader stands for one outlet alone; else for the whole institution.
    """

    client_id: str
    tenant: str
    institution_id: str | None = None
    outlet_id: str | None = None
    outlet_no: int | None = None
    uscc: str | None = None
    portal: str | None = None

    @property
    def key(self) -> str:
        """What an event's `keys_of` holds if the reader may have it."""
        if self.outlet_no is not None:
            return f"outlet {self.outlet_no}"
        if self.institution_id is not None:
            return f"institution {self.institution_id}"
        return f"enterprise {self.uscc}" if self.uscc is not None else f"portal {self.portal}"

    def arguments(self) -> tuple[str, str | None, str | None, str | None, str | None]:
        """$1 to $5 of the statements that select a reader's events."""
        return self.tenant, self.institution_id, self.outlet_id, self.uscc, self.portal


async def reader_of(pool: Pool, caller: Caller, outlet_id: str | None = None) -> Reader:
    """The reader that a caller is.

    Args:
        pool: of the hall.
        caller: bank, enterprise or portal.
        outlet_id: narrows an institution to one of its outlets.

    Raises:
        Problem: not-found: no outlet of the caller's.
    """
    if caller.institution_id is None:
        if outlet_id is not None:
            raise Problem("not-found")
        portal = caller.client_id if caller.uscc is None else None
        return Reader(caller.client_id, caller.tenant, uscc=caller.uscc, portal=portal)
    wanted = outlet_id or caller.outlet_id
    if wanted is None:
        return Reader(caller.client_id, caller.tenant, caller.institution_id)
    number = await pool.fetchval(
        "SELECT no FROM hall.outlet WHERE id = $1 AND institution_id = $2 AND id = coalesce($3, id)",
        wanted,
        caller.institution_id,
        caller.outlet_id,
    )
    if number is None:
        raise Problem("not-found")
    return Reader(caller.client_id, caller.tenant, caller.institution_id, wanted, number)


def keys_of(row: Record | Mapping[str, Any], institutions: Mapping[int, str]) -> frozenset[str]:
    """The keys of all readers who may have an event; the same as `hall.reads` decides in the database.

    Args:
        row: of the feed.
        institutions: of every outlet's number.
    """
    audience: Sequence[int] = row["audience"] or ()
    keys = {f"outlet {no}" for no in audience}
    keys.update(f"institution {institutions[no]}" for no in audience)
    named = (("outlet", "outlet_no"), ("institution", "institution_id"), ("enterprise", "uscc"), ("portal", "portal"))
    keys.update(f"{kind} {row[column]}" for kind, column in named if row[column] is not None)
    return frozenset(keys)


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class State:
    """Where the feed stands: the last place, the first that a reader may resume before, and the time of the hall."""

    epoch: int
    head: int
    oldest: int
    now: datetime


async def news(connection: Connection, tenant: str, after: int, limit: int) -> tuple[State, list[Record]]:
    """Where the feed stands, and its next rows, whoever may read them; both of one instant, asked in one go.

    `oldest` is head + 1 when nothing is younger than the retention.
    """
    rows = await connection.fetch(
        """
        WITH state AS MATERIALIZED (
            SELECT s.epoch, s.head, hall.hall_now() AS now, coalesce((
                SELECT f.sequence FROM hall.feed AS f
                WHERE f.tenant = s.tenant
                    -- A subselect is asked once; the volatile clock itself would be asked for every row, and no index
                    -- used.
                    AND f.published_at
                        >= (SELECT hall.hall_now() - make_interval(days => hall.setting('retention_days')::integer))
                ORDER BY f.published_at, f.sequence LIMIT 1), s.head + 1) AS oldest
            FROM hall.feed_state AS s
            WHERE s.tenant = $1)
        SELECT state.epoch, state.head, state.oldest, state.now, f.sequence, f.type, f.body, f.audience, f.outlet_no,
            f.institution_id, f.uscc, f.portal
        FROM state
        LEFT JOIN (
            SELECT * FROM hall.feed WHERE tenant = $1 AND sequence > $2 ORDER BY sequence LIMIT $3) AS f ON true
        ORDER BY f.sequence
        """,
        tenant,
        after,
        limit,
    )
    first = rows[0]  # a migration made the row of the tenant
    state = State(first["epoch"], first["head"], first["oldest"], first["now"])
    return state, rows if first["sequence"] is not None else []


async def own_rows(pool: Pool, reader: Reader, after: int, before: int, limit: int) -> list[Record]:
    """A reader's rows between two places, neither of them included."""
    return await pool.fetch(
        """
        WITH me AS MATERIALIZED (SELECT hall.outlets_of($2, $3) AS outlets)
        SELECT f.sequence, f.epoch, f.type, f.body
        FROM me
        CROSS JOIN hall.own_places(
            $1, me.outlets, CASE WHEN $3::text IS NULL THEN $2 END, $4, $5, $6, $7, $8) AS own (place)
        JOIN hall.feed AS f ON f.tenant = $1 AND f.sequence = own.place
        ORDER BY f.sequence
        """,
        *reader.arguments(),
        after,
        before,
        limit,
    )


async def last_own_place(pool: Pool, reader: Reader, through: int) -> int:
    """The place of the reader's last event up to and with `through`; 0: there is none."""
    return await pool.fetchval(
        """
        SELECT hall.own_place_before(
            $1, hall.outlets_of($2, $3), CASE WHEN $3::text IS NULL THEN $2 END, $4, $5, $6)
        """,
        *reader.arguments(),
        through + 1,
    )


async def institutions_of_outlets(connection: Connection) -> dict[int, str]:
    """Institution of every outlet's number."""
    return dict(await connection.fetch("SELECT no, institution_id FROM hall.outlet"))


# ------------------------------------------------------------------------------------------------------------- polling


async def acknowledge(pool: Pool, reader: Reader, ids: Sequence[UUID], errors: Mapping[UUID, str]) -> int:
    """Keep what a client acknowledges of its own events, and how many of them were new.

    Args:
        pool: of the hall.
        reader: whose events.
        ids: of events that it has.
        errors: by id of events that it has and cannot use, why not.
    """
    named = [*((one, None) for one in ids if one not in errors), *errors.items()]
    return await pool.fetchval(
        """
        SELECT hall.acknowledge($1, hall.outlets_of($2, $3), CASE WHEN $3::text IS NULL THEN $2 END, $4, $5, $6, $7)
        """,
        reader.client_id,
        *reader.arguments()[1:],
        [one for one, _ in named],
        [error for _, error in named],
    )


async def unacknowledged(pool: Pool, reader: Reader, limit: int) -> list[Record]:
    """The client's next events that it has not acknowledged, in order, each with the place of its event before."""
    return await pool.fetch(
        """
        WITH me AS MATERIALIZED (
            SELECT hall.outlets_of($2, $3) AS outlets, CASE WHEN $3::text IS NULL THEN $2 END AS institution,
                c.acknowledged_through AS through, (
                    SELECT count(*) FROM hall.event_ack AS a
                    WHERE a.client_id = $6 AND a.sequence > c.acknowledged_through) AS beyond
            FROM hall.poll_cursor AS c
            WHERE c.client_id = $6),
        own AS (
            SELECT one.place, coalesce(lag(one.place) OVER (ORDER BY one.place), hall.own_place_before(
                $1, me.outlets, me.institution, $4, $5, one.place)) AS prev
            FROM me
            CROSS JOIN hall.own_places($1, me.outlets, me.institution, $4, $5, me.through,
                9223372036854775807, $7 + me.beyond::integer) AS one (place))
        SELECT f.sequence, f.epoch, f.body, own.prev
        FROM own
        JOIN hall.feed AS f ON f.tenant = $1 AND f.sequence = own.place
        WHERE NOT EXISTS (SELECT FROM hall.event_ack AS a WHERE a.client_id = $6 AND a.sequence = own.place)
        ORDER BY f.sequence
        LIMIT $7
        """,
        *reader.arguments(),
        reader.client_id,
        limit,
    )


async def keep_positions(pool: Pool, positions: Mapping[tuple[str, str, str], int]) -> None:
    """Keep how far clients were handed the feed, by (client, outlet or empty, means); a place never goes back."""
    named = list(positions)
    await pool.execute(
        "SELECT hall.keep_positions($1, $2, $3, $4)",
        [client for client, _, _ in named],
        [outlet for _, outlet, _ in named],
        [means for _, _, means in named],
        list(positions.values()),
    )


# ------------------------------------------------------------------------------------------------------------ the hall


@dataclass(frozen=True, slots=True)
class Cards:
    """Open cards, and the place of the feed that they were read at."""

    cursor: Cursor
    read_at: str
    rows: list[Record]


async def open_cards(pool: Pool, reader: Reader, after: tuple[datetime, str] | None, limit: int) -> Cards:
    """The reader's open cards in the order of their publication, read with the feed's place at one instant (V8).

    Args:
        pool: of the hall.
        reader: whose.
        after: publication and request of the last card of the page before.
        limit: most cards.
    """
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        where = await connection.fetchrow(
            "SELECT epoch, head, hall.iso(hall.hall_now()) AS now FROM hall.feed_state WHERE tenant = $1", reader.tenant
        )
        assert where is not None
        rows = await connection.fetch(
            """
            SELECT r.fr_id, r.n AS round, r.card_version, r.card, hall.iso(r.opens_at) AS opens_at,
                hall.iso(r.closes_at) AS closes_at, r.published_at, (
                    SELECT coalesce(array_agg(o.id ORDER BY o.no), '{}') FROM hall.outlet AS o
                    WHERE o.no = ANY (r.audience) AND o.institution_id = $2 AND o.id = coalesce($3, o.id)
                        AND NOT o.is_closed) AS outlet_ids
            FROM hall.round AS r
            JOIN hall.financing_request AS f ON f.id = r.fr_id
            JOIN hall.enterprise AS e ON e.uscc = f.uscc
            WHERE r.state = 'open' AND r.closes_at > hall.hall_now() AND NOT f.is_suspended AND f.tenant = $1
                AND (coalesce(r.audience && (SELECT hall.at_work(hall.outlets_of($2, $3))), false)
                    OR coalesce(f.uscc = $4, false) OR coalesce(e.portal = $5, false))
                AND ($6::timestamptz IS NULL OR (r.published_at, r.fr_id) > ($6, $7))
            ORDER BY r.published_at, r.fr_id
            LIMIT $8
            """,
            *reader.arguments(),
            after[0] if after else None,
            after[1] if after else None,
            limit,
        )
    return Cards(Cursor(where["epoch"], where["head"]), where["now"], rows)


async def receipts(pool: Pool, fr_id: str, round_no: int) -> Mapping[str, Any] | None:
    """How far the card of a round came, by institution; None: there is no such round."""
    return await pool.fetchval("SELECT hall.receipts_view($1, $2)", fr_id, round_no)


async def subscription(pool: Pool, caller: Caller, outlet_id: str) -> Mapping[str, Any] | None:
    """What an outlet of the caller's subscribes to; None: nothing, or not the caller's outlet."""
    return await pool.fetchval("SELECT hall.subscription_view($1, $2)", caller.actor(), outlet_id)


async def put_subscription(pool: Pool, caller: Caller, args: Mapping[str, object]) -> Mapping[str, Any]:
    """Set what an outlet subscribes to.

    Raises:
        asyncpg.PostgresError: a refusal: not-found, stale-version, validation.
    """
    return await pool.fetchval("SELECT hall.put_subscription($1, $2)", caller.actor(), dict(args))
