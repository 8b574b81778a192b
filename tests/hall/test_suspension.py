"""Suspended institutions, closed outlets, officers who have gone: who may order it, what stops, what goes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import httpx2
import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.made import Bank, Refused, act, enterprise_actor
from tests.hall.steps import FIRST, PROOF, RICH, SECOND, grab, offer, publish, subscribe, sweep, told, version

Thing = TypeVar("Thing")
NOTE = {"note": "by order"}


async def order(owner: Connection, bank: Bank, kind: str = "suspend") -> dict[str, Any]:
    proposed = await act(
        owner, FIRST, "propose_order", institution_id=bank.institution, kind=kind, order_no="令7", note="by order"
    )
    return await act(owner, SECOND, "approve_order", approval_id=proposed["approval_id"])


async def close(owner: Connection, bank: Bank, outlet: str | None = None) -> dict[str, Any]:
    where = {"institution_id": bank.institution, "outlet_id": outlet or bank.outlet}
    return await act(owner, FIRST, "close_outlet", note="merged", **where)


async def stop(owner: Connection, bank: Bank, what: str) -> None:
    await (order(owner, bank) if what == "suspended" else close(owner, bank))


async def opened(owner: Connection, **given: Any) -> str:
    return await made.request(owner, await made.enterprise(owner, limit_fen=RICH), "broadcast", **given)


async def claim_state(owner: Connection, claim: str) -> tuple[str, str]:
    row = await owner.fetchrow("SELECT state, reason ->> 'why' AS why FROM hall.claim WHERE id = $1", claim)
    assert row is not None
    return row["state"], row["why"]


# ------------------------------------------------------------------------------------------------- who may order it


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


def problem(answer: httpx2.Response) -> str:
    return answer.json().get("type", "").removeprefix("/problems/")


async def events(client: Client) -> list[dict[str, Any]]:
    """All that a client may have of the feed, oldest first."""
    polled = await client.post("/v1/events/poll", {"max": 200, "wait_seconds": 0, "ack": [], "errors": {}})
    assert polled.status_code == 200, polled.text
    return [one["event"] for one in polled.json()["events"]]


async def cards_of(client: Client) -> list[Any]:
    return (await client.get("/v1/hall")).json()["items"]


async def until(ask: Callable[[], Awaitable[Thing]], is_so: Callable[[Thing], bool]) -> Thing:
    """The first answer that is so; they come as the sequencer and the sweeper work."""
    async with asyncio.timeout(20):
        while not is_so(answer := await ask()):  # noqa: ASYNC110  (it comes from another process)
            await asyncio.sleep(0.1)
    return answer


async def test_two_administrators_suspend_an_institution_and_two_lift_it(hall: Hall) -> None:
    bank = await made.bank(hall.owner)
    first, second = [await hall.client("admin") for _ in range(2)]
    at = f"/v1/institutions/{bank.institution}/orders"
    for kind, suspended in (("suspend", True), ("resume", False)):
        proposed = (await first.post(at, {"kind": kind, "order_no": "令7"} | NOTE)).json()
        listed = (await first.get("/v1/institutions")).json()["items"]
        assert [one["is_suspended"] for one in listed] == [not suspended], "nothing changes before the second"
        approve = f"/v1/orders/{proposed['approval_id']}/approve"
        assert problem(await first.post(approve)) == "four-eyes-required"
        done = await second.post(approve)
        assert done.status_code == 200, done.text
        assert done.json() == {"approval_id": proposed["approval_id"], "kind": kind,
                               "institution_id": bank.institution, "is_suspended": suspended}  # fmt: skip
        assert problem(await second.post(approve)) == "illegal-transition"
        again = (await first.post(at, {"kind": kind, "order_no": "令8"} | NOTE)).json()["approval_id"]
        twice = await second.post(f"/v1/orders/{again}/approve")
        assert (problem(twice), twice.json()["suspended"]) == ("illegal-transition", suspended)
    cancelled = await first.post(at, {"kind": "cancel", "order_no": "令9"} | NOTE)
    assert (cancelled.status_code, cancelled.json()["errors"][0]["pointer"]) == (422, "/kind")
    nobody = f"/v1/institutions/{made.new('in')}/orders"
    assert (await first.post(nobody, {"kind": "suspend", "order_no": "1"} | NOTE)).status_code == 404


async def test_an_order_is_of_one_subject_and_no_institution_is_cancelled(owner: Connection) -> None:
    bank = await made.bank(owner)
    row = ("INSERT INTO hall.approval (id, kind, fr_id, institution_id, order_no, note, proposed_by, proposed_at, "
           "expires_at) VALUES ($1, $2, $3, $4, '1', 'n', 'a', now(), now() + interval '1 day')")  # fmt: skip
    with pytest.raises(asyncpg.CheckViolationError, match="no_institution_is_cancelled"):
        await owner.execute(row, made.new("ap"), "cancel", None, bank.institution)
    with pytest.raises(asyncpg.CheckViolationError, match="of_one_subject"):
        await owner.execute(row, made.new("ap"), "suspend", await opened(owner), bank.institution)
    with pytest.raises(asyncpg.CheckViolationError, match="of_one_subject"):
        await owner.execute(row, made.new("ap"), "suspend", None, None)


async def test_the_manager_closes_outlets_and_ends_officers_of_his_own_institution_alone(hall: Hall) -> None:
    mine, other = [await made.bank(hall.owner) for _ in range(2)]
    officer = await made.officer(hall.owner, mine.outlet)
    manager, stranger = [await hall.client("institution-manager", institution=one.institution) for one in (mine, other)]
    at = f"/v1/institutions/{mine.institution}/outlets/{mine.outlet}"
    end = f"{at}/officers/{officer}/end"
    swapped = f"/v1/institutions/{other.institution}/outlets/{mine.outlet}"
    bank = await hall.client("bank", institution=mine.institution)
    for path in (f"{at}/close", end):
        assert (await stranger.post(path, NOTE)).status_code == 404
        assert problem(await bank.post(path, NOTE)) == "scope-missing"
    assert (await stranger.post(f"{swapped}/close", NOTE)).status_code == 404
    assert (await manager.post(f"{at}/officers/{made.new('oc')}/end", NOTE)).status_code == 404
    assert (await manager.post(f"{at}/close", {})).status_code == 422, "it says why"
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.outlet WHERE is_closed") == 0

    gone = await manager.post(end, NOTE)
    assert (gone.status_code, gone.json()["is_gone"]) == (200, True)
    assert problem(await manager.post(end, NOTE)) == "illegal-transition"
    closed = await manager.post(f"{at}/close", NOTE)
    assert (closed.status_code, closed.json()["is_closed"]) == (200, True)
    admin = await hall.client("admin")
    assert problem(await admin.post(f"{at}/close", NOTE)) == "illegal-transition"
    assert problem(await admin.post(f"{at}/officers", {"name": "Li"})) == "illegal-transition"
    kept = await hall.owner.fetchrow(
        "SELECT closed_by, closing_note, gone_by, going_note "
        "FROM hall.outlet o JOIN hall.officer f ON f.outlet_id = o.id"
    )
    assert kept is not None
    assert tuple(kept) == (manager.client_id, "by order") * 2


async def test_the_institution_hears_it_every_client_of_its_and_nobody_else(hall: Hall) -> None:
    mine, other = [await made.bank(hall.owner) for _ in range(2)]
    sister, _ = await made.outlet(hall.owner, mine.institution)
    officer = await made.officer(hall.owner, mine.outlet)
    whole, bound, stranger = [await hall.client("bank", institution=one.institution) for one in (mine, mine, other)]
    await hall.owner.execute("UPDATE hall.client SET outlet_id = $2 WHERE id = $1", bound.client_id, sister)
    await order(hall.owner, mine)
    where = {"institution_id": mine.institution, "outlet_id": mine.outlet}
    await act(hall.owner, FIRST, "end_officer", officer_id=officer, note="left", **where)
    await close(hall.owner, mine)
    await order(hall.owner, mine, "resume")
    suspended, resumed = "fin.institution.suspended.v1", "fin.institution.resumed.v1"
    heard = await until(lambda: events(whole), lambda some: len(some) >= 4)
    assert [one["type"] for one in heard] == [suspended, "fin.officer.gone.v1", "fin.outlet.closed.v1", resumed]
    assert heard[0]["data"] == {"institution_id": mine.institution, "order_no": "令7"}
    assert heard[1]["data"] == where | {"officer_id": officer}
    assert heard[2]["data"] == where
    assert [one["subjectsequence"] for one in heard] == ["1", "1", "1", "2"]
    assert [one["type"] for one in await events(bound)] == [suspended, resumed], "not what a sister outlet does"
    assert await events(stranger) == []


# ------------------------------------------------------------------------------------------------------- what stops


async def test_a_suspended_institution_grabs_nothing_until_it_is_lifted(owner: Connection) -> None:
    bank, other = [await made.bank(owner) for _ in range(2)]
    fr, next_one = await opened(owner), await opened(owner)
    await order(owner, bank)
    with pytest.raises(Refused, match="institution-suspended"):
        await grab(owner, fr, bank)
    await grab(owner, fr, other)
    with pytest.raises(Refused, match="institution-suspended"):
        await grab(owner, fr, bank)  # before it learns that it is lost
    await order(owner, bank, "resume")
    assert (await grab(owner, next_one, bank))["state"] == "held"


@pytest.mark.parametrize("what", ["suspended", "closed"])
async def test_its_hall_shows_no_cards_and_no_new_ones_come(hall: Hall, what: str) -> None:
    owner = hall.owner
    bank, other = [await made.bank(owner) for _ in range(2)]
    client, rival = [await hall.client("bank", institution=one.institution) for one in (bank, other)]
    await subscribe(owner, bank.outlet, other.outlet)
    fr = await opened(owner)
    assert len((await client.get("/v1/hall")).json()["items"]) == 1
    async with owner.transaction():  # nothing is published between the two
        announced = await opened(owner)
        await owner.execute(
            "UPDATE hall.round SET state = 'announced', published_at = NULL, opens_at = NULL, closes_at = NULL "
            "WHERE fr_id = $1", announced,
        )  # fmt: skip
        await stop(owner, bank, what)
        audience = await told(owner, "SELECT hall.audience($1, 1)", fr)
    assert audience == [other.outlet_no]
    await until(lambda: cards_of(rival), lambda cards: len(cards) == 2)
    assert (await client.get("/v1/hall")).json()["items"] == []
    assert (await client.get(f"/v1/financing-requests/{fr}")).status_code == 404
    assert (await rival.get(f"/v1/financing-requests/{fr}")).json()["reach"] == "card"
    about = [one["subject"] for one in await events(client)]
    assert f"fr/{announced}" not in about, "its card came out after the suspension"
    assert f"fr/{announced}" in [one["subject"] for one in await events(rival)]


@pytest.mark.parametrize("what", ["suspended", "closed"])
async def test_claims_before_an_offer_go_back_to_the_hall_and_what_was_offered_goes_on(
    owner: Connection, what: str
) -> None:
    """P4: the enterprise of a held or contacted claim does not wait for a deadline that cannot be met."""
    bank, other = await made.bank(owner), await made.bank(owner)
    await subscribe(owner, bank.outlet, other.outlet)
    claims = {
        state: await made.claim(owner, await opened(owner), bank, state)
        for state in ("held", "contacted", "offered", "accepted")
    }
    foreign = await made.claim(owner, await opened(owner), other)
    await stop(owner, bank, what)
    ended = ("rejected", "institution-suspended") if what == "suspended" else ("released", "outlet-closed")
    assert await sweep(owner) == [f"claim {ended[0]}"] * 2
    for state in ("held", "contacted"):
        claim = claims[state]
        assert await claim_state(owner, claim.id) == ended
        fr = await owner.fetchrow("SELECT state, edge, round_no FROM hall.financing_request WHERE id = $1", claim.fr)
        assert fr is not None
        assert tuple(fr) == ("broadcast", "T13", 2)
        audience = await owner.fetchval("SELECT audience FROM hall.round WHERE fr_id = $1 AND n = 2", claim.fr)
        assert audience == [other.outlet_no]
        assert await owner.fetchval("SELECT pending_fen FROM hall.exposure WHERE uscc = $1", claim.uscc) == 0
    for claim, state in ((claims["offered"], "offered"), (claims["accepted"], "accepted"), (foreign, "held")):
        assert await claim_state(owner, claim.id) == (state, None)
    held: Any = await owner.fetchval("SELECT sum(held) FROM hall.quota WHERE owner = $1", bank.institution)
    assert held == 0


@pytest.mark.parametrize("what", ["suspended", "closed"])
async def test_an_offer_that_was_made_is_accepted_signed_and_drawn_on(owner: Connection, what: str) -> None:
    bank = await made.bank(owner)
    claim = await made.claim(owner, await opened(owner), bank, "offered")
    await stop(owner, bank, what)
    assert await sweep(owner) == []
    me = enterprise_actor(claim.uscc)
    await act(owner, me, "accept_offer", offer_id=claim.offer, version=await version(owner, claim.fr), sha256=made.HASH)
    facility = (await made.sign(owner, claim))["facility_id"]
    today = str(await told(owner, "SELECT hall.today()"))
    money = {"facility_id": facility, "amount_fen": 10_000_000}
    drawn = await act(owner, bank.actor, "report_drawdown", bank_ref="p1", drawn_on=today, first_loan=False,
                      evidence_sha256=made.HASH, **money)  # fmt: skip
    assert drawn["facility"]["outstanding_fen"] == 10_000_000
    await act(owner, bank.actor, "report_repayment", bank_ref="p2", repaid_on=today, **money)  # L4b: never refused


@pytest.mark.parametrize(("what", "code"), [("suspended", "institution-suspended"), ("closed", "stale-fence")])
async def test_nothing_new_is_begun_under_a_claim_that_the_sweeper_has_not_reached(
    owner: Connection, what: str, code: str
) -> None:
    bank = await made.bank(owner)
    held, contacted = [await made.claim(owner, await opened(owner), bank, state) for state in ("held", "contacted")]
    await stop(owner, bank, what)
    with pytest.raises(Refused, match=code):
        await act(owner, bank.actor, "contact_enterprise", claim_id=held.id, fence=held.fence, method="call",
                  proof_sha256=PROOF)  # fmt: skip
    with pytest.raises(Refused, match=code):
        await act(owner, bank.actor, "make_offer", **offer(contacted))
    for claim, to in ((held, "released"), (contacted, "declined")):  # it may always give back
        await act(owner, bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to=to, reason="ordered")


async def test_h5_a_lifted_institution_does_not_cool_down_and_one_that_closed_its_outlet_does(
    owner: Connection,
) -> None:
    ordered, closing, other = [await made.bank(owner) for _ in range(3)]
    sister, _ = await made.outlet(owner, closing.institution)
    await subscribe(owner, ordered.outlet, sister, other.outlet)
    first, second = [await made.claim(owner, await opened(owner), bank) for bank in (ordered, closing)]
    await order(owner, ordered)
    await close(owner, closing)
    await sweep(owner)
    await order(owner, ordered, "resume")
    await publish(owner)
    everybody = "UPDATE hall.round SET audience = (SELECT array_agg(no) FROM hall.outlet) WHERE n = 2"
    await owner.execute(everybody)
    with pytest.raises(Refused, match="cool-down"):
        await grab(owner, second.fr, closing, outlet_id=sister)
    assert (await grab(owner, first.fr, ordered))["fence"] == 2


async def test_a_suspended_request_keeps_its_claim_until_it_is_resumed(owner: Connection) -> None:
    """Its clocks stand still (T21), and so does the sweeper's hand."""
    bank = await made.bank(owner)
    claim = await made.claim(owner, await opened(owner), bank)

    async def request_order(kind: str) -> None:
        proposed = await act(owner, FIRST, "propose_order", fr_id=claim.fr, kind=kind, order_no="1", note="n")
        await act(owner, SECOND, "approve_order", approval_id=proposed["approval_id"])

    await request_order("suspend")
    await order(owner, bank)
    assert await sweep(owner) == []
    await request_order("resume")
    assert await sweep(owner) == ["claim rejected"]


