"""Consents: what an enterprise allows whom to see, for what and until when; and the log of who looked."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, model_validator

from api.calls import Caller
from api.database import Connection, Pool
from api.problems import Problem

CLAIMING = "claiming-institution"
"""The recipient that stands for whichever institution holds a live claim on a request of the enterprise."""

Purpose = Annotated[
    str, Field(pattern=r"^[a-z][a-z-]{1,39}$", description="what it is for, such as financing or post-loan")
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DataSet = Literal["limit", "facts", "report"]
Method = Literal["ca-signature", "face-check", "sms-code", "paper"]
Recipient = Annotated[
    str, Field(pattern=r"^(in_[0-9a-f]{32}|claiming-institution)$", description=f"an institution, or {CLAIMING}")
]


class ConsentGiven(BaseModel):
    """What the enterprise signed. Without the hash of its evidence it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    signer: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    method: Method
    evidence_sha256: Sha256
    purpose: Purpose
    data_sets: Annotated[list[DataSet], Field(min_length=1, max_length=3)]
    recipients: Annotated[list[Recipient], Field(min_length=1, max_length=200)]
    from_: Annotated[AwareDatetime | None, Field(alias="from", description="null: from now on")] = None
    to: AwareDatetime
    one_time: Annotated[StrictBool, Field(description="each recipient may look once")] = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.data_sets)) < len(self.data_sets) or len(set(self.recipients)) < len(self.recipients):
            raise ValueError("a data set or recipient is named twice")
        if self.from_ is not None and self.to <= self.from_:
            raise ValueError("to is not after from")
        return self

    def kept(self, uscc: str) -> dict[str, Any]:
        """The arguments of `hall.act_give_consent`, with the receipt."""
        return {
            "uscc": uscc,
            **self.model_dump(exclude={"from_", "to"}),
            "valid_from": None if self.from_ is None else _iso(self.from_),
            "valid_to": _iso(self.to),
            "receipt_sha256": receipt(uscc, self.model_dump(mode="json", by_alias=True)),
        }


class Acknowledgement(BaseModel):
    """Whether a recipient confirmed that it stopped using the data."""

    institution_id: str
    acknowledged_at: str | None


class ConsentView(BaseModel):
    """A consent; `receipt_sha256` is over the canonical JSON (RFC 8785) of what was signed, with `uscc`."""

    model_config = ConfigDict(populate_by_name=True)

    consent_id: str
    uscc: str
    signer: str
    method: Method
    evidence_sha256: str
    purpose: str
    data_sets: list[DataSet]
    recipients: list[str]
    from_: Annotated[str, Field(alias="from")]
    to: str
    one_time: bool
    receipt_sha256: str
    given_at: str
    revoked_at: str | None
    acknowledge_by: str | None
    acknowledgements: list[Acknowledgement]


class Access(BaseModel):
    """One look: who, what, for what, under which consent; `withheld` says why nothing was shown."""

    access_id: int
    at: str
    institution_id: str | None
    institution: str | None
    what: str
    purpose: str
    consent_id: str | None
    withheld: str | None


def receipt(uscc: str, signed: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a consent as it was signed: what both sides can compute again."""
    return sha256(rfc8785.dumps({**signed, "uscc": uscc})).hexdigest()


def _iso(moment: datetime) -> str:
    return moment.isoformat()


async def consent_of(pool: Pool, caller: Caller, uscc: str, consent_id: str) -> dict[str, Any] | None:
    """A consent, for the enterprise's side and for an institution that it names; None: not the caller's to see."""
    return await pool.fetchval(
        """
        SELECT hall.consent_body(c.id) FROM hall.consent c
        WHERE c.id = $1 AND c.uscc = $2 AND (hall.acts_for($3, c.uscc)
            OR hall.names_recipient(c.recipients, $3 ->> 'institution', hall.holds_claim($3, c.uscc))
            OR EXISTS (SELECT 1 FROM hall.revocation_notice n
                WHERE n.consent_id = c.id AND n.institution_id = $3 ->> 'institution'))
        """,
        consent_id,
        uscc,
        caller.actor(),
    )


async def consents_of(
    connection: Connection, caller: Caller, uscc: str, after: str, most: int
) -> list[dict[str, Any]] | None:
    """The consents of an enterprise, latest first; None: not the caller's to see.

    Args:
        connection: to read on.
        caller: who asks.
        uscc: whose consents.
        after: the id of the last one seen; empty: from the latest.
        most: how many.

    Raises:
        Problem: bad-cursor: the last one seen is another enterprise's.
    """
    if not await connection.fetchval("SELECT hall.acts_for($1, $2)", caller.actor(), uscc):
        return None
    seen = await connection.fetchval("SELECT given_at FROM hall.consent WHERE id = $1 AND uscc = $2", after, uscc)
    if after and seen is None:
        raise Problem("bad-cursor")
    rows: list[Any] = await connection.fetch(
        """
        SELECT hall.consent_body(id) AS body FROM hall.consent
        WHERE uscc = $1 AND ($2::timestamptz IS NULL OR given_at < $2 OR (given_at = $2 AND id > $3))
        ORDER BY given_at DESC, id LIMIT $4
        """,
        uscc,
        seen,
        after,
        most,
    )
    return [row["body"] for row in rows]


async def accesses_of(pool: Pool, caller: Caller, uscc: str, before: int | None) -> list[dict[str, Any]] | None:
    """Who looked at an enterprise, latest first, 200 at most; None: not the caller's to see."""
    if not await pool.fetchval("SELECT hall.acts_for($1, $2)", caller.actor(), uscc):
        return None
    rows = await pool.fetch(
        """
        SELECT l.id AS access_id, hall.iso(l.at) AS at, l.institution_id, i.name AS institution, l.what, l.purpose,
            l.consent_id, l.withheld
        FROM hall.access_log l LEFT JOIN hall.institution i ON i.id = l.institution_id
        WHERE l.uscc = $1 AND ($2::bigint IS NULL OR l.id < $2) ORDER BY l.id DESC LIMIT 200
        """,
        uscc,
        before,
    )
    return [dict(row) for row in rows]
