"""The claim (hall.md §3, §4) on the database alone: the grab, its guards, the lease, the fence, offers."""

import asyncio
import itertools
from datetime import timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api import simulated_parties as parties
from api.database import Connection
from api.routes.claims import NewOffer
from tests.hall import made
from tests.hall.made import Bank, Claim, Refused, act, enterprise_actor
from tests.hall.test_request_machine import decided, need, pass_time, publish, subscribe, sweep, told, version

RICH = 60_000_000
PROOF = "cd" * 32


async def hall(owner: Connection, banks: int = 1, **given: Any) -> tuple[str, list[Bank]]:
    """A request in broadcast, its first round open to so many banks."""
    found = [await made.bank(owner, **given) for _ in range(banks)]
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=RICH), "broadcast")
    return fr, found


async def grab(owner: Connection, fr: str, bank: Bank, **given: Any) -> dict[str, Any]:
    seen = await owner.fetchrow("SELECT n, card_version FROM hall.round WHERE fr_id = $1 ORDER BY n DESC LIMIT 1", fr)
    assert seen is not None
    args = {"fr_id": fr, "round": seen["n"], "outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1,
            "card_version": seen["card_version"], "officer_id": None}  # fmt: skip
    return await act(owner, bank.actor, "grab", **args | given)


async def held(owner: Connection, state: str = "held", **offered: Any) -> Claim:
    fr, (bank,) = await hall(owner)
    return await made.claim(owner, fr, bank, state, **offered)


