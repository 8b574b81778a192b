"""Consents of an enterprise: given, read, revoked, acknowledged; and who looked."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel

from api import consents, parties
from api.calls import Caller, act, allowed, answer, found
from api.consents import Access, ConsentGiven, ConsentView
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.routes.facts import Uscc

router = APIRouter(prefix="/v1", tags=["consents"])

ConsentId = Annotated[str, Path(pattern=r"^co_[0-9a-f]{32}$")]
Giver = Annotated[Caller, Depends(allowed("consent:write"))]
Reader = Annotated[Caller, Depends(allowed("consent:write", "limit:read"))]
Bank = Annotated[Caller, Depends(allowed("limit:read"))]


class Consents(BaseModel):
    """Latest first."""

    items: list[ConsentView]
    as_of: str


class Accesses(BaseModel):
    """Latest first, 200 at most; ask on with `before`."""

    accesses: list[Access]


class Acknowledged(BaseModel):
    """When the institution confirmed that it stopped using the data."""

    consent_id: str
    acknowledged_at: str


@router.post(
    "/enterprises/{uscc}/consents",
    status_code=201,
    response_model=ConsentView,
    responses=problems("not-found", "validation"),
)
async def give_consent(uscc: Uscc, body: ConsentGiven, request: Request, caller: Giver) -> Response:
    """Record what the enterprise allows; the answer carries the receipt."""
    return await act(request, caller, "give_consent", body.kept(uscc))


@router.get(
    "/enterprises/{uscc}/consents",
    response_model=Consents,
    responses=problems("not-found", "bad-cursor"),
)
async def list_consents(uscc: Uscc, request: Request, caller: Giver, page: Annotated[Page, Query()]) -> Response:
    """The enterprise's own consents."""
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = found(await consents.consents_of(connection, caller, uscc, after, page.limit + 1))
        as_of = await parties.hall_time(connection)
    return page_of(request, page, rows, client=caller.client_id, last="consent_id", as_of=as_of)


@router.get(
    "/enterprises/{uscc}/consents/{consent_id}",
    response_model=ConsentView,
    responses=problems("not-found"),
)
async def get_consent(uscc: Uscc, consent_id: ConsentId, request: Request, caller: Reader) -> Response:
    """One consent, for the enterprise and for an institution that it names."""
    return answer(found(await consents.consent_of(request.app.state.service.pool, caller, uscc, consent_id)))


@router.post(
    "/enterprises/{uscc}/consents/{consent_id}/revoke",
    response_model=ConsentView,
    responses=problems("not-found"),
)
async def revoke_consent(uscc: Uscc, consent_id: ConsentId, request: Request, caller: Giver) -> Response:
    """End a consent at once; its recipients are told and must acknowledge."""
    return await act(request, caller, "revoke_consent", {"uscc": uscc, "consent_id": consent_id})


@router.post(
    "/enterprises/{uscc}/consents/{consent_id}/acknowledge",
    response_model=Acknowledged,
    responses=problems("not-found"),
)
async def acknowledge_revocation(uscc: Uscc, consent_id: ConsentId, request: Request, caller: Bank) -> Response:
    """Confirm, as an institution that was told, that data seen under a revoked consent is no longer used."""
    return await act(request, caller, "acknowledge_revocation", {"uscc": uscc, "consent_id": consent_id})


@router.get(
    "/enterprises/{uscc}/accesses",
    response_model=Accesses,
    responses=problems("not-found"),
)
async def list_accesses(
    uscc: Uscc,
    request: Request,
    caller: Giver,
    before: Annotated[int | None, Query(ge=1, le=2**62, description="the last `access_id` seen")] = None,
) -> Response:
    """Who looked at the enterprise, under which consent, and what was withheld."""
    rows = await consents.accesses_of(request.app.state.service.pool, caller, uscc, before)
    return answer({"accesses": found(rows)})
