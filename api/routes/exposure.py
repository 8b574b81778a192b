"""What an enterprise owes and has reserved, and the cases that the ledger and the deadlines opened."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from api import facilities, parties
from api.calls import Caller, act, allowed, answer, found
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.shapes import Closed, Code

router = APIRouter(prefix="/v1", tags=["exposure"])


class Closing(Closed):
    """How a case was settled."""

    note: Annotated[str, Field(min_length=1, max_length=2000)]


class WantedCases(Page):
    """Which cases."""

    state: Annotated[
        Literal["open", "overdue", "closed", "all"],
        Field(description="overdue: open past `due_at`, for the supervisor"),
    ] = "open"
    kind: Annotated[str, Field(pattern=r"^[a-z-]{1,64}$")] | None = None


@router.get(
    "/enterprises/{uscc}/exposure",
    summary="An enterprise's exposure",
    response_model=facilities.Exposure,
    responses=problems("not-found", "consent-missing", "consent-revoked"),
)
async def read_exposure(
    uscc: Code, request: Request, caller: Annotated[Caller, Depends(allowed("fr:write", "claim:write"))]
) -> Response:
    """Itemised for the enterprise's side; totals for the holder of a live claim, each look logged with its consent."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await facilities.exposure_view(connection, caller, uscc)))


@router.get("/cases", summary="Cases", response_model=facilities.Cases, responses=problems("bad-cursor"))
async def list_cases(
    request: Request,
    caller: Annotated[Caller, Depends(allowed("case:write", "ops:read"))],
    page: Annotated[WantedCases, Query()],
) -> Response:
    """What a person must look at, in the order in which it came up."""
    after = begun_after(request, page, caller.client_id)
    is_open = None if page.state == "all" else page.state != "closed"
    wanted = {"is_open": is_open, "is_overdue": page.state == "overdue"}
    async with request.app.state.service.pool.acquire() as connection:
        rows = await facilities.cases(connection, **wanted, kind=page.kind, after=after, most=page.limit + 1)
        as_of = await parties.hall_time(connection)
    shown = [row["found"] for row in rows]
    return page_of(request, page, shown, client=caller.client_id, last="case_id", as_of=as_of)


@router.post(
    "/cases/{case_id}/close",
    summary="Close a case",
    response_model=facilities.Case,
    responses=problems("not-found", "illegal-transition"),
)
async def close_case(
    case_id: Annotated[str, Field(pattern=r"^ca_[0-9a-f]{32}$")],
    body: Closing,
    request: Request,
    caller: Annotated[Caller, Depends(allowed("case:write"))],
) -> Response:
    """The case manager says how it was settled."""
    return await act(request, caller, "close_case", {"case_id": case_id, "note": body.note})
