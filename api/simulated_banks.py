"""A simulated bank: it sees cards on its stream, races for those that it wants, and works through what it won.

It knows of the hall what a bank's own program would: the stream, the answers to its calls, and a clock that is right.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import numpy as np

from api.simulated_client import Answer, Client
from api.simulated_parties import CNY, Bank, Goods, Outlet

BASIS_BP = 300
"""The one-year loan prime rate of the made-up day."""

GRADE_BP: Mapping[str, int] = {"A": 0, "B": 40, "C": 90, "D": 140}
ROUND_TO_FEN = 10_000 * CNY
LATE_ROUND = 2
"""From here on an outlet outside the request's district may take it."""

MOST_EARLY = 5
"""How often a bank that came before the gate comes again."""

LOAN_DAYS = 30
"""Days of a month of a line: it never passes the offer's own months."""


@dataclass
class Clock:
    """The hall's time, as a program with a synchronised clock knows it; a rehearsal moves it on."""

    offset: timedelta

    def now(self) -> datetime:
        """The hall's time now."""
        return datetime.now(UTC) + self.offset

    def today(self) -> str:
        """The hall's day in Beijing, ISO 8601."""
        return (self.now() + timedelta(hours=8)).date().isoformat()


@dataclass
class Errands:
    """Work under way: the rehearsal is at rest when there is none."""

    group: asyncio.TaskGroup
    busy: int = 0

    def begin(self, errand: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else; a fault in it ends the rehearsal."""
        self.busy += 1
        task = self.group.create_task(errand)
        task.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self.busy -= 1


@dataclass
class SimulatedBank:
    """One bank at work.

    Attributes:
        bank: what it is and wants.
        client: its way into the hall.
        rng: of its reaction times and choices.
        claims: what the hall answered to its grabs: `won`, or the code of the problem; `gave way`: somebody had been
            quicker before it sent anything.
    """

    bank: Bank
    client: Client
    clock: Clock
    errands: Errands
    rng: np.random.Generator
    claims: Counter[str] = field(default_factory=Counter)
    _gone: set[tuple[str, int]] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _left: set[str] = field(default_factory=set)
    _goods: dict[str, Goods] = field(default_factory=dict)

    def take(self, event: str, envelope: Mapping[str, Any]) -> None:
        """An event of the stream; one that came before is dropped."""
        if envelope["id"] in self._seen:
            return
        self._seen.add(envelope["id"])
        told = envelope["data"]
        match event:
            case "fin.request.broadcast.v1" if "opens_at" in told:
                self._look_at(told)
            case "fin.round.taken.v1" | "fin.round.closed.v1":
                self._gone.add((told["fr_id"], told["round"]))
            case "fin.claim.accepted.v1":
                self.errands.begin(self._sign(told))
            case "fin.drawdown.asked.v1":
                self.errands.begin(self._pay(told))
            case _:
                pass

    # ------------------------------------------------------------------------------------------------------- the race

    def _look_at(self, told: Mapping[str, Any]) -> None:
        card, wants = told["card"], self.bank.appetite
        fits = card["amount_band"] in wants.bands and card["industry_section"] in wants.sections
        outlet = self._outlet(card, told["round"])
        eager = told["round"] == 0 or self.rng.random() < wants.eagerness
        goods = self._fitting(card)
        if fits and goods is not None and outlet is not None and eager and told["fr_id"] not in self._left:
            self.errands.begin(self._race(told, outlet, goods))

    def _outlet(self, card: Mapping[str, Any], round_no: int) -> Outlet | None:
        """Which of its outlets grabs: one in the request's district, later any that gets such cards."""
        near = [one for one in self.bank.outlets if one.district == card["district"] and one.subscribes]
        if not near and round_no != 1:
            near = [one for one in self.bank.outlets if one.subscribes or round_no != LATE_ROUND]
        return near[int(self.rng.integers(len(near)))] if near else None

    def _fitting(self, card: Mapping[str, Any]) -> Goods | None:
        """The product that it has for such a card, else any other that serves it."""
        category = "innovation-points" if card["quote_binds"] else "first-loan" if card["first_loan"] else "credit"
        serving = [one for one in self.bank.goods if one.serves(card)]
        return min(serving, key=lambda one: one.category != category, default=None)

    async def _race(self, told: Mapping[str, Any], outlet: Outlet, goods: Goods) -> None:
        """Wait for the gate and one's own reaction, and grab if nobody was quicker."""
        gate = (datetime.fromisoformat(told["opens_at"]) - self.clock.now()).total_seconds()
        reaction = self.bank.appetite.reaction_seconds * float(self.rng.lognormal(0.0, 0.6))
        await asyncio.sleep(max(0.0, gate) + reaction)
        body = {"round": told["round"], "outlet_id": outlet.id, "product_id": goods.id,
            "card_version": told["card_version"]}  # fmt: skip
        for _ in range(MOST_EARLY):
            if (told["fr_id"], told["round"]) in self._gone:
                self.claims["gave way"] += 1
                return
            path = f"/v1/financing-requests/{told['fr_id']}/claims"
            answer = await self.client.post(path, body, patient=False)
            self.claims["won" if answer.status == 201 else answer.code] += 1
            if answer.status == 201:
                await self._work_on(answer, goods)
            if answer.code not in {"gate-not-open", "rate-limited", "hold-cap-reached"}:
                return
            await asyncio.sleep(answer.body.get("retry_after_ms", 200) / 1000)

    # ------------------------------------------------------------------------------------------------ what it has won

    async def _work_on(self, won: Answer, goods: Goods) -> None:
        """Contact, dossier, and an offer or a decline."""
        claim, fence = won.body["claim_id"], won.body["fence"]
        await self._pause(0.05, 0.4)
        contact = {"method": "call", "proof_sha256": _proof("call", claim)}
        if (await self.client.post(f"/v1/claims/{claim}/contact", contact, fence=fence)).status != 200:
            return
        seen = await self.client.get(f"/v1/claims/{claim}/dossier")
        if seen.status != 200:
            return
        await self._pause(0.1, 0.8)
        offer = self._offer(seen.body, goods)
        if offer is None or self.rng.random() < self.bank.appetite.declines:
            self._left.add(won.body["fr_id"])
            reason = "below-minimum" if offer is None else "outside-appetite"
            await self.client.post(f"/v1/claims/{claim}/decline", {"reason": reason}, fence=fence)
            return
        self._goods[claim] = goods
        await self.client.post(f"/v1/claims/{claim}/offers", offer, fence=fence)

    def _offer(self, dossier: Mapping[str, Any], goods: Goods) -> dict[str, Any] | None:
        """What it offers on a dossier; None: less than the product's least."""
        quote = dossier["quote_fen"] or 0
        report = dossier.get("report") or {}
        grade = str(report.get("grade") or "C")[0]
        # Above the reference only by a little, and only where the request does not bind to it.
        own = max(quote * 6 // 5, dossier["amount_fen"] // 2)
        amount = min(dossier["amount_fen"], goods.max_fen, own) // ROUND_TO_FEN * ROUND_TO_FEN
        if amount < goods.min_fen:
            return None
        return {
            "amount_fen": amount,
            "rate_basis": "LPR1Y",
            "basis_bp": BASIS_BP,
            "spread_bp": self.bank.appetite.spread_bp + GRADE_BP.get(grade, 140),
            "line_months": goods.line_months,
            "draw_months": goods.draw_months,
            "repayment": "interest-monthly-principal-at-end",
            "revolving": goods.revolving,
            "fees": [],
            "cleared": dossier["conditions"],
            "conditions": [],
            "above_quote_reason": "own-assessment" if amount > quote else None,
        }

    async def _sign(self, told: Mapping[str, Any]) -> None:
        """Report that the contract is signed."""
        await self._pause(0.2, 1.0)
        goods = self._goods[told["claim_id"]]
        today = datetime.fromisoformat(self.clock.today())
        ends = (today + timedelta(days=LOAN_DAYS * goods.line_months)).date().isoformat()
        claim = told["claim_id"]
        body = {"claim_id": claim, "contract_no": f"DEMO-{claim[-12:]}", "document_sha256": _proof("contract", claim),
            "signed_on": today.date().isoformat(), "line_ends_on": ends}  # fmt: skip
        await self.client.post("/v1/facilities", body, fence=told["fence"])

    async def _pay(self, told: Mapping[str, Any]) -> None:
        """Pay a drawdown out and say whether it is the firm's first loan."""
        await self._pause(0.1, 0.6)
        drawdown = told["drawdown_id"]
        body = {"bank_ref": f"PAY-{drawdown[-12:]}", "drawn_on": self.clock.today(),
            "first_loan": bool(self.rng.random() < 0.3), "evidence_sha256": _proof("registry", drawdown)}  # fmt: skip
        await self.client.post(f"/v1/facilities/{told['facility_id']}/drawdowns/{drawdown}/confirm", body)

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(float(self.rng.uniform(least, most)))


def _proof(what: str, of: str) -> str:
    """The hash of a proof that stays with the bank."""
    return sha256(f"{what} {of}".encode()).hexdigest()
