"""Tax filings, taxpayer ratings and social insurance of the made-up park. Careless firms are late and owe."""

import numpy as np
import polars as pl

from data_contracts.samples_days import NEVER, Bools, Floats, Ints, dates, first_days, framed, stream
from data_contracts.samples_firms import MONTHS, Firms, normal_share
from data_contracts.sources import SOCIAL_INSURANCE, TAX_FILINGS, TAXPAYER_RATINGS

_DEADLINE_DAYS = 14
_UNDER_DECLARING = 0.03


def tax_filings(firms: Firms, sales: Floats, seed: int) -> pl.DataFrame:
    """VAT by month (general) or quarter (small-scale), income tax by year.

    Args:
        firms: the park.
        sales: invoiced sales in fen, (enterprises, MONTHS): declared sales come close to them.
        seed: of the park.
    """
    rng = stream(seed, "filings")
    under = np.where(rng.random(firms.size) < _UNDER_DECLARING, rng.uniform(0.4, 0.85, firms.size), 1.0)
    declared = np.maximum(sales, 0) * under[:, None] * (1 + 0.03 * rng.random(sales.shape))
    monthly = _vat_cells(firms, declared, months=1)
    quarterly = _vat_cells(firms, declared, months=3)
    yearly = _income_tax_cells(firms, declared)
    cells = {name: np.concatenate([lot[name] for lot in (monthly, quarterly, yearly)]) for name in monthly}
    return _filed(firms, cells, rng)


def _vat_cells(firms: Firms, declared: Floats, *, months: int) -> dict[str, Ints]:
    """Periods of `months` for the firms that file so, wholly inside the history (or begun by the firm's birth)."""
    begins = firms.end - MONTHS + np.arange(MONTHS)
    begins = begins[(begins % months == 0) & (begins + months <= firms.end)]
    column = begins - (firms.end - MONTHS)
    total = np.add.reduceat(declared, column, axis=1)
    # reduceat's last group runs to the end of the row: cut it at the period.
    total[:, -1:] = declared[:, column[-1] : column[-1] + months].sum(axis=1, keepdims=True)
    born = firms.start[:, None] <= begins[None, :] + months - 1
    begun = (firms.start[:, None] <= begins[None, :]) | (first_days(firms.start) <= firms.established)[:, None] & born
    firm, place = np.nonzero(begun & (firms.general == (months == 1))[:, None])
    sales = np.rint(total[firm, place]).astype(np.int64)
    burden_bp = np.where(firms.general[firm], 260, 100)
    return {
        "firm": firm,
        "first": np.maximum(first_days(begins[place]), firms.established[firm]),
        "following": first_days(begins[place] + months),
        "deadline": first_days(begins[place] + months) + _DEADLINE_DAYS,
        "sales": sales,
        "tax": sales * burden_bp // 10_000,
        "kind": np.zeros(len(firm), np.int64),
    }


def _income_tax_cells(firms: Firms, declared: Floats) -> dict[str, Ints]:
    """Whole calendar years inside the history, due at the end of May; no sales are declared with a tax on profit."""
    begins = firms.end - MONTHS + np.arange(MONTHS - 11)
    begins = begins[begins % 12 == 0]
    column = begins - (firms.end - MONTHS)
    total = np.stack([declared[:, c : c + 12].sum(axis=1) for c in column], axis=1)
    firm, place = np.nonzero(firms.start[:, None] <= begins[None, :])
    profit_bp = (500 - 120 * firms.small[firm]).clip(0, None)
    tax = np.rint(total[firm, place] * profit_bp / 10_000 * 0.05).astype(np.int64)
    return {
        "firm": firm,
        "first": first_days(begins[place]),
        "following": first_days(begins[place] + 12),
        "deadline": first_days(begins[place] + 17) - 1,
        "sales": np.zeros(len(firm), np.int64),
        "tax": tax,
        "kind": np.ones(len(firm), np.int64),
    }


def _filed(firms: Firms, cells: dict[str, Ints], rng: np.random.Generator) -> pl.DataFrame:
    """Rows of the source; who owes gets a second row the day the debt is paid."""
    firm, deadline = cells["firm"], cells["deadline"]
    careless = normal_share(firms.careless)[firm]
    count = len(firm)
    worse = np.where(deadline > firms.default_day[firm], 0.4, 0.0)
    late = rng.random(count) < 0.6 * careless**2.5 + worse
    late_days = np.where(late, 1 + rng.poisson(2 + 20 * careless**3), 0)
    on_time = deadline - rng.integers(0, 10, count)
    filed = np.maximum(np.where(late, deadline + late_days, on_time), cells["following"])
    owes = (rng.random(count) < 0.10 * careless**6 + worse / 2) & (cells["tax"] > 0)
    arrears = np.where(owes, np.rint(cells["tax"] * rng.uniform(0.3, 1, count)), 0).astype(np.int64)
    paid = filed + rng.integers(15, 200, count)
    at_filing = _rows(firms, cells, np.where(owes, NEVER, filed), late_days, arrears, filed)
    late_then = np.maximum(paid - deadline, 0)
    settled = _rows(firms, cells, paid, late_then, np.zeros(count, np.int64), paid).filter(pl.Series(owes))
    known = pl.col("known_on") <= pl.lit(firms.as_of).dt.offset_by("-1d")
    return pl.concat([at_filing, settled]).filter(known).sort("uscc", "period_from", "tax_kind", "known_on")


