"""Invoices of the made-up park: monthly sales and purchases, split over repeat partners, some cancelled."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from data_contracts.samples_days import Bools, Floats, Ints, dates, first_days, framed, months_of, stream
from data_contracts.samples_firms import MONTHS, Firms, normal_share
from data_contracts.samples_sectors import SECTORS
from data_contracts.sources import INVOICES
from data_contracts.uscc import made_up_code

PER_FIRM = 250
"""Invoices an enterprise, on average."""
PARTNERS = 64
"""Partners of one firm in one direction, at most."""
_OUTSIDERS_FROM = 50_000_000
"""Codes of firms outside the park begin here, so that they meet none inside."""
_LEAST_NET_FEN = 1_000
_BOUGHT_PER_SOLD = 0.6


@dataclass(frozen=True)
class Lines:
    """Invoices as arrays, one entry each, before they get numbers and names.

    Attributes:
        firm: whose books.
        sold: sold, else bought.
        partner: place in the list of all partners (`partner_codes`).
        day: of issue.
        net, tax: fen.
        number: serial; two lines share it where they are the two books' view of one invoice.
        void: cancelled before booking.
        red_of: serial of the reversed invoice, -1 where none.
        known: day the row became known.
    """

    firm: Ints
    sold: Bools
    partner: Ints
    day: Ints
    net: Ints
    tax: Ints
    number: Ints
    void: Bools
    red_of: Ints
    known: Ints

    def only(self, rows: Bools | Ints) -> "Lines":
        """Some of the lines."""
        return Lines(**{name: column[rows] for name, column in vars(self).items()})


def joined_lines(parts: list[Lines]) -> Lines:
    """Several lots of lines, one after the other."""
    return Lines(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})


def is_digital(number: Ints, day: Ints) -> Bools:
    """Fully digital invoices took over step by step; a fifth of the old paper kind lingers until 2024."""
    year = months_of(day) // 12
    share = np.select([year < 2022, year < 2023, year < 2024, year < 2025], [0, 10, 40, 75], 95)
    return number * 37 % 100 < share


def monthly_sales(firms: Firms, seed: int) -> Floats:
    """Sales in fen, net of VAT, (enterprises, MONTHS): level, growth, season, shocks, gaps, a fall after default."""
    rng = stream(seed, "sales")
    months = firms.end - MONTHS + np.arange(MONTHS)[None, :]
    years = (months - firms.joined[:, None]) / 12
    level = firms.yearly_fen[:, None] / 12 * np.exp(firms.growth[:, None] * years)
    peak, swing = firms.per(tuple(s.peak for s in SECTORS)), firms.per(tuple(s.swing for s in SECTORS))
    season = 1 + swing[:, None] * np.cos(2 * np.pi * (months % 12 + 1 - peak[:, None]) / 12)
    spring_festival = np.where(months % 12 == 1, 0.65, 1.0)
    unsteady = normal_share(firms.unsteady)[:, None]
    shock = np.exp((0.08 + 0.4 * unsteady) * rng.standard_normal(years.shape))
    trading = rng.random(years.shape) >= 0.5 * unsteady**2
    ramp = ((months - firms.first_sale[:, None] + 2) / 12).clip(0.05, 1)
    sells = (months >= firms.first_sale[:, None]) & (months >= firms.start[:, None])
    defaulted = first_days(months) > firms.default_day[:, None]
    return level * season * spring_festival * shock * ramp * trading * sells * np.where(defaulted, 0.35, 1.0)


def _purchases(firms: Firms, sales: Floats, rng: np.random.Generator) -> Floats:
    """A share of sales, and rent and equipment of a start-up that sells nothing yet."""
    share = rng.uniform(0.4, 0.85, firms.size)[:, None]
    months = firms.end - MONTHS + np.arange(MONTHS)[None, :]
    costs = rng.uniform(1e6, 8e6, firms.size)[:, None] * (months >= firms.start[:, None])
    return np.maximum(sales * share * np.exp(0.2 * rng.standard_normal(sales.shape)), costs)


def _wanted(sales: Floats, rate: Floats) -> Floats:
    """Invoices a month: the firm's rate, a little more in good months, at least one where there is any amount."""
    usual = np.maximum(sales.mean(axis=1, keepdims=True), 1)
    wanted = rate[:, None] * (sales / usual).clip(0, 4) ** 0.5
    return np.where(sales > 0, np.maximum(wanted, 1), 0)


