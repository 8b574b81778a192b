"""The request's machine (hall.md §3), on the database alone: each edge, its guard, its deadline."""

from datetime import datetime, timedelta

import asyncpg
import pytest

from api.database import Connection
from api.invariants import violated as broken
from tests.hall import made
from tests.hall.made import Refused, act, actor, enterprise_actor
from tests.hall.steps import (
    CASE_MANAGER,
    FIRST,
    decided,
    drafted,
    need,
    order,
    pass_time,
    publish,
    revoke,
    state,
    submit,
    subscribe,
    sweep,
    told,
    version,
)


async def test_t1_every_unknown_name_is_told_at_once(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    with pytest.raises(Refused) as refused:
        await drafted(owner, uscc, scheme="nosuch", purpose="houses", channel="street")
    assert refused.value.code == "validation"
    assert [one["pointer"] for one in refused.value.members["errors"]] == ["/scheme", "/channel", "/purpose"]
    assert await owner.fetchval("SELECT count(*) FROM hall.financing_request") == 0


async def test_t1_nobody_asks_for_another_enterprise(owner: Connection) -> None:
    mine, other = await made.enterprise(owner), await made.enterprise(owner)
    with pytest.raises(Refused, match="not-found"):
        await act(owner, enterprise_actor(mine), "draft_request", **need(other))


async def test_t1_the_same_need_of_a_second_channel_joins_and_its_source_is_kept(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    joined = await act(
        owner, actor("clerk", "street"), "draft_request", **need(uscc, channel="xinyidai", channel_ref="77")
    )
    assert joined == {"fr_id": fr, "joined": True}
    sources = await owner.fetch("SELECT channel, channel_ref FROM hall.request_source ORDER BY channel")
    assert [tuple(one) for one in sources] == [("portal", "1"), ("xinyidai", "77")]
    assert await owner.fetchval("SELECT count(*) FROM hall.financing_request") == 1


async def test_t1_what_each_channel_said_is_kept_and_the_enterprises_own_word_is_the_drafts(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    listed = need(uscc, channel="park-list", amount_fen=30_000_000, term_months=6)
    fr = (await act(owner, actor("clerk", "park"), "draft_request", **listed))["fr_id"]
    said = await act(owner, enterprise_actor(uscc), "draft_request", **need(uscc))
    assert said == {"fr_id": fr, "joined": True, "state": "draft", "version": 1, "amount_fen": 50_000_000,
                    "term_months": 12}  # fmt: skip
    again = await act(owner, actor("clerk", "park"), "draft_request", **listed)
    assert again == {"fr_id": fr, "joined": True}, "it is the enterprise's own now, and the clerk no longer submits it"
    assert await told(owner, "SELECT amount_fen FROM hall.financing_request WHERE id = $1", fr) == 50_000_000
    with pytest.raises(Refused, match="not-found"):
        await act(
            owner, actor("clerk", "park"), "submit_request", fr_id=fr, version=1, consent_id="co", **decided(uscc)
        )
    kept = await owner.fetch("SELECT channel, amount_fen, term_months FROM hall.request_source ORDER BY no")
    assert [tuple(one) for one in kept] == [("park-list", 30_000_000, 6), ("portal", 50_000_000, 12)]


async def test_i23_a_need_after_signing_is_a_request_of_its_own(owner: Connection) -> None:
    """A renewal, or a second need: the signed one no longer seeks a bank."""
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    await made.facility(owner, uscc, await made.bank(owner), 20_000_000, purpose="orders")
    said = await act(owner, enterprise_actor(uscc), "draft_request", **need(uscc, purpose="orders"))
    assert (said["joined"], said["amount_fen"]) == (False, 50_000_000)
    assert (await submit(owner, uscc, said["fr_id"]))["state"] == "quoted"


async def test_t2_the_second_draft_of_a_need_is_told_which_request_stands(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    first = await drafted(owner, uscc)
    second = await made.request(owner, uscc, "draft", purpose=need(uscc)["purpose"])
    await submit(owner, uscc, first)
    with pytest.raises(Refused, match="duplicate-request") as refused:
        await submit(owner, uscc, second)
    assert refused.value.members["existing"] == first


async def test_s4_submitting_quotes_in_one_transaction_with_a_history_row_a_step(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    said = await submit(owner, uscc, fr)
    assert (said["state"], said["version"], said["quote_fen"]) == ("quoted", 4, 60_000_000)
    steps = await owner.fetch(
        "SELECT from_state, to_state, edge, cause FROM hall.history WHERE subject_id = $1 ORDER BY seq", fr
    )
    assert [tuple(one)[:3] for one in steps] == [
        ("-", "draft", "T1"),
        ("draft", "submitted", "T2"),
        ("submitted", "screened", "T4"),
        ("screened", "quoted", "T6"),
    ]
    assert len({one["cause"] for one in steps[1:]}) == 1
    assert await owner.fetchval("SELECT limit_fen FROM hall.exposure WHERE uscc = $1", uscc) == 60_000_000


@pytest.mark.parametrize(
    ("scheme", "outcome", "limit_fen", "reached"),
    [
        ("torch-points", "ineligible", 0, "INELIGIBLE"),
        ("torch-points", "refer", 0, "assisted"),
        ("torch-points", "eligible", 0, "assisted"),
        ("torch-points", "eligible", 1_000_000, "quoted"),
        ("ordinary", "refer", 0, "quoted"),
        ("ordinary", "ineligible", 0, "INELIGIBLE"),
    ],
)
async def test_t5_t6_t7_the_outcome_decides_where_a_request_goes(
    owner: Connection, scheme: str, outcome: str, limit_fen: int, reached: str
) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc, scheme=scheme)
    assert (await submit(owner, uscc, fr, outcome=outcome, limit_fen=limit_fen))["state"] == reached
    cases = await owner.fetchval("SELECT count(*) FROM hall.hall_case WHERE subject = $1", f"fr/{fr}")
    assert cases == (reached == "assisted")


async def test_t2_no_submission_without_a_consent_in_force(owner: Connection) -> None:
    uscc, other = await made.enterprise(owner), await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    for consent in (await made.consent(owner, other), "co_" + "0" * 32):
        with pytest.raises(Refused, match="consent-missing"):
            await act(owner, enterprise_actor(uscc), "submit_request", fr_id=fr, version=1, consent_id=consent,
                      **decided(uscc))  # fmt: skip
    assert await state(owner, fr) == "draft"
    assert await owner.fetchval("SELECT count(*) FROM hall.decision") == 0


async def test_s2_a_transition_names_the_version_it_saw(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    fr = await made.request(owner, uscc, "quoted")
    with pytest.raises(Refused, match="stale-version") as refused:
        await act(
            owner, enterprise_actor(uscc), "broadcast_request", fr_id=fr, version=1, amount_fen=1_000_000, wishes=[]
        )
    assert refused.value.members == {"version": 4}


async def test_t8_a_binding_request_stays_within_its_quote_and_what_is_available(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    fr = await made.request(owner, uscc, "quoted", quote_fen=60_000_000)
    bank = await made.bank(owner)
    await made.facility(owner, uscc, bank, 20_000_000)
    asked = {"fr_id": fr, "version": 4, "wishes": []}
    with pytest.raises(Refused, match="over-limit") as refused:
        await act(owner, enterprise_actor(uscc), "broadcast_request", amount_fen=40_000_001, **asked)
    assert refused.value.members["available_fen"] == 40_000_000
    said = await act(owner, enterprise_actor(uscc), "broadcast_request", amount_fen=40_000_000, **asked)
    assert said["state"] == "broadcast"


async def test_t8_an_ordinary_need_may_ask_for_more_than_its_quote(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=29_000_000)
    fr = await made.request(owner, uscc, "quoted", scheme="ordinary", quote_binds=False, quote_fen=29_000_000)
    said = await act(
        owner, enterprise_actor(uscc), "broadcast_request", fr_id=fr, version=4, amount_fen=50_000_000, wishes=[]
    )
    assert said["state"] == "broadcast"


async def test_t8_those_wished_for_come_first_then_the_district_then_all(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000, district="350211")
    wished, near, far, silent = [await made.bank(owner) for _ in range(4)]
    await owner.execute("UPDATE hall.outlet SET district = '350203' WHERE id = $1", far.outlet)
    await subscribe(owner, near.outlet, far.outlet)
    fr = await made.request(owner, uscc, "quoted")
    await act(owner, enterprise_actor(uscc), "broadcast_request", fr_id=fr, version=4, amount_fen=50_000_000,
              wishes=[wished.institution])  # fmt: skip
    for _ in range(3):
        await publish(owner)
        await pass_time(owner, days=9)
        await sweep(owner)
    rounds = await owner.fetch("SELECT n, audience FROM hall.round WHERE fr_id = $1 ORDER BY n", fr)
    everybody = sorted(bank.outlet_no for bank in (wished, near, far, silent))
    assert [(one["n"], one["audience"]) for one in rounds] == [
        (0, [wished.outlet_no]), (1, [near.outlet_no]), (2, sorted([near.outlet_no, far.outlet_no])), (3, everybody),
    ]  # fmt: skip


async def test_t10_t11_rounds_follow_each_other_until_a_person_helps(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    await subscribe(owner, bank.outlet)
    fr = await made.request(owner, uscc, "broadcast")
    for _ in range(3):
        await publish(owner)
        await pass_time(owner, days=9)
        await sweep(owner)
    assert await state(owner, fr) == "assisted"
    edges = await owner.fetch(
        "SELECT edge FROM hall.history WHERE subject_id = $1 AND machine = 'request' ORDER BY seq", fr
    )
    assert [one["edge"] for one in edges][-3:] == ["T10", "T10", "T11"]
    assert await owner.fetchval("SELECT count(*) FROM hall.round WHERE state IN ('announced', 'open')") == 0
    said = await act(owner, CASE_MANAGER, "assist_request", fr_id=fr, version=await version(owner, fr), to="broadcast",
                     note="the branch of the street wants it")  # fmt: skip
    assert said["state"] == "broadcast"
    said = await owner.fetchrow("SELECT n, audience FROM hall.round WHERE fr_id = $1 ORDER BY n DESC LIMIT 1", fr)
    assert said is not None
    assert said["n"] > 3
    assert said["audience"] == [bank.outlet_no]


async def test_t20_the_case_manager_declines_with_a_note_and_the_case_is_closed(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, outcome="refer", limit_fen=0)
    said = await act(owner, CASE_MANAGER, "assist_request", fr_id=fr, version=4, to="DECLINED", note="sold in May")
    assert said["state"] == "DECLINED"
    assert (
        await owner.fetchval("SELECT closing_note FROM hall.hall_case WHERE subject = $1", f"fr/{fr}") == "sold in May"
    )


async def cases_of(owner: Connection, subject: str) -> list[tuple[str, str, bool]]:
    """Kind, lamp and whether it is closed of the cases of a subject."""
    found = await owner.fetch(
        "SELECT kind, lamp, closed_at IS NOT NULL FROM hall.hall_case WHERE subject = $1 ORDER BY opened_at, id",
        subject,
    )
    return [tuple(one) for one in found]


@pytest.mark.parametrize("ended_by", ["withdrawal", "order", "case manager"])
async def test_p4_the_case_of_a_request_with_a_person_ends_with_the_request(owner: Connection, ended_by: str) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, outcome="refer", limit_fen=0)
    assert await cases_of(owner, f"fr/{fr}") == [("assisted", "red", False)]
    if ended_by == "withdrawal":
        await act(owner, enterprise_actor(uscc), "withdraw_request", fr_id=fr, version=4, note=None)
    elif ended_by == "order":
        await order(owner, fr, "cancel")
    else:
        await act(owner, CASE_MANAGER, "assist_request", fr_id=fr, version=4, to="DECLINED", note="sold")
    assert await cases_of(owner, f"fr/{fr}") == [("assisted", "red", True)]
    await pass_time(owner, days=60)
    assert await sweep(owner) == []


async def test_p4_a_request_that_nobody_assists_in_time_is_one_case_and_the_supervisors(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, outcome="refer", limit_fen=0)
    await pass_time(owner, days=40)
    await sweep(owner)
    assert await cases_of(owner, f"fr/{fr}") == [("assisted", "red", False)]
    assert await told(owner, "SELECT overdue_at IS NOT NULL FROM hall.hall_case") is True
    await act(owner, CASE_MANAGER, "assist_request", fr_id=fr, version=4, to="DECLINED", note="too late")
    assert await cases_of(owner, f"fr/{fr}") == [("assisted", "red", True)]


@pytest.mark.parametrize("ended_by", ["drawdown", "order", "settlement"])
async def test_t16_the_case_of_a_line_without_a_drawdown_ends_when_there_is_one_or_can_be_none(
    owner: Connection, ended_by: str
) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 20_000_000)
    fr = await told(owner, "SELECT id FROM hall.financing_request")
    await pass_time(owner, days=40)
    await sweep(owner)
    assert await cases_of(owner, f"fr/{fr}") == [("no-drawdown", "red", False)]
    today = str(await told(owner, "SELECT hall.today()"))
    if ended_by == "drawdown":
        await act(owner, bank.actor, "report_drawdown", facility_id=facility, amount_fen=1_000_000, drawn_on=today,
                  bank_ref="b", first_loan=False, evidence_sha256=made.HASH)  # fmt: skip
    elif ended_by == "order":
        await order(owner, fr, "cancel")
    else:
        await act(owner, bank.actor, "report_status", facility_id=facility, state="settled", as_of=today,
                  days_past_due=0, five_class="normal", restructured=False)  # fmt: skip
    assert await cases_of(owner, f"fr/{fr}") == [("no-drawdown", "red", True)]


@pytest.mark.parametrize("reached", ["draft", "quoted", "broadcast", "held", "contacted", "offered", "accepted"])
async def test_t18_withdrawing_ends_round_claims_and_reservation(owner: Connection, reached: str) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    is_claimed = reached in ("held", "contacted", "offered", "accepted")
    fr = await made.request(owner, uscc, "broadcast" if is_claimed else reached)
    claim = await made.claim(owner, fr, bank, reached) if is_claimed else None
    said = await act(
        owner, enterprise_actor(uscc), "withdraw_request", fr_id=fr, version=await version(owner, fr), note="sold"
    )
    assert said["state"] == "WITHDRAWN"
    assert await owner.fetchval("SELECT count(*) FROM hall.round WHERE state IN ('announced', 'open')") == 0
    assert await owner.fetchval("SELECT pending_fen FROM hall.exposure WHERE uscc = $1", uscc) == 0
    if claim is not None:
        assert await owner.fetchval("SELECT state FROM hall.claim WHERE id = $1", claim.id) == "rejected"
        assert await owner.fetchval("SELECT sum(held) FROM hall.quota") == 0


async def test_t18_nothing_is_withdrawn_after_signing(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    await made.facility(owner, uscc, bank, 20_000_000)
    fr = await owner.fetchrow("SELECT id, version FROM hall.financing_request")
    assert fr is not None
    with pytest.raises(Refused, match="illegal-transition"):
        await act(owner, enterprise_actor(uscc), "withdraw_request", fr_id=fr["id"], version=fr["version"], note=None)


async def test_t19_cancelling_needs_four_eyes(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    await made.facility(owner, uscc, bank, 20_000_000)
    fr = await told(owner, "SELECT id FROM hall.financing_request")
    with pytest.raises(Refused, match="four-eyes-required"):
        await order(owner, fr, "cancel", approver=FIRST)
    assert await state(owner, fr) == "signed"
    assert (await order(owner, fr, "cancel"))["state"] == "CANCELLED"
    assert await owner.fetchval("SELECT committed_fen FROM hall.exposure WHERE uscc = $1", uscc) == 0


async def test_t21_a_suspended_request_is_hidden_and_its_clocks_stand_still(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    fr = await made.request(owner, uscc, "broadcast")
    await order(owner, fr, "suspend")
    grab = {"fr_id": fr, "round": 1, "outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1,
            "card_version": 5, "officer_id": None}  # fmt: skip
    with pytest.raises(Refused, match="not-found"):
        await act(owner, bank.actor, "grab", **grab)
    await pass_time(owner, days=9)
    assert await sweep(owner) == []
    await order(owner, fr, "resume")
    with pytest.raises(Refused, match="gate-not-open"):
        await act(owner, bank.actor, "grab", **grab)  # F1: nobody acts before the card is published again
    await publish(owner)
    assert (await act(owner, bank.actor, "grab", **grab))["state"] == "held"


async def at(owner: Connection, moment: str) -> None:
    """Set the hall's clock to a moment of Beijing."""
    await owner.execute(
        """
        INSERT INTO hall.clock_offset (tenant, "offset")
        VALUES ('default', ($1::timestamp AT TIME ZONE 'Asia/Shanghai') - clock_timestamp())
        ON CONFLICT (tenant) DO UPDATE SET "offset" = excluded."offset"
        """,
        datetime.fromisoformat(moment),
    )


async def test_t21_what_was_left_of_working_time_is_left_when_the_order_is_lifted(owner: Connection) -> None:
    """Monday 10:30 with 90 minutes to the deadline, lifted after hours: due on Tuesday at 10:30, not in the night."""
    await at(owner, "2026-11-30T10:00")
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    claim = await made.claim(owner, await made.request(owner, uscc, "broadcast"), bank)
    await owner.execute(
        """
        UPDATE hall.claim SET deadline = hall.hall_now() + interval '2 hours', deadline_from = hall.hall_now(),
            deadline_minutes = 120
        """
    )
    await at(owner, "2026-11-30T10:30")
    await order(owner, claim.fr, "suspend")
    await at(owner, "2026-11-30T17:30")
    await order(owner, claim.fr, "resume")
    local = "SELECT (deadline AT TIME ZONE 'Asia/Shanghai')::text FROM hall.claim"
    assert (await told(owner, local))[:16] in ("2026-12-01 10:30", "2026-12-01 10:31")  # whole minutes
    assert await told(owner, "SELECT deadline_minutes FROM hall.claim") in (90, 91)


async def test_t21_while_the_clocks_stand_nobody_is_told_that_his_time_is_over(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    held_ = await made.claim(owner, await made.request(owner, uscc, "broadcast", amount_fen=1_000, purpose="a"), bank)
    offered = await made.claim(
        owner, await made.request(owner, uscc, "broadcast", amount_fen=1_000, purpose="b"), bank, "offered"
    )
    for claim in (held_, offered):
        await order(owner, claim.fr, "suspend")
    await pass_time(owner, days=20)
    fenced = {"claim_id": held_.id, "fence": held_.fence}
    side = enterprise_actor(uscc)
    tries = [
        (bank.actor, "contact_enterprise", fenced | {"method": "call", "proof_sha256": made.HASH}),
        (bank.actor, "give_up_claim", fenced | {"to": "released", "reason": "busy"}),
        (side, "reject_claim", {"claim_id": held_.id, "reason": "too-slow"}),
        (side, "agree_extension", {"claim_id": held_.id}),
        (side, "accept_offer", {"offer_id": offered.offer, "version": await version(owner, offered.fr),
                                "sha256": made.HASH}),
    ]  # fmt: skip
    for who, name, args in tries:
        with pytest.raises(Refused, match="request-suspended"):
            await act(owner, who, name, **args)
    with pytest.raises(Refused, match="stale-fence"):
        await act(owner, bank.actor, "contact_enterprise", claim_id=held_.id, fence=held_.fence + 7, method="call",
                  proof_sha256=made.HASH)  # fmt: skip
    look = "SELECT hall.look_at_dossier($1::text::jsonb, $2) ->> 'uscc'"
    assert await told(owner, look, made.json_of(bank.actor), held_.id) == uscc


async def test_t21_an_order_is_lifted_without_a_gift_of_time_to_what_began_meanwhile(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    consent = await made.consent(owner, uscc)
    fr = await made.request(owner, uscc, "broadcast", consent_id=consent)
    await order(owner, fr, "suspend")
    await pass_time(owner, days=20)
    await revoke(owner, uscc, consent)  # goes to a person, whose time begins now
    before = await told(owner, "SELECT deadline FROM hall.financing_request WHERE id = $1", fr)
    await order(owner, fr, "resume")
    after = await told(owner, "SELECT deadline FROM hall.financing_request WHERE id = $1", fr)
    assert after - before < timedelta(minutes=2)


async def test_t21_the_case_of_a_suspended_request_waits_with_it(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    await submit(owner, uscc, fr, outcome="refer", limit_fen=0)
    await order(owner, fr, "suspend")
    await pass_time(owner, days=60)
    assert await sweep(owner) == []
    assert (await broken(owner))["I15"] == []
    await order(owner, fr, "resume")
    assert await sweep(owner) == []
    both = "SELECT due_at - deadline FROM hall.hall_case k JOIN hall.financing_request f ON k.subject = 'fr/' || f.id"
    assert abs(await told(owner, both)) < timedelta(minutes=2)
    await pass_time(owner, days=40)
    assert "case opened" in await sweep(owner)
    assert await told(owner, "SELECT overdue_at IS NOT NULL FROM hall.hall_case") is True


async def test_t21_s6_what_was_left_stays_left_when_the_calendar_arrives_after_the_order(owner: Connection) -> None:
    """A new calendar counts from where the order was lifted, for request, claim, drawdown and case alike."""
    await owner.execute("CREATE TEMP TABLE known AS SELECT * FROM hall.calendar_year")
    await owner.execute("DELETE FROM hall.calendar_year")
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    bank = await made.bank(owner)
    facility = await made.facility(owner, uscc, bank, 20_000_000)
    signed = await told(owner, "SELECT fr_id FROM hall.facility")
    await act(owner, enterprise_actor(uscc), "ask_drawdown", facility_id=facility, amount_fen=1_000)
    claim = await made.claim(owner, await made.request(owner, uscc, "broadcast", amount_fen=1_000, purpose="a"), bank)
    await owner.execute(
        """
        UPDATE hall.claim SET deadline = hall.add_working_minutes(hall.hall_now(), 900),
            deadline_from = hall.hall_now(), deadline_minutes = 900, deadline_is_provisional = true WHERE id = $1
        """,
        claim.id,
    )
    assisted = await drafted(owner, uscc, purpose="equipment")
    await submit(owner, uscc, assisted, outcome="refer", limit_fen=0)
    for fr in (signed, claim.fr, assisted):
        await order(owner, fr, "suspend")
    await pass_time(owner, days=20)
    for fr in (signed, claim.fr, assisted):
        await order(owner, fr, "resume")
    clocks = """
        SELECT 'fr' AS what, deadline AS due, deadline_is_provisional AS is_provisional FROM hall.financing_request
        WHERE deadline_minutes IS NOT NULL
        UNION ALL SELECT 'claim', deadline, deadline_is_provisional FROM hall.claim WHERE deadline IS NOT NULL
        UNION ALL SELECT 'drawdown', due_at, due_is_provisional FROM hall.drawdown
        UNION ALL SELECT 'case', due_at, due_is_provisional FROM hall.hall_case ORDER BY 1, 2
    """
    stood = [tuple(one) for one in await owner.fetch(clocks)]
    assert [one[0] for one in stood] == ["case", "claim", "drawdown", "fr", "fr"]
    assert [one[0] for one in stood if not one[2]] == []
    await owner.execute("INSERT INTO hall.calendar_year SELECT * FROM known UNION ALL SELECT 2027")
    assert await told(owner, "SELECT hall.recompute_provisional()") == 5
    assert [tuple(one) for one in await owner.fetch(clocks)] == [(what, due, False) for what, due, _ in stood]


async def test_t21_quote_offer_drawdown_and_review_stand_still_with_the_request(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=90_000_000)
    bank = await made.bank(owner)
    offered = await made.request(owner, uscc, "broadcast", amount_fen=1_000, purpose="a")
    claim = await made.claim(owner, offered, bank, "offered")
    facility = await made.facility(owner, uscc, bank, 20_000_000, purpose="b")
    signed = await told(owner, "SELECT fr_id FROM hall.facility WHERE id = $1", facility)
    await act(owner, enterprise_actor(uscc), "ask_drawdown", facility_id=facility, amount_fen=1_000)
    quoted = await made.request(owner, uscc, "quoted", purpose="c")
    await owner.execute("UPDATE hall.financing_request SET deadline = quote_expires_at WHERE id = $1", quoted)
    clocks = """
        SELECT (SELECT deadline FROM hall.financing_request WHERE id = $1) AS quote,
            (SELECT quote_expires_at FROM hall.financing_request WHERE id = $1) AS expiry,
            (SELECT deadline FROM hall.claim WHERE id = $2) AS offer,
            (SELECT due_at FROM hall.drawdown WHERE facility_id = $3) AS drawdown,
            (SELECT deadline <= hall.start_of(line_ends_on + 2) FROM hall.facility WHERE id = $3) AS line
        """
    before = await owner.fetchrow(clocks, quoted, claim.id, facility)
    for fr in (offered, signed, quoted):
        await order(owner, fr, "suspend")
    await pass_time(owner, days=20)
    assert await sweep(owner) == []
    for fr in (offered, signed, quoted):
        await order(owner, fr, "resume")
    after = await owner.fetchrow(clocks, quoted, claim.id, facility)
    assert before is not None
    assert after is not None
    for clock in ("quote", "offer", "drawdown"):
        assert timedelta(days=17) <= after[clock] - before[clock] < timedelta(days=24), clock
    assert after["expiry"] == before["expiry"], "credit facts do not stand still: the firm is quoted anew, free"
    assert after["line"], "the end of a line is the contract's"
    assert await told(owner, "SELECT valid_until < hall.hall_now() FROM hall.offer WHERE claim_id = $1", claim.id)
    said = await act(owner, enterprise_actor(uscc), "accept_offer", offer_id=claim.offer, sha256=made.HASH,
                     version=await version(owner, offered))  # fmt: skip
    assert said["state"] == "accepted"


async def test_t3_drafts_and_quotes_expire_and_never_early(owner: Connection) -> None:
    uscc = await made.enterprise(owner)
    fr = await drafted(owner, uscc)
    await pass_time(owner, days=29.9)
    assert await sweep(owner) == []
    await pass_time(owner, days=0.2)
    assert await sweep(owner) == ["request expired"]
    assert await state(owner, fr) == "EXPIRED"


async def test_s1_only_the_edges_of_the_machine_exist_even_for_the_owner(owner: Connection) -> None:
    fr = await made.request(owner, await made.enterprise(owner), "quoted")
    with pytest.raises(asyncpg.PostgresError, match="no edge T9 from quoted to claimed"):
        await owner.execute("SELECT hall.move_request($1, 'T9', 'claimed', 'x', now())", fr)
    with pytest.raises(asyncpg.PostgresError, match="without a new version"):
        await owner.execute("UPDATE hall.financing_request SET state = 'signed' WHERE id = $1", fr)


async def test_p2_every_step_has_one_history_row_and_one_event_and_neither_can_change(owner: Connection) -> None:
    uscc = await made.enterprise(owner, limit_fen=60_000_000)
    fr = await made.request(owner, uscc, "broadcast")
    await made.claim(owner, fr, await made.bank(owner), "offered")
    alone = await owner.fetchval(
        """
        SELECT count(*) FROM hall.history h FULL JOIN hall.event e ON e.id = h.event_id
        WHERE h.seq IS NULL OR e.id IS NULL
        """
    )
    assert alone == 0
    for table in ("hall.history", "hall.event"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await owner.execute(f"UPDATE {table} SET transaction_id = transaction_id" if "event" in table else
                                f"DELETE FROM {table}")  # fmt: skip
