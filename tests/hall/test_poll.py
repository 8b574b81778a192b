"""Polling: one call acknowledges and fetches (hall.md §8 Pull)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import emit, publish_all, until, value

POLL = "/v1/events/poll"


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def bank_of(hall: Hall) -> tuple[made.Bank, Client]:
    bank = await made.bank(hall.owner)
    return bank, await hall.client("bank", institution=bank.institution)


async def poll(client: Client, **body: Any) -> dict[str, Any]:
    answer = await client.post(POLL, body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def places(polled: dict[str, Any]) -> list[int]:
    return [int(one["event"]["sequence"]) for one in polled["events"]]


def ids(polled: dict[str, Any]) -> list[str]:
    return [one["event"]["id"] for one in polled["events"]]


async def told(hall: Hall, *institutions: str) -> None:
    for one in institutions:
        await emit(hall.owner, institution=one)
    await publish_all(hall.owner)


async def test_v4_an_event_comes_until_it_is_acknowledged_and_in_order(hall: Hall) -> None:
    (mine, client), (other, _) = await bank_of(hall), await bank_of(hall)
    await told(hall, mine.institution, other.institution, mine.institution, mine.institution)
    first = await poll(client, max=2)
    assert (places(first), first["more"]) == ([1, 3], True)
    assert await poll(client, max=2) == first, "without an acknowledgement the same again"
    after = await poll(client, ack=ids(first))
    assert (places(after), after["acknowledged"], after["more"]) == ([4], 2, False)
    assert (await poll(client, ack=ids(first)))["acknowledged"] == 0
    assert places(await poll(client, ack=ids(after))) == []


async def test_v3_prev_is_the_event_before_that_the_client_was_entitled_to(hall: Hall) -> None:
    (mine, client), (other, _) = await bank_of(hall), await bank_of(hall)
    await told(hall, *[mine.institution, other.institution] * 3)
    polled = await poll(client)
    assert [(one["prev"], int(one["event"]["sequence"])) for one in polled["events"]] == [("0", 1), ("1", 3), ("3", 5)]
    # The one in the middle was acknowledged before the one before it.
    later = await poll(client, ack=[ids(polled)[1]])
    assert [(one["prev"], int(one["event"]["sequence"])) for one in later["events"]] == [("0", 1), ("3", 5)]


async def test_what_cannot_be_used_is_kept_with_its_code_and_not_sent_again(hall: Hall) -> None:
    mine, client = await bank_of(hall)
    await told(hall, mine.institution, mine.institution)
    first = await poll(client)
    assert places(await poll(client, errors={ids(first)[0]: "unknown-type"})) == [2]
    assert await value(hall.owner, "SELECT error FROM hall.event_ack WHERE sequence = 1") == "unknown-type"
    assert (await client.post(POLL, {"errors": {ids(first)[1]: "Not a code"}})).status_code == 422


async def test_nobody_acknowledges_or_reads_for_another(hall: Hall) -> None:
    (mine, client), (_, stranger) = await bank_of(hall), await bank_of(hall)
    second = await hall.client("bank", institution=mine.institution)
    await told(hall, mine.institution)
    own = await poll(client)
    assert (await poll(stranger, ack=ids(own)))["acknowledged"] == 0
    assert places(await poll(stranger)) == []
    await poll(client, ack=ids(own))
    assert places(await poll(second)) == [1], "each client of an institution acknowledges for itself"


async def test_each_side_polls_what_concerns_it(hall: Hall) -> None:
    bank, client = await bank_of(hall)
    uscc, other = await made.enterprise(hall.owner), await made.enterprise(hall.owner)
    portal = await hall.client("portal")
    await hall.owner.execute("UPDATE hall.enterprise SET portal = $1 WHERE uscc = $2", portal.client_id, other)
    owner = await hall.client("enterprise", uscc=uscc)
    await emit(hall.owner, uscc=uscc, institution=bank.institution)
    await emit(hall.owner, uscc=other)
    await emit(hall.owner, uscc=uscc)
    await publish_all(hall.owner)
    assert [places(await poll(one)) for one in (client, owner, portal)] == [[1], [1, 3], [2]]
    assert (await (await hall.client("operator")).post(POLL)).status_code == 403


async def test_a_client_of_one_outlet_polls_no_claims_of_another(hall: Hall) -> None:
    bank = await made.bank(hall.owner)
    second, second_no = await made.outlet(hall.owner, bank.institution)
    whole = await hall.client("bank", institution=bank.institution)
    bound = {one: await hall.client("bank", institution=bank.institution) for one in (bank.outlet, second)}
    for outlet, client in bound.items():
        await hall.owner.execute("UPDATE hall.client SET outlet_id = $1 WHERE id = $2", outlet, client.client_id)
    uscc = await made.enterprise(hall.owner, limit_fen=10**10)
    fr = await made.request(hall.owner, uscc, audience=[bank.outlet_no, second_no])
    claim = await made.claim(hall.owner, fr, bank)
    await publish_all(hall.owner)
    about = {
        name: {one["event"]["subject"] for one in (await poll(client))["events"]}
        for name, client in {"whole": whole, **bound}.items()
    }
    assert about == {
        "whole": {f"fr/{fr}", f"claim/{claim.id}"},
        bank.outlet: {f"fr/{fr}", f"claim/{claim.id}"},
        second: {f"fr/{fr}"},
    }


async def test_a_wait_ends_with_the_event_and_not_before(hall: Hall) -> None:
    (mine, client), (other, _) = await bank_of(hall), await bank_of(hall)
    assert places(await poll(client, wait_seconds=0)) == []
    waiting = asyncio.create_task(poll(client, wait_seconds=20))
    await asyncio.sleep(0.3)
    await told(hall, other.institution)
    await asyncio.sleep(0.3)
    assert not waiting.done(), "what concerns others wakes nobody"
    await told(hall, mine.institution)
    async with asyncio.timeout(5):
        assert places(await waiting) == [2]


async def test_a_wait_ends_when_the_service_closes(hall: Hall) -> None:
    _, client = await bank_of(hall)
    waiting = asyncio.create_task(poll(client, wait_seconds=30))
    await asyncio.sleep(0.3)
    hall.service.closing.set()
    async with asyncio.timeout(2):
        assert places(await waiting) == []


async def test_a_new_client_begins_with_what_is_published_since_it_exists(hall: Hall) -> None:
    mine, _ = await bank_of(hall)
    await told(hall, mine.institution)
    late = await hall.client("bank", institution=mine.institution)
    await told(hall, mine.institution)
    assert places(await poll(late)) == [2]


async def fill(hall: Hall, rows: int) -> None:
    """Let the feed hold so many places of everybody's else, one a second, the last of now."""
    async with hall.owner.transaction():
        await hall.owner.execute("SET LOCAL session_replication_role = replica")  # no event stands behind them
        await hall.owner.execute(
            """
            INSERT INTO hall.feed (tenant, sequence, epoch, event_id, published_at, body, type, subject, uscc)
            SELECT 'default', i, 1, gen_random_uuid(), hall.hall_now() - make_interval(secs => $1::integer - i), '{}',
                'fin.test.v1', 'test/1', 'another'
            FROM generate_series(1, $1::integer) AS i
            """,
            rows,
        )
        await hall.owner.execute("UPDATE hall.feed_state SET head = $1", rows)
    await hall.owner.execute("VACUUM ANALYZE hall.feed")


