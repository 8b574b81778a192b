"""Statistics of the hall: aggregates alone, no single request, enterprise or small group of banks."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from api.calls import Caller, allowed, answer
from api.fairness import Verdict
from api.fairness_reports import MONTH, monthly

router = APIRouter(prefix="/v1", tags=["stats"])

Statistician = Annotated[Caller, Depends(allowed("stats:read"))]


class FairnessGroup(BaseModel):
    """A group's wins in the rounds for which others tried too; every figure is null where there are too few to tell.

    Attributes:
        group: of `size`: state, joint-stock, city, rural, other; of `connection`: stream, poll, snapshot, none.
        expected_hundredths: wins if all that tried for a round were as likely to win it.
        z_hundredths: wins beyond the expected, in standard deviations.
        p_millionths: exact, two-sided, rounded up.
        holm_p_millionths: the same, for all groups tested together (Holm); the verdict goes by it.
    """

    by: Literal["size", "connection"]
    group: str
    verdict: Verdict
    institutions: int | None
    rounds: int | None
    wins: int | None
    win_share_bp: int | None
    expected_hundredths: int | None
    z_hundredths: int | None
    p_millionths: int | None
    holm_p_millionths: int | None


class FairnessReport(BaseModel):
    """Rounds whose gate opened in the month (Beijing) and that more than one institution tried for."""

    month: str
    is_over: bool
    read_at: str
    level_bp: int
    contested_rounds: int
    groups: list[FairnessGroup]


@router.get("/stats/fairness", summary="Had all the same chance to win?", response_model=FairnessReport)
async def read_fairness(
    month: Annotated[str, Query(pattern=f"^{MONTH}$", description="such as 2026-11")],
    request: Request,
    _caller: Statistician,
) -> Response:
    """Win shares by size of the institution and by connection, with an exact test of equal opportunity (F2)."""
    return answer(await monthly(request.app.state.service.pool, month))
