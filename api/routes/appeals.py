"""Appeals 申诉: an enterprise has a decision about it looked at by a person, within working hours that are promised."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, model_validator

from api import parties
from api.appeals import Appeal, Appeals, AppealWhole, Method, Outcome, appeal_view, appeals
from api.calls import Caller, act, allowed, answer, found
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.routes.claims import ClaimId
from api.routes.requests import FrId
from api.shapes import Closed, Note

router = APIRouter(prefix="/v1", tags=["appeals"])

AppealId = Annotated[str, Field(pattern=r"^al_[0-9a-f]{32}$")]
WORDS = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$"


class NewAppeal(Closed):
    """Against exactly one decision: the latest quote of a scheme, an INELIGIBLE request, or a declined claim."""

    quote_id: Annotated[str, Field(pattern=r"^lq_[0-9a-f]{32}$")] | None = None
    fr_id: FrId | None = None
    claim_id: ClaimId | None = None
    reason: Annotated[str, Field(pattern=r"^[a-z-]{1,64}$", description="an appeal reason of hall_policy.yaml")]
    text: Annotated[str, Field(min_length=1, max_length=1000, pattern=WORDS, description="in the enterprise's words")]

    @model_validator(mode="after")
    def _against_one_decision(self) -> Self:
        if sum(named is not None for named in (self.quote_id, self.fr_id, self.claim_id)) != 1:
            raise ValueError("an appeal names exactly one of quote_id, fr_id and claim_id")
        return self


class AppealContacted(Closed):
    """The case manager spoke with the enterprise."""

    method: Method


class Opinion(Closed):
    """What the case manager found, and what the enterprise should know or do."""

    outcome: Outcome
    note: Note


class WantedAppeals(Page):
    """Which appeals."""

    state: Annotated[Literal["open", "closed", "all"], Field(description="a case manager is shown open ones")] = "open"


Appealing = Annotated[Caller, Depends(allowed("appeal:write"))]
CaseManager = Annotated[Caller, Depends(allowed("case:write"))]
Reader = Annotated[Caller, Depends(allowed("appeal:write", "case:write"))]


@router.post(
    "/appeals",
    status_code=201,
    summary="Appeal against a decision",
    response_model=Appeal,
    responses=problems("not-found", "illegal-transition", "duplicate-request", "validation"),
)
async def open_appeal(body: NewAppeal, request: Request, caller: Appealing) -> Response:
    """Appeal: a case manager calls within `appeal_contact_minutes` and answers within `appeal_opinion_minutes`.

    The decision stands meanwhile and afterwards: an appeal that is upheld says what to correct, and the enterprise
    quotes or applies anew. One appeal against a decision is open at a time.
    """
    return await act(request, caller, "open_appeal", body.model_dump())


@router.get("/appeals", summary="Appeals", response_model=Appeals, responses=problems("bad-cursor"))
async def list_appeals(request: Request, caller: Reader, page: Annotated[WantedAppeals, Query()]) -> Response:
    """The enterprise's own, or all that are open for a case manager."""
    after = begun_after(request, page, caller.client_id)
    state = None if page.state == "all" else page.state
    async with request.app.state.service.pool.acquire() as connection:
        rows = await appeals(connection, caller, state, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    shown = [row["found"] for row in rows]
    return page_of(request, page, shown, client=caller.client_id, last="appeal_id", as_of=as_of)


@router.get("/appeals/{appeal_id}", summary="An appeal", response_model=AppealWhole, responses=problems("not-found"))
async def read_appeal(appeal_id: AppealId, request: Request, caller: Reader) -> Response:
    """Whole for the enterprise's side; for a case manager while it is open, the look logged."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await appeal_view(connection, caller, appeal_id)))


@router.post(
    "/appeals/{appeal_id}/contact",
    summary="Record a contact",
    response_model=Appeal,
    responses=problems("not-found", "illegal-transition"),
)
async def contact_appellant(
    appeal_id: AppealId, body: AppealContacted, request: Request, caller: CaseManager
) -> Response:
    """The case manager spoke with the enterprise; the first contact keeps the promise, later ones are recorded."""
    return await act(request, caller, "contact_appellant", body.model_dump() | {"appeal_id": appeal_id})


@router.post(
    "/appeals/{appeal_id}/opinion",
    summary="Give the opinion",
    response_model=Appeal,
    responses=problems("not-found", "illegal-transition"),
)
async def give_opinion(appeal_id: AppealId, body: Opinion, request: Request, caller: CaseManager) -> Response:
    """The case manager's opinion ends the appeal and its case; the enterprise reads the note by GET."""
    return await act(request, caller, "give_opinion", body.model_dump() | {"appeal_id": appeal_id})
