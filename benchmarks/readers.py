"""Finding a reader's own events in a feed of other people's: by its indexes, beside asking the rule of every row.

    python benchmarks/readers.py                    200,000 events, about a minute
    python benchmarks/readers.py --events 1000000

Half of the events are cards that reach all 456 outlets of 57 institutions, half tell of a claim or of a firm. Asked is
for the place of a reader's last event, and for its first thousand: of a busy bank, of one outlet, of an institution
that no card ever reached, of a firm with one event, of a firm with none. Both ways answer the same, in turns, in one
database whose pages are warm: read the ratios.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
from hall_stage import banks, database
from rich.console import Console
from rich.table import Table

from api.feed import Reader
from api.serving import run
from tests.hall import made

BANKS, OUTLETS, ROUNDS = 57, 8, 5
LAST = {
    "rule": """
        SELECT coalesce((
            SELECT f.sequence FROM hall.feed f, hall.outlets_of($2, $3) AS outlets
            WHERE f.tenant = $1 AND f.sequence < $6
                AND hall.reads(f, outlets, CASE WHEN $3::text IS NULL THEN $2 END, $4, $5)
            ORDER BY f.sequence DESC LIMIT 1), 0)
    """,
    "index": """
        SELECT hall.own_place_before($1, hall.outlets_of($2, $3), CASE WHEN $3::text IS NULL THEN $2 END, $4, $5, $6)
    """,
}
FIRST = {
    "rule": """
        SELECT array(
            SELECT f.sequence FROM hall.feed f, hall.outlets_of($2, $3) AS outlets
            WHERE f.tenant = $1 AND f.sequence < $6
                AND hall.reads(f, outlets, CASE WHEN $3::text IS NULL THEN $2 END, $4, $5)
            ORDER BY f.sequence LIMIT 1000)
    """,
    "index": """
        SELECT array(SELECT hall.own_places(
            $1, hall.outlets_of($2, $3), CASE WHEN $3::text IS NULL THEN $2 END, $4, $5, 0, $6, 1000))
    """,
}
_FEED = """
INSERT INTO hall.feed (tenant, sequence, epoch, event_id, published_at, type, subject, body, uscc, institution_id,
        outlet_no, audience)
    SELECT 'default', n, 1, hall.uuid7(), hall.hall_now(), 'fin.test.v1', 'test/' || n, repeat('{"a": 1}', 80),
        CASE WHEN n = 5 THEN 'one event' WHEN n % 5 = 0 THEN 'firm ' || n % 20000 END,
        CASE WHEN n % 2 = 1 THEN ($2::text[])[1 + n % $4] END,
        CASE WHEN n % 2 = 1 THEN ($3::integer[])[1 + n % $4] END, CASE WHEN n % 2 = 0 THEN $3::integer[] END
    FROM generate_series(1, $1::integer) AS n
"""


async def staged(owner: asyncpg.Connection, events: int) -> dict[str, Reader]:
    """Fill the feed; the readers by what they are."""
    known = await banks(owner, BANKS)
    rows = await owner.fetch("SELECT no, institution_id FROM hall.outlet ORDER BY no")
    for row in rows:
        for _ in range(OUTLETS - 1):
            await made.outlet(owner, row["institution_id"])
    places = await owner.fetch("SELECT id, no, institution_id FROM hall.outlet ORDER BY no")
    institutions = [place["institution_id"] for place in places]
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")  # events of the feed alone
        await owner.execute(_FEED, events, institutions, [place["no"] for place in places], len(places))
    unheard = await made.bank(owner)
    await owner.execute("VACUUM ANALYZE hall.feed")
    assert len(known) == BANKS
    return {
        "busy bank": Reader("c", "default", institutions[3]),
        "one outlet": Reader("c", "default", institutions[3], places[3]["id"], places[3]["no"]),
        "bank that no card reached": Reader("c", "default", unheard.institution),
        "firm with one event": Reader("c", "default", uscc="one event"),
        "firm with none": Reader("c", "default", uscc="none"),
    }


async def timed(owner: asyncpg.Connection, ways: dict[str, str], reader: Reader, events: int) -> dict[str, float]:
    """Median milliseconds of both ways, asked in turns; their answers are the same."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        answers: list[Any] = []
        for name, statement in ways.items():
            began = time.perf_counter()
            answers.append(await owner.fetchval(statement, *reader.arguments(), events + 1))
            seconds[name].append(time.perf_counter() - began)
        assert answers[0] == answers[1], reader
    return {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}


async def measured(events: int) -> None:
    """Stage, measure and print."""
    console = Console(width=110)
    table = Table("reader", "asked for", "rule of every row ms", "by indexes ms", "ratio", title=f"{events:,} events")
    async with database() as url:
        owner = await asyncpg.connect(url)
        try:
            for name, reader in (await staged(owner, events)).items():
                for asked, ways in (("last place", LAST), ("first 1,000", FIRST)):
                    took = await timed(owner, ways, reader, events)
                    ratio = f"{took['rule'] / took['index']:,.1f}"
                    table.add_row(name, asked, f"{took['rule']:,.2f}", f"{took['index']:,.2f}", ratio)
        finally:
            await owner.close()
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    run(measured(parser.parse_args(arguments).events))


if __name__ == "__main__":
    main()
