"""The made-up banks of a demonstration: institutions with outlets, products and appetites.

Names and numbers are invented and say nothing about real banks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.clients import NewClient, add_client, public_jwk
from api.database import Connection
from api.reference import amount_band_rows, hall_policy

DISTRICTS: Mapping[str, str] = {
    "350203": "思明",
    "350205": "海沧",
    "350206": "湖里",
    "350211": "集美",
    "350212": "同安",
    "350213": "翔安",
}
"""Xiamen's districts by code, GB/T 2260."""

SECTIONS = "ABCDEFGHIJKLMNOPQRST"
BANDS: Sequence[str] = [str(row["code"]) for row in amount_band_rows(hall_policy())]
CNY = 100
BAND_UNIT_FEN = 10_000 * CNY


@dataclass(frozen=True)
class Kind:
    """A size class: its share of the institutions, the weight of its outlets, and what such banks are like.

    Attributes:
        bands: first and last amount band that it lends in.
        spread_bp: over the basis rate, least and most.
        reaction_seconds: median time from the gate to the grab, least and most.
    """

    size_class: str
    name: str
    share: int
    weight: float
    bands: tuple[int, int]
    max_cny: int
    spread_bp: tuple[int, int]
    reaction_seconds: tuple[float, float]


KINDS = (
    Kind("state", "示例国有银行", 6, 30.0, (0, 5), 10_000_000, (0, 60), (0.10, 0.60)),
    Kind("joint-stock", "示例股份银行", 12, 12.0, (1, 5), 10_000_000, (20, 110), (0.02, 0.30)),
    Kind("city", "示例城商行", 14, 8.0, (0, 5), 5_000_000, (40, 160), (0.02, 0.40)),
    Kind("rural", "示例农商行", 10, 7.0, (0, 4), 3_000_000, (60, 200), (0.10, 0.80)),
    Kind("other", "示例村镇银行", 15, 2.0, (0, 3), 2_000_000, (80, 240), (0.20, 1.20)),
)


@dataclass(frozen=True)
class Appetite:
    """What a bank wants and how it behaves.

    Attributes:
        sections: industry sections, GB/T 4754.
        bands: codes of amount bands.
        eagerness: share of the cards it wants that it races for.
        reaction_seconds: median time from the gate to the grab.
        declines: share of its claims that it declines after a look.
        spread_bp: over the basis rate, for the best grade.
    """

    sections: frozenset[str]
    bands: frozenset[str]
    eagerness: float
    reaction_seconds: float
    declines: float
    spread_bp: int


@dataclass(frozen=True)
class Outlet:
    """An outlet; `subscribes`: it gets the cards of its appetite before the last round."""

    name: str
    district: str
    subscribes: bool
    id: str = ""


@dataclass(frozen=True)
class Goods:
    """A product in force; `id` names its version as a grab does."""

    name: str
    category: str
    min_fen: int
    max_fen: int
    line_months: int
    draw_months: int
    revolving: bool
    rate_bp: tuple[int, int]
    id: str = ""

    def serves(self, card: Mapping[str, Any]) -> bool:
        """Whether the hall would let it be claimed with: band, term and first loan as the card says."""
        low, high = str(card["amount_band"]).split("-")
        return (
            self.max_fen >= int(low) * BAND_UNIT_FEN
            and (high == "up" or self.min_fen < int(high) * BAND_UNIT_FEN)
            and card["term_months"] <= self.line_months
            and (self.category != "first-loan" or card["first_loan"] is not False)
        )


@dataclass(frozen=True)
class Bank:
    """An institution; its ids are there once the hall knows it."""

    name: str
    size_class: str
    appetite: Appetite
    outlets: tuple[Outlet, ...]
    goods: tuple[Goods, ...]
    id: str = ""


@dataclass(frozen=True)
class Identity:
    """A client of the hall with the key that only it has."""

    client_id: str
    kid: str
    key: Ed25519PrivateKey


