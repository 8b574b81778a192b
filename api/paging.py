"""Paged lists (G1): at most 200 rows, `Link: rel="next"`, and the time they are as of."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from api.calls import answer
from api.cursors import MOST


class Page(BaseModel):
    """Which part of a list is asked for; a filter of a list adds to it. An unknown parameter is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=MOST, description="most rows of one answer")] = 50
    cursor: Annotated[str, Field(max_length=1000, description="of the header Link of the page before")] | None = None

    def asked(self) -> dict[str, object]:
        """The filter that a cursor is bound to."""
        return self.model_dump(mode="json", exclude={"limit", "cursor"})


def page_of(
    request: Request, page: Page, rows: Sequence[Mapping[str, object]], *, client: str, last: str, as_of: str
) -> Response:
    """One page as an answer, with the way to the next.

    Args:
        request: asked for it.
        page: what it asked for.
        rows: the rows from the page's beginning, one more than its limit where there are more.
        client: who may go on; empty for a public list.
        last: name of the column that orders the rows, without equals.
        as_of: when they were read.
    """
    shown = rows[: page.limit]
    headers: dict[str, str] = {}
    if len(rows) > page.limit:
        listing = request.scope["route"].path
        cursor = request.app.state.service.cursors.make(client, listing, page.asked(), shown[-1][last])
        query = page.model_dump(mode="json", exclude_none=True, exclude={"cursor"}) | {"cursor": cursor}
        headers["Link"] = f'<{request.url.path}?{urlencode(query)}>; rel="next"'
    return answer({"items": shown, "as_of": as_of}, headers=headers)


def begun_after(request: Request, page: Page, client: str) -> str:
    """The place behind which the page begins; empty: at the first row.

    Raises:
        Problem: bad-cursor.
    """
    cursors = request.app.state.service.cursors
    return cursors.read(client, request.scope["route"].path, page.asked(), page.cursor) or ""
