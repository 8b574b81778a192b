"""Appeals 申诉 as they are read; opening one, the contact and the opinion are acts of the database."""

from collections.abc import Mapping
from typing import Any, Literal

import asyncpg
from pydantic import BaseModel

from api.calls import Caller
from api.database import Connection

Method = Literal["visit", "call", "video", "message"]
Outcome = Literal["upheld", "partly", "dismissed"]
State = Literal["open", "closed"]


class AppealContact(BaseModel):
    """When the case manager reached the enterprise, and how."""

    at: str
    method: Method


class Appeal(BaseModel):
    """An appeal without anybody's words. `lamp`: green in time, yellow without a contact, red without an opinion.

    `uscc` is told to the enterprise's side alone.
    """

    appeal_id: str
    uscc: str | None = None
    against: str
    quote_id: str | None
    fr_id: str | None
    claim_id: str | None
    reason: str
    state: State
    lamp: Literal["green", "yellow", "red"]
    case_id: str
    opened_at: str
    contact_due: str
    opinion_due: str
    due_is_provisional: bool
    contacts: list[AppealContact]
    outcome: Outcome | None
    closed_at: str | None


class Appellant(BaseModel):
    """Whom the case manager calls."""

    name: str
    contact_name: str | None
    contact_phone: str | None


class AppealWhole(Appeal):
    """An appeal with its text and, at its end, the case manager's note to the enterprise.

    `appellant` and `decision` (the quote as the enterprise was given it, or the claim with the code that it was
    declined for) are the case manager's while the appeal is open; each of his looks is logged.
    """

    text: str
    note: str | None
    appellant: Appellant | None = None
    decision: dict[str, Any] | None = None


class Appeals(BaseModel):
    """A page of appeals, in the order in which they were opened."""

    items: list[Appeal]
    as_of: str


async def appeal_view(connection: Connection, caller: Caller, appeal_id: str) -> Mapping[str, Any] | None:
    """One appeal, a case manager's look logged; None where it does not exist for the caller."""
    return await connection.fetchval("SELECT hall.look_at_appeal($1, $2)", caller.actor(), appeal_id)


async def appeals(
    connection: Connection, caller: Caller, state: State | None, after: str, most: int
) -> list[asyncpg.Record]:
    """Of the enterprise's side its own, of a case manager all that are open; in the order of their opening."""
    if caller.role == "case-manager":
        return await connection.fetch(
            """
            SELECT hall.appeal_row(a) AS found
            FROM hall.hall_case AS k JOIN hall.appeal AS a ON a.case_id = k.id
            WHERE k.kind = 'appeal' AND k.closed_at IS NULL AND a.id > $1 AND $2::text IS DISTINCT FROM 'closed'
            ORDER BY a.id
            LIMIT $3
            """,
            after,
            state,
            most,
        )
    return await connection.fetch(
        """
        SELECT hall.appeal_row(a) || jsonb_build_object('uscc', a.uscc) AS found FROM hall.appeal AS a
        WHERE a.uscc IN (SELECT hall.spoken_for($1)) AND a.id > $2
            AND ($3::text IS NULL OR hall.is_open(a) = ($3 = 'open'))
        ORDER BY a.id
        LIMIT $4
        """,
        caller.actor(),
        after,
        state,
        most,
    )