async def test_a_closed_outlet_grabs_nothing_and_its_sister_does(owner: Connection) -> None:
    bank = await made.bank(owner)
    sister, _ = await made.outlet(owner, bank.institution)
    fr = await opened(owner)
    await close(owner, bank)
    with pytest.raises(Refused, match="not-found"):
        await grab(owner, fr, bank)
    assert (await grab(owner, fr, bank, outlet_id=sister))["state"] == "held"


async def test_an_officer_who_has_gone_is_named_by_no_claim_and_those_he_has_stay(owner: Connection) -> None:
    bank = await made.bank(owner)
    officer = await made.officer(owner, bank.outlet)
    first, second = await opened(owner), await opened(owner)
    won = await grab(owner, first, bank, officer_id=officer)
    where = {"institution_id": bank.institution, "outlet_id": bank.outlet, "officer_id": officer}
    await act(owner, FIRST, "end_officer", note="left", **where)
    with pytest.raises(Refused, match="validation") as refused:
        await grab(owner, second, bank, officer_id=officer)
    assert [one["pointer"] for one in refused.value.members["errors"]] == ["/officer_id"]
    assert await sweep(owner) == []
    assert await claim_state(owner, won["claim_id"]) == ("held", None)
    await act(owner, bank.actor, "contact_enterprise", claim_id=won["claim_id"], fence=won["fence"], method="call",
              proof_sha256=PROOF)  # fmt: skip
    assert await owner.fetchval("SELECT sum(held) FROM hall.quota") == 0


