"""A living town behind a serving hall: firms, banks and officials with tokens, and one thing in every state.

What it holds is made along the edges of the machines (`tests.hall.made`), so an answer about any of it is a real one.
"""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from api.scopes import ROLES
from tests.hall import made
from tests.hall.callers import Client, Hall

LIMIT_FEN = 10**12
TERMS = {
    "target_customers": "tech firms of the park",
    "rate": {"basis": "LPR1Y", "from_bp": 305, "to_bp": 420},
    "line_months": 36,
    "draw_months": 12,
    "repayments": ["bullet"],
    "is_revolving": True,
    "channel": "both",
}
PURPOSES = ("working-capital", "equipment", "r-and-d", "orders", "other")


@dataclass
class Town:
    """Who lives there and what there is.

    Attributes:
        hall: serves it.
        mine: the bank that everything is claimed by; `other` is in every audience and holds nothing.
        sister: a second outlet of `mine`.
        firm: the enterprise that everything is about; `neighbour` is another one.
        clients: one of each role, banks of `mine`; `other bank`, `sister bank` (bound to `sister`), `neighbour`,
            `other portal`, `second admin` and `second institution-manager` beside them.
        claims: of `mine`, by the state they stand in.
        things: an id of each kind by the name of the parameter that takes it.
    """

    hall: Hall
    mine: made.Bank
    other: made.Bank
    sister: str
    firm: str
    neighbour: str
    clients: dict[str, Client] = field(default_factory=dict)
    claims: dict[str, made.Claim] = field(default_factory=dict)
    things: dict[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> dict[str, str]:
        """The role of each client."""
        return {name: "enterprise" if name == "neighbour" else name.split()[-1] for name in self.clients}

    def __getitem__(self, who: str) -> Client:
        return self.clients[who]

    async def request(self, state: str = "broadcast", **given: Any) -> str:
        """Another request of the firm."""
        usual = {"consent_id": self.things["consent_id"], "purpose": secrets.token_hex(4)}
        return await made.request(self.hall.owner, self.firm, state, **usual | given)

    async def claim(self, state: str) -> made.Claim:
        """Another claim of `mine`, on a request of its own."""
        return await made.claim(self.hall.owner, await self.request(), self.mine, state)


async def town(hall: Hall) -> Town:
    """A town in which every state of every machine that a caller can meet is there once."""
    owner = hall.owner
    mine, other = await made.bank(owner), await made.bank(owner)
    sister, _ = await made.outlet(owner, mine.institution)
    firm, neighbour = [await made.enterprise(owner, limit_fen=LIMIT_FEN) for _ in range(2)]
    here = Town(hall, mine, other, sister, firm, neighbour)
    await _people(here)
    await _requests(here)
    await _money(here)
    await _voices(here)
    return here


async def _people(here: Town) -> None:
    hall = here.hall
    belongs: dict[str, dict[str, Any]] = {
        "bank": {"institution": here.mine.institution},
        "institution-manager": {"institution": here.mine.institution},
        "enterprise": {"uscc": here.firm},
    }
    for role in ROLES:
        here.clients[role] = await hall.client(role, **belongs.get(role, {}))
    here.clients["other bank"] = await hall.client("bank", institution=here.other.institution)
    here.clients["sister bank"] = await hall.client("bank", institution=here.mine.institution)
    here.clients["neighbour"] = await hall.client("enterprise", uscc=here.neighbour)
    here.clients["other portal"] = await hall.client("portal")
    here.clients["second admin"] = await hall.client("admin")
    here.clients["second institution-manager"] = await hall.client(
        "institution-manager", institution=here.mine.institution
    )
    await hall.owner.execute(
        "UPDATE hall.client SET outlet_id = $2 WHERE id = $1", here["sister bank"].client_id, here.sister
    )
    await hall.owner.execute("UPDATE hall.product SET terms = $1::text::jsonb", made.json_of(TERMS))
    await hall.owner.execute(
        "UPDATE hall.enterprise SET portal = $2 WHERE uscc = $1", here.firm, here["portal"].client_id
    )


async def _requests(here: Town) -> None:
    """Under one consent: a draft, a quoted and an open request, and a claim of `mine` in every live state."""
    owner = here.hall.owner
    consent = await made.consent(owner, here.firm)
    schemes = iter([(scheme, purpose) for scheme in ("torch-points", "ordinary") for purpose in PURPOSES])

    async def request(state: str) -> str:
        scheme, purpose = next(schemes)
        binds = scheme == "torch-points"
        return await made.request(
            owner, here.firm, state, consent_id=consent, scheme=scheme, purpose=purpose, quote_binds=binds
        )

    drafted, quoted, opened = [await request(state) for state in ("draft", "quoted", "broadcast")]
    for state in ("held", "contacted", "offered", "accepted"):
        here.claims[state] = await made.claim(owner, await request("broadcast"), here.mine, state)
    offered = here.claims["offered"]
    quote = await made.quote(owner, here.firm, "ordinary", limit_fen=LIMIT_FEN)
    issued = await here["enterprise"].post("/v1/credit-reports", {"quote_id": quote})
    here.things |= {
        "fr_id": opened,
        "draft": drafted,
        "quoted": quoted,
        "claim_id": here.claims["contacted"].id,
        "offer_id": offered.offer or "",
        "consent_id": consent,
        "quote_id": quote,
        "report_id": issued.json()["report_id"],
        "outlet_id": here.mine.outlet,
        "institution_id": here.mine.institution,
        "product_id": here.mine.product,
        "uscc": here.firm,
    }
    here.things["approval_id"] = (
        await here["second admin"].post(
            f"/v1/financing-requests/{drafted}/orders", {"kind": "suspend", "order_no": "1", "note": "a note"}
        )
    ).json()["approval_id"]


async def _money(here: Town) -> None:
    """A facility in use with a drawdown that is asked for, and a case."""
    owner = here.hall.owner
    facility = await made.facility(owner, here.firm, here.mine, 90_000_000)
    today: Any = await owner.fetchval("SELECT hall.today()")
    await made.act(
        owner, here.mine.actor, "report_drawdown", facility_id=facility, amount_fen=10_000_000, bank_ref="first",
        drawn_on=str(today), first_loan=True, evidence_sha256=made.HASH,
    )  # fmt: skip
    asked = await made.act(
        owner, made.enterprise_actor(here.firm), "ask_drawdown", facility_id=facility, amount_fen=5_000_000
    )
    case = await owner.fetchval(
        "SELECT hall.open_case('over-limit', $1, 'a note', hall.hall_now())", f"facility/{facility}"
    )
    here.things |= {"facility_id": facility, "drawdown_id": asked["drawdown_id"], "case_id": case}
    here.things |= {"today": str(today), "in a year": str(today + timedelta(days=360))}


async def _voices(here: Town) -> None:
    """An appeal against a decline of `mine`, a declined claim beside it, and a rating."""
    declined: list[made.Claim] = []
    for _ in range(2):
        claim = await here.claim("contacted")
        args = {"claim_id": claim.id, "fence": claim.fence, "to": "declined", "reason": "no"}
        await made.act(here.hall.owner, here.mine.actor, "give_up_claim", **args)
        declined.append(claim)
    appealed, other = declined
    given = {"claim_id": appealed.id, "reason": "unfair-treatment", "text": "a text"}
    appeal = await made.act(here.hall.owner, made.enterprise_actor(here.firm), "open_appeal", **given)
    rating = {"claim_id": appealed.id, "stars": 2, "reasons": ["dear"]}
    await made.act(here.hall.owner, made.enterprise_actor(here.firm), "rate_claim", **rating)
    here.things |= {"appeal_id": appeal["appeal_id"], "declined": other.id}
