"""Institutions, their outlets and officers."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from api import parties
from api.calls import Caller, act, allowed, found
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.routes.requests import OrderNo, Proposed
from api.shapes import Closed, Count, District, Id, Name, Note

router = APIRouter(prefix="/v1", tags=["institutions"])

Admin = Annotated[Caller, Depends(allowed("admin:write"))]
Insider = Annotated[Caller, Depends(allowed("admin:write", "inst:read"))]
Keeper = Annotated[Caller, Depends(allowed("admin:write", "inst:write"))]
Paged = Annotated[Page, Query()]


class NewInstitution(Closed):
    """An institution is the legal and quota unit; caps that are not named are the hall's."""

    name: Name
    size_class: Literal["state", "joint-stock", "city", "rural", "other"] = "other"
    hold_cap: Count | None = None
    daily_claim_cap: Count | None = None


class NewOutlet(Closed):
    """An outlet is the unit that grabs."""

    name: Name
    district: District
    hold_cap: Count | None = None


class NewOfficer(Closed):
    """An officer of an outlet."""

    name: Name
    hold_cap: Count | None = None


class InstitutionOrder(Closed):
    """A suspension or its end by order: proposed by one administrator, approved by another."""

    kind: Literal["suspend", "resume"]
    order_no: OrderNo
    note: Note


class Ending(Closed):
    """Why an outlet closes or an officer goes."""

    note: Note


class Institution(BaseModel):
    """An institution."""

    id: str
    name: str
    size_class: str
    hold_cap: int
    daily_claim_cap: int
    is_suspended: bool


class Outlet(BaseModel):
    """An outlet."""

    id: str
    no: int
    institution_id: str
    name: str
    district: str
    hold_cap: int
    is_closed: bool


class Officer(BaseModel):
    """An officer."""

    id: str
    outlet_id: str
    name: str
    hold_cap: int
    is_gone: bool


class Institutions(BaseModel):
    """A page of institutions."""

    items: list[Institution]
    as_of: str


class Outlets(BaseModel):
    """A page of outlets."""

    items: list[Outlet]
    as_of: str


class Officers(BaseModel):
    """A page of officers."""

    items: list[Officer]
    as_of: str


@router.post(
    "/institutions",
    status_code=201,
    summary="Add an institution",
    response_model=Institution,
    responses=problems("already-exists"),
)
async def add_institution(body: NewInstitution, request: Request, caller: Admin) -> Response:
    """Add an institution; its outlets and clients follow."""
    return await act(request, caller, "add_institution", body.model_dump())


@router.get("/institutions", summary="List institutions", response_model=Institutions, responses=problems("bad-cursor"))
async def list_institutions(request: Request, caller: Insider, page: Paged) -> Response:
    """An administrator sees all, an institution itself."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = await parties.institutions(connection, caller, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    return page_of(request, page, [dict(row) for row in rows], client=caller.client_id, last="id", as_of=as_of)


@router.post(
    "/institutions/{institution_id}/orders",
    status_code=201,
    summary="Propose to suspend an institution, or to resume it",
    response_model=Proposed,
    responses=problems("not-found"),
)
async def propose_institution_order(
    institution_id: Id, body: InstitutionOrder, request: Request, caller: Admin
) -> Response:
    """Propose; nothing changes before a second administrator approves by `POST /v1/orders/{approval_id}/approve`.

    A suspended institution sees no cards and neither claims, contacts nor offers (403). Its claims before an offer go
    back to the hall; its offers, signings, facilities and reports go on.
    """
    return await act(request, caller, "propose_order", body.model_dump() | {"institution_id": institution_id})


@router.post(
    "/institutions/{institution_id}/outlets",
    status_code=201,
    summary="Add an outlet",
    response_model=Outlet,
    responses=problems("not-found", "already-exists"),
)
async def add_outlet(institution_id: Id, body: NewOutlet, request: Request, caller: Admin) -> Response:
    """Add an outlet to an institution."""
    return await act(request, caller, "add_outlet", body.model_dump() | {"institution_id": institution_id})


@router.get(
    "/institutions/{institution_id}/outlets",
    summary="List outlets",
    response_model=Outlets,
    responses=problems("not-found", "bad-cursor"),
)
async def list_outlets(institution_id: Id, request: Request, caller: Insider, page: Paged) -> Response:
    """The outlets of one institution."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = found(await parties.outlets(connection, caller, institution_id, after, page.limit + 1))
        as_of = await parties.hall_time(connection)
    return page_of(request, page, [dict(row) for row in rows], client=caller.client_id, last="id", as_of=as_of)


@router.post(
    "/institutions/{institution_id}/outlets/{outlet_id}/close",
    summary="Close an outlet",
    response_model=Outlet,
    responses=problems("not-found", "illegal-transition"),
)
async def close_outlet(institution_id: Id, outlet_id: Id, body: Ending, request: Request, caller: Keeper) -> Response:
    """Close an outlet for good: it sees no cards, its claims before an offer are released, all else of it goes on."""
    args = body.model_dump() | {"institution_id": institution_id, "outlet_id": outlet_id}
    return await act(request, caller, "close_outlet", args)


@router.post(
    "/institutions/{institution_id}/outlets/{outlet_id}/officers",
    status_code=201,
    summary="Add an officer",
    response_model=Officer,
    responses=problems("not-found", "illegal-transition"),
)
async def add_officer(institution_id: Id, outlet_id: Id, body: NewOfficer, request: Request, caller: Admin) -> Response:
    """Add an officer to an outlet."""
    args = body.model_dump() | {"institution_id": institution_id, "outlet_id": outlet_id}
    return await act(request, caller, "add_officer", args)


@router.post(
    "/institutions/{institution_id}/outlets/{outlet_id}/officers/{officer_id}/end",
    summary="End an officer",
    response_model=Officer,
    responses=problems("not-found", "illegal-transition"),
)
async def end_officer(
    institution_id: Id, outlet_id: Id, officer_id: Id, body: Ending, request: Request, caller: Keeper
) -> Response:
    """End an officer for good: no claim names him any more; those that do stay with the outlet."""
    args = body.model_dump() | {"institution_id": institution_id, "outlet_id": outlet_id, "officer_id": officer_id}
    return await act(request, caller, "end_officer", args)


@router.get(
    "/institutions/{institution_id}/outlets/{outlet_id}/officers",
    summary="List officers",
    response_model=Officers,
    responses=problems("not-found", "bad-cursor"),
)
async def list_officers(institution_id: Id, outlet_id: Id, request: Request, caller: Insider, page: Paged) -> Response:
    """The officers of one outlet."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = found(await parties.officers(connection, caller, institution_id, outlet_id, after, page.limit + 1))
        as_of = await parties.hall_time(connection)
    return page_of(request, page, [dict(row) for row in rows], client=caller.client_id, last="id", as_of=as_of)
