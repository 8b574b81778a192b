"""Facilities: their signing, money drawn and repaid, corrections, status, and the daily reconciliation of a bank."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, model_validator

from api import facilities, own_lists
from api.calls import Caller, act, allowed, answer, found
from api.problems import Problem, problems
from api.routes.claims import ClaimId, Fence, Reason, Sha256
from api.shapes import Closed, Day, Note

router = APIRouter(prefix="/v1", tags=["facilities"])

FacilityId = Annotated[str, Field(pattern=r"^fa_[0-9a-f]{32}$")]
DrawdownId = Annotated[str, Field(pattern=r"^dd_[0-9a-f]{32}$")]
Moved = Annotated[int, Field(strict=True, ge=1, le=10**15, description="whole fen (0.01 CNY)")]
Corrected = Annotated[int, Field(strict=True, ge=0, le=10**15, description="whole fen; 0: it never was")]
BankRef = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$", description="the bank's own reference, used once for ever"),
]
ContractNo = Annotated[
    str, Field(pattern=r"^\w[\w()（）〔〕./#-]{0,63}$", description="unique in the institution for ever")
]


class Signing(Closed):
    """The institution reports that the accepted offer was signed."""

    claim_id: ClaimId
    contract_no: ContractNo
    document_sha256: Sha256
    signed_on: Day
    line_ends_on: Day
    renewed_from: FacilityId | None = None


class AskedDrawdown(Closed):
    """The enterprise asks for money."""

    amount_fen: Moved


class _Paid(Closed):
    """Money that was paid out. The first of a facility says whether it is the enterprise's first loan 首贷."""

    bank_ref: BankRef
    drawn_on: Day
    first_loan: Annotated[bool, Field(strict=True)] | None = None
    evidence_sha256: Sha256 | None = None


class PaidDrawdown(_Paid):
    """The institution paid what was asked."""


class ReportedDrawdown(_Paid):
    """The institution reports money that moved without being asked for here; its amount is never refused."""

    amount_fen: Moved


class RefusedDrawdown(Closed):
    """The institution does not pay what was asked."""

    reason: Reason


class ReportedRepayment(Closed):
    """Money repaid; never refused for its amount."""

    amount_fen: Moved
    bank_ref: BankRef
    repaid_on: Day


class NewCorrection(Closed):
    """What the drawdown or repayment of reference `corrects` should have said; it has a reference of its own."""

    corrects: BankRef
    bank_ref: BankRef
    amount_fen: Corrected
    note: Note


class StatusReport(Closed):
    """How the facility stands.

    With `reduced` goes the line left, with `written_off` the loss booked, with `compensated` what a guarantor paid and
    the bank's reference of it; `renewed_from` names the facility that this one renews.
    """

    as_of: Day
    state: Literal["active", "frozen", "reduced", "overdue", "renewed", "settled", "written_off", "compensated"]
    days_past_due: Annotated[int, Field(strict=True, ge=0, le=36_500)]
    five_class: Literal["normal", "special-mention", "substandard", "doubtful", "loss"]
    restructured: Annotated[bool, Field(strict=True, description="because the enterprise is in distress")] = False
    line_fen: Corrected | None = None
    written_off_fen: Corrected | None = None
    compensated_fen: Moved | None = None
    bank_ref: BankRef | None = None
    renewed_from: FacilityId | None = None


MOST_LINES = 1000
"""So that the transaction of a list, behind which the feed waits (V2), stays short."""


class ListedMovement(Closed):
    """One movement on the institution's list."""

    bank_ref: BankRef
    kind: Literal["drawdown", "repayment"]
    contract_no: ContractNo
    amount_fen: Moved


class BankList(Closed):
    """Everything that moved at the institution from one day to another, both counted, or a part of it.

    A list of more lines than one call takes is sorted by `bank_ref`, byte by byte, and cut: the part after one
    reference (`after_ref`, not counted) and up to another (`through_ref`, counted). The first part has no `after_ref`,
    the last no `through_ref`, and each begins after the reference that the one before it ended with.
    """

    from_: Annotated[Day, Field(alias="from")]
    to: Day
    after_ref: BankRef | None = None
    through_ref: BankRef | None = None
    lines: Annotated[list[ListedMovement], Field(max_length=MOST_LINES)]

    @model_validator(mode="after")
    def _orderly(self) -> Self:
        if self.to < self.from_:
            raise ValueError("to is before from")
        references = [line.bank_ref for line in self.lines]
        if len(set(references)) < len(references):
            raise ValueError("a bank_ref stands twice")
        after, through = self.after_ref or "", self.through_ref
        if through is not None and through <= after:
            raise ValueError("through_ref is not behind after_ref")
        if any(one <= after or (through is not None and one > through) for one in references):
            raise ValueError("a bank_ref stands outside after_ref and through_ref")
        return self


Reporter = Annotated[Caller, Depends(allowed("report:write"))]
Side = Annotated[Caller, Depends(allowed("fr:write", "report:write"))]
Owner = Annotated[Caller, Depends(allowed("fr:write"))]
MONEY = ("not-found", "validation", "bank-ref-reused")


def args_of(body: BaseModel, **more: object) -> dict[str, object]:
    """A body as the arguments of an act; days as text."""
    return body.model_dump(mode="json", by_alias=True) | more


@router.post(
    "/facilities",
    status_code=201,
    summary="Report a signing",
    response_model=facilities.Facility,
    responses=problems(
        "not-found",
        "stale-fence",
        "illegal-transition",
        "contract-number-reused",
        "validation",
        "precondition-required",
        "request-suspended",
    ),
)
async def sign_facility(body: Signing, request: Request, caller: Reporter, fence: Fence) -> Response:
    """The offer that the enterprise accepted is signed; its reservation becomes a commitment (T15, K8)."""
    return await act(request, caller, "sign_facility", args_of(body, fence=fence))


