"""Reference limits: quotes for enterprises, and what banks may see of them under a consent."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import quotes
from api.calls import Caller, act, allowed, already, answer, found
from api.consents import Purpose
from api.limits import LOOKS
from api.problems import Problem, problems
from api.routes.facts import Uscc

router = APIRouter(prefix="/v1", tags=["limits"])

Code = Annotated[str, Field(pattern=r"^[0-9A-Z]{18}$", description="统一社会信用代码")]
Bank = Annotated[Caller, Depends(allowed("limit:read"))]
Asker = Annotated[Caller, Depends(allowed("fr:write", "quote:write"))]
Scheme = Annotated[str, Field(max_length=64, description="a scheme of the hall's policy, such as torch-points")]
MOST = 1_000


class QuoteAsked(BaseModel):
    """Whose limit, under which scheme."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uscc: Code
    scheme: Scheme


class LimitsAsked(BaseModel):
    """Whose limits, and what for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    usccs: Annotated[list[Code], Field(min_length=1, max_length=MOST)]
    purpose: Purpose
    scheme: Scheme | None = None


class Reason(BaseModel):
    """Why the limit is what it is; `cny` is the limit that it costs, where it can be told."""

    code: str
    cny: int | None
    zh: str
    en: str


class Quote(BaseModel):
    """A reference limit: the bank's approval is its own. `conditional_limit_fen` if what is missing turns out clean."""

    quote_id: str
    uscc: str
    scheme: str
    quote_binds: bool
    decision_id: str
    outcome: str
    limit_fen: int
    conditional_limit_fen: int
    conditions: list[str]
    rate_bp: int | None
    score: int
    grade: str
    binding: str | None
    reasons: list[Reason]
    missing_feeds: list[str]
    as_of: str
    made_at: str
    expires_at: str
    model_version: str
    policy_version: str
    input_hash: str


class ShownLimit(BaseModel):
    """A reference limit as a bank sees it; the bank clears the conditions before its offer.

    Attributes:
        quote_binds: whether amounts under the scheme keep to it.
        is_live: not expired.
    """

    quote_id: str
    scheme: str
    quote_binds: bool
    outcome: str
    limit_fen: int
    conditions: list[str]
    made_at: str
    expires_at: str
    is_live: bool
    decision_id: str
    model_version: str
    policy_version: str


class LimitLine(BaseModel):
    """One enterprise: its limit (null: never quoted) under a consent, or why it is withheld."""

    uscc: str
    consent_id: str | None = None
    limit: ShownLimit | None = None
    withheld: str | None = None


class Limits(BaseModel):
    """One line an enterprise, in the order asked."""

    lines: list[LimitLine]


@router.post(
    "/limit-quotes",
    status_code=201,
    response_model=Quote,
    responses=problems("not-found", "validation", "quote-cap", "engine-unavailable"),
)
async def ask_quote(body: QuoteAsked, request: Request, caller: Asker) -> Response:
    """Measure an enterprise by today's facts; the same facts on the same day give the same quote."""
    if (stored := await already(request, caller)) is not None:
        return stored
    service = request.app.state.service
    await quotes.require_reach(service.pool, caller, body.uscc)

    async def keep(made: quotes.Measured) -> Response:
        args = {"decision": made.decision, "text": made.text, "facts_mark": made.facts_mark}
        return await act(request, caller, "quote", body.model_dump() | args)

    return await quotes.kept(service, body.uscc, body.scheme, keep)


@router.get(
    "/limit-quotes/{quote_id}",
    response_model=Quote,
    responses=problems("not-found"),
)
async def get_quote(quote_id: str, request: Request, caller: Asker) -> Response:
    """A quote as it was given."""
    return answer(found(await quotes.quote_of(request.app.state.service.pool, caller, quote_id)))


@router.get(
    "/enterprises/{uscc}/limit",
    response_model=LimitLine,
    responses=problems("consent-missing", "consent-revoked", "validation"),
)
async def get_limit(
    uscc: Uscc,
    purpose: Annotated[Purpose, Query()],
    request: Request,
    caller: Bank,
    scheme: Annotated[Scheme | None, Query()] = None,
) -> Response:
    """The latest limit under a scheme of an enterprise that consented; the look is logged, also one that is refused.

    Without a scheme: of those in force, or else of all, one that binds before one that does not, and then the latest.
    """
    request.app.state.service.limits.count(request, LOOKS, caller.paced_as)
    (line,) = await quotes.limits_for_bank(request.app.state.service.pool, caller, [uscc], purpose, scheme)
    if "withheld" in line:
        raise Problem(line["withheld"])
    return answer(line)


@router.post("/limits/query", response_model=Limits, responses=problems("validation"))
async def query_limits(body: LimitsAsked, request: Request, caller: Bank) -> Response:
    """The latest limits of up to 1,000 enterprises, each under its own consent and as for one; each look is logged.

    Paced by the enterprises asked for, 200 a second and 2,000 at once, whatever the calls.
    """
    request.app.state.service.limits.count(request, LOOKS, caller.paced_as, len(body.usccs))
    lines = await quotes.limits_for_bank(request.app.state.service.pool, caller, body.usccs, body.purpose, body.scheme)
    return answer({"lines": lines})
