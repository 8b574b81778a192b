"""The enterprises of the made-up park: who they are, and the hidden traits that drive both their facts and their risk.

Traits are standard normal. Better facts go with a lower risk: the same trait that makes a firm pay late, cancel
sales or lose its rating raises its probability of default.

    ln(pd / (1 - pd)) = BASE + SPREAD · risk
    risk = 0.50·small + 0.60·careless + 0.45·unsteady + 0.25·concentrated + 0.15·young + 0.10·noise
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from data_contracts.samples_days import (
    NEVER,
    Bools,
    Floats,
    Ints,
    day_number,
    first_days,
    month_number,
    months_of,
    stream,
)
from data_contracts.samples_sectors import SECTORS
from data_contracts.uscc import made_up_code

MONTHS = 60
"""Months of history at most: a loan is at most 24 months old, and its features look back 36."""
LOOK_BACK = 36
BASE = -3.82
SPREAD = 1.4
MIDDLING_FEN = 1_000_000_000
DISTRICTS = ("350203", "350206", "350211", "350212", "350213")
GROUP_SIZE = 3


@dataclass(frozen=True)
class Firms:
    """One entry per enterprise in every array.

    Attributes:
        as_of: last month of history is the one before this day's.
        code: unified social credit codes.
        sector: place in `SECTORS`.
        district: place in `DISTRICTS`.
        established, zone_entered: days; `NEVER` where not in the zone.
        general: general taxpayer (files monthly); else small-scale (files quarterly).
        group: group number, -1 where none.
        sells_to: group member it sells to, -1 where none.
        trades_round: its largest buyer sells to it as well.
        first_sale: month of the first sale; past the history where there is none.
        tech: technology firm.
        small, careless, unsteady, concentrated, young, inventive: traits; all but the last raise the risk.
        yearly_fen: level of yearly sales at `joined`.
        growth: of sales, per year, natural log.
        employees: persons at `joined`.
        joined: month at whose first day the firm's past is delivered: the loan's opening where there is one.
        start: first month of history.
        has_loan: a past loan is known.
        pd: true probability of default within 12 months of `joined`.
        defaulted: drawn from `pd`, where there is a loan.
        default_day: `NEVER` where none.
    """

    as_of: date
    code: pl.Series
    sector: Ints
    district: Ints
    established: Ints
    zone_entered: Ints
    general: Bools
    group: Ints
    sells_to: Ints
    trades_round: Bools
    first_sale: Ints
    tech: Bools
    small: Floats
    careless: Floats
    unsteady: Floats
    concentrated: Floats
    young: Floats
    inventive: Floats
    yearly_fen: Floats
    growth: Floats
    employees: Ints
    joined: Ints
    start: Ints
    has_loan: Bools
    pd: Floats
    defaulted: Bools
    default_day: Ints

    @property
    def size(self) -> int:
        """Number of enterprises."""
        return len(self.code)

    @property
    def end(self) -> int:
        """The month of `as_of`: the first one that is not history."""
        return month_number(self.as_of)

    @property
    def last_day(self) -> int:
        """The day before `as_of`: the last one on which a fact may become known."""
        return day_number(self.as_of) - 1

    def per(self, values: tuple[float, ...]) -> Floats:
        """The firm's own value of a list with one entry per sector."""
        return np.array(values, np.float64)[self.sector]


def normal_share(trait: Floats) -> Floats:
    """The standard normal distribution function, to 2e-4 (logistic with a cubic term): a trait as a share of firms."""
    return 1 / (1 + np.exp(-(1.5976 * trait + 0.07056 * trait**3)))


@dataclass(frozen=True)
class _Life:
    """When a firm began, when it first sold, and which part of its life is history."""

    established: Ints
    first_sale: Ints
    joined: Ints
    start: Ints
    has_loan: Bools
    start_up: Bools


def _lives(count: int, end: int, rng: np.random.Generator) -> _Life:
    start_up = rng.random(count) < 0.09
    age = np.clip(np.exp(rng.normal(4.45, 0.75, count)), 9, 400)
    age = np.where(start_up, rng.uniform(5, 32, count), age).astype(np.int64)
    born = end - age
    established = first_days(born) + rng.integers(0, 28, count)
    soonest = born + rng.integers(1, 5, count)
    kind = rng.random(count)
    recent = end - rng.integers(1, 6, count)
    later = np.where(kind < 0.6, NEVER, np.where(kind < 0.9, recent, born + 4))
    first_sale = np.where(start_up, np.maximum(later, soonest), soonest)
    opening = end - rng.integers(13, 25, count)
    old_enough = born + np.where(start_up, 3, 6) <= opening
    has_loan = old_enough & (rng.random(count) < np.where(start_up, 0.45, 0.76))
    joined = np.where(has_loan, opening, np.maximum(end - rng.integers(3, 25, count), born + 1))
    return _Life(established, first_sale, joined, np.maximum(joined - LOOK_BACK, born), has_loan, start_up)


