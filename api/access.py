"""What a caller may read of requests, claims and offers. How far anybody reaches is decided by hall.reach (A7)."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from api.calls import Caller
from api.database import Connection
from api.problems import Problem

Json = Mapping[str, Any]


class RoundView(BaseModel):
    """The latest round; times are null until the card is published."""

    n: int
    state: Literal["announced", "open", "taken", "closed"]
    opens_at: str | None
    closes_at: str | None
    card_version: int


class Card(BaseModel):
    """All that a bank sees before a claim: no name, no code, no contact, no exact amount."""

    amount_band: str
    term_months: int
    purpose: str
    scheme: str
    quote_binds: bool
    industry_section: str | None
    district: str | None
    first_loan: bool | None


class Source(BaseModel):
    """A channel that brought the request, and what it said of the need."""

    channel: str
    channel_ref: str
    amount_fen: int
    term_months: int
    first_loan: bool | None
    received_at: str


class ClaimView(BaseModel):
    """One claim, for its institution and the enterprise."""

    claim_id: str
    fr_id: str
    round: int
    institution_id: str
    outlet_id: str
    officer_id: str | None
    product_id: str
    fence: int
    state: str
    version: int
    claimed_at: str
    contacted_at: str | None
    ended_at: str | None
    lease_until: str | None
    deadline_is_provisional: bool
    extensions: int
    first_opinion_due: str | None


class OwnClaims(BaseModel):
    """Claims in the order in which they were won."""

    items: list[ClaimView]
    as_of: str


class RequestView(BaseModel):
    """A request as far as the caller reaches: `whole`, `holder` of its claim, or only its `card`.

    A holder's look is logged with the consent that allows it; where none does, `withheld` is the code that says why,
    and no member names the enterprise or an amount.
    """

    fr_id: str
    reach: Literal["whole", "holder", "card"]
    withheld: Literal["consent-missing", "consent-revoked"] | None = None
    round: RoundView | None
    card: Card | None = None
    uscc: str | None = None
    state: str | None = None
    version: int | None = None
    scheme: str | None = None
    quote_binds: bool | None = None
    amount_fen: int | None = None
    term_months: int | None = None
    purpose: str | None = None
    first_loan: bool | None = None
    quote_id: str | None = None
    quote_fen: int | None = None
    quote_expires_at: str | None = None
    deadline: str | None = None
    deadline_is_provisional: bool | None = None
    suspended: bool | None = None
    created_at: str | None = None
    wishes: list[str] | None = None
    under_appeal: bool | None = None
    sources: list[Source] | None = None
    claims: list[ClaimView] | None = None


class Step(BaseModel):
    """One transition, as history keeps it."""

    machine: str
    id: str
    seq: int
    from_: str
    to: str
    edge: str
    actor: str
    at: str

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class OfferFee(BaseModel):
    """One fee of an offer."""

    name: str
    amount_fen: int


class OfferView(BaseModel):
    """An offer; `annual_cost_bp` is the rate plus all fees over the term of a draw, per year, rounded up.

    `sha256` is over the canonical JSON (RFC 8785) of all members before it: drop it and what stands behind it, and
    compute the same. `live_until`, while the offer can be accepted: `valid_until`, and as much later as the request was
    suspended.
    """

    offer_id: str
    claim_id: str
    fr_id: str
    institution_id: str
    amount_fen: int
    rate_basis: str
    basis_bp: int
    spread_bp: int
    annual_rate_bp: int
    annual_cost_bp: int
    line_months: int
    draw_months: int
    repayment: str
    revolving: bool
    fees: list[OfferFee]
    prepayment_fee_bp: int | None
    cleared: list[str]
    conditions: list[str]
    above_quote_reason: str | None
    valid_until: str
    made_at: str
    sha256: str
    claim_state: str | None = None
    live_until: str | None = None


class Withheld(BaseModel):
    """A part that was not shown, and why."""

    part: str
    why: str


class Dossier(BaseModel):
    """Who the enterprise is, for the holder of a live claim. Every look is logged with the consent that allows it.

    `conditions` are what the decision left to the bank to clear before it offers. `report` needs a consent to the data
    set `report`, and the feature values in it (`features`) one that names `facts` as well; `withheld_parts` says which
    is missing.
    """

    claim_id: str
    fr_id: str
    uscc: str
    name: str
    contact_name: str | None
    contact_phone: str | None
    industry_section: str | None
    district: str | None
    amount_fen: int
    quote_fen: int | None
    term_months: int
    purpose: str
    conditions: list[str]
    exposure: dict[str, Any]
    watermark: str
    withheld_parts: list[Withheld]
    report: dict[str, Any] | None = None


async def request_view(connection: Connection, caller: Caller, fr_id: str) -> Json | None:
    """The request as far as the caller reaches, a holder's look logged; None where it does not exist for them."""
    return await connection.fetchval("select hall.look_at_request($1, $2)", caller.actor(), fr_id)


async def history_view(connection: Connection, caller: Caller, fr_id: str) -> Json | None:
    """Every step of the request and its claims, for the enterprise's side."""
    return await connection.fetchval("select hall.history_view($1, $2)", caller.actor(), fr_id)


async def claim_view(connection: Connection, caller: Caller, claim_id: str) -> Json | None:
    """One claim, for its institution and the enterprise."""
    return await connection.fetchval("select hall.claim_view($1, $2)", caller.actor(), claim_id)


async def offer_view(connection: Connection, caller: Caller, offer_id: str) -> Json | None:
    """One offer, for its institution and the enterprise."""
    return await connection.fetchval("select hall.offer_view($1, $2)", caller.actor(), offer_id)


async def offers_view(connection: Connection, caller: Caller, fr_id: str) -> Json | None:
    """All offers for a request, cheapest first, for the enterprise's side."""
    return await connection.fetchval("select hall.offers_view($1, $2)", caller.actor(), fr_id)


async def dossier(connection: Connection, caller: Caller, claim_id: str) -> Json | None:
    """The dossier of a live claim; the look is logged in the same statement.

    Raises:
        Problem: consent-revoked or consent-missing; the refused look is logged too.
    """
    return unwithheld(await connection.fetchval("select hall.look_at_dossier($1, $2)", caller.actor(), claim_id))


def unwithheld(shown: Json | None) -> Json | None:
    """What was shown, unless all of it was withheld.

    Raises:
        Problem: why: consent-revoked or consent-missing.
    """
    if shown is not None and "withheld" in shown:
        raise Problem(shown["withheld"])
    return shown