def _rates(firms: Firms, sales: Floats, bought: Floats, rng: np.random.Generator) -> Floats:
    """Sales invoices a month of each firm, scaled so that all invoices together come to `PER_FIRM` each."""
    rate = np.exp(0.8 * rng.standard_normal(firms.size) - 0.3 * firms.small).clip(0.3, 12)
    for _ in range(4):
        drawn = _wanted(sales, rate).sum() + _wanted(bought, _BOUGHT_PER_SOLD * rate).sum()
        rate *= PER_FIRM * firms.size / max(drawn, 1)
    return rate


def _counts(wanted: Floats, rng: np.random.Generator) -> Ints:
    """Whole numbers that are `wanted` on average."""
    return np.floor(wanted + rng.random(wanted.shape) * (wanted > 0)).astype(np.int64)


def _split(amounts: Floats, counts: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Cells of invoices and their net fen: each cell's amount parted at random among its count."""
    cell = np.repeat(np.arange(counts.size), counts.ravel())
    weight = rng.standard_gamma(1.6, len(cell)) + 0.02
    total = np.bincount(cell, weight, minlength=counts.size)
    net = np.rint(amounts.ravel()[cell] * weight / total[cell])
    return cell, np.maximum(net, _LEAST_NET_FEN).astype(np.int64)


def _lines(firms: Firms, amounts: Floats, counts: Ints, *, sold: bool, seed: int) -> Lines:
    rng = stream(seed, "sold" if sold else "bought")
    cell, net = _split(amounts, counts, rng)
    firm, month = cell // MONTHS, firms.end - MONTHS + cell % MONTHS
    first, following = first_days(month), first_days(month + 1)
    first = np.maximum(first, firms.established[firm])
    day = first + (rng.random(len(cell)) * (following - first)).astype(np.int64)
    vat_bp = np.where(firms.general, firms.per(tuple(s.vat_bp for s in SECTORS)), 100).astype(np.int64)
    return Lines(
        firm=firm,
        sold=np.full(len(cell), sold),
        partner=_partners(firms, firm, rng, sold=sold),
        day=day,
        net=net,
        tax=(net * vat_bp[firm] + 5_000) // 10_000,
        number=np.arange(len(cell)) * 2 + sold,
        void=np.zeros(len(cell), np.bool_),
        red_of=np.full(len(cell), -1),
        known=day,
    )


def _partners(firms: Firms, firm: Ints, rng: np.random.Generator, *, sold: bool) -> Ints:
    """Repeat partners with heavy-tailed shares; a few buy and sell, a group's members trade with each other."""
    many = np.exp(2.4 - 0.5 * firms.concentrated - 0.3 * firms.small + 0.2 * rng.standard_normal(firms.size))
    count = np.clip(np.rint(many), 2, PARTNERS - 1).astype(np.int64)
    steepness = 1.1 + 2.4 * normal_share(firms.concentrated)
    rank = (count[firm] * rng.random(len(firm)) ** steepness[firm]).astype(np.int64)
    # Who trades round buys from its largest buyer: the same relation in both directions.
    as_buyer = (firms.trades_round[firm] & (rank == 0)) | sold
    relation = (firm * 2 + as_buyer) * PARTNERS + rank
    outside = relation * 2_654_435_761 % _outsiders(firms.size)
    member = firms.sells_to[firm]
    inside = (member >= 0) & (rank == 1) & sold
    return np.where(inside, _outsiders(firms.size) + member, outside)


def _outsiders(enterprises: int) -> int:
    return 3 * enterprises + 1_000


def partner_codes(firms: Firms) -> pl.Series:
    """Codes of all trade partners: firms outside the park, then the park's own."""
    outside = [made_up_code(_OUTSIDERS_FROM + n, "110108") for n in range(_outsiders(firms.size))]
    return pl.concat([pl.Series(outside), firms.code])


def _cancelled(firms: Firms, lines: Lines, seed: int) -> list[Lines]:
    """Lines with some voided (paper) or reversed by a red letter (digital); careless firms cancel more.

    Seven of ten voids are known at once, the others by a later row. Of ten red letters one names no invoice.
    """
    rng = stream(seed, "cancelled")
    share = np.where(lines.sold, 0.002 + 0.2 * normal_share(firms.careless)[lines.firm] ** 2.5, 0.01)
    cancelled = rng.random(len(share)) < share
    digital = is_digital(lines.number, lines.day)
    void = cancelled & ~digital
    later = void & (rng.random(len(share)) < 0.3)
    after = lines.day + rng.integers(1, 10, len(share))
    later &= after <= firms.last_day
    known_at_once = replace(lines, void=void & ~later)
    voided = replace(lines.only(later), void=np.ones(later.sum(), np.bool_), known=after[later])
    day = lines.day + rng.integers(3, 55, len(share))
    red = cancelled & digital & (day <= firms.last_day)
    part = np.where(rng.random(len(share)) < 0.75, 1.0, rng.uniform(0.2, 0.9, len(share)))
    reversed_lines = replace(
        lines.only(red),
        day=day[red],
        known=day[red],
        net=-np.rint(lines.net * part)[red].astype(np.int64),
        tax=-np.rint(lines.tax * part)[red].astype(np.int64),
        number=len(share) * 2 + lines.number[red],
        red_of=np.where(rng.random(len(share)) < 0.9, lines.number, -1)[red],
    )
    return [known_at_once, voided, reversed_lines]


def _other_book(firms: Firms, lines: Lines) -> Lines:
    """The buyer's view of what one member of a group sold to another, within the buyer's own history."""
    buyer = lines.partner - _outsiders(firms.size)
    from_day = np.maximum(first_days(firms.start), firms.established)
    seen = (buyer >= 0) & (lines.day >= from_day[np.maximum(buyer, 0)])
    return replace(
        lines.only(seen),
        firm=buyer[seen],
        partner=_outsiders(firms.size) + lines.firm[seen],
        sold=np.zeros(seen.sum(), np.bool_),
    )


def made_up_lines(firms: Firms, sales: Floats, seed: int) -> Lines:
    """All invoices of the park, in order of enterprise, day and serial."""
    rng = stream(seed, "counts")
    bought = _purchases(firms, sales, rng)
    rate = _rates(firms, sales, bought, rng)
    lots = [
        _lines(firms, sales, _counts(_wanted(sales, rate), rng), sold=True, seed=seed),
        _lines(firms, bought, _counts(_wanted(bought, _BOUGHT_PER_SOLD * rate), rng), sold=False, seed=seed),
    ]
    lines = joined_lines(_cancelled(firms, joined_lines(lots), seed))
    lines = joined_lines([lines, _other_book(firms, lines)])
    return lines.only(np.lexsort((lines.known, lines.number, lines.day, lines.firm)))


def invoices(firms: Firms, lines: Lines) -> pl.DataFrame:
    """The lines as the source `invoices`. Paper: code of 10 and number of 8 digits; digital: 20 digits."""
    codes = partner_codes(firms)
    # A red letter's own day decides its kind; what it reverses was digital.
    digital = is_digital(lines.number, lines.day) | (lines.net < 0)
    return framed(
        INVOICES,
        {
            "uscc": firms.code.gather(lines.firm),
            "known_on": dates(lines.known),
            "supplier": "authority",
            "direction": pl.Series(np.where(lines.sold, 1, 0)).replace_strict({1: "out", 0: "in"}),
            "invoice_no": _numbers(lines.number, digital),
            "counterparty_id": codes.gather(lines.partner),
            "issued_on": dates(lines.day),
            "net_fen": lines.net,
            "tax_fen": lines.tax,
            "gross_fen": lines.net + lines.tax,
            "is_void": lines.void,
            "red_of": _numbers(lines.red_of, np.ones(len(digital), np.bool_)),
        },
    )


def _numbers(serial: Ints, digital: Bools) -> pl.Series:
    """Invoice numbers by serial; null for serial -1."""
    text = pl.Series(serial).cast(pl.String)
    kinds = pl.DataFrame({"serial": serial, "text": text, "digital": digital})
    number = (
        pl.when(pl.col("serial") < 0)
        .then(pl.lit(None, pl.String))
        .when(pl.col("digital"))
        .then(pl.lit("2535") + pl.col("text").str.zfill(16))
        .otherwise(pl.lit("3502") + pl.col("text").str.zfill(14))
    )
    return kinds.select(number).to_series()


def net_sales(firms: Firms, lines: Lines) -> Floats:
    """Invoiced sales in fen, (enterprises, MONTHS), by month of issue: void left out, red letters counted."""
    voided_later = np.zeros(len(lines.firm), np.bool_)
    # Rows stand in order of serial and day known: a second row of a serial replaces the first.
    same = (np.diff(lines.number) == 0) & (np.diff(lines.firm) == 0) & (np.diff(lines.day) == 0)
    voided_later[:-1] = same & lines.void[1:]
    counted = lines.sold & ~lines.void & ~voided_later
    cell = lines.firm * MONTHS + months_of(lines.day) - (firms.end - MONTHS)
    total = np.zeros(firms.size * MONTHS)
    np.add.at(total, cell[counted], lines.net[counted])
    return total.reshape(firms.size, MONTHS)
