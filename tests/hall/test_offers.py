"""Offers (K3, K4, K7): what is checked, what is hashed, what is accepted."""

import asyncio
from hashlib import sha256
from typing import Any

import asyncpg
import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.database import Connection
from api.routes.claims import NewOffer
from tests.hall import made
from tests.hall.made import Bank, Claim, Refused, act, enterprise_actor
from tests.hall.steps import (
    PROOF,
    decided,
    grab,
    held,
    need,
    offer,
    pass_time,
    publish,
    sweep,
    told,
    version,
)


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
