"""The steps that tests of the machines share: acts as the service does them, and the passing of time."""

import asyncio
import secrets
from datetime import timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import orjson

from api.database import Connection
from tests.hall import made
from tests.hall.made import Bank, Claim, act, actor, enterprise_actor

CASE_MANAGER = actor("case-manager", "case-manager")
FIRST, SECOND = actor("admin", "admin-1"), actor("admin", "admin-2")


async def told(owner: Connection, query: str, *args: object) -> Any:
    """The one value that a query gives."""
    return await owner.fetchval(query, *args)


async def state(owner: Connection, fr: str) -> str:
    return await told(owner, "SELECT state FROM hall.financing_request WHERE id = $1", fr)


async def version(owner: Connection, fr: str) -> int:
    return await told(owner, "SELECT version FROM hall.financing_request WHERE id = $1", fr)


async def pass_time(owner: Connection, **by: float) -> None:
    """Let the clock of the hall go on."""
    await owner.execute(
        """
        INSERT INTO hall.clock_offset (tenant, "offset") VALUES ('default', $1)
        ON CONFLICT (tenant) DO UPDATE SET "offset" = clock_offset."offset" + excluded."offset"
        """,
        timedelta(**by),
    )


async def sweep(owner: Connection) -> list[str]:
    fired: list[str] = []
    while len(fired) < 20 and (what := await owner.fetchval("SELECT hall.sweep()")) is not None:
        fired.append(what)
    return fired


async def subscribe(owner: Connection, *outlets: str, districts: list[str] | None = None) -> None:
    for outlet in outlets:
        await owner.execute(
            """
            INSERT INTO hall.subscription (outlet_id, districts, updated_at, updated_by)
            VALUES ($1, $2, now(), 'made')
            """,
            outlet,
            districts or [],
        )


async def publish(owner: Connection) -> None:
    """As the sequencer does it, with the gate at once."""
    await owner.execute("UPDATE hall.setting SET value = 0 WHERE name IN ('gate_ms', 'gate_waits_for_working_time')")
    # A transaction of another test on the same server may hold the horizon back for a moment.
    async with asyncio.timeout(20):
        # The database has no event to wait for.
        while await told(owner, "SELECT waiting FROM hall.sequence_feed('default', 9)"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def need(uscc: str, **given: Any) -> dict[str, Any]:
    usual = {"scheme": "torch-points", "amount_fen": 50_000_000, "term_months": 12, "purpose": "working-capital"}
    return {"uscc": uscc, "channel": "portal", "channel_ref": "1", "first_loan": None} | usual | given


NO_FACTS = sha256(b"").hexdigest()
"""The mark of an enterprise of which no batch tells."""


def decided(uscc: str, outcome: str = "eligible", limit_fen: int = 60_000_000) -> dict[str, Any]:
    """What `quotes.measured` hands to the act."""
    answer = {"decision_id": "d" + uscc.lower().encode().hex()[:24], "uscc": uscc, "as_of": "2026-11-01",
              "outcome": outcome, "limit_fen": limit_fen, "model_version": "m1", "policy_version": "p1",
              "input_hash": "0" * 64, "reasons": "[]"}  # fmt: skip
    return {
        "outcome": outcome,
        "limit_fen": limit_fen,
        "decision": {"answer": answer, "rulebook": {"policy": "p", "ruleset": None, "size_classes": "s"}},
        "decision_text": orjson.dumps(answer).decode(),
        "reasons": [],
        "facts_mark": NO_FACTS,
    }


async def drafted(owner: Connection, uscc: str, **given: Any) -> str:
    return (await act(owner, enterprise_actor(uscc), "draft_request", **need(uscc, **given)))["fr_id"]


async def submit(owner: Connection, uscc: str, fr: str, **measured: Any) -> dict[str, Any]:
    consent = await made.consent(owner, uscc)
    return await act(
        owner,
        enterprise_actor(uscc),
        "submit_request",
        fr_id=fr,
        version=1,
        consent_id=consent,
        **decided(uscc, **measured),
    )


async def order(owner: Connection, fr: str, kind: str, approver: dict[str, Any] = SECOND) -> dict[str, Any]:
    proposed = await act(owner, FIRST, "propose_order", fr_id=fr, kind=kind, order_no="令1", note="by order")
    return await act(owner, approver, "approve_order", approval_id=proposed["approval_id"])


async def revoke(owner: Connection, uscc: str, consent: str) -> None:
    await act(owner, enterprise_actor(uscc), "revoke_consent", uscc=uscc, consent_id=consent)


async def quote(owner: Connection, uscc: str, limit_fen: int, scheme: str = "torch-points") -> None:
    """A new quote of the enterprise, as a decision of another day brings it."""
    answer = decided(uscc, limit_fen=limit_fen)
    made_anew = answer["decision"]["answer"] | {"decision_id": "d" + secrets.token_hex(12)}
    await act(owner, enterprise_actor(uscc), "quote", uscc=uscc, scheme=scheme,
              decision=answer["decision"] | {"answer": made_anew}, text=orjson.dumps(made_anew).decode(),
              facts_mark=NO_FACTS)  # fmt: skip


RICH = 60_000_000
PROOF = "cd" * 32


async def hall(owner: Connection, banks: int = 1, **given: Any) -> tuple[str, list[Bank]]:
    """A request in broadcast, its first round open to so many banks."""
    found = [await made.bank(owner, **given) for _ in range(banks)]
    fr = await made.request(owner, await made.enterprise(owner, limit_fen=RICH), "broadcast")
    return fr, found


async def grab(owner: Connection, fr: str, bank: Bank, **given: Any) -> dict[str, Any]:
    seen = await owner.fetchrow("SELECT n, card_version FROM hall.round WHERE fr_id = $1 ORDER BY n DESC LIMIT 1", fr)
    assert seen is not None
    args = {"fr_id": fr, "round": seen["n"], "outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1,
            "card_version": seen["card_version"], "officer_id": None}  # fmt: skip
    return await act(owner, bank.actor, "grab", **args | given)


async def held(owner: Connection, state: str = "held", **offered: Any) -> Claim:
    fr, (bank,) = await hall(owner)
    return await made.claim(owner, fr, bank, state, **offered)


def offer(claim: Claim, **given: Any) -> dict[str, Any]:
    price = {"rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 65, "fees": [{"name": "fee", "amount_fen": 100_000}]}
    terms = {"line_months": 12, "draw_months": 12, "repayment": "bullet", "revolving": True, "above_quote_reason": None}
    open_points = {"cleared": [], "conditions": ["guarantor-signs"]}
    return {"claim_id": claim.id, "fence": claim.fence, "amount_fen": 50_000_000} | price | terms | open_points | given


async def row(owner: Connection, claim_id: str) -> asyncpg.Record:
    found = await owner.fetchrow("SELECT * FROM hall.claim WHERE id = $1", claim_id)
    assert found is not None
    return found