def made_up_banks(institutions: int, outlets: int, seed: int, basis_bp: int) -> list[Bank]:
    """Institutions of all size classes that share so many outlets, each at least one; the same seed gives the same.

    Args:
        institutions: how many.
        outlets: how many in all, at least as many.
        seed: of the draws.
        basis_bp: the basis rate that spreads are over, per year.
    """
    rng = np.random.default_rng([seed, 57])
    kinds = _dealt([kind.share for kind in KINDS], institutions)
    of = [kind for kind, count in zip(KINDS, kinds, strict=True) for _ in range(count)]
    weights = np.array([kind.weight for kind in of]) * rng.uniform(0.6, 1.4, institutions)
    sizes = 1 + np.array(_dealt(list(weights), outlets - institutions))
    numbers = dict.fromkeys((kind.size_class for kind in KINDS), 0)
    banks = []
    for kind, size in zip(of, sizes, strict=True):
        numbers[kind.size_class] += 1
        banks.append(_bank(kind, numbers[kind.size_class], int(size), basis_bp, rng))
    return banks


def _dealt(weights: Sequence[float], whole: int) -> list[int]:
    """`whole` dealt out in proportion to the weights, the largest remainders first."""
    exact = np.array(weights, dtype=float) / sum(weights) * whole
    dealt = np.floor(exact).astype(int)
    for place in np.argsort(dealt - exact, kind="stable")[: whole - int(dealt.sum())]:
        dealt[place] += 1
    return [int(one) for one in dealt]


def _bank(kind: Kind, number: int, size: int, basis_bp: int, rng: np.random.Generator) -> Bank:
    first, last = kind.bands
    wanted = rng.choice(list(SECTIONS), size=int(rng.integers(12, 20)), replace=False)
    appetite = Appetite(
        sections=frozenset({*wanted.tolist(), "C", "I"} if rng.random() < 0.7 else wanted.tolist()),
        bands=frozenset(BANDS[first : last + 1]),
        eagerness=float(rng.uniform(0.2, 0.6)),
        reaction_seconds=float(rng.uniform(*kind.reaction_seconds)),
        declines=float(rng.uniform(0.02, 0.15)),
        spread_bp=int(rng.integers(*kind.spread_bp)),
    )
    districts = [*DISTRICTS] if size >= len(DISTRICTS) else rng.choice([*DISTRICTS], size, replace=False).tolist()
    outlets = tuple(
        Outlet(f"{DISTRICTS[where]}第{place // len(districts) + 1}支行", where, subscribes=bool(rng.random() < 0.8))
        for place in range(size)
        for where in [districts[place % len(districts)]]
    )
    rates = (basis_bp + appetite.spread_bp, basis_bp + appetite.spread_bp + 200)
    goods = (
        Goods(
            "积分信用贷", "innovation-points", 10_000 * CNY, kind.max_cny * CNY, 36, 12, revolving=True, rate_bp=rates
        ),
        Goods(
            "首贷通",
            "first-loan",
            10_000 * CNY,
            min(kind.max_cny, 3_000_000) * CNY,
            12,
            12,
            revolving=False,
            rate_bp=rates,
        ),
        Goods("信用快贷", "credit", 50_000 * CNY, kind.max_cny * CNY, 24, 12, revolving=True, rate_bp=rates),
    )
    return Bank(f"{kind.name}{number}", kind.size_class, appetite, outlets, goods)


# ------------------------------------------------------------------------------------------------------------ founding


async def found(connection: Connection, banks: Sequence[Bank], day: str) -> list[Bank]:
    """Make the hall know the banks, by the acts of its administrators and of each bank's two managers.

    Args:
        connection: as the owner of the database.
        banks: without ids.
        day: from which the products are offered.
    """
    async with connection.transaction():
        ids = await _made(
            connection,
            "SELECT hall.act_add_institution($1::text::jsonb, one) -> 'body' ->> 'id' AS made "
            "FROM jsonb_array_elements($2::text::jsonb) WITH ORDINALITY AS list (one, place) ORDER BY place",
            _actor("admin", None),
            [{"name": one.name, "size_class": one.size_class} for one in banks],
        )
        return [await _settled(connection, replace(one, id=made), day) for one, made in zip(banks, ids, strict=True)]


