"""Facilities 授信 and the exposure ledger as they are read; what changes them are acts of the database."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

import asyncpg
from pydantic import BaseModel

from api.access import unwithheld
from api.calls import Caller
from api.database import Connection

Json = Mapping[str, Any]
State = Literal["signed", "active", "frozen", "reduced", "overdue", "renewed", "settled", "written_off", "compensated"]


class Balances(BaseModel):
    """Where a facility stands after a movement of money."""

    state: State
    version: int
    committed_fen: int
    drawn_fen: int
    over_limit_fen: int
    outstanding_fen: int


class Drawdown(BaseModel):
    """A drawdown: asked for by the enterprise, or reported by the institution after the money moved.

    What was asked is confirmed or refused by the institution, withdrawn by the enterprise, or has lapsed with its line.
    """

    drawdown_id: str
    facility_id: str
    state: Literal["asked", "confirmed", "refused", "withdrawn", "lapsed"]
    amount_fen: int
    asked_by: Literal["enterprise", "institution"]
    bank_ref: str | None
    drawn_on: date | None
    refused_for: str | None
    asked_at: str
    due_at: str | None
    due_is_provisional: bool


class DrawdownMade(Drawdown):
    """The drawdown and the facility after it."""

    facility: Balances


class Repayment(BaseModel):
    """A repayment; a guarantor's counts like the enterprise's own."""

    repayment_id: str
    facility_id: str
    amount_fen: int
    paid_by: Literal["enterprise", "guarantor"]
    bank_ref: str
    repaid_on: date
    at: str


class RepaymentMade(Repayment):
    """The repayment and the facility after it."""

    facility: Balances


class Correction(BaseModel):
    """What a drawdown or repayment should have said."""

    corrects: str
    bank_ref: str
    amount_fen: int
    note: str
    at: str


class CorrectionMade(BaseModel):
    """The correction and the facility after it."""

    facility_id: str
    corrects: str
    bank_ref: str
    amount_fen: int
    facility: Balances


class Status(BaseModel):
    """The bank's latest word."""

    as_of: date
    state: State
    days_past_due: int
    five_class: str
    restructured: bool


class Facility(BaseModel):
    """A signed facility. `line_fen` is what the bank leaves open of `ceiling_fen`."""

    facility_id: str
    fr_id: str
    claim_id: str
    offer_id: str
    institution_id: str
    uscc: str
    state: State
    version: int
    ceiling_fen: int
    line_fen: int
    committed_fen: int
    drawn_fen: int
    over_limit_fen: int
    outstanding_fen: int
    revolving: bool
    counts_in_limit: bool
    contract_no: str
    document_sha256: str
    annual_rate_bp: int
    signed_on: date
    line_ends_on: date
    line_over: bool
    first_loan: bool | None
    renewed_from: str | None
    deadline: str | None


class OwnFacilities(BaseModel):
    """Facilities in the order in which they were signed."""

    items: list[Facility]
    as_of: str


class FacilityWhole(Facility):
    """A facility with its money and the bank's latest word."""

    drawdowns: list[Drawdown]
    repayments: list[Repayment]
    corrections: list[Correction]
    status: Status | None


class Amounts(BaseModel):
    """Amounts in fen; the unbound ones stand outside the limit and reduce what is available (L8)."""

    pending_fen: int
    committed_fen: int
    drawn_fen: int
    over_limit_fen: int
    unbound_committed_fen: int
    unbound_drawn_fen: int


class Share(Amounts):
    """The amounts at one institution; null: reserved, and not attributed to one yet."""

    institution_id: str | None


class Reservation(BaseModel):
    """What a request reserved."""

    fr_id: str
    round: int
    amount_fen: int
    institution_id: str | None
    counts_in_limit: bool
    state: Literal["pending", "committed", "voided"]
    made_at: str
    resolved_at: str | None


class SchemeLimit(BaseModel):
    """The latest quote of a scheme whose quote binds, and what a request of it may still reserve."""

    scheme: str
    limit_fen: int
    expires_at: str
    available_fen: int


class Exposure(Amounts):
    """What an enterprise owes and has reserved: totals for the holder of a live claim, itemised for its own side.

    `guard` says whether the limit refuses or only informs. `limit_fen` is the greatest of the schemes' limits and
    bounds all amounts together; `limit_target_fen` is a lower one that waits until they fit.
    """

    uscc: str
    available_fen: int
    guard: Literal["refuses", "informs-only"]
    limit_fen: int | None = None
    limit_target_fen: int | None = None
    limits: list[SchemeLimit] | None = None
    institutions: list[Share] | None = None
    reservations: list[Reservation] | None = None
    facilities: list[Facility] | None = None


class Case(BaseModel):
    """Something that a person must look at."""

    case_id: str
    kind: str
    subject: str
    lamp: Literal["red", "yellow", "green"]
    note: str
    opened_at: str
    due_at: str
    due_is_provisional: bool
    overdue_at: str | None
    closed_at: str | None
    closed_by: str | None
    closing_note: str | None


class Cases(BaseModel):
    """A page of cases, in the order in which they were opened."""

    items: list[Case]
    as_of: str


class ReconciledLine(BaseModel):
    """One reference on both lists; null: it is not on that list.

    `contract_no` and `kind` are as the institution lists them, and as we have them where its list lacks the line.
    """

    bank_ref: str
    contract_no: str
    kind: Literal["drawdown", "repayment"]
    theirs_fen: int | None
    ours_contract_no: str | None
    ours_kind: Literal["drawdown", "repayment"] | None
    ours_fen: int | None
    result: Literal["equal", "missing-here", "missing-there", "amount-differs", "record-differs"]
    case_id: str | None


class Reconciliation(BaseModel):
    """The institution's list against ours."""

    reconciliation_id: str
    differences: int
    lines: list[ReconciledLine]


async def facility_view(connection: Connection, caller: Caller, facility_id: str) -> Json | None:
    """One facility, for its institution and the enterprise's side; None where it does not exist for them."""
    return await connection.fetchval("SELECT hall.facility_view($1, $2)", caller.actor(), facility_id)


async def exposure_view(connection: Connection, caller: Caller, uscc: str) -> Json | None:
    """An enterprise's exposure as far as the caller reaches (hall.md §11); None: it does not exist for them."""
    return unwithheld(await connection.fetchval("SELECT hall.look_at_exposure($1, $2)", caller.actor(), uscc))


async def cases(
    connection: Connection, *, is_open: bool | None, is_overdue: bool, kind: str | None, after: str, most: int
) -> list[asyncpg.Record]:
    """Cases in the order of their opening.

    Args:
        connection: of the service.
        is_open: None: closed ones too.
        is_overdue: those alone that nobody closed in time.
        kind: None: of every kind.
        after: id of the last case of the page before.
        most: rows.
    """
    return await connection.fetch(
        """
        SELECT hall.case_body(k) AS found
        FROM hall.hall_case AS k
        WHERE k.id > $1 AND ($2::boolean IS NULL OR (k.closed_at IS NULL) = $2) AND ($3::text IS NULL OR k.kind = $3)
            AND (NOT $5 OR k.overdue_at IS NOT NULL)
        ORDER BY k.id
        LIMIT $4
        """,
        after,
        is_open,
        kind,
        most,
        is_overdue,
    )
