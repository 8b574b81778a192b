"""Ratings 评价: how banks treated enterprises, and what may be known of it without knowing who said so."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api import parties, ratings
from api.calls import Caller, act, allowed
from api.limits import CALLS
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.routes.claims import ClaimId
from api.shapes import Closed, Id

router = APIRouter(prefix="/v1", tags=["ratings"])

WORTH = 10
"""As many calls as one look at the league table counts for: it reads every rating, and asks nobody who he is."""


class NewRating(Closed):
    """Stars and reason codes, no words: nothing in it can name anybody."""

    claim_id: ClaimId
    stars: Annotated[int, Field(strict=True, ge=1, le=5)]
    reasons: list[Annotated[str, Field(pattern=r"^[a-z-]{1,64}$")]] = Field(
        default_factory=list, max_length=5, description="rating reasons of hall_policy.yaml"
    )


class WantedTotals(Page):
    """Whose totals."""

    institution_id: Id | None = None


Rater = Annotated[Caller, Depends(allowed("rating:write"))]
Insider = Annotated[Caller, Depends(allowed("inst:read"))]


@router.post(
    "/ratings",
    status_code=201,
    summary="Rate a bank",
    response_model=ratings.Rating,
    responses=problems("not-found", "already-exists", "illegal-transition", "validation"),
)
async def rate_claim(body: NewRating, request: Request, caller: Rater) -> Response:
    """Rate the bank of a claim that was contacted, once and for good."""
    return await act(request, caller, "rate_claim", body.model_dump())


@router.get("/ratings", summary="Ratings given", response_model=ratings.Ratings, responses=problems("bad-cursor"))
async def list_ratings(request: Request, caller: Rater, page: Annotated[Page, Query()]) -> Response:
    """The enterprise's own."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = await ratings.ratings_given(connection, caller, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    shown = [row["found"] for row in rows]
    return page_of(request, page, shown, client=caller.client_id, last="rating_id", as_of=as_of)


@router.get(
    "/ratings/totals",
    summary="The league table",
    response_model=ratings.LeagueTable,
    responses=problems("bad-cursor", "rate-limited"),
)
async def list_totals(request: Request, page: Annotated[WantedTotals, Query()]) -> Response:
    """What the ratings of each institution come to, for everybody; months that are over, of enough enterprises."""
    request.app.state.service.limits.count(request, CALLS, request.client.host if request.client else "", WORTH)
    after = begun_after(request, page, "")
    async with request.app.state.service.pool.acquire() as connection:
        rows = await ratings.league_table(connection, page.institution_id, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    shown = [row["found"] for row in rows]
    return page_of(request, page, shown, client="", last="institution_id", as_of=as_of)


@router.get(
    "/ratings/outlets",
    summary="One's own outlets by month",
    response_model=ratings.OutletsTotals,
    responses=problems("bad-cursor"),
)
async def list_outlets_totals(request: Request, caller: Insider, page: Annotated[Page, Query()]) -> Response:
    """What its ratings come to for the institution, by outlet and month; who gave them is not told."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = await ratings.outlets_totals(connection, caller, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    shown = [row["found"] for row in rows]
    return page_of(request, page, shown, client=caller.client_id, last="place", as_of=as_of)
