"""Credit reports 信用报告: issued to the enterprise, shown to banks under a consent, verified by anybody."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api import credit_reports
from api.calls import Caller, act, allowed, already, answer, found
from api.consents import Purpose
from api.limits import CALLS
from api.problems import Problem, problems
from api.routes.limits import Reason
from api.shapes import Closed

router = APIRouter(prefix="/v1", tags=["credit reports"])

ReportId = Annotated[str, Path(pattern=r"^cr_[0-9a-f]{32}$")]
Issuer = Annotated[Caller, Depends(allowed("fr:write"))]
Reader = Annotated[Caller, Depends(allowed("fr:write", "limit:read"))]


class ReportAsked(Closed):
    """Which quote."""

    quote_id: Annotated[str, Field(pattern=r"^lq_[0-9a-f]{32}$")]


class FeedBehind(BaseModel):
    """A feed that the decision leans on: the days it had to cover, and whether it did."""

    feed: str
    source: str
    direction: str | None
    from_: Annotated[str, Field(alias="from")]
    until: str
    state: Literal["complete", "incomplete", "missing"]


class ReportContent(BaseModel):
    """What was frozen. Nothing in it changes; members may be added to reports issued later.

    Attributes:
        own_word_points_bp: of the ruleset's full scale, what only the applicant reported.
        model_version: ends with the beginning of the SHA-256 of the model's manifest.
        policy_sha256, ruleset_sha256: of the texts in force then; null where the policy names no ruleset.
        input_sha256: of all facts known on `as_of`.
        enterprise_part_sha256: of the part that the enterprise alone is given.
    """

    report_id: str
    issued_at: str
    valid_until: str
    uscc: str
    name: str
    scheme: str
    quote_binds: bool
    quote_id: str
    quoted_at: str
    decision_id: str
    as_of: str
    outcome: str
    limit_fen: int
    conditions: list[str]
    rate_bp: int | None
    score: int
    grade: str
    innovation_points_hundredths: int | None
    own_word_points_bp: int | None
    binding: str | None
    reasons: list[Reason]
    feeds: list[FeedBehind]
    model_version: str
    policy_version: str
    policy_sha256: str
    ruleset_version: str | None
    ruleset_sha256: str | None
    input_sha256: str
    enterprise_part_sha256: str


class EnterprisePart(BaseModel):
    """What no bank is shown: the limit if what is missing turns out clean. `salt` keeps its hash from being guessed."""

    conditional_limit_fen: int
    missing_feeds: list[str]
    salt: str


class Watermark(BaseModel):
    """Whose look this is: the `view`-th of the report, under this consent. A copy that turns up is traced by it."""

    institution_id: str
    consent_id: str
    at: str
    view: int


class CreditReport(BaseModel):
    """A report; `sha256` is over the canonical JSON (RFC 8785) of `content`. A bank gets a watermark beside it."""

    report_id: str
    state: Literal["valid", "superseded", "expired"]
    sha256: str
    content: ReportContent
    enterprise_part: EnterprisePart | None = None
    watermark: Watermark | None = None


class Verification(BaseModel):
    """Whether a report with this number and hash stands. What is unknown, altered or over is `invalid` alike."""

    state: Literal["valid", "invalid", "superseded"]


@router.post(
    "/credit-reports",
    status_code=201,
    summary="Freeze a quote as a report",
    response_model=CreditReport,
    responses={200: {"model": CreditReport, "description": "the quote's report, issued before"}}
    | problems("not-found", "quote-expired"),
)
async def issue_credit_report(body: ReportAsked, request: Request, caller: Issuer) -> Response:
    """One report a quote, valid as long as the quote; asked for again it is the same."""
    if (stored := await already(request, caller)) is not None:
        return stored
    told = found(await credit_reports.basis(request.app.state.service.pool, caller, body.quote_id))
    return await act(request, caller, "issue_credit_report", {"quote_id": body.quote_id, **told})


@router.get(
    "/credit-reports/{report_id}",
    summary="A report as it was issued",
    response_model=CreditReport,
    responses=problems("not-found", "consent-missing", "consent-revoked"),
)
async def read_credit_report(
    report_id: ReportId,
    request: Request,
    caller: Reader,
    purpose: Annotated[Purpose, Query(description="a bank's, as its consent says")] = "financing",
) -> Response:
    """For the enterprise; for a bank under a consent to the data set `report`, each look logged and numbered."""
    shown = found(await credit_reports.report_for(request.app.state.service.pool, caller, report_id, purpose))
    if "withheld" in shown:
        raise Problem(shown["withheld"])
    return answer(shown)


@router.get(
    "/credit-reports/{report_id}/verification",
    summary="Does a report stand?",
    response_model=Verification,
    responses=problems("rate-limited"),
)
async def verify_credit_report(
    report_id: Annotated[str, Path(max_length=64)],
    request: Request,
    sha256: Annotated[str, Query(pattern=r"^[0-9a-f]{64}$", description="of the canonical JSON of the content")],
) -> Response:
    """For everybody who was handed a report: its number and the hash of what was handed over."""
    service = request.app.state.service
    service.limits.count(request, CALLS, request.client.host if request.client else "")
    return answer({"state": await credit_reports.state_of(service.pool, report_id, sha256)})