@pytest.mark.parametrize(
    ("what", "code"), [("suspended", "institution-suspended"), ("closed", "not-found"), ("gone", "validation")]
)
async def test_no_claim_begins_behind_the_order(database: str, owner: Connection, what: str, code: str) -> None:
    """A grab that looked before and waits for the counter is refused, not let in by what it had seen."""
    bank = await made.bank(owner)
    officer = await made.officer(owner, bank.outlet)
    fr = await opened(owner)
    second, watcher = await asyncpg.connect(database), await asyncpg.connect(database)
    try:
        async with owner.transaction():
            if what == "gone":
                where = {"institution_id": bank.institution, "outlet_id": bank.outlet, "officer_id": officer}
                await act(owner, FIRST, "end_officer", note="left", **where)
            else:
                await stop(owner, bank, what)
            grabbing = asyncio.create_task(grab(second, fr, bank, officer_id=officer))
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
            await until(lambda: told(watcher, waiting, urlsplit(database).path[1:]), bool)
        with pytest.raises(Refused, match=code):
            await grabbing
    finally:
        await second.close()
        await watcher.close()
    assert await owner.fetchval("SELECT count(*) FROM hall.claim") == 0


@pytest.mark.parametrize("what", ["suspended", "closed"])
async def test_an_idle_claim_that_may_go_on_again_before_the_sweeper_has_its_lock_goes_on(
    owner: Connection, what: str
) -> None:
    """What the sweeper had seen is asked again behind the lock."""
    bank = await made.bank(owner)
    claim = await made.claim(owner, await opened(owner), bank)
    await stop(owner, bank, what)
    if what == "suspended":
        await order(owner, bank, "resume")
    else:
        await owner.execute("UPDATE hall.outlet SET is_closed = false, closed_at = NULL WHERE id = $1", bank.outlet)
    assert await told(owner, "SELECT hall.fire_idle_claim($1)", claim.id) == "late"
    assert await claim_state(owner, claim.id) == ("held", None)
