"""One maker a row of the hall, valid by default: a test names only what it is about.

    bank = await made.bank(owner)
    fr = await made.request(owner, await made.enterprise(owner), "broadcast", amount_fen=50_000_000)
    claim = await made.claim(owner, fr, bank, "accepted")

`owner` is a connection as the database's owner (fixture `owner`). Rows that stand behind others are made on the way;
requests and claims reach their state along the edges of their machines, so that history and events are there too.
"""

import itertools
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from api.database import Connection
from data_contracts.uscc import made_up_code
from models.rulebooks import policy_text, ruleset_text
from scoring.feeds import FEEDS

HASH = "ab" * 32
_numbers = itertools.count(1)

_STEPS = (("T2", "submitted"), ("T4", "screened"), ("T6", "quoted"), ("T8", "broadcast"))
_CLAIM_STEPS = (("K2", "contacted"), ("K3", "offered"), ("K4", "accepted"))


@dataclass(frozen=True)
class Bank:
    """An institution with one outlet and one product in force; `actor` is its client as acts take it."""

    institution: str
    outlet: str
    outlet_no: int
    product: str
    client: str

    @property
    def actor(self) -> dict[str, Any]:
        return actor("bank", self.client, institution=self.institution)


@dataclass(frozen=True)
class Claim:
    """A claim with what later writes need."""

    id: str
    fr: str
    uscc: str
    bank: Bank
    fence: int
    offer: str | None


class Refused(Exception):
    """An act refused: `code` of the problem, its `members`."""

    def __init__(self, code: str, members: dict[str, Any]) -> None:
        super().__init__(f"{code} {members}")
        self.code = code
        self.members = members


def new(prefix: str) -> str:
    """An id as the hall makes them."""
    return f"{prefix}_{secrets.token_hex(16)}"


def actor(role: str, client: str, *, institution: str | None = None, uscc: str | None = None) -> dict[str, Any]:
    """The `p_actor` of an act."""
    return {"client": client, "tenant": "default", "role": role, "institution": institution, "outlet": None,
            "uscc": uscc, "scopes": []}  # fmt: skip


def enterprise_actor(uscc: str) -> dict[str, Any]:
    return actor("enterprise", f"client-{uscc}", uscc=uscc)


async def act(connection: Any, who: dict[str, Any], name: str, *, key: str | None = None, **args: Any) -> Any:
    """Do `hall.act_<name>` through `hall.once`, as the service does, and return its body.

    Raises:
        Refused: it was refused.
    """
    try:
        row = await connection.fetchrow(
            "SELECT * FROM hall.once($1, 'POST', $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, 'en', 'trace')",
            who["client"], f"/{name}", key or secrets.token_hex(8), bytes(32), name, json_of(who), json_of(args),
        )  # fmt: skip
    except asyncpg.PostgresError as error:
        said = error.as_dict()
        if said["sqlstate"] == "JF001":
            raise Refused(said["message"], orjson.loads(said["detail"])) from None
        raise
    assert row is not None
    body = orjson.loads(row["body"])
    if row["status"] >= 400:
        raise Refused(body["type"].removeprefix("/problems/"), body)
    return body


async def institution(connection: Connection, **given: Any) -> str:
    """An institution that takes part."""
    number = next(_numbers)
    row = {"id": new("in"), "name": f"样例银行{number}", "size_class": "city", "is_suspended": False, "hold_cap": 1000,
           "daily_claim_cap": 10_000} | given  # fmt: skip
    await _insert(connection, "institution", row)
    return row["id"]


async def outlet(connection: Connection, institution_id: str, **given: Any) -> tuple[str, int]:
    """Id and number of an open outlet."""
    row = {"id": new("ol"), "institution_id": institution_id, "name": f"支行{next(_numbers)}", "district": "350211",
           "hold_cap": 1000, "is_closed": False} | given  # fmt: skip
    await _insert(connection, "outlet", row)
    no: Any = await connection.fetchval("SELECT no FROM hall.outlet WHERE id = $1", row["id"])
    return row["id"], no


async def officer(connection: Connection, outlet_id: str, **given: Any) -> str:
    """An officer of an outlet."""
    row = {"id": new("oc"), "outlet_id": outlet_id, "name": "张三", "hold_cap": 1000} | given
    await _insert(connection, "officer", row)
    return row["id"]


