"""Simulated enterprises: through the portal that speaks for them they apply, compare offers, accept and draw."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl

from api.simulated_banks import Clock, Errands
from api.simulated_client import Answer, Client
from api.simulated_parties import CNY
from data_contracts.sources import Sources
from scoring.eligibility import ELIGIBLE, INELIGIBLE

PORTALS = ("portal", "park-list", "xinyidai", "rongzitong", "jinnongtong")
"""The channels whose platforms speak for enterprises."""

TERMS = (6, 12, 12, 12, 24, 36)
PURPOSES = ("working-capital", "working-capital", "orders", "equipment", "r-and-d")
UNBOUND_EVERY = 8
"""Every so many requests one comes under a scheme that does not bind to the quote."""

HUGE_CNY = 12_000_000
WISH_EVERY = 15
TURNS_AWAY = 0.06
DRAWS = 0.6


@dataclass(frozen=True)
class Applicant:
    """An enterprise with its need.

    Attributes:
        limit_fen: what the batch said; the hall must say the same.
        asked_fen: of the application.
        wishes: institutions that shall see it first.
        draws: it draws at once after signing.
        turns_away: it rejects its first bank.
    """

    uscc: str
    name: str
    section: str
    district: str
    limit_fen: int
    scheme: str
    asked_fen: int
    term_months: int
    purpose: str
    wishes: tuple[str, ...]
    draws: bool
    turns_away: bool


def applicants(
    sources: Sources, limits: pl.DataFrame, requests: int, institutions: Sequence[str], seed: int
) -> list[Applicant]:
    """Firms that apply: those with a limit first, and under a scheme that does not bind others as well.

    Args:
        sources: of the park.
        limits: of the batch, one row an enterprise.
        requests: how many, as far as there are enterprises.
        institutions: that may be wished for.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 200])
    latest = sources.enterprises.sort("known_on").group_by("uscc", maintain_order=True).last()
    rows = limits.select("uscc", "limit_fen", "outcome").join(
        latest.select("uscc", "name", "district", section=pl.col("industry_code").str.head(1)), on="uscc"
    )
    mixed = rows.sample(fraction=1.0, shuffle=True, seed=seed)
    bound = mixed.filter((pl.col("limit_fen") > 0) & (pl.col("outcome") == ELIGIBLE)).to_dicts()
    others = mixed.filter((pl.col("limit_fen") == 0) & (pl.col("outcome") != INELIGIBLE)).to_dicts()
    chosen: list[Applicant] = []
    for place in range(requests):
        unbound = place % UNBOUND_EVERY == UNBOUND_EVERY - 1 or not bound
        pool = others if unbound and others else bound
        if not pool:
            break
        chosen.append(_applicant(pool.pop(), place, unbound=unbound, institutions=institutions, rng=rng))
    return chosen


def _applicant(
    row: Mapping[str, Any], place: int, *, unbound: bool, institutions: Sequence[str], rng: np.random.Generator
) -> Applicant:
    if not unbound:
        asked = max(int(row["limit_fen"] * rng.uniform(0.6, 1.1)), 10_000 * CNY)
    elif rng.random() < 0.2:
        asked = HUGE_CNY * CNY
    else:
        asked = int(rng.integers(20, 300)) * 10_000 * CNY
    wished = rng.choice(len(institutions), min(2, len(institutions)), replace=False) if place % WISH_EVERY == 3 else []
    return Applicant(
        uscc=row["uscc"],
        name=row["name"],
        section=row["section"],
        district=row["district"],
        limit_fen=row["limit_fen"],
        scheme="ordinary" if unbound else "torch-points",
        asked_fen=asked // (10_000 * CNY) * 10_000 * CNY,
        term_months=int(rng.choice(TERMS)),
        purpose=str(rng.choice(PURPOSES)),
        wishes=tuple(institutions[int(one)] for one in wished),
        draws=bool(rng.random() < DRAWS),
        turns_away=bool(rng.random() < TURNS_AWAY),
    )