@router.get(
    "/facilities",
    summary="One's own facilities",
    response_model=facilities.OwnFacilities,
    responses=problems("bad-cursor"),
)
async def list_facilities(request: Request, caller: Side, page: own_lists.WantedQuery) -> Response:
    """The institution's facilities, or those of the enterprise's side, without their movements."""
    return await own_lists.page_of_own(request, caller, page, "facilities", last="facility_id")


@router.get(
    "/facilities/{facility_id}",
    summary="One facility",
    response_model=facilities.FacilityWhole,
    responses=problems("not-found"),
)
async def read_facility(facility_id: FacilityId, request: Request, caller: Side) -> Response:
    """A facility with its money, for its institution and the enterprise's side."""
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await facilities.facility_view(connection, caller, facility_id)))


@router.post(
    "/facilities/{facility_id}/drawdowns",
    status_code=201,
    summary="Ask for a drawdown, or report one",
    response_model=facilities.DrawdownMade,
    responses=problems(*MONEY, "illegal-transition", "over-facility", "request-suspended"),
)
async def draw(
    facility_id: FacilityId, body: ReportedDrawdown | AskedDrawdown, request: Request, caller: Side
) -> Response:
    """The enterprise asks, within what is committed and not asked yet; the institution reports what it paid (L4)."""
    is_report = isinstance(body, ReportedDrawdown)
    if is_report != (caller.institution_id is not None):
        raise Problem("scope-missing", scopes=["report:write" if is_report else "fr:write"])
    name = "report_drawdown" if is_report else "ask_drawdown"
    return await act(request, caller, name, args_of(body, facility_id=facility_id))


@router.post(
    "/facilities/{facility_id}/drawdowns/{drawdown_id}/confirm",
    summary="Confirm a drawdown that was asked for",
    response_model=facilities.DrawdownMade,
    responses=problems(*MONEY, "illegal-transition"),
)
async def confirm_drawdown(
    facility_id: FacilityId, drawdown_id: DrawdownId, body: PaidDrawdown, request: Request, caller: Reporter
) -> Response:
    """The institution paid, under its own reference (L4); the first one begins the use of the facility (F2, T16)."""
    return await act(
        request, caller, "confirm_drawdown", args_of(body, facility_id=facility_id, drawdown_id=drawdown_id)
    )


@router.post(
    "/facilities/{facility_id}/drawdowns/{drawdown_id}/refuse",
    summary="Refuse a drawdown that was asked for",
    response_model=facilities.DrawdownMade,
    responses=problems("not-found", "illegal-transition"),
)
async def refuse_drawdown(
    facility_id: FacilityId, drawdown_id: DrawdownId, body: RefusedDrawdown, request: Request, caller: Reporter
) -> Response:
    """The institution does not pay, and says why; the amount may be asked again."""
    return await act(
        request, caller, "refuse_drawdown", args_of(body, facility_id=facility_id, drawdown_id=drawdown_id)
    )


@router.post(
    "/facilities/{facility_id}/drawdowns/{drawdown_id}/withdraw",
    summary="Take a drawdown back",
    response_model=facilities.DrawdownMade,
    responses=problems("not-found", "illegal-transition"),
)
async def withdraw_drawdown(
    facility_id: FacilityId, drawdown_id: DrawdownId, request: Request, caller: Owner
) -> Response:
    """The enterprise takes back what it asked and the institution has not answered; the amount may be asked again."""
    return await act(request, caller, "withdraw_drawdown", {"facility_id": facility_id, "drawdown_id": drawdown_id})


@router.post(
    "/facilities/{facility_id}/repayments",
    status_code=201,
    summary="Report a repayment",
    response_model=facilities.RepaymentMade,
    responses=problems(*MONEY),
)
async def repay(facility_id: FacilityId, body: ReportedRepayment, request: Request, caller: Reporter) -> Response:
    """Money came back: it may be drawn again on a revolving line 随借随还, and is released on a term loan (L4)."""
    return await act(request, caller, "report_repayment", args_of(body, facility_id=facility_id))


@router.post(
    "/facilities/{facility_id}/corrections",
    status_code=201,
    summary="Correct a drawdown or repayment",
    response_model=facilities.CorrectionMade,
    responses=problems(*MONEY),
)
async def correct(facility_id: FacilityId, body: NewCorrection, request: Request, caller: Reporter) -> Response:
    """A new entry that points to the wrong one; nothing is edited (L5)."""
    return await act(request, caller, "correct", args_of(body, facility_id=facility_id))


@router.post(
    "/facilities/{facility_id}/status",
    summary="Report how a facility stands",
    response_model=facilities.Facility,
    responses=problems(*MONEY, "illegal-transition"),
)
async def report_status(facility_id: FacilityId, body: StatusReport, request: Request, caller: Reporter) -> Response:
    """Days past due, five-class grade and state; from these reports loan outcomes are exported."""
    return await act(request, caller, "report_status", args_of(body, facility_id=facility_id))


@router.post(
    "/reconciliations",
    status_code=201,
    summary="Compare an institution's list with ours",
    response_model=facilities.Reconciliation,
    responses=problems("not-found", "validation"),
)
async def reconcile(body: BankList, request: Request, caller: Reporter) -> Response:
    """Every difference is classified and stands as a case until a later list agrees (L7).

    A list is cut into parts of at most 1,000 lines by days or by references (`after_ref`, `through_ref`), and a part
    may hold at most 1,000 records of ours beside those listed.
    """
    return await act(request, caller, "reconcile", args_of(body))