async def _settled(connection: Connection, bank: Bank, day: str) -> Bank:
    """The bank with its outlets, their subscriptions and its products in force."""
    outlets = await _made(
        connection,
        "SELECT hall.act_add_outlet($1::text::jsonb, one) -> 'body' ->> 'id' AS made "
        "FROM jsonb_array_elements($2::text::jsonb) WITH ORDINALITY AS list (one, place) ORDER BY place",
        _actor("admin", None),
        [{"institution_id": bank.id, "name": one.name, "district": one.district} for one in bank.outlets],
    )
    bank = replace(bank, outlets=tuple(replace(one, id=made) for one, made in zip(bank.outlets, outlets, strict=True)))
    wants = {"industry_sections": sorted(bank.appetite.sections), "amount_bands": sorted(bank.appetite.bands),
        "districts": [], "purposes": [], "schemes": [], "first_loans_only": False}  # fmt: skip
    await _made(
        connection,
        "SELECT hall.put_subscription($1::text::jsonb, one) ->> 'outlet_id' AS made "
        "FROM jsonb_array_elements($2::text::jsonb) AS one",
        _actor("institution-manager", bank.id),
        [{"outlet_id": one.id} | wants for one in bank.outlets if one.subscribes],
    )
    proposed = await _made(
        connection,
        "SELECT hall.act_propose_product($1::text::jsonb, one) -> 'body' ->> 'id' AS made "
        "FROM jsonb_array_elements($2::text::jsonb) WITH ORDINALITY AS list (one, place) ORDER BY place",
        _actor("institution-manager", bank.id),
        [_product(one, day) for one in bank.goods],
    )
    await _made(
        connection,
        "SELECT hall.act_approve_product($1::text::jsonb, one) -> 'body' ->> 'id' AS made "
        "FROM jsonb_array_elements($2::text::jsonb) AS one",
        _actor("institution-manager", bank.id, second=True),
        [{"product_id": one, "version": 1} for one in proposed],
    )
    return replace(
        bank, goods=tuple(replace(one, id=f"{made}@1") for one, made in zip(bank.goods, proposed, strict=True))
    )


def _product(goods: Goods, day: str) -> dict[str, Any]:
    return {
        "name": goods.name,
        "category": goods.category,
        "min_fen": goods.min_fen,
        "max_fen": goods.max_fen,
        "terms": {
            "target_customers": "园区内小微企业",
            "eligibility": {},
            "rate": {"basis": "LPR1Y", "from_bp": goods.rate_bp[0], "to_bp": goods.rate_bp[1], "by_grade_bp": {}},
            "line_months": goods.line_months,
            "draw_months": goods.draw_months,
            "repayments": ["interest-monthly-principal-at-end"],
            "is_revolving": goods.revolving,
            "channel": "both",
            "documents": [],
            "valid_from": day,
        },
    }


def _actor(role: str, institution: str | None, *, second: bool = False) -> str:
    who = {"client": f"founding {role} {1 + second}", "tenant": "default", "role": role, "institution": institution}
    return orjson.dumps(who).decode()


async def _made(connection: Connection, statement: str, actor: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [row["made"] for row in await connection.fetch(statement, actor, orjson.dumps(list(rows)).decode())]


async def new_identity(
    connection: Connection, name: str, role: str, institution: str | None = None, key: Ed25519PrivateKey | None = None
) -> Identity:
    """A client with a key of its own, known to the hall from now on; `key`: one that exists."""
    own = key or Ed25519PrivateKey.generate()
    jwk = public_jwk(own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    client_id = await add_client(connection, NewClient(name, role, institution), jwk)
    return Identity(client_id, jwk["kid"], own)
