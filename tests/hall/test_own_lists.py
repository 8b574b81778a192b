"""What each side finds of its own without a number, and nothing of anybody else's (hall.md §10 A7, G1)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.steps import FIRST, SECOND, act, pass_time, version


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def listed(client: Client, path: str, member: str, **query: Any) -> list[str]:
    """Ids of a list, read to its end two at a time."""
    answer = await client.get(path, limit=2, **query)
    found: list[str] = []
    while True:
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["items"]) <= 2
        found += [one[member] for one in answer.json()["items"]]
        if "next" not in answer.links:
            return found
        answer = await client.http.get(answer.links["next"]["url"], headers=client.headers)


async def test_a7_an_enterprise_its_portal_and_a_clerk_list_their_own_requests(hall: Hall) -> None:
    owner = hall.owner
    clerk, portal, other = [await hall.client(role) for role in ("clerk", "portal", "portal")]
    firms = [await made.enterprise(owner) for _ in range(3)]
    await owner.execute("UPDATE hall.enterprise SET portal = $1 WHERE uscc = ANY ($2)", portal.client_id, firms[:2])
    requests = {uscc: [await made.request(owner, uscc, "quoted", purpose=f"p{n}") for n in range(3)] for uscc in firms}
    ended, draft = requests[firms[0]][0], await made.request(owner, firms[2], "draft", registered_by=clerk.client_id)
    await act(owner, made.enterprise_actor(firms[0]), "withdraw_request", fr_id=ended, note=None,
              version=await version(owner, ended))  # fmt: skip
    path = "/v1/financing-requests"
    mine = await hall.client("enterprise", uscc=firms[0])
    assert await listed(mine, path, "fr_id") == sorted(requests[firms[0]][1:])
    assert await listed(mine, path, "fr_id", state="all") == sorted(requests[firms[0]])
    assert await listed(portal, path, "fr_id", state="all") == sorted(requests[firms[0]] + requests[firms[1]])
    assert await listed(other, path, "fr_id", state="all") == []
    assert await listed(clerk, path, "fr_id", state="all") == [draft], "a clerk sees a draft until it is submitted"
    (row,) = (await clerk.get(path)).json()["items"]
    assert (row["uscc"], row["state"], row["round"], row["amount_fen"]) == (firms[2], "draft", None, 50_000_000)
    assert (
        await (await hall.client("bank", institution=(await made.bank(owner)).institution)).get(path)
    ).status_code == 403


async def test_a7_a_bank_lists_its_own_claims_and_facilities_and_an_outlet_its_own_of_them(hall: Hall) -> None:
    owner = hall.owner
    bank, rival = await made.bank(owner), await made.bank(owner)
    second, second_no = await made.outlet(owner, bank.institution)
    there = made.Bank(bank.institution, second, second_no, bank.product, bank.client)
    firms = [await made.enterprise(owner, limit_fen=10**9) for _ in range(4)]
    claims = {
        one.outlet: (await made.claim(owner, await made.request(owner, uscc), one)).id
        for one, uscc in zip((bank, there, rival), firms, strict=False)
    }
    signed = {
        one.outlet: await made.facility(owner, firms[3], one, 1_000_000, purpose=f"p{n}")
        for n, one in enumerate((bank, there, rival))
    }
    whole = await hall.client("bank", institution=bank.institution)
    bound = await hall.client("bank", institution=bank.institution)
    await owner.execute("UPDATE hall.client SET outlet_id = $1 WHERE id = $2", second, bound.client_id)
    assert await listed(whole, "/v1/claims", "claim_id") == sorted([claims[bank.outlet], claims[second]])
    assert await listed(bound, "/v1/claims", "claim_id") == [claims[second]]
    assert len(await listed(whole, "/v1/claims", "claim_id", state="all")) == 4, "those that led to a signing too"
    assert await listed(whole, "/v1/facilities", "facility_id") == sorted([signed[bank.outlet], signed[second]])
    assert await listed(bound, "/v1/facilities", "facility_id") == [signed[second]]
    firm = await hall.client("enterprise", uscc=firms[3])
    await owner.execute("ALTER TABLE hall.facility DISABLE TRIGGER USER")
    await owner.execute(
        "UPDATE hall.facility SET state = 'written_off', committed_fen = 0, drawn_fen = 7 WHERE id = $1", signed[second]
    )
    assert await listed(bound, "/v1/facilities", "facility_id") == [signed[second]], "written off, and owed still"
    await owner.execute("UPDATE hall.facility SET drawn_fen = 0 WHERE id = $1", signed[second])
    assert await listed(bound, "/v1/facilities", "facility_id") == []
    assert await listed(bound, "/v1/facilities", "facility_id", state="all") == [signed[second]]
    assert len(await listed(firm, "/v1/facilities", "facility_id")) == 2
    assert await listed(firm, "/v1/facilities", "facility_id", state="all") == sorted(signed.values())
    assert await listed(await hall.client("enterprise", uscc=firms[0]), "/v1/facilities", "facility_id") == []
    assert (await firm.get("/v1/claims")).status_code == 403


async def test_t21_orders_that_wait_for_a_second_administrator_are_found(hall: Hall) -> None:
    fr = await made.request(hall.owner, await made.enterprise(hall.owner))
    inst = (await made.bank(hall.owner)).institution
    proposed = [
        (await act(hall.owner, FIRST, "propose_order", fr_id=fr, kind="suspend", order_no="令1", note="by order"))[
            "approval_id"
        ],
        (await act(hall.owner, FIRST, "propose_order", fr_id=fr, kind="cancel", order_no="令2", note="by order"))[
            "approval_id"
        ],
    ]
    admin = await hall.client("admin")
    assert await listed(admin, "/v1/orders", "approval_id") == sorted(proposed)
    await act(hall.owner, SECOND, "approve_order", approval_id=proposed[0])
    assert await listed(admin, "/v1/orders", "approval_id") == [proposed[1]]
    await pass_time(hall.owner, days=400)
    assert await listed(admin, "/v1/orders", "approval_id") == []
    everything = (await admin.get("/v1/orders", state="all")).json()["items"]
    assert [(one["order_no"], one["state"]) for one in everything] == [("令1", "approved"), ("令2", "expired")]
    assert (await (await hall.client("bank", institution=inst)).get("/v1/orders")).status_code == 403


async def test_orders_that_are_open_are_found_without_a_walk_past_the_others(owner: Connection) -> None:
    """By the index that holds them alone; that the planner has a choice at all takes more rows than a test has."""
    fr = await made.request(owner, await made.enterprise(owner))
    await act(owner, FIRST, "propose_order", fr_id=fr, kind="suspend", order_no="令1", note="by order")
    await owner.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    shown = [
        row["state"] for row in await owner.fetch("SELECT o ->> 'state' AS state FROM hall.orders(true, '', 9) AS o")
    ]
    await owner.execute("SELECT pg_stat_force_next_flush()")
    scans = "SELECT idx_scan > 0 FROM pg_stat_user_indexes WHERE indexrelname = 'order_open'"
    assert (shown, await owner.fetchval(scans)) == (["proposed"], True)
