"""Events for those who cannot hold a stream: polling with acknowledgement; and how far the card of a round came."""

import asyncio
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from api import feed
from api.calls import Caller, allowed, answer, found
from api.database import Pool
from api.feed import Reader
from api.hub import Hub, Subscriber
from api.problems import problems
from api.routes.requests import FrId
from api.shapes import Closed

router = APIRouter(prefix="/v1", tags=["events"])

MOST_ACKNOWLEDGED = 1000

Listener = Annotated[Caller, Depends(allowed("events:read"))]
Operator = Annotated[Caller, Depends(allowed("ops:read"))]
Why = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,63}$", description="a code: no personal data")]


class Poll(Closed):
    """Acknowledges what was received and asks for more.

    Attributes:
        max: most events of the answer.
        wait_seconds: how long to wait when there is none.
        ack: ids of events that were taken over.
        errors: by id of events that were received and cannot be used, why not; they are not sent again.
    """

    max: Annotated[int, Field(strict=True, ge=1, le=200)] = 50
    wait_seconds: Annotated[int, Field(strict=True, ge=0, le=30)] = 0
    ack: Annotated[list[UUID], Field(max_length=MOST_ACKNOWLEDGED)] = Field(default_factory=list)
    errors: Annotated[dict[UUID, Why], Field(max_length=MOST_ACKNOWLEDGED)] = Field(default_factory=dict)


class Polled(BaseModel):
    """An event, and the place of the one before that the caller was entitled to; 0: there was none."""

    prev: str
    event: dict[str, object]


class Events(BaseModel):
    """The next events that the caller has not acknowledged, in order.

    Attributes:
        acknowledged: how many events this call acknowledged that were not before.
        more: there may be more at once.
    """

    events: list[Polled]
    acknowledged: int
    more: bool


@router.post("/events/poll", response_model=Events, responses=problems("validation"))
async def poll_events(body: Poll, request: Request, caller: Listener) -> Response:
    """Acknowledge and fetch in one call. Repeating it changes nothing, so it needs no Idempotency-Key."""
    service = request.app.state.service
    reader = await feed.reader_of(service.pool, caller)
    acknowledged = await feed.acknowledge(service.pool, reader, body.ack, body.errors)
    rows = await _next(service.hub, service.pool, reader, body)
    if rows:
        service.hub.handed(reader, "poll", rows[-1]["sequence"])
    events = [{"prev": str(row["prev"]), "event": orjson.Fragment(row["body"])} for row in rows]
    return answer({"events": events, "acknowledged": acknowledged, "more": len(rows) == body.max})


async def _next(hub: Hub, pool: Pool, reader: Reader, body: Poll) -> list[feed.Record]:
    """The next events; where there is none, the wait is for the hub and not for the database."""
    waiting = Subscriber(reader.key)
    until = asyncio.get_running_loop().time() + body.wait_seconds
    hub.join(waiting)
    try:
        while True:
            rows = await feed.unacknowledged(pool, reader, body.max)
            left = until - asyncio.get_running_loop().time()
            if rows or left <= 0 or waiting.ending is not None:
                return rows
            waiting.take()
            await waiting.wait(left)
    finally:
        hub.leave(waiting)


class Receipt(BaseModel):
    """How far a card came at one institution.

    Attributes:
        outlets: how many of its outlets the round reaches.
        queued: the card is in the feed.
        sent: it was handed to a client of the institution.
        acknowledged: a client that polls has acknowledged it.
        seen: a client has read the hall since, or the institution holds or held the claim.
    """

    institution_id: str
    outlets: int
    queued: bool
    sent: bool
    acknowledged: bool
    seen: bool


class Receipts(BaseModel):
    """How far the card of a round came, by institution."""

    fr_id: str
    round: int
    published_at: str | None
    institutions: list[Receipt]


@router.get(
    "/financing-requests/{fr_id}/rounds/{round_no}/receipts",
    response_model=Receipts,
    responses=problems("not-found"),
)
async def read_receipts(
    fr_id: FrId, round_no: Annotated[int, Path(ge=0, le=1000)], request: Request, _operator: Operator
) -> Response:
    """Where a card got to: queued, sent, acknowledged, seen, for each institution of the round's audience."""
    return answer(found(await feed.receipts(request.app.state.service.pool, fr_id, round_no)))
