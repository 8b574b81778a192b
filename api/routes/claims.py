"""Claims: the grab 抢单, and what the outlet and the enterprise do under it; offers and their acceptance."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel, Field, model_validator

from api import access, own_lists
from api.calls import Caller, act, allowed, answer, found
from api.problems import Problem, problems
from api.routes.requests import FrId, Moved, Version
from api.shapes import Amount, Closed, Fen

router = APIRouter(prefix="/v1", tags=["claims"])

ClaimId = Annotated[str, Field(pattern=r"^cl_[0-9a-f]{32}$")]
OfferId = Annotated[str, Field(pattern=r"^of_[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 in hexadecimal")]
Reason = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,63}$", description="a reason code")]
Condition = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$", description="as in the dossier: pbc_report")]
BasisPoints = Annotated[int, Field(strict=True, ge=-10_000, le=10_000)]


class Grab(Closed):
    """A grab names what it saw: the round and the version of the card."""

    round: Annotated[int, Field(strict=True, ge=0, le=100)]
    outlet_id: Annotated[str, Field(max_length=64)]
    product_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}@[1-9][0-9]{0,5}$", description="pr_…@version")]
    card_version: Version
    officer_id: Annotated[
        str | None,
        Field(max_length=64, description="who holds the claim; demanded where the outlet has officers (H1)"),
    ] = None


class Contact(Closed):
    """A recorded contact with the enterprise; the proof itself stays with the bank, its hash with us."""

    method: Literal["visit", "call", "video", "message"]
    proof_sha256: Sha256


class GiveUp(Closed):
    """Why the claim ends."""

    reason: Reason


class Fee(Closed):
    """One fee of an offer, in full."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    amount_fen: Fen


class NewOffer(Closed):
    """The offer: all that the enterprise compares, every fee included, within the product claimed with.

    It cannot be changed once made.
    """

    amount_fen: Amount
    rate_basis: Literal["LPR1Y", "LPR5Y", "fixed"]
    basis_bp: Annotated[int, Field(strict=True, ge=0, le=10_000, description="the basis rate of the day, per year")]
    spread_bp: BasisPoints
    line_months: Annotated[int, Field(strict=True, ge=1, le=120)]
    draw_months: Annotated[int, Field(strict=True, ge=1, le=120)]
    repayment: Literal["interest-monthly-principal-at-end", "equal-instalments", "equal-principal", "bullet"]
    revolving: Annotated[bool, Field(strict=True, description="随借随还")]
    fees: Annotated[list[Fee], Field(max_length=20)]
    prepayment_fee_bp: Annotated[
        int | None,
        Field(strict=True, ge=0, le=10_000, description="of what is repaid early; where it is left out, the product's"),
    ] = None
    cleared: Annotated[
        list[Condition], Field(max_length=20, description="conditions of the dossier that the bank has cleared")
    ]
    conditions: Annotated[list[Reason], Field(max_length=20, description="what the offer itself still depends on")]
    above_quote_reason: Reason | None = None

    @model_validator(mode="after")
    def _a_draw_fits_the_line(self) -> Self:
        if self.draw_months > self.line_months:
            raise ValueError("a draw cannot last longer than the line")
        return self


class Acceptance(Closed):
    """Accepts exactly the offer whose hash was shown."""

    version: Version
    sha256: Sha256


class Claimed(BaseModel):
    """The claim after the act; writes under it carry its fence."""

    claim_id: str
    fr_id: str
    round: int
    fence: int
    state: str
    version: int | None = None
    lease_until: str | None
    deadline_contact: str | None = None


Bank = Annotated[Caller, Depends(allowed("claim:write"))]
Offerer = Annotated[Caller, Depends(allowed("offer:write"))]
Owner = Annotated[Caller, Depends(allowed("fr:write"))]
Acceptor = Annotated[Caller, Depends(allowed("offer:accept"))]
Either = Annotated[Caller, Depends(allowed("claim:write", "fr:write"))]


def fence_of(claim_fence: Annotated[int | None, Header(ge=1, le=2**62)] = None) -> int:
    """The fence under which the caller writes (C3)."""
    if claim_fence is None:
        raise Problem("precondition-required", header="Claim-Fence")
    return claim_fence


Fence = Annotated[int, Depends(fence_of)]
FENCED = ("not-found", "stale-fence", "illegal-transition", "precondition-required", "request-suspended")


@router.post(
    "/financing-requests/{fr_id}/claims",
    status_code=201,
    response_model=Claimed,
    responses=problems(
        "not-found", "grab-lost", "gate-not-open", "round-closed", "hold-cap-reached", "cool-down", "daily-claim-cap",
        "stale-version", "over-limit", "institution-suspended", "consent-missing", "consent-revoked", "validation",
    ),
)  # fmt: skip
async def grab(fr_id: FrId, body: Grab, request: Request, caller: Bank) -> Response:
    """Grab a request: exactly one bank wins (K1, C1)."""
    product, version = body.product_id.rsplit("@", 1)
    args = body.model_dump() | {"fr_id": fr_id, "product_id": product, "product_version": int(version)}
    return await act(request, caller, "grab", args)


