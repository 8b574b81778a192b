"""What the API says of itself: its changes and deprecations."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.calls import answer
from api.changes import LIST
from api.limits import CALLS
from api.problems import problems

router = APIRouter(tags=["meta"])


class ChangeWords(BaseModel):
    """What changed, in both languages."""

    zh: str
    en: str


class ApiChange(BaseModel):
    """A change of operations, named by their operationId; from the day `sunset` on a deprecated one may be gone."""

    on: str
    kind: Literal["added", "changed", "deprecated", "removed"]
    operations: list[str]
    what: ChangeWords
    sunset: str | None


class ApiChanges(BaseModel):
    """Every change, the earliest first."""

    changes: list[ApiChange]


@router.get(LIST, summary="Changes and deprecations", response_model=ApiChanges, responses=problems("rate-limited"))
async def list_changes(request: Request) -> Response:
    """For programs that watch what they call. Days are of Beijing."""
    request.app.state.service.limits.count(request, CALLS, request.client.host if request.client else "")
    return answer(request.app.state.changes.model_dump(mode="json"))
