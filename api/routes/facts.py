"""Facts of one enterprise, delivered by its portal, by itself, or by the platform's own data source."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from api.calls import Caller, act, allowed, already
from api.facts import FactsBody, parted
from api.problems import Problem, problems

router = APIRouter(prefix="/v1", tags=["facts"])

Uscc = Annotated[str, Path(pattern=r"^[0-9A-Z]{18}$", description="统一社会信用代码")]
OWN_WORD = frozenset({"enterprise", "clerk"})
"""Roles whose rows are the applicant's own word, whatever the rows say."""


class BrokenRule(BaseModel):
    """A rule of a contract that a row broke; the pointer leads to the field or the row in the delivery."""

    pointer: str
    rule: str


class Received(BaseModel):
    """What became of a delivery; `delivered_before`: the same came before, and this is the first answer."""

    batch_id: int
    delivered_before: bool
    good: dict[str, int]
    quarantined: dict[str, int]
    errors: list[BrokenRule]


@router.post(
    "/enterprises/{uscc}/facts",
    response_model=Received,
    responses=problems("not-found", "validation", "body-too-large"),
)
async def deliver_facts(
    uscc: Uscc,
    body: FactsBody,  # pyright: ignore[reportInvalidTypeForm]  (made from the contracts)
    request: Request,
    caller: Annotated[Caller, Depends(allowed("facts:write"))],
) -> Response:
    """Store the rows that keep their contracts; the others go to quarantine with every rule they broke."""
    if (stored := await already(request, caller)) is not None:
        return stored
    if not await request.app.state.service.pool.fetchval("SELECT hall.may_deliver($1, $2)", caller.actor(), uscc):
        raise Problem("not-found")  # as the act would, and before the work
    delivered: dict[str, Any] = body.model_dump()
    # In a worker thread: a large delivery takes seconds.
    delivery = await asyncio.to_thread(parted, uscc, delivered, "applicant" if caller.role in OWN_WORD else None)
    if not delivery.good:
        nothing = [{"pointer": "", "rule": "no-rows"}]
        raise Problem("validation", errors=delivery.errors or nothing)
    args = {
        "uscc": uscc,
        "fingerprint": delivery.fingerprint,
        "good": delivery.good,
        "quarantined": delivery.quarantined,
        "doubts": delivery.doubts,
        "report": delivery.report,
    }
    return await act(request, caller, "deliver_facts", args)