@dataclass
class Portal:
    """A platform that speaks for the enterprises that it registered.

    Attributes:
        channel: its name in the hall's policy.
        differing: quotes of the hall that were not the batch's.
        refused: applications that went no further, by the code of the problem.
    """

    channel: str
    client: Client
    clock: Clock
    errands: Errands
    rng: np.random.Generator
    quoted: int = 0
    differing: int = 0
    broadcast: int = 0
    refused: list[str] = field(default_factory=list)
    _by_request: dict[str, Applicant] = field(default_factory=dict)
    _turned_away: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def take(self, event: str, envelope: Mapping[str, Any]) -> None:
        """An event of the stream; one that came before is dropped."""
        if envelope["id"] in self._seen:
            return
        self._seen.add(envelope["id"])
        told = envelope["data"]
        who = self._by_request.get(told.get("fr_id", ""))
        if who is None:
            return
        match event:
            case "fin.request.offered.v1":
                self.errands.begin(self._choose(who, told))
            case "fin.facility.signed.v1" if who.draws:
                self.errands.begin(self._draw(told))
            case _:
                pass

    async def apply(self, who: Applicant) -> None:
        """Register, consent, draft, submit, and broadcast what is quoted."""
        registered = await self.client.post("/v1/enterprises", {
            "uscc": who.uscc, "name": who.name, "contact_name": "联系人", "contact_phone": "0592-0000000",
            "industry_section": who.section, "district": who.district,
        })  # fmt: skip
        consent = await self.client.post(f"/v1/enterprises/{who.uscc}/consents", {
            "signer": "法定代表人", "method": "ca-signature", "evidence_sha256": sha256(who.uscc.encode()).hexdigest(),
            "purpose": "financing", "data_sets": ["limit", "facts", "report"], "recipients": ["claiming-institution"],
            "to": (self.clock.now() + timedelta(days=365)).isoformat(),
        })  # fmt: skip
        draft = await self.client.post("/v1/financing-requests", {
            "uscc": who.uscc, "scheme": who.scheme, "amount_fen": who.asked_fen, "term_months": who.term_months,
            "purpose": who.purpose, "channel": self.channel, "channel_ref": f"{self.channel}-{who.uscc}",
        })  # fmt: skip
        for answer in (registered, consent, draft):
            if answer.status >= 300:
                self.refused.append(answer.code or str(answer.status))
                return
        fr_id = draft.body["fr_id"]
        self._by_request[fr_id] = who
        submitted = await self.client.post(
            f"/v1/financing-requests/{fr_id}/submit",
            {"version": draft.body["version"], "consent_id": consent.body["consent_id"]},
        )
        await self._go_on(who, submitted)

    async def _go_on(self, who: Applicant, submitted: Answer) -> None:
        if submitted.status != 200:
            self.refused.append(submitted.code)
            return
        told = submitted.body
        self.quoted += 1
        self.differing += told["quote_fen"] != who.limit_fen
        if told["state"] != "quoted":
            return
        amount = min(who.asked_fen, told["quote_fen"]) if who.scheme == "torch-points" else who.asked_fen
        sent = await self.client.post(
            f"/v1/financing-requests/{told['fr_id']}/broadcast",
            {"version": told["version"], "amount_fen": amount, "wishes": list(who.wishes)},
        )
        if sent.status == 200:
            self.broadcast += 1
        else:
            self.refused.append(sent.code)

    async def _choose(self, who: Applicant, told: Mapping[str, Any]) -> None:
        """Compare the live offers and accept the cheapest, or turn its bank away and hope for a better one."""
        await asyncio.sleep(float(self.rng.uniform(0.1, 0.6)))
        offers = await self.client.get(f"/v1/financing-requests/{told['fr_id']}/offers")
        live = [] if offers.status != 200 else [one for one in offers.body if one["claim_state"] == "offered"]
        if not live:
            return
        best = live[0]
        if who.turns_away and told["fr_id"] not in self._turned_away:
            self._turned_away.add(told["fr_id"])
            await self.client.post(f"/v1/claims/{best['claim_id']}/reject", {"reason": "too-dear"})
            return
        await self.client.post(
            f"/v1/offers/{best['offer_id']}/accept", {"version": told["version"], "sha256": best["sha256"]}
        )

    async def _draw(self, told: Mapping[str, Any]) -> None:
        """Ask for a first part of the line, in whole 10,000 CNY."""
        await asyncio.sleep(float(self.rng.uniform(0.1, 0.6)))
        facility = await self.client.get(f"/v1/facilities/{told['facility_id']}")
        if facility.status == 200:
            amount = max(facility.body["line_fen"] // 2 // (10_000 * CNY), 1) * 10_000 * CNY
            await self.client.post(f"/v1/facilities/{told['facility_id']}/drawdowns", {"amount_fen": amount})