async def rows_read(owner: asyncpg.Connection) -> int:
    """How many rows of the feed were read so far, by whatever plan."""
    await owner.execute("SELECT pg_stat_clear_snapshot()")
    return await value(
        owner,
        """
        SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) + (
            SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relid = 'hall.feed'::regclass)::bigint
        FROM pg_stat_user_tables WHERE relid = 'hall.feed'::regclass
        """,
    )


async def reading(owner: asyncpg.Connection, work: Callable[[], Awaitable[object]]) -> int:
    """How many rows of the feed some work on the same connection read."""
    await owner.execute("SELECT pg_stat_force_next_flush()")
    before = await rows_read(owner)
    await work()
    await owner.execute("SELECT pg_stat_force_next_flush()")
    return await rows_read(owner) - before


async def test_a_poll_does_not_read_the_feed_from_its_beginning(hall: Hall) -> None:
    """A client that has read to the head costs a few rows, however much was published before."""
    bank, client = await bank_of(hall)
    await hall.owner.execute("UPDATE hall.client SET created_at = created_at - interval '30 days'")
    await fill(hall, 20_000)
    await poll(client)
    assert await value(hall.owner, "SELECT acknowledged_through FROM hall.poll_cursor") == 20_000
    acknowledge = "SELECT hall.acknowledge($1, $2, $3, NULL, NULL, '{}', '{}')"

    async def again() -> None:
        await hall.owner.fetchval(acknowledge, client.client_id, [bank.outlet_no], bank.institution)

    assert await reading(hall.owner, again) < 50


@pytest.mark.parametrize("path", [POLL, "/v1/limits/query"])
async def test_a_read_that_takes_too_long_is_told_to_come_again(hall: Hall, path: str) -> None:
    """Nothing was changed, so it is `overloaded` with a time to wait, whatever the method, and not `internal`."""
    uscc = await made.enterprise(hall.owner)
    _, client = await bank_of(hall)
    body = {POLL: {}, "/v1/limits/query": {"usccs": [uscc], "purpose": "park-risk-warning"}}[path]
    cancel = """
        SELECT pg_cancel_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
        """

    async def cancelled() -> bool:
        await hall.owner.execute("SELECT pg_stat_clear_snapshot()")  # a transaction's own list of sessions grows old
        return bool(await value(hall.owner, cancel))

    async with hall.owner.transaction():
        await hall.owner.execute("LOCK TABLE hall.poll_cursor, hall.consent IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(client.post(path, body))
        await until(cancelled)  # as the statement's time-out does
        answer = await asked
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded"), answer.text
    assert answer.headers["Retry-After"] == "1"
