"""Polling: one call acknowledges and fetches (hall.md §8 Pull)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import emit, publish_all, value

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
