"""Enterprises: registered by themselves, a portal or a clerk, and seen by those alone."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from api import parties
from api.calls import Caller, act, allowed, answer, found
from api.problems import problems
from api.shapes import Closed, Code, District, Name

router = APIRouter(prefix="/v1", tags=["enterprises"])

Speaker = Annotated[Caller, Depends(allowed("fr:write", "fr:intake"))]


class NewEnterprise(Closed):
    """An enterprise; whoever speaks for it sends it again to bring it up to date."""

    uscc: Code
    name: Name
    contact_name: Name | None = None
    contact_phone: Annotated[str, Field(pattern=r"^\+?[0-9 -]{5,24}$")] | None = None
    industry_section: Annotated[str, Field(pattern=r"^[A-T]$", description="section, GB/T 4754")]
    district: District


class Enterprise(BaseModel):
    """An enterprise as those see it who speak for it."""

    uscc: str
    name: str
    contact_name: str | None
    contact_phone: str | None
    industry_section: str | None
    district: str | None
    created_at: str


@router.post(
    "/enterprises",
    status_code=201,
    summary="Register an enterprise or bring it up to date",
    response_model=Enterprise,
    responses={200: {"model": Enterprise, "description": "it was known, and is up to date now"}}
    | problems("not-found", "already-exists"),
)
async def register_enterprise(body: NewEnterprise, request: Request, caller: Speaker) -> Response:
    """A firm that another portal speaks for stays with it; a clerk writes one down until it speaks for itself."""
    return await act(request, caller, "register_enterprise", body.model_dump())


@router.get(
    "/enterprises/{uscc}",
    summary="One's own enterprise",
    response_model=Enterprise,
    responses=problems("not-found"),
)
async def read_enterprise(uscc: Code, request: Request, caller: Speaker) -> Response:
    """For itself, for the portal that speaks for it, and for the clerk who still writes it down."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(dict(found(await parties.enterprise(connection, caller, uscc))))
