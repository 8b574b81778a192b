"""Financing requests: intake, submission, broadcast, withdrawal, and what each side may read of one."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from api import access, own_lists, quotes
from api.calls import Caller, act, allowed, already, answer, found
from api.problems import problems
from api.shapes import Amount, Closed, Code, Note

router = APIRouter(prefix="/v1", tags=["financing requests"])

Version = Annotated[
    int, Field(strict=True, ge=1, le=2**31 - 1, description="as last seen; another answers stale-version")
]
OrderNo = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
FrId = Annotated[str, Field(pattern=r"^fr_[0-9a-f]{32}$")]


class Draft(Closed):
    """A financing need as it comes in. A need that stands already is joined, and this channel kept as its source."""

    uscc: Code
    scheme: Annotated[str, Field(max_length=64, description="a scheme of the hall's policy, such as torch-points")]
    amount_fen: Amount
    term_months: Annotated[int, Field(strict=True, ge=1, le=120)]
    purpose: Annotated[str, Field(max_length=64)]
    channel: Annotated[str, Field(max_length=64)]
    channel_ref: Annotated[str, Field(min_length=1, max_length=128, description="the channel's own number for it")]
    first_loan: Annotated[bool | None, Field(description="首贷; null where not known")] = None


class Submission(Closed):
    """Submits a draft under a consent; the reference limit is computed at once."""

    version: Version
    consent_id: Annotated[str, Field(pattern=r"^co_[0-9a-f]{32}$")]


class Broadcast(Closed):
    """Confirms the amount and sends the card out. Up to three products or institutions wished for see it first."""

    version: Version
    amount_fen: Amount
    wishes: list[Annotated[str, Field(max_length=64)]] = Field(default_factory=list, max_length=3)


class Withdrawal(Closed):
    """Ends the request from the enterprise's side."""

    version: Version
    note: Note | None = None


class Assistance(Closed):
    """What the case manager decides of an assisted request: broadcast once more to everybody, or decline."""

    version: Version
    to: Literal["broadcast", "DECLINED"]
    note: Note
    amount_fen: Annotated[
        Amount | None, Field(description="a lower amount, as agreed with the enterprise; null: as it asked")
    ] = None


class Order(Closed):
    """A cancellation or suspension by order: proposed by one administrator, approved by another."""

    kind: Literal["cancel", "suspend", "resume"]
    order_no: OrderNo
    note: Note


class Moved(BaseModel):
    """Where the request stands after the act."""

    fr_id: str
    state: str | None = None
    version: int | None = None
    round: int | None = None
    joined: bool | None = None
    amount_fen: int | None = None
    term_months: int | None = None


class Submitted(BaseModel):
    """The answer to a submission: the outcome, the reference limit, and why."""

    fr_id: str
    state: str
    version: int
    outcome: str
    quote_id: str
    quote_fen: int
    quote_expires_at: str
    decision_id: str
    reasons: list[dict[str, object]]


class Proposed(BaseModel):
    """The proposal that a second administrator approves by its id."""

    approval_id: str
    expires_at: str


class Ordered(BaseModel):
    """What an approved order did to its request or its institution."""

    approval_id: str
    kind: Literal["cancel", "suspend", "resume"]
    fr_id: str | None = None
    state: str | None = None
    version: int | None = None
    institution_id: str | None = None
    is_suspended: bool | None = None


Intake = Annotated[Caller, Depends(allowed("fr:write", "fr:intake"))]
Owner = Annotated[Caller, Depends(allowed("fr:write"))]
Reader = Annotated[Caller, Depends(allowed("fr:write", "fr:intake", "hall:read", "case:write"))]


@router.post(
    "/financing-requests",
    status_code=201,
    response_model=Moved,
    responses={200: {"model": Moved, "description": "joined a request that stands already"}}
    | problems("not-found", "validation"),
)
async def draft_request(body: Draft, request: Request, caller: Intake) -> Response:
    """Enter a financing need (T1)."""
    return await act(request, caller, "draft_request", body.model_dump())


@router.post(
    "/financing-requests/{fr_id}/submit",
    response_model=Submitted,
    responses=problems(
        "not-found", "stale-version", "illegal-transition", "consent-missing", "duplicate-request", "quote-cap",
        "validation", "engine-unavailable", "request-suspended",
    ),
)  # fmt: skip
async def submit_request(fr_id: FrId, body: Submission, request: Request, caller: Intake) -> Response:
    """Submit a draft: rules, score and limit follow at once (T2, T4, T6 or T5, T7)."""
    if (stored := await already(request, caller)) is not None:
        return stored
    service = request.app.state.service
    subject = found(
        await service.pool.fetchrow(
            "SELECT uscc, scheme FROM hall.financing_request fr WHERE id = $1 AND hall.may_intake($2, fr)",
            fr_id,
            caller.actor(),
        )
    )

    async def keep(made: quotes.Measured) -> Response:
        args = {
            "fr_id": fr_id,
            "outcome": made.outcome,
            "limit_fen": made.limit_fen,
            "decision": made.decision,
            "decision_text": made.text,
            "reasons": made.reasons,
            "facts_mark": made.facts_mark,
        }
        return await act(request, caller, "submit_request", body.model_dump() | args)

    return await quotes.kept(service, subject["uscc"], subject["scheme"], keep)