@router.post("/claims/{claim_id}/contact", response_model=Claimed, responses=problems(*FENCED, "institution-suspended"))
async def contact_enterprise(
    claim_id: ClaimId, body: Contact, request: Request, caller: Bank, fence: Fence
) -> Response:
    """Record a contact; the lease goes on to the time for an offer (K2)."""
    return await act(request, caller, "contact_enterprise", body.model_dump() | {"claim_id": claim_id, "fence": fence})


@router.post("/claims/{claim_id}/release", response_model=Claimed, responses=problems(*FENCED))
async def release_claim(claim_id: ClaimId, body: GiveUp, request: Request, caller: Bank, fence: Fence) -> Response:
    """Give the request back to the hall (K6); the institution cools down for the next round (H5)."""
    return await act(
        request, caller, "give_up_claim", body.model_dump() | {"claim_id": claim_id, "fence": fence, "to": "released"}
    )


@router.post("/claims/{claim_id}/decline", response_model=Claimed, responses=problems(*FENCED))
async def decline_claim(claim_id: ClaimId, body: GiveUp, request: Request, caller: Bank, fence: Fence) -> Response:
    """Decline after a recorded contact, with a reason code (K6); before one a claim can only be released."""
    return await act(
        request, caller, "give_up_claim", body.model_dump() | {"claim_id": claim_id, "fence": fence, "to": "declined"}
    )


@router.post(
    "/claims/{claim_id}/reject",
    response_model=Claimed,
    responses=problems("not-found", "illegal-transition", "request-suspended"),
)
async def reject_claim(claim_id: ClaimId, body: GiveUp, request: Request, caller: Owner) -> Response:
    """The enterprise turns the bank away and goes back to broadcast without penalty (K6)."""
    return await act(request, caller, "reject_claim", body.model_dump() | {"claim_id": claim_id})


@router.post(
    "/claims/{claim_id}/extension",
    response_model=Claimed,
    responses=problems("not-found", "illegal-transition", "extension-used", "request-suspended"),
)
async def agree_extension(claim_id: ClaimId, request: Request, caller: Owner) -> Response:
    """The enterprise agrees to one extension of the time for an offer (H3)."""
    return await act(request, caller, "agree_extension", {"claim_id": claim_id})


@router.get("/claims", response_model=access.OwnClaims, responses=problems("bad-cursor"))
async def list_claims(request: Request, caller: Bank, page: own_lists.WantedQuery) -> Response:
    """The institution's claims, or those of the outlet that the client is bound to."""
    return await own_lists.page_of_own(request, caller, page, "claims", last="claim_id")


@router.get("/claims/{claim_id}", response_model=access.ClaimView, responses=problems("not-found"))
async def read_claim(claim_id: ClaimId, request: Request, caller: Either) -> Response:
    """Read one claim: its institution and the enterprise see it, nobody else."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.claim_view(connection, caller, claim_id)))


@router.get(
    "/claims/{claim_id}/dossier",
    response_model=access.Dossier,
    responses=problems("not-found", "consent-missing", "consent-revoked"),
)
async def read_dossier(claim_id: ClaimId, request: Request, caller: Bank) -> Response:
    """Who the enterprise is and what the decision says, while the claim lives; each look is logged with its consent."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.dossier(connection, caller, claim_id)))


@router.post(
    "/claims/{claim_id}/offers",
    status_code=201,
    response_model=access.OfferView,
    responses=problems(*FENCED, "validation", "conditions-open", "institution-suspended"),
)
async def make_offer(claim_id: ClaimId, body: NewOffer, request: Request, caller: Offerer, fence: Fence) -> Response:
    """Make the offer (K3): immutable, with its annual cost and hash."""
    return await act(request, caller, "make_offer", body.model_dump() | {"claim_id": claim_id, "fence": fence})


@router.get("/offers/{offer_id}", response_model=access.OfferView, responses=problems("not-found"))
async def read_offer(
    offer_id: OfferId, request: Request, caller: Annotated[Caller, Depends(allowed("offer:write", "fr:write"))]
) -> Response:
    """Read one offer: its institution and the enterprise."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.offer_view(connection, caller, offer_id)))


@router.get(
    "/financing-requests/{fr_id}/offers", response_model=list[access.OfferView], responses=problems("not-found")
)
async def compare_offers(fr_id: FrId, request: Request, caller: Owner) -> Response:
    """All offers for a request, cheapest first, for its enterprise."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.offers_view(connection, caller, fr_id)))


@router.post(
    "/offers/{offer_id}/accept",
    response_model=Moved,
    responses=problems(
        "not-found",
        "stale-version",
        "hash-mismatch",
        "offer-expired",
        "illegal-transition",
        "request-suspended",
    ),
)
async def accept_offer(offer_id: OfferId, body: Acceptance, request: Request, caller: Acceptor) -> Response:
    """Accept an offer (T14, K4)."""
    return await act(request, caller, "accept_offer", body.model_dump() | {"offer_id": offer_id})