async def product(connection: Connection, institution_id: str, **given: Any) -> str:
    """A product version in force; returns its id (version 1 unless given)."""
    row = {"id": new("pr"), "version": 1, "institution_id": institution_id, "name": f"样例贷{next(_numbers)}",
           "category": "credit", "min_fen": 1_000_000, "max_fen": 10**12, "terms": "{}", "proposed_by": "first",
           "approved_by": "second", "approved_at": datetime.now(UTC) - timedelta(days=1)} | given  # fmt: skip
    await _insert(connection, "product", row)
    return row["id"]


async def client(connection: Connection, role: str, scopes: list[str] | None = None, **given: Any) -> str:
    """A registered client; `institution_id` for banks, `uscc` for an enterprise."""
    row = {"id": new("client"), "name": f"样例系统{next(_numbers)}", "role": role, "scopes": scopes or [],
           "institution_id": None, "outlet_id": None, "uscc": None} | given  # fmt: skip
    await _insert(connection, "client", row)
    return row["id"]


async def bank(connection: Connection, **given: Any) -> Bank:
    """An institution with outlet, product and client."""
    inst = await institution(connection, **given)
    place, no = await outlet(connection, inst)
    return Bank(inst, place, no, await product(connection, inst), await client(connection, "bank", institution_id=inst))


async def enterprise(connection: Connection, *, limit_fen: int | None = None, **given: Any) -> str:
    """The credit code of an enterprise; with a limit that lasts 30 days if one is given."""
    number = next(_numbers)
    row = {"uscc": made_up_code(number), "name": f"厦门样例{number}科技有限公司", "contact_name": "李四",
           "contact_phone": "13800000000", "industry_section": "I", "district": "350211"} | given  # fmt: skip
    await _insert(connection, "enterprise", row)
    if limit_fen is not None:
        await limit(connection, row["uscc"], limit_fen)
    return row["uscc"]


async def limit(
    connection: Connection, uscc: str, limit_fen: int, *, days: float = 30, scheme: str = "torch-points"
) -> None:
    """Set the enterprise's reference limit under a scheme (L1, L6)."""
    await connection.execute(
        "SELECT hall.set_limit($1, $2, $3, hall.hall_now() + $4::interval)",
        uscc,
        scheme,
        limit_fen,
        timedelta(days=days),
    )


async def consent(connection: Connection, uscc: str, **given: Any) -> str:
    """A consent in force to everything, for whoever claims."""
    now = datetime.now(UTC)
    row = {"id": new("co"), "uscc": uscc, "signer": "李四", "method": "ca-signature",
           "evidence_sha256": bytes.fromhex(HASH), "purpose": "financing", "data_sets": ["limit", "facts", "report"],
           "recipients": ["claiming-institution"], "valid_from": now - timedelta(days=1),
           "valid_to": now + timedelta(days=365), "one_time": False, "receipt_sha256": bytes.fromhex(HASH),
           "given_by": "client", "given_at": now} | given  # fmt: skip
    await _insert(connection, "consent", row)
    return row["id"]


async def request(
    connection: Connection, uscc: str, state: str = "broadcast", *, audience: list[int] | None = None, **given: Any
) -> str:
    """A financing request in `draft`, `submitted`, `screened`, `quoted` or `broadcast`; `claim` takes it further.

    Args:
        connection: as the owner.
        uscc: whose it is.
        state: where it stands.
        audience: numbers of the outlets that see round 1; by default every outlet there is.
        given: columns.
    """
    now = datetime.now(UTC) - timedelta(minutes=5)
    row = {"id": new("fr"), "uscc": uscc, "registered_by": f"client-{uscc}", "scheme": "torch-points",
           "quote_binds": True, "amount_fen": 50_000_000, "term_months": 12, "purpose": "working-capital",
           "industry_section": "I", "district": "350211", "is_first_loan": None, "quote_fen": 50_000_000,
           "quote_expires_at": now + timedelta(days=30), "state": "draft", "edge": "T1", "moved_at": now,
           "moved_by": "made"} | given  # fmt: skip
    if "consent_id" not in row:
        row["consent_id"] = await consent(connection, uscc)
    await _insert(connection, "financing_request", row)
    for edge, reached in _STEPS if state != "draft" else ():
        if reached == "broadcast":
            await round_(connection, row["id"], audience=audience)
        await connection.execute(
            "SELECT hall.move_request($1, $2, $3, 'made', hall.hall_now())", row["id"], edge, reached
        )
        if reached == state:
            break
    return row["id"]


