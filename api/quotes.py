"""Limit quotes: one enterprise measured outside any transaction, and limits shown to banks under a consent."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import orjson

from api.calls import Caller
from api.database import Pool
from api.engines import Made
from api.facts import known_of_enterprise
from api.problems import Problem

if TYPE_CHECKING:
    from api.service import Service


MOST_MEASURES = 3
"""Times that an enterprise is measured for one call while its facts keep changing."""
_FACTS_CHANGED = "JF003"

LOOKS_AT_ONCE = 100
"""Limits that one transaction looks at: no look keeps its locks while many others are made."""


@dataclass(frozen=True)
class Measured:
    """A decision about an enterprise, made or found, and ready to be kept by an act.

    Attributes:
        decision: for `hall.keep_decision`.
        text: the answer as canonical bytes.
        reasons: `code`, `cny`, `zh`, `en` of each.
        quote_binds: whether amounts under the scheme keep to the quote.
        facts_mark: of the facts that it was made from.
    """

    decision: dict[str, Any]
    text: str
    outcome: str
    limit_fen: int
    reasons: list[dict[str, Any]]
    quote_binds: bool
    facts_mark: str


Answer = TypeVar("Answer")


async def kept(service: "Service", uscc: str, scheme: str, keep: Callable[[Measured], Awaitable[Answer]]) -> Answer:
    """Measure an enterprise and keep the decision by an act, measuring anew where facts came meanwhile.

    Args:
        service: of this process.
        uscc: of the enterprise.
        scheme: under which.
        keep: does the act, which asks `hall.expect_latest`.

    Raises:
        Problem: as `measured`; overloaded: facts came each time; whatever `keep` raises.
    """
    for _ in range(MOST_MEASURES):
        found = await measured(service, uscc, scheme)
        try:
            return await keep(found)
        except asyncpg.PostgresError as error:
            if getattr(error, "sqlstate", None) != _FACTS_CHANGED:
                raise
    raise Problem("overloaded")


async def measured(service: "Service", uscc: str, scheme: str) -> Measured:
    """Decide on what is known of an enterprise today (Beijing), or find the same decision made before.

    Raises:
        Problem: not-found: no such enterprise; validation: no such scheme, or the registry's facts are not known;
            quote-cap: too many fresh decisions today; engine-unavailable; overloaded.
    """
    asked = await _asked(service.pool, uscc, scheme)
    known = await known_of_enterprise(service.pool, uscc)
    sources = known.sources
    engines = service.engines
    if asked["left"] <= 0:
        decision_id = await engines.run(
            lambda: engines.ready(asked["policy"]).decision_id(sources, uscc, asked["today"])
        )
        stored = await _stored(service.pool, decision_id)
        if stored is None:
            raise Problem("quote-cap", retry_after_seconds=asked["seconds_left"])
        return _measured(stored, known.mark, quote_binds=asked["quote_binds"])
    made = await engines.run(lambda: engines.ready(asked["policy"]).made(sources, uscc, asked["today"]))
    if made is None:
        raise Problem(
            "validation",
            errors=[{"pointer": "/uscc", "rule": "registry-facts-missing", "detail": "deliver them first"}],
        )
    # Another version of a library may have decided the same otherwise; the first decision stands.
    stored = await _stored(service.pool, made.decision["answer"]["decision_id"])
    return _measured(stored or made, known.mark, quote_binds=asked["quote_binds"])


async def require_reach(pool: Pool, caller: Caller, uscc: str) -> None:
    """Refuse before the work what the act would refuse after it.

    Raises:
        Problem: not-found: the caller does not speak for the enterprise.
    """
    reaches = await pool.fetchval("SELECT hall.acts_for($1, $2) OR $1 ->> 'role' = 'scoring'", caller.actor(), uscc)
    if not reaches:
        raise Problem("not-found")


async def _asked(pool: Pool, uscc: str, scheme: str) -> dict[str, Any]:
    row = await pool.fetchrow(
        """
        SELECT c.today, s.policy, s.quote_binds, e.uscc, hall.quotes_left_today($1) AS "left",
            hall.seconds_left_today() AS seconds_left
        FROM (SELECT hall.today() AS today) c
        LEFT JOIN hall.scheme s ON s.name = $2
        LEFT JOIN hall.enterprise e ON e.uscc = $1
        """,
        uscc,
        scheme,
    )
    assert row is not None  # the clock gives one
    if row["uscc"] is None:
        raise Problem("not-found")
    if row["policy"] is None:
        raise Problem("validation", errors=[{"pointer": "/scheme", "rule": "unknown-scheme"}])
    return dict(row)


async def _stored(pool: Pool, decision: str) -> Made | None:
    row = await pool.fetchrow("SELECT content, text FROM hall.decision WHERE id = $1", decision)
    return None if row is None else Made(row["content"], row["text"])


def _measured(made: Made, mark: str, *, quote_binds: bool) -> Measured:
    answer = made.decision["answer"]
    return Measured(
        decision=made.decision,
        text=made.text,
        outcome=answer["outcome"],
        limit_fen=answer["limit_fen"],
        reasons=orjson.loads(answer["reasons"]),
        quote_binds=quote_binds,
        facts_mark=mark,
    )


async def quote_of(pool: Pool, caller: Caller, quote_id: str) -> dict[str, Any] | None:
    """A quote as the enterprise sees it, for its side and the scoring client; None: not the caller's to see."""
    return await pool.fetchval(
        """
        SELECT hall.quote_body(q.id) FROM hall.limit_quote q
        WHERE q.id = $1 AND (hall.acts_for($2, q.uscc) OR $2 ->> 'role' = 'scoring')
        """,
        quote_id,
        caller.actor(),
    )


async def limits_for_bank(
    pool: Pool, caller: Caller, usccs: Sequence[str], purpose: str, scheme: str | None
) -> list[dict[str, Any]]:
    """One line an enterprise, in the order asked: its limit, or why it is withheld. Each look is logged.

    `LOOKS_AT_ONCE` are made and logged together: after an error, those before it stay logged.

    Args:
        pool: of the hall.
        caller: a bank.
        usccs: of the enterprises.
        purpose: that a consent must allow.
        scheme: under which; None: of any, first one in force, then one that binds, then the latest.

    Raises:
        asyncpg.PostgresError: a refusal: validation: no such scheme.
    """
    lines: list[dict[str, Any]] = []
    for begin in range(0, len(usccs), LOOKS_AT_ONCE):
        rows = await pool.fetch(
            "SELECT shown FROM hall.look_at_limits($1, $2, $3, $4) AS shown",
            caller.actor(),
            list(usccs[begin : begin + LOOKS_AT_ONCE]),
            purpose,
            scheme,
        )
        lines += [row["shown"] for row in rows]
    return lines
