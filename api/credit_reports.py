"""Credit reports: a quote frozen with what it rests on; who may read one, and whether one stands."""

import asyncio
from datetime import date
from typing import Any

from api.calls import Caller
from api.database import Pool


async def basis(pool: Pool, caller: Caller, quote_id: str) -> dict[str, Any] | None:
    """What a report says beside the stored decision: the days each feed had to cover, the ruleset.

    None: there is no such quote for the caller.
    """
    row = await pool.fetchrow(
        """
        SELECT d.as_of, b.policy
        FROM hall.limit_quote AS q
        JOIN hall.decision AS d ON d.id = q.decision_id
        JOIN hall.rulebook AS b ON b.version = d.policy_version
        WHERE q.id = $1 AND hall.acts_for($2, q.uscc)
        """,
        quote_id,
        caller.actor(),
    )
    return None if row is None else await asyncio.to_thread(_told, row["as_of"], row["policy"])


def _told(as_of: date, policy: str) -> dict[str, Any]:
    # Calls are served before the numerical libraries are loaded (api/engines.py).
    from scoring.feeds import FEEDS
    from scoring.policy import parse_policy

    feeds = [
        {
            "feed": feed.name.removesuffix("_feed"),
            "source": feed.source,
            "direction": feed.direction,
            "from": feed.due_from(as_of).isoformat(),
            "until": feed.due_until(as_of).isoformat(),
        }
        for feed in FEEDS
    ]
    return {"feeds": feeds, "ruleset_version": parse_policy(policy).ruleset}


async def report_for(pool: Pool, caller: Caller, report_id: str, purpose: str) -> dict[str, Any] | None:
    """A report as far as the caller reaches, or why it is `withheld`; None: none for it. A bank's look is logged."""
    return await pool.fetchval("SELECT hall.look_at_credit_report($1, $2, $3)", caller.actor(), report_id, purpose)


async def state_of(pool: Pool, report_id: str, sha256: str) -> str:
    """`valid`, `invalid` or `superseded`, for everybody."""
    return await pool.fetchval("SELECT hall.verify_credit_report($1, $2)", report_id, bytes.fromhex(sha256))