async def round_(connection: Connection, fr: str, *, audience: list[int] | None = None, **given: Any) -> int:
    """The next round, open since a minute; returns its number. The request itself is not moved."""
    now = datetime.now(UTC)
    n: Any = await connection.fetchval(
        "UPDATE hall.financing_request SET round_no = greatest(round_no + 1, 1) WHERE id = $1 RETURNING round_no", fr
    )
    if audience is None:
        audience = await connection.fetchval("SELECT coalesce(array_agg(no ORDER BY no), '{}') FROM hall.outlet")
    card = await connection.fetchval("SELECT hall.card_of(f)::text FROM hall.financing_request f WHERE id = $1", fr)
    row = {"fr_id": fr, "n": n, "state": "open", "audience": audience, "audience_sha256": bytes(32), "card": card,
           "card_version": 5, "announced_at": now - timedelta(minutes=2), "published_at": now - timedelta(minutes=2),
           "opens_at": now - timedelta(minutes=1), "closes_at": now + timedelta(hours=4)} | given  # fmt: skip
    await _insert(connection, "round", row)
    return n


async def claim(connection: Connection, fr: str, bank: Bank, state: str = "held", **offered: Any) -> Claim:
    """A claim of the request's latest round, in `held`, `contacted`, `offered` or `accepted`.

    Args:
        connection: as the owner.
        fr: a request in broadcast.
        bank: whose claim it is.
        state: where it stands.
        offered: columns of the offer.
    """
    known = await connection.fetchrow(
        """
        UPDATE hall.financing_request SET fence_last = fence_last + 1 WHERE id = $1
        RETURNING uscc, round_no, fence_last
        """,
        fr,
    )
    assert known is not None
    await connection.execute(
        "UPDATE hall.round SET taken = 1, state = 'taken', ended_at = hall.hall_now() WHERE fr_id = $1 AND n = $2",
        fr, known["round_no"],
    )  # fmt: skip
    await connection.execute(
        "SELECT hall.reserve(f, $2) FROM hall.financing_request f WHERE id = $1", fr, known["round_no"]
    )
    # As the act does it: the counter's row is locked, then read is the clock.
    await connection.execute(
        "UPDATE hall.quota SET held = held + 1 WHERE owner IN ($1, $2)", bank.institution, bank.outlet
    )
    now: Any = await connection.fetchval("SELECT hall.hall_now()")
    row = {"id": new("cl"), "fr_id": fr, "round": known["round_no"], "slot": 1, "institution_id": bank.institution,
           "outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1, "fence": known["fence_last"],
           "hold_cap": 1000, "claimed_at": now, "state": "held", "edge": "K1", "moved_at": now, "moved_by": "made",
           "deadline": now + timedelta(days=1)}  # fmt: skip
    await _insert(connection, "claim", row)
    await _move_request(connection, fr, "T9", "claimed")
    offer_id = None
    for edge, reached in _CLAIM_STEPS if state != "held" else ():
        if reached == "offered":
            offer_id = await offer(connection, row["id"], **offered)
            await _move_request(connection, fr, "T12", "offered")
        await connection.execute(
            "SELECT hall.move_claim($1, $2, $3, 'made', t, '{}', NULL, t + interval '9 days') FROM hall.hall_now() t",
            row["id"], edge, reached,
        )  # fmt: skip
        if reached == "accepted":
            await connection.execute(
                "SELECT hall.attribute_reservation($1, $2, amount_fen) FROM hall.offer WHERE id = $3",
                fr, bank.institution, offer_id,
            )  # fmt: skip
            await _move_request(connection, fr, "T14", "accepted")
        if reached == state:
            break
    return Claim(row["id"], fr, known["uscc"], bank, known["fence_last"], offer_id)


async def offer(connection: Connection, claim_id: str, **given: Any) -> str:
    """An offer of the amount asked, revolving over a year, valid for five days; the claim itself is not moved."""
    known = await connection.fetchrow(
        """
        SELECT c.fr_id, c.institution_id, f.amount_fen
        FROM hall.claim c JOIN hall.financing_request f ON f.id = c.fr_id WHERE c.id = $1
        """,
        claim_id,
    )
    assert known is not None
    now = datetime.now(UTC)
    row = {"id": new("of"), "claim_id": claim_id, "rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 65,
           "line_months": 12, "draw_months": 12, "repayment": "bullet", "is_revolving": True, "fees": "[]",
           "conditions": [], "annual_cost_bp": 365, "valid_until": now + timedelta(days=5), "made_at": now,
           "sha256": bytes.fromhex(HASH)} | dict(known) | given  # fmt: skip
    await _insert(connection, "offer", row)
    return row["id"]


