"""What each side finds of its own without knowing a number: requests, claims, facilities, and orders that wait."""

from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from api import parties
from api.calls import Caller
from api.paging import Page, begun_after, page_of


class Wanted(Page):
    """Which of a list; an open thing has not ended."""

    state: Annotated[Literal["open", "all"], Field(description="open: what has not ended")] = "open"


WantedQuery = Annotated[Wanted, Query()]


class OwnRequest(BaseModel):
    """One request in a list; `GET /v1/financing-requests/{fr_id}` says the rest."""

    fr_id: str
    uscc: str
    state: str
    version: int
    scheme: str
    amount_fen: int
    term_months: int
    purpose: str
    round: int | None
    quote_fen: int | None
    deadline: str | None
    suspended: bool
    created_at: str


class OwnRequests(BaseModel):
    """Requests in the order in which they came in."""

    items: list[OwnRequest]
    as_of: str


class Proposed(BaseModel):
    """An order that one administrator proposed; another approves it before `expires_at`."""

    approval_id: str
    kind: Literal["cancel", "suspend", "resume"]
    fr_id: str | None
    institution_id: str | None
    order_no: str
    note: str
    proposed_by: str
    proposed_at: str
    expires_at: str
    approved_by: str | None
    approved_at: str | None
    state: Literal["proposed", "approved", "expired"]


class Orders(BaseModel):
    """Orders in the order in which they were proposed."""

    items: list[Proposed]
    as_of: str


async def page_of_own(request: Request, caller: Caller, wanted: Wanted, kind: str, *, last: str) -> Response:
    """A page of what `hall.own_<kind>` lists for the caller.

    Args:
        request: asked for it.
        caller: whose.
        wanted: which of them.
        kind: requests, claims or facilities.
        last: name of the id that orders the rows.
    """
    return await _page(request, caller, wanted, f"SELECT hall.own_{kind}($4, $1, $2, $3)", caller.actor(), last=last)


async def page_of_orders(request: Request, caller: Caller, wanted: Wanted) -> Response:
    """A page of the orders of all administrators."""
    return await _page(request, caller, wanted, "SELECT hall.orders($1, $2, $3)", last="approval_id")


async def _page(
    request: Request, caller: Caller, wanted: Wanted, statement: str, *arguments: object, last: str
) -> Response:
    after = begun_after(request, wanted, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows: list[Any] = await connection.fetch(statement, wanted.state == "open", after, wanted.limit + 1, *arguments)
        as_of = await parties.hall_time(connection)
    return page_of(request, wanted, [row[0] for row in rows], client=caller.client_id, last=last, as_of=as_of)