def _codes(count: int, district: Ints, rng: np.random.Generator) -> pl.Series:
    numbers = 10_000_000 + rng.permutation(count) * 97 + rng.integers(0, 97, count)
    return pl.Series([made_up_code(int(n), DISTRICTS[d]) for n, d in zip(numbers, district, strict=True)])


def _groups(count: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Group numbers, and the member each one sells to: the next in its group, none for the last."""
    group, sells_to = np.full(count, -1), np.full(count, -1)
    groups = count * 6 // 100 // GROUP_SIZE
    members = rng.permutation(count)[: groups * GROUP_SIZE].reshape(groups, GROUP_SIZE)
    group[members] = np.arange(groups)[:, None]
    sells_to[members[:, :-1]] = members[:, 1:]
    return group, sells_to


def _zone_days(established: Ints, last_day: int, rng: np.random.Generator) -> Ints:
    """Most entered over a year ago, 7 % within the last year, 8 % never."""
    kind = rng.random(len(established))
    until = np.maximum(last_day - 400, established)
    long_ago = established + ((until - established) * np.minimum(rng.random(len(established)), 0.7)).astype(np.int64)
    recently = np.maximum(last_day - rng.integers(20, 330, len(established)), established)
    return np.where(kind < 0.08, NEVER, np.where(kind < 0.15, recently, long_ago))


def _levels(sector: Ints, small: Floats, rng: np.random.Generator) -> tuple[Floats, Ints]:
    """Yearly sales in fen and persons; one firm in a hundred is far larger than its traits say."""
    giant = np.where(rng.random(len(sector)) < 0.01, 40.0, 1.0)
    sales = np.array([s.sales_cny for s in SECTORS], np.float64)[sector] * np.exp(-0.95 * small) * giant
    per_head = np.array([s.sales_per_head_cny for s in SECTORS], np.float64)[sector]
    heads = np.rint(sales / per_head * np.exp(rng.normal(0, 0.3, len(sector))))
    return sales * 100, np.maximum(heads, 1).astype(np.int64)


def made_up_firms(enterprises: int, seed: int, as_of: date) -> Firms:
    """The park's enterprises with their hidden traits, true PD and drawn defaults."""
    rng = stream(seed, "firms")
    shares = np.array([s.share for s in SECTORS], np.float64)
    sector = rng.choice(len(SECTORS), enterprises, p=shares / shares.sum()).astype(np.int64)
    district = rng.integers(0, len(DISTRICTS), enterprises)
    end, last_day = month_number(as_of), day_number(as_of) - 1
    life = _lives(enterprises, end, rng)
    small, careless, unsteady, concentrated, inventive, noise = rng.standard_normal((6, enterprises)).clip(-3, 3)
    months_old = np.maximum(life.joined - months_of(life.established), 1)
    young = np.clip((4.2 - np.log(months_old)) / 0.8, -2.0, 2.5)
    yearly_fen, employees = _levels(sector, small, rng)
    # Small in yuan, not within its sector: that is what lenders, and features, see.
    small = np.where(life.start_up, 1.2, np.log(MIDDLING_FEN / yearly_fen) / 1.1).clip(-2.5, 2.5)
    risk = 0.50 * small + 0.60 * careless + 0.45 * unsteady + 0.25 * concentrated + 0.15 * young + 0.10 * noise
    pd = 1 / (1 + np.exp(-(BASE + SPREAD * risk)))
    defaulted = life.has_loan & (rng.random(enterprises) < pd)
    default_day = np.where(defaulted, first_days(life.joined) + rng.integers(95, 360, enterprises), NEVER)
    tech = rng.random(enterprises) < np.array([s.tech for s in SECTORS])[sector]
    group, sells_to = _groups(enterprises, rng)
    return Firms(
        as_of=as_of,
        code=_codes(enterprises, district, rng),
        sector=sector,
        district=district,
        established=life.established,
        zone_entered=_zone_days(life.established, last_day, rng),
        general=yearly_fen * rng.uniform(0.5, 2, enterprises) > 500_000_000,
        group=group,
        sells_to=sells_to,
        trades_round=rng.random(enterprises) < 0.04,
        first_sale=life.first_sale,
        tech=tech | (life.start_up & (rng.random(enterprises) < 0.5)),
        small=small,
        careless=careless,
        unsteady=unsteady,
        concentrated=concentrated,
        young=young,
        inventive=inventive,
        yearly_fen=yearly_fen,
        growth=rng.normal(0.06, 0.16, enterprises).clip(-0.5, 0.6),
        employees=np.where(life.start_up, 1 + employees % 12, employees),
        joined=life.joined,
        start=life.start,
        has_loan=life.has_loan,
        pd=pd,
        defaulted=defaulted,
        default_day=default_day,
    )