def _rows(
    firms: Firms, cells: dict[str, Ints], paid: Ints, late_days: Ints, arrears: Ints, known: Ints
) -> pl.DataFrame:
    return framed(
        TAX_FILINGS,
        {
            "uscc": firms.code.gather(cells["firm"]),
            "known_on": dates(known),
            "supplier": "authority",
            "period_from": dates(cells["first"]),
            "period_to": dates(cells["following"] - 1),
            "tax_kind": pl.Series(cells["kind"]).replace_strict({0: "vat", 1: "cit"}, return_dtype=pl.String),
            "declared_sales_fen": cells["sales"],
            "tax_fen": cells["tax"],
            "refund_fen": np.zeros(len(paid), np.int64),
            "paid_on": dates(paid),
            "late_days": late_days,
            "arrears_fen": arrears,
        },
    )


def taxpayer_ratings(firms: Firms, sales: Floats, seed: int) -> pl.DataFrame:
    """Grades of the years lived through, known in the April after; young firms and firms without sales are M or worse.

    Args:
        firms: the park.
        sales: invoiced sales in fen, (enterprises, MONTHS).
        seed: of the park.
    """
    rng = stream(seed, "ratings")
    years = firms.end // 12 - np.arange(5, 0, -1)
    judged = first_days(years * 12 + 12)
    conduct = -firms.careless[:, None] + 0.2 * rng.standard_normal((firms.size, len(years)))
    conduct = np.where(judged[None, :] > firms.default_day[:, None] + 60, conduct - 1.5, conduct)
    grade = np.select([conduct > 0.8, conduct > -0.4, conduct > -1.6, conduct > -2.3], [0, 1, 2, 3], 4)
    column = (years * 12 + 11 - (firms.end - MONTHS)).clip(11, None)
    sold = np.stack([sales[:, c - 11 : c + 1].sum(axis=1) > 0 for c in column], axis=1)
    in_history = firms.start[:, None] <= years[None, :] * 12 + 11
    young = firms.established[:, None] > judged[None, :] - 365
    grade = np.where((young | (in_history & ~sold)) & (grade < 2), 2, grade)
    known = judged[None, :] + 110 + rng.integers(0, 12, (firms.size, 1))
    firm, place = np.nonzero((firms.established[:, None] < judged[None, :]) & (known <= firms.last_day))
    return framed(
        TAXPAYER_RATINGS,
        {
            "uscc": firms.code.gather(firm),
            "known_on": dates(known[firm, place]),
            "supplier": "authority",
            "year": years[place],
            "grade": pl.Series(["A", "B", "M", "C", "D"]).gather(grade[firm, place]),
        },
    )


def social_insurance(firms: Firms, seed: int) -> pl.DataFrame:
    """Monthly headcount and bases, known on the 20th of the month after; careless firms owe now and then."""
    rng = stream(seed, "social insurance")
    months = firms.end - MONTHS + np.arange(MONTHS)
    firm, place = np.nonzero(months[None, :] >= firms.start[:, None])
    month = months[place]
    known = first_days(month + 1) + 19
    kept: Bools = known <= firms.last_day
    firm, month, known = firm[kept], month[kept], known[kept]
    years = (month - firms.joined[firm]) / 12
    defaulted = first_days(month) > firms.default_day[firm]
    heads = firms.employees[firm] * np.exp(0.6 * firms.growth[firm] * years) * np.where(defaulted, 0.6, 1.0)
    headcount = np.maximum(np.rint(heads), 1).astype(np.int64)
    wage_fen = (650_000 + 60_000 * rng.standard_normal(firms.size)).clip(400_000)[firm].astype(np.int64)
    base = headcount * wage_fen
    owes = rng.random(len(firm)) < 0.12 * normal_share(firms.careless)[firm] ** 5 + 0.3 * defaulted
    return framed(
        SOCIAL_INSURANCE,
        {
            "uscc": firms.code.gather(firm),
            "known_on": dates(known),
            "supplier": "authority",
            "month": dates(first_days(month)),
            "headcount": headcount,
            "base_fen": base,
            "arrears_fen": np.where(owes, base * 3 // 10, 0),
        },
    )
