"""The claim (hall.md §3, §4) on the database alone: the grab, its guards, the lease, the fence."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from api.database import Connection
from tests.hall import made
from tests.hall.made import Refused, act, enterprise_actor
from tests.hall.steps import (
    FIRST,
    PROOF,
    RICH,
    grab,
    hall,
    held,
    pass_time,
    publish,
    row,
    subscribe,
    sweep,
    told,
)


async def test_c1_c3_the_first_wins_with_a_fence_and_a_lease_and_the_amount_is_reserved(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    won = await grab(owner, fr, bank)
    assert (won["state"], won["fence"], won["round"]) == ("held", 1, 1)
    assert await owner.fetchval("SELECT state FROM hall.financing_request WHERE id = $1", fr) == "claimed"
    assert await owner.fetchval("SELECT pending_fen FROM hall.exposure") == 50_000_000
    minutes = await owner.fetchval("SELECT deadline_minutes FROM hall.claim")
    assert minutes == await owner.fetchval("SELECT hall.setting('contact_minutes')")


async def test_c4_losing_says_the_round_and_nothing_about_the_winner(owner: Connection) -> None:
    fr, (winner, loser) = await hall(owner, 2)
    await grab(owner, fr, winner)
    with pytest.raises(Refused, match="grab-lost") as lost:
        await grab(owner, fr, loser)
    said = lost.value.members
    assert said["round"] == 1
    assert said["next_round_possible"] == "unknown"
    assert not {winner.institution, winner.outlet, winner.client} & set(str(said).replace("'", " ").split())


async def test_c7_a_won_claim_answers_the_same_again_also_after_the_lease(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    first = await act(owner, bank.actor, "grab", key="one", fr_id=fr, round=1, outlet_id=bank.outlet,
                      product_id=bank.product, product_version=1, card_version=5, officer_id=None)  # fmt: skip
    await pass_time(owner, days=9)
    await sweep(owner)
    again = await act(owner, bank.actor, "grab", key="one", fr_id=fr, round=1, outlet_id=bank.outlet,
                      product_id=bank.product, product_version=1, card_version=5, officer_id=None)  # fmt: skip
    assert again == first
    assert await owner.fetchval("SELECT count(*) FROM hall.claim") == 1


async def test_c5_before_the_gate_nobody_claims(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    await owner.execute("UPDATE hall.round SET opens_at = now() + interval '1 hour'")
    with pytest.raises(Refused, match="gate-not-open") as early:
        await grab(owner, fr, bank)
    assert 3_500_000 < early.value.members["retry_after_ms"] <= 3_600_000
    assert await owner.fetchval("SELECT count(*) FROM hall.idempotency") == 0  # I5: not stored


async def test_c1_after_the_close_nobody_claims_swept_or_not(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    await owner.execute("UPDATE hall.round SET closes_at = now() - interval '1 second'")
    with pytest.raises(Refused, match="round-closed"):
        await grab(owner, fr, bank)


async def test_c6_outside_the_audience_the_request_does_not_exist(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    late = await made.bank(owner)
    for who, outlet in ((late, late.outlet), (late, bank.outlet), (bank, late.outlet)):
        with pytest.raises(Refused, match="not-found"):
            await grab(owner, fr, who, outlet_id=outlet)


async def test_a_grab_names_the_card_it_saw_and_a_product_in_force(owner: Connection) -> None:
    fr, (bank, other) = await hall(owner, 2)
    with pytest.raises(Refused, match="stale-version"):
        await grab(owner, fr, bank, card_version=4)
    with pytest.raises(Refused, match="validation"):
        await grab(owner, fr, bank, product_id=other.product)
    await owner.execute("UPDATE hall.product SET withdrawn_at = now() WHERE id = $1", bank.product)
    with pytest.raises(Refused, match="validation"):
        await grab(owner, fr, bank)


@pytest.mark.parametrize("of", ["institution", "outlet", "officer"])
async def test_h1_claims_held_without_contact_are_capped(owner: Connection, of: str) -> None:
    bank = await made.bank(owner, hold_cap=1 if of == "institution" else 100)
    officer = await made.officer(owner, bank.outlet, hold_cap=1 if of == "officer" else 100)
    if of == "outlet":
        await owner.execute("UPDATE hall.outlet SET hold_cap = 1")
    first, second = [
        await made.request(owner, await made.enterprise(owner, limit_fen=RICH), "broadcast") for _ in range(2)
    ]
    won = await grab(owner, first, bank, officer_id=officer)
    with pytest.raises(Refused, match="hold-cap-reached") as capped:
        await grab(owner, second, bank, officer_id=officer)
    assert capped.value.members == {"of": of}
    await act(owner, bank.actor, "contact_enterprise", claim_id=won["claim_id"], fence=won["fence"], method="call",
              proof_sha256=PROOF)  # fmt: skip
    await grab(owner, second, bank, officer_id=officer)


async def test_h1_where_the_outlet_has_officers_a_claim_names_one_so_that_his_cap_is_not_passed_by(
    owner: Connection,
) -> None:
    fr, (bank,) = await hall(owner)
    officer = await made.officer(owner, bank.outlet, hold_cap=1)
    with pytest.raises(Refused, match="validation") as refused:
        await grab(owner, fr, bank)
    assert refused.value.members["errors"] == [{"pointer": "/officer_id", "rule": "an officer of the outlet"}]
    sister, _ = await made.outlet(owner, bank.institution)
    await owner.execute("UPDATE hall.round SET audience = (SELECT array_agg(no) FROM hall.outlet)")
    with pytest.raises(Refused, match="validation"):
        await grab(owner, fr, bank, outlet_id=sister, officer_id=officer)
    where = {"institution_id": bank.institution, "outlet_id": bank.outlet, "officer_id": officer}
    await act(owner, FIRST, "end_officer", note="left", **where)
    assert (await grab(owner, fr, bank))["state"] == "held", "none is left to name"


async def test_h2_claims_a_day_are_capped_and_the_next_day_counts_anew(owner: Connection) -> None:
    bank = await made.bank(owner, daily_claim_cap=1)
    first, second = [
        await made.request(owner, await made.enterprise(owner, limit_fen=RICH), "broadcast") for _ in range(2)
    ]
    await grab(owner, first, bank)
    with pytest.raises(Refused, match="daily-claim-cap"):
        await grab(owner, second, bank)
    await owner.execute("UPDATE hall.quota SET day = day - 1 WHERE day IS NOT NULL")
    await grab(owner, second, bank)


async def test_h4_h5_a_lapsed_claim_returns_the_request_and_its_institution_cools_down_for_a_round(
    owner: Connection,
) -> None:
    fr, (bank, other) = await hall(owner, 2)
    sister, _ = await made.outlet(owner, bank.institution)
    await subscribe(owner, bank.outlet, other.outlet, sister)
    await grab(owner, fr, bank)
    await pass_time(owner, days=9)
    assert await sweep(owner) == ["claim lapsed"]
    assert await owner.fetchval("SELECT pending_fen FROM hall.exposure") == 0
    assert await owner.fetchval("SELECT sum(held) FROM hall.quota") == 0
    await publish(owner)
    audience = await owner.fetchval("SELECT audience FROM hall.round WHERE n = 2")
    assert audience == [other.outlet_no]
    # Even in the audience, it would be refused.
    await owner.execute("UPDATE hall.round SET audience = (SELECT array_agg(no) FROM hall.outlet) WHERE n = 2")
    for outlet in (bank.outlet, sister):
        with pytest.raises(Refused, match="cool-down"):
            await grab(owner, fr, bank, outlet_id=outlet)
    assert (await grab(owner, fr, other))["fence"] == 2


async def test_k2_contact_lengthens_the_lease_and_frees_the_hold(owner: Connection) -> None:
    claim = await held(owner)
    before = await row(owner, claim.id)
    said = await act(owner, claim.bank.actor, "contact_enterprise", claim_id=claim.id, fence=claim.fence,
                     method="visit", proof_sha256=PROOF)  # fmt: skip
    assert said["state"] == "contacted"
    assert (await row(owner, claim.id))["deadline"] > before["deadline"]
    assert await owner.fetchval("SELECT sum(held) FROM hall.quota") == 0


@pytest.mark.parametrize(
    "write",
    [
        ("contact_enterprise", {"method": "call", "proof_sha256": PROOF}),
        ("give_up_claim", {"to": "released", "reason": "too-busy"}),
    ],
)
async def test_c3_an_old_fence_and_an_ended_lease_write_nothing(
    owner: Connection, write: tuple[str, dict[str, Any]]
) -> None:
    claim = await held(owner)
    name, args = write
    with pytest.raises(Refused, match="stale-fence"):
        await act(owner, claim.bank.actor, name, claim_id=claim.id, fence=claim.fence - 1, **args)
    await pass_time(owner, days=2)  # the lease has ended, and no sweeper came by
    with pytest.raises(Refused, match="stale-fence"):
        await act(owner, claim.bank.actor, name, claim_id=claim.id, fence=claim.fence, **args)
    assert await owner.fetchval("SELECT count(*) FROM hall.fenced_write") == 0


async def test_another_banks_claim_does_not_exist(owner: Connection) -> None:
    claim = await held(owner)
    thief = await made.bank(owner)
    with pytest.raises(Refused, match="not-found"):
        await act(owner, thief.actor, "contact_enterprise", claim_id=claim.id, fence=claim.fence, method="call",
                  proof_sha256=PROOF)  # fmt: skip


async def test_h3_one_extension_if_the_enterprise_agrees(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    before = await row(owner, claim.id)
    await act(owner, enterprise_actor(claim.uscc), "agree_extension", claim_id=claim.id)
    assert (await row(owner, claim.id))["deadline"] > before["deadline"]
    with pytest.raises(Refused, match="extension-used"):
        await act(owner, enterprise_actor(claim.uscc), "agree_extension", claim_id=claim.id)


@pytest.mark.parametrize("to", ["released", "declined"])
async def test_k6_t13_giving_up_goes_to_the_next_round(owner: Connection, to: str) -> None:
    claim = await held(owner, "contacted")
    said = await act(
        owner, claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to=to, reason="sector"
    )
    assert said["state"] == to
    fr = await owner.fetchrow("SELECT state, edge, round_no FROM hall.financing_request")
    assert fr is not None
    assert (fr["state"], fr["edge"]) == ("broadcast", "T13")
    assert await owner.fetchval("SELECT pending_fen FROM hall.exposure") == 0


async def test_k6_h5_who_never_spoke_with_the_enterprise_releases_and_cools_down_and_cannot_decline(
    owner: Connection,
) -> None:
    claim = await held(owner)
    await subscribe(owner, claim.bank.outlet, (await made.bank(owner)).outlet)
    give_up = {"claim_id": claim.id, "fence": claim.fence, "reason": "sector"}
    with pytest.raises(Refused, match="illegal-transition") as refused:
        await act(owner, claim.bank.actor, "give_up_claim", to="declined", **give_up)
    assert refused.value.members["state"] == "held"
    assert await owner.fetchval("SELECT count(*) FROM hall.fenced_write") == 0
    await act(owner, claim.bank.actor, "give_up_claim", to="released", **give_up)
    await publish(owner)
    await owner.execute("UPDATE hall.round SET audience = (SELECT array_agg(no) FROM hall.outlet) WHERE n = 2")
    with pytest.raises(Refused, match="cool-down"):
        await grab(owner, claim.fr, claim.bank)


async def test_k6_the_enterprise_turns_a_bank_away_without_penalty(owner: Connection) -> None:
    claim = await held(owner, "offered")
    await act(owner, enterprise_actor(claim.uscc), "reject_claim", claim_id=claim.id, reason="too-dear")
    fr = await owner.fetchrow("SELECT id, state FROM hall.financing_request")
    assert fr is not None
    assert fr["state"] == "broadcast"
    await publish(owner)
    assert (await grab(owner, fr["id"], claim.bank))["fence"] == 2  # no cool-down for the bank either


async def test_k5_an_accepted_offer_that_is_not_signed_in_time_lapses(owner: Connection) -> None:
    await held(owner, "accepted")
    await pass_time(owner, days=20)
    assert (await sweep(owner))[0] == "claim lapsed"
    assert await owner.fetchval("SELECT pending_fen FROM hall.exposure") == 0


async def test_k8_t15_signing_makes_the_facility_and_the_reservation_a_commitment(owner: Connection) -> None:
    claim = await held(owner, "accepted")
    await made.sign(owner, claim)
    fr = await owner.fetchrow("SELECT state FROM hall.financing_request")
    exposure = await owner.fetchrow("SELECT pending_fen, committed_fen FROM hall.exposure")
    assert (await row(owner, claim.id))["state"] == "done"
    assert fr is not None
    assert fr["state"] == "signed"
    assert exposure is not None
    assert tuple(exposure) == (0, 50_000_000)


async def test_x2_the_dossier_ends_with_the_claim_and_every_look_is_logged(owner: Connection) -> None:
    claim = await held(owner)
    look = "SELECT hall.look_at_dossier($1::text::jsonb, $2)"
    me = orjson.dumps(claim.bank.actor).decode()
    assert await owner.fetchval(look, me, claim.id) is not None
    stranger = orjson.dumps((await made.bank(owner)).actor).decode()
    assert await owner.fetchval(look, stranger, claim.id) is None
    await act(
        owner, claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="released", reason="busy"
    )
    assert await owner.fetchval(look, me, claim.id) is None
    logged = await owner.fetch("SELECT institution_id, what FROM hall.access_log")
    assert [tuple(one) for one in logged] == [(claim.bank.institution, "dossier")]


async def test_x2_the_limit_ends_with_the_lease_and_is_the_holding_outlets_alone(owner: Connection) -> None:
    """The consent names the claiming institution: a client bound to a sister outlet is none, nor who holds no more."""
    claim = await held(owner)
    bank, uscc = claim.bank, claim.uscc
    sister, _ = await made.outlet(owner, bank.institution)
    whole, own, other = [bank.actor | {"outlet": outlet} for outlet in (None, bank.outlet, sister)]

    async def withheld(who: dict[str, Any]) -> str | None:
        look = "SELECT look ->> 'withheld' FROM hall.look_at_limits($1::text::jsonb, $2, 'financing') AS look"
        return await owner.fetchval(look, made.json_of(who), [uscc])

    async def sees_consent(who: dict[str, Any]) -> bool:
        return await told(owner, "SELECT hall.holds_claim($1::text::jsonb, $2)", made.json_of(who), uscc)

    assert [await withheld(who) for who in (whole, own, other)] == [None, None, "consent-missing"]
    assert [await sees_consent(who) for who in (whole, own, other)] == [True, True, False]
    await owner.execute(
        "UPDATE hall.claim SET deadline = hall.hall_now() WHERE id = $1", claim.id
    )  # no sweeper came by
    assert [await withheld(who) for who in (whole, own, other)] == ["consent-missing"] * 3
    assert not await sees_consent(whole)


async def test_p5_without_a_consent_the_holder_sees_neither_who_nor_how_much_and_every_look_is_logged(
    owner: Connection,
) -> None:
    claim = await held(owner)
    me = made.json_of(claim.bank.actor)

    async def look(what: str, at: str) -> dict[str, Any]:
        return orjson.loads(await told(owner, f"SELECT hall.look_at_{what}($1::text::jsonb, $2)::text", me, at))

    places = (("request", claim.fr), ("exposure", claim.uscc), ("dossier", claim.id))
    shown = [await look(*place) for place in places]
    assert all(one["uscc"] == claim.uscc for one in shown)
    consent = await told(owner, "SELECT consent_id FROM hall.financing_request WHERE id = $1", claim.fr)
    await act(owner, enterprise_actor(claim.uscc), "revoke_consent", uscc=claim.uscc, consent_id=consent)
    withheld = [await look(*place) for place in places]
    assert [one["withheld"] for one in withheld] == ["consent-revoked"] * 3
    assert claim.uscc not in str(withheld)
    assert "50000000" not in str(withheld)
    assert (withheld[0]["reach"], withheld[0]["state"]) == ("holder", "claimed")
    logged = await owner.fetch("SELECT what, consent_id, withheld FROM hall.access_log ORDER BY id")
    assert [tuple(one) for one in logged] == [
        *((what, consent, None) for what, _ in places),
        *((what, None, "consent-revoked") for what, _ in places),
    ]


async def test_p5_the_holder_sees_the_feature_values_where_the_consent_to_the_report_names_the_facts(
    owner: Connection,
) -> None:
    """A consent to the facts alone adds nothing; a consent to both goes before one to the report that ends later."""
    bank, uscc = await made.bank(owner), await made.enterprise(owner)
    quote = await made.quote(owner, uscc, limit_fen=50_000_000)
    now = datetime.now(UTC)
    narrow = await made.consent(owner, uscc, data_sets=["limit", "report"], valid_to=now + timedelta(days=500))
    claim = await made.claim(owner, await made.request(owner, uscc, consent_id=narrow, quote_id=quote), bank)

    async def look() -> dict[str, Any]:
        asked = "SELECT hall.look_at_dossier($1::text::jsonb, $2)::text"
        return orjson.loads(await told(owner, asked, made.json_of(bank.actor), claim.id))

    async def carried_by() -> str:
        return await told(owner, "SELECT consent_id FROM hall.access_log ORDER BY id DESC LIMIT 1")

    withheld = [{"part": "facts", "why": "consent-missing"}]
    for _ in ("without one to the facts", "with one to the facts alone"):
        shown = await look()
        assert (shown["withheld_parts"], await carried_by()) == (withheld, narrow)
        assert shown["report"]["grade"] == "B1"
        assert "features" not in shown["report"]
        assert "own_word" not in str(shown)
        await made.consent(owner, uscc, data_sets=["facts"])
    wide = await made.consent(owner, uscc, data_sets=["facts", "report"], valid_to=now + timedelta(days=400))
    shown = await look()
    assert (shown["withheld_parts"], await carried_by()) == ([], wide)
    assert wide in shown["watermark"]
    assert shown["report"]["features"]["points_own_word_bp"] == 2600


async def test_s6_a_deadline_beyond_the_known_calendar_is_provisional(owner: Connection) -> None:
    fr, (bank,) = await hall(owner)
    year = await told(owner, "SELECT max(year) FROM hall.calendar_year")
    now = await told(owner, "SELECT hall.hall_now()")
    await pass_time(owner, days=(year + 1 - now.year) * 365.25 + 30)
    await owner.execute("UPDATE hall.round SET closes_at = hall.hall_now() + interval '1 day'")
    await owner.execute("UPDATE hall.financing_request SET quote_expires_at = hall.hall_now() + interval '30 days'")
    await owner.execute(
        "INSERT INTO hall.consent SELECT (jsonb_populate_record(c, jsonb_build_object('id', 'co_2', "
        "'valid_to', hall.hall_now() + interval '1 day'))).* FROM hall.consent c"
    )
    won = await grab(owner, fr, bank)
    assert (await row(owner, won["claim_id"]))["deadline_is_provisional"]
    assert (await row(owner, won["claim_id"]))["deadline"] - (now + timedelta(days=365)) > timedelta(0)


async def test_s6_a_deadline_that_an_act_moves_while_the_calendar_arrives_is_reckoned_from_its_new_beginning(
    database: str, owner: Connection
) -> None:
    await owner.execute("DELETE FROM hall.calendar_year; DELETE FROM hall.working_day")
    fr, (bank, other) = await hall(owner, banks=2)
    won = await grab(owner, fr, bank)
    second, _ = await hall(owner)
    released = await grab(owner, second, other)
    years = """
        INSERT INTO hall.calendar_year SELECT extract(year FROM hall.today())::integer + n FROM generate_series(0, 1) n
    """
    beside = await asyncpg.connect(database)
    try:
        async with owner.transaction():
            await act(owner, bank.actor, "contact_enterprise", claim_id=won["claim_id"], fence=1, method="call",
                      proof_sha256=PROOF)  # fmt: skip
            await act(owner, other.actor, "give_up_claim", claim_id=released["claim_id"], fence=1, to="released",
                      reason="x")  # fmt: skip
            await beside.execute(years)
            anew = asyncio.create_task(beside.fetchval("SELECT hall.recompute_provisional()"))
            async with asyncio.timeout(20):
                while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await anew
    finally:
        beside.terminate()
    moved = await row(owner, won["claim_id"])
    assert not moved["deadline_is_provisional"]
    assert moved["deadline"] == await told(
        owner,
        "SELECT hall.add_working_minutes(contacted_at, hall.setting('offer_minutes')) FROM hall.claim WHERE id = $1",
        won["claim_id"],
    )
    assert (await row(owner, released["claim_id"]))["deadline"] is None


async def test_s6_when_the_calendar_arrives_all_that_is_provisional_is_set_anew_and_nothing_else(
    owner: Connection,
) -> None:
    """Every working day of the next three weeks turns out to be a holiday."""
    await owner.execute("DELETE FROM hall.calendar_year; DELETE FROM hall.working_day")
    fr, (bank,) = await hall(owner)
    won = await grab(owner, fr, bank)
    await act(owner, bank.actor, "contact_enterprise", claim_id=won["claim_id"], fence=1, method="call",
              proof_sha256=PROOF)  # fmt: skip
    uscc = await told(owner, "SELECT uscc FROM hall.financing_request WHERE id = $1", fr)
    await act(owner, enterprise_actor(uscc), "agree_extension", claim_id=won["claim_id"])
    draft = await made.request(owner, await made.enterprise(owner), "draft")
    await owner.execute("SELECT hall.move_request($1, 'T2', 'submitted', 'x', hall.hall_now(), '{}', 480)", draft)
    firm = await made.enterprise(owner, limit_fen=RICH)
    facility = await made.facility(owner, firm, bank, 50_000_000)
    drawdown = await act(owner, enterprise_actor(firm), "ask_drawdown", facility_id=facility, amount_fen=1_000_000)
    assert drawdown["due_is_provisional"]
    case = await told(owner, "SELECT hall.open_case('test', 'fr/x', 'a note', hall.hall_now())")
    provisional = {
        "claim": ("deadline", won["claim_id"], "deadline_from", "deadline_minutes", "deadline_is_provisional"),
        "financing_request": ("deadline", draft, "deadline_from", "deadline_minutes", "deadline_is_provisional"),
        "drawdown": ("due_at", drawdown["drawdown_id"], "asked_at", "due_minutes", "due_is_provisional"),
        "hall_case": ("due_at", case, "opened_at", "due_minutes", "due_is_provisional"),
    }

    async def seen() -> dict[str, tuple[Any, ...]]:
        rows: dict[str, tuple[Any, ...]] = {}
        for table, (due, name, begins, minutes, flag) in provisional.items():
            found = await owner.fetchrow(
                f"SELECT {due}, hall.add_working_minutes({begins}, {minutes}), {flag} FROM hall.{table} WHERE id = $1",
                name,
            )
            assert found is not None
            rows[table] = tuple(found)
        return rows

    published = """
        SELECT opens_at, closes_at FROM hall.round UNION ALL SELECT valid_until, made_at FROM hall.offer
        UNION ALL SELECT deadline, null FROM hall.facility
    """
    before, told_before = await seen(), await owner.fetch(published)
    assert all(due == counted and flag for due, counted, flag in before.values())
    await owner.execute(
        """
        INSERT INTO hall.working_day SELECT hall.today() + n, false FROM generate_series(0, 21) n;
        INSERT INTO hall.calendar_year SELECT extract(year FROM hall.today())::integer + n FROM generate_series(0, 1) n
        """
    )
    assert await told(owner, "SELECT hall.recompute_provisional()") >= len(provisional)
    after = await seen()
    assert all(due == counted and not flag for due, counted, flag in after.values())
    assert all(after[table][0] - before[table][0] > timedelta(days=10) for table in provisional)
    assert after["claim"][0] == await told(
        owner,
        "SELECT hall.add_working_minutes(contacted_at, hall.setting('offer_minutes') "
        "+ hall.setting('offer_extension_minutes')) FROM hall.claim WHERE id = $1",
        won["claim_id"],
    ), "an extension counts on from where the deadline itself began"
    assert await owner.fetch(published) == told_before
    assert await told(owner, "SELECT hall.recompute_provisional()") == 0
