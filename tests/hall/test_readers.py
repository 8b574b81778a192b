"""Whose events a reader finds: the walks by index against the rule that looks at every row (hall.md §8 V3, V6)."""

from typing import Any

import asyncpg
import numpy as np
import pytest

from api.feed import Reader, keys_of
from tests.hall import made
from tests.hall.feeding import emit

EVENTS = 150
FIRMS, PORTALS = ("91350200MA00000001", "91350200MA00000002"), ("portal-1", "portal-2")


async def mixed_feed(owner: asyncpg.Connection, banks: list[made.Bank], seed: int) -> None:
    """A feed in which each row names some of: a firm, a portal, an institution, an outlet, an audience."""
    draw = np.random.default_rng(seed)

    def some(of: list[Any] | tuple[Any, ...]) -> Any:
        return of[draw.integers(len(of))] if draw.random() < 0.25 else None

    for place in range(1, EVENTS + 1):
        named = some(banks)  # an outlet is never told of without its institution
        outlet_no = named.outlet_no if named and draw.random() < 0.5 else None
        audience = [one.outlet_no for one in banks if draw.random() < 0.15]
        await owner.execute(
            """
            INSERT INTO hall.feed (tenant, sequence, epoch, event_id, published_at, type, subject, body,
                uscc, portal, institution_id, outlet_no, audience)
            VALUES ('default', $1, 1, $2, now(), 'fin.test.v1', 'test/1', '{}', $3, $4, $5, $6, $7)
            """,
            place, await emit(owner), some(FIRMS), some(PORTALS), named and named.institution,
            outlet_no, audience or None,
        )  # fmt: skip


READERS = """
    SELECT f.sequence FROM hall.feed AS f
    WHERE hall.reads(f, hall.outlets_of($1, $2), CASE WHEN $2::text IS NULL THEN $1 END, $3, $4) ORDER BY f.sequence
"""
PLACES = """
    SELECT hall.own_places(
        'default', hall.outlets_of($1, $2), CASE WHEN $2::text IS NULL THEN $1 END, $3, $4, $5, $6, $7)
"""
BEFORE = """
    SELECT hall.own_place_before('default', hall.outlets_of($1, $2), CASE WHEN $2::text IS NULL THEN $1 END, $3, $4, $5)
"""


@pytest.mark.parametrize("seed", range(3))
async def test_v3_the_walks_by_index_find_what_the_rule_grants_and_nothing_else(
    owner: asyncpg.Connection, seed: int
) -> None:
    banks = [await made.bank(owner) for _ in range(3)]
    second, second_no = await made.outlet(owner, banks[0].institution)
    banks.append(made.Bank(banks[0].institution, second, second_no, "", ""))
    await mixed_feed(owner, banks, seed)
    stranger = await made.bank(owner)
    institutions = {one.outlet_no: one.institution for one in banks}
    readers = [
        Reader("c", "default", uscc=FIRMS[0]),
        Reader("c", "default", portal=PORTALS[1]),
        Reader("c", "default", stranger.institution),
        *(Reader("c", "default", one.institution) for one in banks[:3]),
        *(Reader("c", "default", one.institution, one.outlet, one.outlet_no) for one in banks),
    ]
    rows = await owner.fetch("SELECT * FROM hall.feed ORDER BY sequence")
    for reader in readers:
        who = reader.arguments()[1:]
        granted = [row["sequence"] for row in await owner.fetch(READERS, *who)]
        assert granted == [row["sequence"] for row in rows if reader.key in keys_of(row, institutions)], "as the hub's"
        for after, before, limit in ((0, EVENTS + 1, EVENTS), (40, 90, 7), (EVENTS, EVENTS + 9, 5)):
            found = [row[0] for row in await owner.fetch(PLACES, *who, after, before, limit)]
            assert found == [place for place in granted if after < place < before][:limit], reader
        for place in range(1, EVENTS + 2, 7):
            before_it = max((one for one in granted if one < place), default=0)
            assert await owner.fetchval(BEFORE, *who, place) == before_it, (reader, place)
        assert bool(granted) == (reader.institution_id != stranger.institution)