async def facility(
    connection: Connection, uscc: str, bank: Bank, amount_fen: int, *, revolving: bool = True, **given: Any
) -> str:
    """A facility as its bank signed it today over the whole way from a request; `given`: columns of the request."""
    columns = {"amount_fen": amount_fen, "quote_fen": amount_fen, "purpose": f"purpose-{next(_numbers)}"} | given
    fr = await request(connection, uscc, audience=[bank.outlet_no], **columns)
    accepted = await claim(connection, fr, bank, "accepted", is_revolving=revolving)
    return (await sign(connection, accepted))["facility_id"]


async def sign(connection: Connection, accepted: Claim, **given: Any) -> dict[str, Any]:
    """Report the signing of an accepted claim, today, for a year; the answer's body."""
    today: Any = await connection.fetchval("SELECT hall.today()")
    args = {"claim_id": accepted.id, "fence": accepted.fence, "contract_no": secrets.token_hex(6),
            "document_sha256": HASH, "signed_on": str(today), "line_ends_on": str(today + timedelta(days=360)),
            "renewed_from": None} | given  # fmt: skip
    return await act(connection, accepted.bank.actor, "sign_facility", **args)


async def quote(
    connection: Connection, uscc: str, scheme: str = "torch-points", *, limit_fen: int = 30_000_000, **answered: Any
) -> str:
    """A quote on a decision as the engine writes it: the debts feed is missing, part of the points is its own word.

    Args:
        connection: as the owner.
        uscc: an enterprise.
        scheme: under it the limit is set where its quote binds.
        limit_fen: the limit.
        answered: columns of the decision's answer.
    """
    policy = policy_text("torch-points")[0]
    decision, version = f"d{secrets.token_hex(12)}", "torch-points@2026-11-01#f84ff56122ab"
    reason = {"code": "BOUND_STATUS_CAP", "cny": 3_000_000, "zh": "额度由产品额度上限决定", "en": "the cap decides"}
    answer = {
        "uscc": uscc, "decision_id": decision, "outcome": "eligible", "limit_fen": limit_fen,
        "conditional_limit_fen": limit_fen, "conditions": ["pbc_report"], "rate_bp": 377, "score": 612, "grade": "B1",
        "innovation_points": 53.27, "binding": "BOUND_STATUS_CAP", "missing_feeds": ["debts"],
        "reasons": json_of([reason]),
    } | answered  # fmt: skip
    features = {feed.name: "complete" for feed in FEEDS} | {"debts_feed": "missing", "points_own_word_bp": 2600}
    await connection.execute(
        "INSERT INTO hall.rulebook VALUES ($1, $2, $3, 'sizes') ON CONFLICT DO NOTHING",
        version, policy, ruleset_text(policy),
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO hall.decision VALUES ($1, $2, '2026-07-01', 'eligible', $3, '20260701-4db58b39cc50', $4, $5, "
        "'made', hall.hall_now(), $6::text::jsonb, '')",
        decision, uscc, limit_fen, version, HASH, json_of({"answer": answer, "features": features}),
    )  # fmt: skip
    return str(await connection.fetchval(
        "SELECT hall.keep_quote($1, $2, $3, 'eligible', $4, hall.hall_now() + interval '30 days')",
        uscc, scheme, decision, limit_fen,
    ))  # fmt: skip


async def _move_request(connection: Connection, fr: str, edge: str, state: str) -> None:
    await connection.execute("SELECT hall.move_request($1, $2, $3, 'made', hall.hall_now())", fr, edge, state)


async def _insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    """Insert a row; a jsonb column takes its text, whatever codec the connection has."""
    columns = ", ".join(row)
    values = ", ".join(
        f"${n}::text::jsonb" if (table, name) in _JSON else f"${n}" for n, name in enumerate(row, start=1)
    )
    await connection.execute(f"INSERT INTO hall.{table} ({columns}) VALUES ({values})", *row.values())


_JSON = {("product", "terms"), ("round", "card"), ("offer", "fees")}


def json_of(value: Any) -> str:
    """A value for a parameter `$1::text::jsonb`."""
    return orjson.dumps(value).decode()