@router.post(
    "/financing-requests/{fr_id}/broadcast",
    response_model=Moved,
    responses=problems(
        "not-found", "stale-version", "illegal-transition", "over-limit", "consent-missing", "consent-revoked",
        "validation", "quote-expired", "request-suspended",
    ),
)  # fmt: skip
async def broadcast_request(fr_id: FrId, body: Broadcast, request: Request, caller: Owner) -> Response:
    """Confirm the amount and broadcast the card (T8)."""
    return await act(request, caller, "broadcast_request", body.model_dump() | {"fr_id": fr_id})


@router.post(
    "/financing-requests/{fr_id}/withdraw",
    response_model=Moved,
    responses=problems("not-found", "stale-version", "illegal-transition"),
)
async def withdraw_request(fr_id: FrId, body: Withdrawal, request: Request, caller: Intake) -> Response:
    """Withdraw before signing (T18)."""
    return await act(request, caller, "withdraw_request", body.model_dump() | {"fr_id": fr_id})


@router.post(
    "/financing-requests/{fr_id}/assist",
    response_model=Moved,
    responses=problems(
        "not-found", "stale-version", "illegal-transition", "over-limit", "consent-missing", "consent-revoked",
        "validation", "quote-expired", "request-suspended",
    ),
)  # fmt: skip
async def assist_request(
    fr_id: FrId, body: Assistance, request: Request, caller: Annotated[Caller, Depends(allowed("case:write"))]
) -> Response:
    """The case manager broadcasts once more, or declines (T20)."""
    return await act(request, caller, "assist_request", body.model_dump() | {"fr_id": fr_id})


@router.post(
    "/financing-requests/{fr_id}/orders", status_code=201, response_model=Proposed, responses=problems("not-found")
)
async def propose_order(
    fr_id: FrId, body: Order, request: Request, caller: Annotated[Caller, Depends(allowed("admin:write"))]
) -> Response:
    """Propose to cancel, suspend or resume a request (T19, T21): nothing changes yet."""
    return await act(request, caller, "propose_order", body.model_dump() | {"fr_id": fr_id})


@router.post(
    "/orders/{approval_id}/approve",
    response_model=Ordered,
    responses=problems("not-found", "illegal-transition", "four-eyes-required", "approval-expired"),
)
async def approve_order(
    approval_id: Annotated[str, Field(pattern=r"^ap_[0-9a-f]{32}$")],
    request: Request,
    caller: Annotated[Caller, Depends(allowed("admin:write"))],
) -> Response:
    """The second pair of eyes carries out an order of a request or of an institution."""
    return await act(request, caller, "approve_order", {"approval_id": approval_id})


@router.get("/orders", response_model=own_lists.Orders, responses=problems("bad-cursor"))
async def list_orders(
    request: Request, caller: Annotated[Caller, Depends(allowed("admin:read"))], page: own_lists.WantedQuery
) -> Response:
    """Orders that wait for a second pair of eyes; with `state=all` those approved or expired as well."""
    return await own_lists.page_of_orders(request, caller, page)


@router.get("/financing-requests", response_model=own_lists.OwnRequests, responses=problems("bad-cursor"))
async def list_requests(request: Request, caller: Intake, page: own_lists.WantedQuery) -> Response:
    """The enterprise's requests, a portal's of all its enterprises, or the drafts that a clerk entered."""
    return await own_lists.page_of_own(request, caller, page, "requests", last="fr_id")


@router.get("/financing-requests/{fr_id}", response_model=access.RequestView, responses=problems("not-found"))
async def read_request(fr_id: FrId, request: Request, caller: Reader) -> Response:
    """Read one request: everything for the enterprise's side and the holder of the claim, the card for its audience."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.request_view(connection, caller, fr_id)))


@router.get("/financing-requests/{fr_id}/history", response_model=list[access.Step], responses=problems("not-found"))
async def read_history(fr_id: FrId, request: Request, caller: Owner) -> Response:
    """Every step of a request, in order, for its enterprise."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await access.history_view(connection, caller, fr_id)))
