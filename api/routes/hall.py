"""The hall: its open cards, the stream of its events, and what outlets subscribe to."""

from datetime import datetime
from math import ceil
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field

from api import feed
from api.access import Card
from api.calls import Caller, allowed, answer, found
from api.paging import Page
from api.problems import Problem, problems
from api.shapes import Closed, District
from api.streaming import Stream, expect_begun

router = APIRouter(prefix="/v1", tags=["hall"])

STREAMS_PER_READER = 20

OutletId = Annotated[str, Field(max_length=64)]
Place = Annotated[str, Field(max_length=60, description="`<epoch>.<sequence>`, as `as_of` or the id of an event says")]
Looker = Annotated[Caller, Depends(allowed("hall:read"))]
Listener = Annotated[Caller, Depends(allowed("events:read"))]
Subscribing = Annotated[Caller, Depends(allowed("claim:write", "product:write"))]


class HallPage(Page):
    """A page of the hall, of one outlet if it is named."""

    outlet_id: OutletId | None = None


class OpenCard(BaseModel):
    """A card that may be claimed from `opens_at` until `closes_at`, by those of the caller's outlets that are named."""

    fr_id: str
    round: int
    card_version: int
    card: Card
    opens_at: str
    closes_at: str
    outlet_ids: list[str]


class Hall(BaseModel):
    """The open cards at one instant. A stream that begins at `as_of` misses nothing (V8)."""

    items: list[OpenCard]
    as_of: str
    read_at: str


@router.get("/hall", response_model=Hall, responses=problems("bad-cursor", "not-found"))
async def read_hall(request: Request, page: Annotated[HallPage, Query()], caller: Looker) -> Response:
    """The open cards of the caller's audience, the oldest first; pages keep the `as_of` of the first."""
    service = request.app.state.service
    reader = await feed.reader_of(service.pool, caller, page.outlet_id)
    path = request.scope["route"].path
    last = service.cursors.read(caller.client_id, path, page.asked(), page.cursor)
    after = None if last is None else (datetime.fromisoformat(last[1]), str(last[2]))
    cards = await feed.open_cards(service.pool, reader, after, page.limit + 1)
    as_of = str(cards.cursor) if last is None else last[0]
    shown = cards.rows[: page.limit]
    items = [{name: value for name, value in row.items() if name != "published_at"} for row in shown]
    headers: dict[str, str] = {}
    if len(cards.rows) > page.limit:
        place = [as_of, shown[-1]["published_at"].isoformat(), shown[-1]["fr_id"]]
        cursor = service.cursors.make(caller.client_id, path, page.asked(), place)
        query = page.model_dump(mode="json", exclude_none=True, exclude={"cursor"}) | {"cursor": cursor}
        headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    service.hub.handed(reader, "snapshot", cards.cursor.sequence)
    return answer({"items": items, "as_of": as_of, "read_at": cards.read_at}, headers=headers)


class StreamFrom(Closed):
    """Where a stream begins, and for which outlet."""

    after: Place | None = None
    outlet_id: OutletId | None = None


@router.get(
    "/hall/stream",
    response_class=Response,
    responses={200: {"description": "Server-Sent Events: docs/events.md", "content": {"text/event-stream": {}}}}
    | problems("bad-cursor", "not-found", "too-many-streams", "overloaded"),
)
async def stream_hall(
    request: Request,
    asked: Annotated[StreamFrom, Query()],
    caller: Listener,
    last_event_id: Annotated[str | None, Header(max_length=60)] = None,
) -> Response:
    """Every event the caller may have, in order, as it comes; `Last-Event-ID` goes before `after` (V7)."""
    service = request.app.state.service
    place = last_event_id or asked.after
    after = None if place is None else feed.cursor_of(place)
    expect_begun(service.hub)
    reader = await feed.reader_of(service.pool, caller, asked.outlet_id)
    settings = service.settings
    if settings.rate_limits and service.hub.streams_of(reader.key) >= ceil(STREAMS_PER_READER / settings.processes):
        raise Problem("too-many-streams", retry_after_seconds=5)
    return Stream(service.hub, service.pool, reader, token_sha256=caller.token_sha256, after=after)


# -------------------------------------------------------------------------------------------------------- subscriptions

Many = Field(max_length=200)
Word = Annotated[str, Field(min_length=1, max_length=64)]


class Wanted(Closed):
    """The cards an outlet wants before the last round. An empty list lets everything pass."""

    districts: Annotated[list[District], Many] = Field(default_factory=list)
    industry_sections: Annotated[list[Annotated[str, Field(pattern=r"^[A-T]$")]], Field(max_length=20)] = Field(
        default_factory=list
    )
    amount_bands: Annotated[list[Word], Many] = Field(default_factory=list)
    purposes: Annotated[list[Word], Many] = Field(default_factory=list)
    schemes: Annotated[list[Word], Many] = Field(default_factory=list)
    max_term_months: Annotated[int, Field(strict=True, ge=1, le=120)] | None = None
    first_loans_only: Annotated[bool, Field(strict=True)] = False


class Subscription(Wanted):
    """What an outlet wants, in its `version`, which stands in the ETag as well."""

    outlet_id: str
    version: int
    updated_at: str


@router.get("/hall/subscriptions/{outlet_id}", response_model=Subscription, responses=problems("not-found"))
async def read_subscription(outlet_id: OutletId, request: Request, caller: Looker) -> Response:
    """What an outlet subscribes to."""
    shown = found(await feed.subscription(request.app.state.service.pool, caller, outlet_id))
    return answer(shown, headers={"ETag": f'"{shown["version"]}"'})


@router.put(
    "/hall/subscriptions/{outlet_id}",
    response_model=Subscription,
    responses=problems(
        "not-found", "stale-version", "validation", "precondition-required", "bad-header", "maintenance"
    ),
)
async def put_subscription(
    outlet_id: OutletId,
    body: Wanted,
    request: Request,
    caller: Subscribing,
    if_match: Annotated[str | None, Header(max_length=40)] = None,
    if_none_match: Annotated[str | None, Header(max_length=40)] = None,
) -> Response:
    """What an outlet subscribes to: `If-Match` names the version it replaces, `If-None-Match: *` makes the first."""
    args = body.model_dump() | {"outlet_id": outlet_id, "version": _replaced(if_match, if_none_match)}
    shown = await feed.put_subscription(request.app.state.service.pool, caller, args)
    return answer(shown, headers={"ETag": f'"{shown["version"]}"'})


def _replaced(if_match: str | None, if_none_match: str | None) -> int | None:
    """The version that is replaced; None: there is none yet."""
    if if_match is None and if_none_match is None:
        raise Problem("precondition-required", header="If-Match")
    if if_match is None:
        if if_none_match != "*":
            raise Problem("bad-header", header="If-None-Match")
        return None
    version = if_match.removeprefix('"').removesuffix('"')
    if not version.isascii() or not version.isdigit() or len(version) > 9:
        raise Problem("bad-header", header="If-Match")
    return int(version)