def offer(claim: Claim, **given: Any) -> dict[str, Any]:
    price = {"rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 65, "fees": [{"name": "fee", "amount_fen": 100_000}]}
    terms = {"line_months": 12, "draw_months": 12, "repayment": "bullet", "revolving": True, "above_quote_reason": None}
    open_points = {"cleared": [], "conditions": ["guarantor-signs"]}
    return {"claim_id": claim.id, "fence": claim.fence, "amount_fen": 50_000_000} | price | terms | open_points | given


async def row(owner: Connection, claim_id: str) -> asyncpg.Record:
    found = await owner.fetchrow("SELECT * FROM hall.claim WHERE id = $1", claim_id)
    assert found is not None
    return found


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


async def test_k6_the_enterprise_turns_a_bank_away_without_penalty(owner: Connection) -> None:
    claim = await held(owner, "offered")
    await act(owner, enterprise_actor(claim.uscc), "reject_claim", claim_id=claim.id, reason="too-dear")
    fr = await owner.fetchrow("SELECT id, state FROM hall.financing_request")
    assert fr is not None
    assert fr["state"] == "broadcast"
    await publish(owner)
    assert (await grab(owner, fr["id"], claim.bank))["fence"] == 2  # no cool-down for the bank either


async def test_k3_t12_an_offer_states_its_annual_cost_with_all_fees(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    said = await act(owner, claim.bank.actor, "make_offer", **offer(claim))
    # 3.65 % and a fee of 1,000 CNY on 500,000 CNY for twelve months: 20 bp more
    assert (said["annual_rate_bp"], said["annual_cost_bp"]) == (365, 385)
    assert await owner.fetchval("SELECT state FROM hall.financing_request") == "offered"
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await owner.execute("UPDATE hall.offer SET spread_bp = 0")


def test_k3_an_offer_whose_draw_outlasts_its_line_is_refused_at_the_door() -> None:
    terms = offer(Claim("cl", "fr", "code", Bank("in", "ol", 1, "pr", "cn"), 1, None))
    body = {name: value for name, value in terms.items() if name not in ("claim_id", "fence")}
    NewOffer.model_validate(body | {"line_months": 12, "draw_months": 12})
    with pytest.raises(ValidationError, match="a draw cannot last longer than the line"):
        NewOffer.model_validate(body | {"line_months": 12, "draw_months": 13})


async def test_k3_the_conditions_of_the_decision_are_cleared_before_an_offer(owner: Connection) -> None:
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner)
    me = enterprise_actor(uscc)
    fr = (await act(owner, me, "draft_request", **need(uscc)))["fr_id"]
    measured = decided(uscc)
    measured["decision"]["answer"]["conditions"] = ["pbc_report", "reconcile_invoices"]
    measured["decision_text"] = orjson.dumps(measured["decision"]["answer"]).decode()
    consent = await made.consent(owner, uscc)
    await act(owner, me, "submit_request", fr_id=fr, version=1, consent_id=consent, **measured)
    await act(owner, me, "broadcast_request", fr_id=fr, version=4, amount_fen=50_000_000, wishes=[bank.institution])
    await publish(owner)
    won = await grab(owner, fr, bank)
    held = {"claim_id": won["claim_id"], "fence": won["fence"]}
    await act(owner, bank.actor, "contact_enterprise", method="call", proof_sha256=PROOF, **held)
    shown = await told(
        owner, "SELECT hall.look_at_dossier($1::text::jsonb, $2)", orjson.dumps(bank.actor).decode(), won["claim_id"]
    )
    conditions = orjson.loads(shown)["conditions"]
    terms = offer(Claim(won["claim_id"], fr, uscc, bank, won["fence"], None))
    with pytest.raises(Refused, match="conditions-open") as refused:
        await act(owner, bank.actor, "make_offer", **{**terms, "cleared": ["pbc_report"]})
    assert refused.value.members == {"conditions": ["reconcile_invoices"]}
    said = await act(owner, bank.actor, "make_offer", **terms | {"cleared": conditions})
    assert said["cleared"] == conditions


async def test_k3_what_is_wrong_with_an_offer_is_told_at_once(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    with pytest.raises(Refused, match="validation") as refused:
        await act(owner, claim.bank.actor, "make_offer", **offer(claim, amount_fen=10**13, spread_bp=-400))
    wrong = {(one["pointer"], one["rule"]) for one in refused.value.members["errors"]}
    assert {pointer for pointer, _ in wrong} == {"/amount_fen", "/spread_bp"}
    assert len(wrong) == 3  # outside the product, and above what was asked under a binding quote


async def test_k3_the_hash_of_an_offer_is_of_its_own_members_and_both_sides_can_compute_it(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    made_ = await act(
        owner, claim.bank.actor, "make_offer", **offer(claim, fees=[{"name": '评估费 "A"', "amount_fen": 7}])
    )
    signed = {name: value for name, value in made_.items() if name != "sha256"}
    assert sha256(rfc8785.dumps(signed)).hexdigest() == made_["sha256"]
    shown = orjson.loads(await told(owner, "SELECT hall.offers_view($1::text::jsonb, $2)::text",
                                    made.json_of(enterprise_actor(claim.uscc)), claim.fr))[0]  # fmt: skip
    assert {name: value for name, value in shown.items() if name not in ("claim_state", "live_until")} == made_
    assert shown["live_until"] >= made_["valid_until"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_the_databases_canonical_json_is_that_of_rfc_8785(database: str, value: Any) -> None:
    async def canonical() -> str:
        connection = await asyncpg.connect(database)
        try:
            return await connection.fetchval("SELECT hall.jcs($1::text::jsonb)", orjson.dumps(value).decode())
        finally:
            await connection.close()

    assert asyncio.run(canonical()) == rfc8785.dumps(value).decode()


PRODUCT_TERMS: dict[str, Any] = {
    "rate": {"basis": "LPR1Y", "from_bp": 320, "to_bp": 420}, "line_months": 24, "draw_months": 12,
    "repayments": ["bullet", "equal-principal"], "is_revolving": True, "prepayment_fee_bp": 100,
    "valid_from": "2020-01-01", "valid_to": None, "eligibility": {},
}  # fmt: skip

BEYOND: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"rate_basis": "LPR5Y"}, {"pointer": "/rate_basis", "basis": "LPR1Y"}),
    ({"spread_bp": 121}, {"pointer": "/spread_bp", "from_bp": 320, "to_bp": 420}),
    ({"spread_bp": 19}, {"pointer": "/spread_bp", "from_bp": 320, "to_bp": 420}),
    ({"line_months": 25}, {"pointer": "/line_months", "line_months": 24}),
    ({"line_months": 24, "draw_months": 13}, {"pointer": "/draw_months", "draw_months": 12}),
    ({"repayment": "equal-instalments"}, {"pointer": "/repayment", "repayments": ["bullet", "equal-principal"]}),
    ({"revolving": False}, {"pointer": "/revolving", "is_revolving": True}),
    ({"prepayment_fee_bp": 101}, {"pointer": "/prepayment_fee_bp", "prepayment_fee_bp": 100}),
]


async def terms_of(owner: Connection, bank: Bank, **given: Any) -> None:
    """State the terms of the bank's product, or some of its columns."""
    columns = {"terms": PRODUCT_TERMS} | given
    for name, value in columns.items():
        told = made.json_of(value) if name == "terms" else value
        cast = "$2::text::jsonb" if name == "terms" else "$2"
        await owner.execute(f"UPDATE hall.product SET {name} = {cast} WHERE id = $1", bank.product, told)


async def test_k3_an_offer_keeps_to_all_that_the_product_states(owner: Connection) -> None:
    """Every broken rule at once, each with its pointer and its bound; at the bounds it is an offer."""
    claim = await held(owner, "contacted")
    await terms_of(owner, claim.bank, max_fen=40_000_000)
    for changed, bound in BEYOND:
        with pytest.raises(Refused, match="validation") as refused:
            await act(owner, claim.bank.actor, "make_offer", **offer(claim, amount_fen=40_000_000) | changed)
        (error,) = refused.value.members["errors"]
        assert error["rule"]
        assert {name: value for name, value in error.items() if name != "rule"} == bound
    all_at_once = {name: value for changed, _ in reversed(BEYOND) for name, value in changed.items()}
    with pytest.raises(Refused, match="validation") as refused:
        await act(owner, claim.bank.actor, "make_offer", **offer(claim, amount_fen=50_000_000) | all_at_once)
    pointers = [error["pointer"] for error in refused.value.members["errors"]]
    assert sorted(pointers) == sorted({bound["pointer"] for _, bound in BEYOND} | {"/amount_fen"} - {"/line_months"})
    edge = {"spread_bp": 120, "line_months": 24, "repayment": "equal-principal", "amount_fen": 40_000_000}
    said = await act(owner, claim.bank.actor, "make_offer", **offer(claim) | edge)
    assert (said["annual_rate_bp"], said["prepayment_fee_bp"]) == (420, 100), "the product's fee, since none was told"


@pytest.mark.parametrize(("day", "stands"), [(-1, False), (0, True)])
async def test_k3_an_offer_is_made_while_the_product_is_valid(owner: Connection, day: int, stands: bool) -> None:
    claim = await held(owner, "contacted")
    last = (await told(owner, "SELECT hall.today()") + timedelta(days=day)).isoformat()
    await terms_of(owner, claim.bank, terms=PRODUCT_TERMS | {"valid_to": last}, withdrawn_at=None)
    if stands:
        await act(owner, claim.bank.actor, "make_offer", **offer(claim))
        return
    with pytest.raises(Refused, match="validation") as refused:
        await act(owner, claim.bank.actor, "make_offer", **offer(claim))
    assert [(one["pointer"], one["valid_to"]) for one in refused.value.members["errors"]] == [("", last)]


async def test_k3_what_the_product_leaves_open_and_its_withdrawal_bind_nothing(owner: Connection) -> None:
    claim = await held(owner, "contacted")
    await terms_of(
        owner, claim.bank, terms=dict.fromkeys(PRODUCT_TERMS), withdrawn_at=await told(owner, "SELECT now()")
    )
    strange = {"rate_basis": "fixed", "spread_bp": 9000, "line_months": 120, "draw_months": 120, "revolving": False,
               "prepayment_fee_bp": 10_000}  # fmt: skip
    await act(owner, claim.bank.actor, "make_offer", **offer(claim) | strange)


SERVES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # columns of the product, changed terms, what the refusal tells
    "ended yesterday": ({}, {"valid_to": "2020-01-02"}, {"valid_from": "2020-01-01", "valid_to": "2020-01-02"}),
    "begins later": ({}, {"valid_from": "2100-01-01"}, {"valid_from": "2100-01-01", "valid_to": None}),
    "below the band": ({"max_fen": 49_999_999}, {}, {"min_fen": 1_000_000, "max_fen": 49_999_999}),
    "above the band": ({"min_fen": 100_000_000}, {}, {"min_fen": 100_000_000, "max_fen": 10**12}),
    "too short": ({}, {"line_months": 11}, {"line_months": 11}),
    "first loans": ({"category": "first-loan"}, {}, {"category": "first-loan"}),
    "elsewhere": ({}, {"eligibility": {"districts": ["350206", "350100"]}}, {"districts": ["350206", "350100"]}),
    "no such industry": ({}, {"eligibility": {"industry_sections_excluded": ["K", "I"]}},
        {"industry_sections_excluded": ["K", "I"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVES)
async def test_k1_a_product_that_cannot_serve_the_card_is_refused(owner: Connection, name: str) -> None:
    columns, changed, told_bound = SERVES[name]
    fr, (bank,) = await hall(owner)
    await owner.execute(
        "UPDATE hall.round SET card = card || $1::text::jsonb", made.json_of({"first_loan": False, "term_months": 12})
    )
    await terms_of(owner, bank, terms=PRODUCT_TERMS | changed, **columns)
    with pytest.raises(Refused, match="validation") as refused:
        await grab(owner, fr, bank)
    (error,) = refused.value.members["errors"]
    assert error.pop("rule")
    assert error == {"pointer": "/product_id"} | told_bound
    assert await owner.fetchval("SELECT count(*) FROM hall.claim") == 0


async def test_k1_whatever_may_serve_the_card_is_let_in_and_all_that_is_wrong_is_told(owner: Connection) -> None:
    """The edges of band, term and validity; an area stands for its districts; what is open refuses nothing."""
    fr, (bank, other) = await hall(owner, 2)
    today = (await told(owner, "SELECT hall.today()")).isoformat()
    just = {"line_months": 12, "valid_from": today, "valid_to": today}
    places = {"eligibility": {"districts": ["350200"], "industry_sections_excluded": ["K"]}}
    await terms_of(owner, bank, terms=PRODUCT_TERMS | just | places, min_fen=99_999_999, category="first-loan")
    await owner.execute("UPDATE hall.financing_request SET amount_fen = 60000000")  # band 0050-0100
    await terms_of(owner, other, terms=PRODUCT_TERMS | {"line_months": 1, "valid_to": "2020-02-02"}, max_fen=1_000_000)
    with pytest.raises(Refused, match="validation") as refused:
        await grab(owner, fr, other, officer_id="oc_none")
    pointers = [error["pointer"] for error in refused.value.members["errors"]]
    assert pointers == ["/product_id"] * 3 + ["/officer_id"]
    assert (await grab(owner, fr, bank))["state"] == "held"


@pytest.mark.parametrize(("least", "most"), [(1_000_000, 60_000_000), (99_999_999, 10**12), (70_000_000, 10**12)])
async def test_k1_a_refused_or_accepted_product_tells_no_more_of_the_amount_than_the_band(
    owner: Connection, least: int, most: int
) -> None:
    """Two requests of one band and unlike amounts answer alike, so that no product feels out the amount (§11)."""
    bank = await made.bank(owner)
    await terms_of(owner, bank, min_fen=least, max_fen=most)
    answers = []
    for amount in (50_000_000, 99_999_999):
        uscc = await made.enterprise(owner, limit_fen=10**9)
        fr = await made.request(owner, uscc, amount_fen=amount, quote_fen=10**9)
        answers.append((await grab(owner, fr, bank))["state"])
    assert answers == ["held", "held"]


async def test_k1_the_simulated_banks_know_which_of_their_products_serves_a_card(owner: Connection) -> None:
    """What a bank of the demonstration thinks of a card is what the hall says: each product, band, term and kind."""
    (bank,) = await parties.found(owner, parties.made_up_banks(1, 1, 1, 300), "2020-01-01")
    answers = set()
    for goods in bank.goods:
        for band, term, first_loan in itertools.product(parties.BANDS, (6, 12, 24, 36, 48), (True, False, None)):
            card = {"amount_band": band, "term_months": term, "first_loan": first_loan, "district": "350211"}
            fits = await told(
                owner, "SELECT hall.wrong_product(p, $2::text::jsonb) = '[]' FROM hall.product p WHERE id || '@1' = $1",
                goods.id, made.json_of(card),
            )  # fmt: skip
            assert goods.serves(card) == fits, (goods.name, card)
            answers.add(fits)
    assert answers == {True, False}


async def test_k3_above_a_reference_quote_a_reason_is_demanded(owner: Connection) -> None:
    bank = await made.bank(owner)
    uscc = await made.enterprise(owner, limit_fen=29_000_000)
    fr = await made.request(owner, uscc, "broadcast", scheme="ordinary", quote_binds=False, quote_fen=29_000_000)
    claim = await made.claim(owner, fr, bank, "contacted")
    with pytest.raises(Refused, match="above_quote_reason"):
        await act(owner, bank.actor, "make_offer", **offer(claim))
    said = await act(owner, bank.actor, "make_offer", **offer(claim, above_quote_reason="orders-in-hand"))
    assert said["above_quote_reason"] == "orders-in-hand"


async def test_t14_k4_exactly_the_offer_that_was_shown_is_accepted(owner: Connection) -> None:
    claim = await held(owner, "offered", amount_fen=29_000_000)
    me = enterprise_actor(claim.uscc)
    asked = {"offer_id": claim.offer, "version": await version(owner, claim.fr)}
    with pytest.raises(Refused, match="hash-mismatch"):
        await act(owner, me, "accept_offer", sha256="00" * 32, **asked)
    with pytest.raises(Refused, match="not-found"):
        await act(owner, enterprise_actor(await made.enterprise(owner)), "accept_offer", sha256=made.HASH, **asked)
    said = await act(owner, me, "accept_offer", sha256=made.HASH, **asked)
    assert said["state"] == "accepted"
    share = await owner.fetchrow("SELECT institution_id, pending_fen FROM hall.exposure_share WHERE pending_fen > 0")
    assert share is not None
    assert tuple(share) == (claim.bank.institution, 29_000_000)  # L3: adjusted to the offer


async def test_k7_an_expired_offer_is_not_accepted_swept_or_not(owner: Connection) -> None:
    claim = await held(owner, "offered")
    asked = {"offer_id": claim.offer, "version": await version(owner, claim.fr), "sha256": made.HASH}
    await pass_time(owner, days=20)
    with pytest.raises(Refused, match="offer-expired"):
        await act(owner, enterprise_actor(claim.uscc), "accept_offer", **asked)
    assert "claim expired" in await sweep(owner)
    with pytest.raises(Refused, match=r"offer-expired|stale-version"):
        await act(owner, enterprise_actor(claim.uscc), "accept_offer", **asked)


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
