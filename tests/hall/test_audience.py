"""Whom a round reaches, what outlets subscribe to, and what a card keeps to itself (hall.md §3 T8–T10, §11)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.hall import made
from tests.hall.callers import Hall, serving
from tests.hall.feeding import announce, broadcast, feed_of, publish_all, value

Owner = asyncpg.Connection
HERE, THERE = "350211", "350203"
STEPS = ("queued", "sent", "acknowledged", "seen")


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def audience(owner: Owner, fr: str, n: int) -> list[int]:
    return await value(owner, "SELECT hall.audience($1, $2)", fr, n)


async def subscribe(owner: Owner, outlet_id: str, **wanted: Any) -> None:
    row = {"outlet_id": outlet_id, "updated_by": "made"} | wanted
    columns = ", ".join(row)
    values = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await owner.execute(
        f"INSERT INTO hall.subscription ({columns}, updated_at) VALUES ({values}, now())", *row.values()
    )


async def test_each_round_reaches_more_outlets_than_the_one_before(owner: Owner) -> None:
    here, there, silent, wished = [await made.bank(owner) for _ in range(4)]
    await owner.execute("UPDATE hall.outlet SET district = $1 WHERE id = $2", THERE, there.outlet)
    for one in (here, there):
        await subscribe(owner, one.outlet)
    fr = await made.request(owner, await made.enterprise(owner), "quoted", district=HERE, wishes=[wished.institution])
    assert await audience(owner, fr, 0) == [wished.outlet_no]
    assert await audience(owner, fr, 1) == [here.outlet_no]
    assert await audience(owner, fr, 2) == [here.outlet_no, there.outlet_no]
    everybody = [one.outlet_no for one in (here, there, silent, wished)]
    assert await audience(owner, fr, 3) == everybody
    assert await audience(owner, fr, 4) == everybody
    await owner.execute("UPDATE hall.financing_request SET wishes = $1 WHERE id = $2", [silent.product], fr)
    assert await audience(owner, fr, 0) == [silent.outlet_no]
    await owner.execute("UPDATE hall.setting SET value = 1 WHERE name = 'rounds'")
    assert await audience(owner, fr, 1) == everybody, "the last round reaches everybody, whichever it is"


FILTERS: tuple[tuple[dict[str, Any], bool], ...] = (
    ({}, True),
    ({"districts": [HERE, THERE]}, True),
    ({"districts": [THERE]}, False),
    ({"industry_sections": ["I"]}, True),
    ({"industry_sections": ["C"]}, False),
    ({"amount_bands": ["0050-0100"]}, True),
    ({"amount_bands": ["0100-0200"]}, False),
    ({"purposes": ["working-capital"], "schemes": ["torch-points"]}, True),
    ({"purposes": ["equipment"], "schemes": ["torch-points"]}, False),
    ({"max_term_months": 12}, True),
    ({"max_term_months": 11}, False),
    ({"first_loans_only": True}, False),
)


async def test_a_filter_lets_pass_what_fits_all_of_it(owner: Owner) -> None:
    """The request: 500,000 CNY over 12 months in section I; whether it is a first loan is not known."""
    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner), "quoted", district=HERE)
    for wanted, passes in FILTERS:
        await owner.execute("DELETE FROM hall.subscription")
        await subscribe(owner, bank.outlet, **wanted)
        assert await audience(owner, fr, 2) == ([bank.outlet_no] if passes else []), wanted


async def test_a_filter_lets_nothing_unknown_pass(owner: Owner) -> None:
    bank = await made.bank(owner)
    await subscribe(owner, bank.outlet, industry_sections=["I"])
    uscc = await made.enterprise(owner)
    fr = await made.request(owner, uscc, "quoted", district=None, industry_section=None)
    assert [await audience(owner, fr, n) for n in (1, 2, 3)] == [[], [], [bank.outlet_no]]


async def test_h5_nobody_is_reached_who_cools_down_or_may_not_claim(owner: Owner) -> None:
    released, suspended, closed, other = [await made.bank(owner) for _ in range(4)]
    second, second_no = await made.outlet(owner, released.institution)
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=50_000_000))
    await made.claim(owner, fr, released)
    await owner.execute("SELECT hall.move_claim(id, 'K5', 'lapsed', 'system', hall.hall_now()) FROM hall.claim")
    await owner.execute("UPDATE hall.institution SET is_suspended = true WHERE id = $1", suspended.institution)
    await owner.execute("UPDATE hall.outlet SET is_closed = true WHERE id = $1", closed.outlet)
    assert await audience(owner, fr, 3) == [other.outlet_no], "its other outlet cools down as well"
    await made.round_(owner, fr)
    assert await audience(owner, fr, 3) == [released.outlet_no, other.outlet_no, second_no]
    assert second


async def test_s11_a_card_tells_nothing_that_names_the_enterprise_or_its_amount(owner: Owner) -> None:
    """Byte by byte: the card of the round, and every event that an audience reads."""
    secret = {"name": "厦门独一无二科技有限公司", "contact_name": "欧阳独一", "contact_phone": "13987654321"}
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner, limit_fen=10**10, **secret)
    fr = await broadcast(owner, [bank.outlet_no], uscc=uscc, amount_fen=1_234_567_89, quote_fen=2_345_678_90)
    await made.act(owner, bank.actor, "grab", fr_id=fr, round=1, outlet_id=bank.outlet, card_version=5,
                   product_id=bank.product, product_version=1)  # fmt: skip
    await publish_all(owner)
    rows = [row for row in await feed_of(owner) if row["audience"]]
    assert {row["type"] for row in rows} == {"fin.request.broadcast.v1", "fin.round.taken.v1"}
    card = await value(owner, "SELECT card::text FROM hall.round WHERE fr_id = $1", fr)
    hidden = [*secret.values(), uscc, "123456789", "234567890", bank.institution, bank.outlet, bank.client]
    for text in [card, *(row["body"] for row in rows)]:
        assert [one for one in hidden if one in text or one in orjson.dumps(orjson.loads(text)).decode()] == []
    assert orjson.loads(card)["amount_band"] == "0100-0200"


# -------------------------------------------------------------------------------------------------------- subscriptions


async def put(hall: Hall, who: Any, outlet_id: str, body: object, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await hall.http.put(f"/v1/hall/subscriptions/{outlet_id}", json=body, headers=who.headers | named)


async def test_a_subscription_is_set_under_its_version(hall: Hall) -> None:
    bank = await made.bank(hall.owner)
    mine = await hall.client("bank", institution=bank.institution)
    path = f"/v1/hall/subscriptions/{bank.outlet}"
    assert (await mine.get(path)).status_code == 404
    assert (await put(hall, mine, bank.outlet, {})).json()["type"] == "/problems/precondition-required"
    first = await put(hall, mine, bank.outlet, {"purposes": ["equipment"]}, If_None_Match="*")
    assert (first.status_code, first.headers["etag"], first.json()["version"]) == (200, '"1"', 1)
    assert (await put(hall, mine, bank.outlet, {}, If_None_Match="*")).status_code == 412
    second = await put(hall, mine, bank.outlet, {"max_term_months": 12}, If_Match='"1"')
    assert (second.json()["version"], second.json()["purposes"]) == (2, [])
    stale = await put(hall, mine, bank.outlet, {}, If_Match='"1"')
    assert (stale.status_code, stale.json()["version"]) == (412, 2)
    assert (await mine.get(path)).json() == second.json()


async def test_a_subscription_names_every_broken_rule_and_no_other_outlet(hall: Hall) -> None:
    bank, other = await made.bank(hall.owner), await made.bank(hall.owner)
    mine = await hall.client("bank", institution=bank.institution)
    wrong = {"purposes": ["equipment", "yacht"], "schemes": ["none"], "amount_bands": ["0000-9999"]}
    refused = await put(hall, mine, bank.outlet, wrong, If_None_Match="*")
    assert {one["pointer"] for one in refused.json()["errors"]} == {"/purposes/1", "/schemes/0", "/amount_bands/0"}
    assert (await put(hall, mine, other.outlet, {}, If_None_Match="*")).status_code == 404
    assert (await mine.get(f"/v1/hall/subscriptions/{other.outlet}")).status_code == 404
    assert await value(hall.owner, "SELECT count(*) FROM hall.subscription") == 0


# ------------------------------------------------------------------------------------------------------------- receipts


async def test_a_receipt_tells_for_each_institution_how_far_the_card_came(hall: Hall) -> None:
    banks = [await made.bank(hall.owner) for _ in range(4)]
    await hall.owner.execute("UPDATE hall.setting SET value = 0 WHERE name = 'gate_waits_for_working_time'")
    clients = [await hall.client("bank", institution=bank.institution) for bank in banks]
    operator = await hall.client("operator")
    fr = await announce(hall.owner, [bank.outlet_no for bank in banks])
    path = f"/v1/financing-requests/{fr}/rounds/1/receipts"
    await publish_all(hall.owner)
    polled = (await clients[1].post("/v1/events/poll")).json()["events"]
    polled = (await clients[2].post("/v1/events/poll")).json()["events"]
    await clients[2].post("/v1/events/poll", {"ack": [polled[0]["event"]["id"]]})
    await clients[3].get("/v1/hall")
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    steps: list[list[bool]] = []
    async with asyncio.timeout(5):
        while steps != expected:  # places are kept every second
            shown = (await operator.get(path)).json()["institutions"]
            by_bank = {one["institution_id"]: one for one in shown}
            assert list(by_bank) == sorted(bank.institution for bank in banks)
            steps = [[by_bank[bank.institution][step] for step in STEPS] for bank in banks]
            await asyncio.sleep(0.1)
    assert (await clients[0].get(path)).status_code == 403
    assert (await operator.get(path.replace("rounds/1", "rounds/7"))).status_code == 404
