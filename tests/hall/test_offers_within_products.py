"""A claim and an offer keep to the product that they name (K1, K3)."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from api import simulated_parties as parties
from api.database import Connection
from tests.hall import made
from tests.hall.made import Bank, Refused, act
from tests.hall.steps import (
    grab,
    hall,
    held,
    offer,
    told,
)

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
