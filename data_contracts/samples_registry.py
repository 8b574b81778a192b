"""Registration, certificates, innovation indicators and accounts of the made-up park."""

import numpy as np
import polars as pl

from data_contracts.samples_days import NEVER, Bools, Floats, Ints, dates, first_days, framed, months_of, stream
from data_contracts.samples_firms import DISTRICTS, Firms
from data_contracts.samples_sectors import SECTORS
from data_contracts.sources import (
    ENTERPRISES,
    FINANCIAL_STATEMENTS,
    INNOVATION_INDICATORS,
    QUALIFICATIONS,
    STATEMENT_ITEMS,
)

INDICATORS = {
    "rd_expense": "fen",
    "rd_expense_growth": "bp",
    "rd_intensity": "bp",
    "tech_staff_share": "bp",
    "invention_patent_applications": "count",
    "pct_applications": "count",
    "tech_contract_amount": "fen",
    "hightech_revenue": "fen",
    "revenue": "fen",
    "revenue_growth": "bp",
    "postgraduate_share": "bp",
    "rd_tax_relief": "fen",
    "return_on_equity": "bp",
    "graduates_hired": "count",
    "provincial_platforms_2y": "count",
    "provincial_awards_2y": "count",
    "provincial_projects_2y": "count",
    "venture_capital_2y": "fen",
}
"""The 18 national indicators by id, with the unit they are reported in."""


def yearly_sales(firms: Firms, years: Ints) -> Floats:
    """Sales of fiscal years in fen, (enterprises, years), by level and growth; 0 before the first sale."""
    middle = years * 12 + 6
    level = firms.yearly_fen[:, None] * np.exp(firms.growth[:, None] * (middle[None, :] - firms.joined[:, None]) / 12)
    trading_months = (years[None, :] * 12 + 12 - firms.first_sale[:, None]).clip(0, 12)
    return level * trading_months / 12


def enterprises(firms: Firms, seed: int) -> pl.DataFrame:
    """A row at registration, at entry to the zone and after each of the last three annual reports (in June)."""
    rng = stream(seed, "enterprises")
    reports = (firms.end - 6) // 12 - np.arange(2, -1, -1)
    report_days = first_days(reports * 12 + 5) + 19
    entered = np.where(firms.zone_entered > firms.established, firms.zone_entered, NEVER)
    known = np.column_stack([firms.established, entered, np.tile(report_days, (firms.size, 1))])
    alive = (known >= firms.established[:, None]) & (known <= firms.last_day)
    # Two of these events on one day are one row.
    alive[:, 0] &= ~(known[:, 2:] == known[:, :1]).any(axis=1)
    alive[:, 1] &= ~(known[:, 2:] == known[:, 1:2]).any(axis=1)
    firm, place = np.nonzero(alive)
    day = known[firm, place]
    last_report = np.searchsorted(report_days, day, side="right") - 1
    fiscal = reports[np.maximum(last_report, 0)] - 1
    reported = (last_report >= 0) & (firms.established[firm] < first_days(fiscal * 12 + 12))
    sales = yearly_sales(firms, np.arange(fiscal.min(), fiscal.max() + 1))[firm, fiscal - fiscal.min()]
    heads = firms.employees[firm] * np.exp(0.6 * firms.growth[firm] * (fiscal * 12 + 12 - firms.joined[firm]) / 12)
    assets = np.maximum(firms.yearly_fen, 30_000_000)[firm] * rng.uniform(0.5, 1.6, firms.size)[firm]
    zone = np.where(firms.zone_entered[firm] <= day, firms.zone_entered[firm], NEVER)
    silent = rng.random(firms.size)[firm] < 0.02
    return framed(
        ENTERPRISES,
        {
            "uscc": firms.code.gather(firm),
            "known_on": dates(day),
            "supplier": "authority",
            "name": pl.select(pl.format("示例企业{}有限公司", pl.Series(firm + 1))).to_series(),
            "established_on": dates(firms.established[firm]),
            "zone_entered_on": dates(zone),
            "industry_code": pl.Series([s.code for s in SECTORS]).gather(firms.sector[firm]),
            "district": pl.Series(DISTRICTS).gather(firms.district[firm]),
            "employees": _observed(np.maximum(np.rint(heads), 1), reported & ~silent),
            "revenue_fen": _observed(np.rint(sales), reported & ~silent),
            "total_assets_fen": _observed(np.rint(assets), reported),
            "taxpayer_type": pl.Series(np.where(firms.general[firm], "general", "small_scale")),
            "registration_status": _status(firms, firm, place, rng),
            "group_id": _group_ids(firms, firm),
        },
    )


def _observed(values: Floats, seen: Bools) -> pl.Series:
    whole = pl.Series(values.astype(np.int64))
    return pl.select(pl.when(pl.Series(seen)).then(whole)).to_series()


def _status(firms: Firms, firm: Ints, place: Ints, rng: np.random.Generator) -> pl.Series:
    """The last report of a few says that they left; of those in default, more."""
    gone = rng.random(firms.size) < np.where(firms.default_day < NEVER, 0.15, 0.012)
    kind = rng.integers(1, 4, firms.size)
    state = np.where(gone[firm] & (place == 4), kind[firm], 0)
    return pl.Series(["active", "moved_out", "revoked", "cancelled"]).gather(state)


def _group_ids(firms: Firms, firm: Ints) -> pl.Series:
    group = pl.Series(firms.group[firm])
    return pl.select(pl.when(group >= 0).then(pl.format("G{}", group))).to_series()


def qualifications(firms: Firms, seed: int) -> pl.DataFrame:
    """High-tech firms (3 years, some renewed), 专精特新 (3 years), tech SMEs (until the March after the entry)."""
    rng = stream(seed, "qualifications")
    eligible = firms.tech & (firms.inventive > -0.3)
    months_back = rng.integers(1, 52, firms.size)
    hightech = eligible & (rng.random(firms.size) < 0.65)
    granted = first_days(firms.end - months_back) + 9
    renewed = np.where(rng.random(firms.size) < 0.8, first_days(firms.end - months_back + 36) + 9, NEVER)
    srdi = eligible & (firms.small < 0.4) & (firms.inventive > 0.2) & (rng.random(firms.size) < 0.5)
    srdi_day = first_days(firms.end - rng.integers(2, 44, firms.size)) + 4
    june = np.full(firms.size, (firms.end - 6) // 12 * 12 + 5)
    entry = first_days(june) + rng.integers(-40, 10, firms.size)
    tech_sme = firms.tech & (rng.random(firms.size) < 0.7)
    lots = [
        _certificates(firms, hightech, granted, 36, "hightech", "provincial"),
        _certificates(firms, hightech & (renewed < NEVER), renewed, 36, "hightech", "provincial"),
        _certificates(firms, srdi, srdi_day, 36, "srdi", "provincial"),
        _certificates(firms, tech_sme, entry - 365, 21, "tech_sme", "national"),
        _certificates(firms, tech_sme & (rng.random(firms.size) < 0.9), entry, 21, "tech_sme", "national"),
    ]
    return pl.concat(lots).sort("uscc", "tag", "known_on")


def _certificates(firms: Firms, holds: Bools, granted: Ints, months: int, tag: str, level: str) -> pl.DataFrame:
    known = granted + 10
    rows = np.flatnonzero(holds & (granted > firms.established + 300) & (known <= firms.last_day))
    return framed(
        QUALIFICATIONS,
        {
            "uscc": firms.code.gather(rows),
            "known_on": dates(known[rows]),
            "supplier": "authority",
            "tag": tag,
            "level": level,
            "granted_on": dates(granted[rows]),
            "valid_to": dates(first_days(months_of(granted[rows]) + months) - 1),
        },
    )


def innovation_indicators(firms: Firms, seed: int) -> pl.DataFrame:
    """The 18 indicators of the last two fiscal years, known in the spring after: tech firms and a third of the rest."""
    rng = stream(seed, "indicators")
    reports = np.flatnonzero(firms.tech | (rng.random(firms.size) < 0.35))
    last = firms.end // 12 - 1
    years = [_indicators_of(firms, reports, year, rng) for year in (last - 1, last)]
    return pl.concat(years).sort("uscc", "year", maintain_order=True)


def _indicators_of(firms: Firms, reports: Ints, year: int, rng: np.random.Generator) -> pl.DataFrame:
    lived = reports[firms.established[reports] < first_days(np.array([year * 12 + 9]))[0]]
    values = _indicator_values(firms, lived, year, rng)
    first_year = firms.established[lived] > first_days(np.array([year * 12]))[0]
    shape = (len(lived), len(INDICATORS))
    state = np.where(rng.random(shape) < 0.05, 2, np.where(rng.random(shape) < 0.03, 1, 0))
    names = list(INDICATORS)
    for growth in ("rd_expense_growth", "revenue_growth"):
        state[first_year, names.index(growth)] = 1
    known = np.minimum(first_days(np.array([year * 12 + 15]))[0] + rng.integers(0, 50, len(lived)), NEVER)
    kept = np.repeat(known <= firms.last_day, shape[1])
    rows = framed(
        INNOVATION_INDICATORS,
        {
            "uscc": firms.code.gather(np.repeat(lived, shape[1])),
            "known_on": dates(np.repeat(known, shape[1])),
            "supplier": pl.Series(np.tile([n == "revenue" for n in names], len(lived))).replace_strict(
                {True: "authority", False: "applicant"}, return_dtype=pl.String
            ),
            "year": np.full(state.size, year),
            "indicator_id": pl.Series(names).gather(np.tile(np.arange(shape[1]), len(lived))),
            "value": _observed(np.column_stack([values[name] for name in names]).ravel(), (state == 0).ravel()),
            "unit": pl.Series(list(INDICATORS.values())).gather(np.tile(np.arange(shape[1]), len(lived))),
            "state": pl.Series(["reported", "not_applicable", "missing"]).gather(state.ravel()),
        },
    )
    return rows.filter(pl.Series(kept))


def _indicator_values(firms: Firms, rows: Ints, year: int, rng: np.random.Generator) -> dict[str, Floats]:
    sales = yearly_sales(firms, np.array([year]))[rows, 0]
    tech, idea, size = firms.tech[rows], firms.inventive[rows], len(rows)
    lift = np.exp(0.5 * idea + np.where(tech, 0.9, -0.6))
    spend = np.where(tech, 30_000_000, 0) + 0.02 * lift * sales
    shares = (0.12 * lift * rng.uniform(0.6, 1.4, size)).clip(0, 0.95)

    def count(mean: float) -> Floats:
        return rng.poisson(mean * lift).astype(np.float64)

    values = {
        "rd_expense": spend,
        "rd_expense_growth": 10_000 * rng.normal(0.1, 0.25, size).clip(-0.9),
        "rd_intensity": 10_000 * (spend / np.maximum(sales, 100_000_000)).clip(0, 3),
        "tech_staff_share": 10_000 * shares,
        "invention_patent_applications": count(1.2),
        "pct_applications": count(0.08),
        "tech_contract_amount": sales * rng.random(size) * 0.2 * tech,
        "hightech_revenue": sales * rng.uniform(0.3, 0.95, size) * tech,
        "revenue": sales,
        "revenue_growth": 10_000 * np.expm1(firms.growth[rows] + 0.05 * rng.standard_normal(size)),
        "postgraduate_share": 10_000 * shares * 0.3,
        "rd_tax_relief": spend * 0.15,
        "return_on_equity": 10_000 * rng.normal(0.08, 0.1, size),
        "graduates_hired": count(1.5),
        "provincial_platforms_2y": count(0.06),
        "provincial_awards_2y": count(0.04),
        "provincial_projects_2y": count(0.1),
        "venture_capital_2y": np.where(rng.random(size) < 0.05 * lift, rng.uniform(1e8, 3e9, size), 0.0),
    }
    return {name: np.rint(value) for name, value in values.items()}


def financial_statements(firms: Firms, seed: int) -> pl.DataFrame:
    """Accounts of the last two fiscal years for two firms in five, known in the May after.

    Half of them are audited and come through the firm's bank, the others from the firm itself.
    """
    rng = stream(seed, "statements")
    has = np.flatnonzero(rng.random(firms.size) < 0.4)
    audited = rng.random(firms.size) < 0.5
    lots: list[pl.DataFrame] = []
    for year in (firms.end // 12 - 2, firms.end // 12 - 1):
        end, following = (int(first_days(np.array([year * 12 + m]))[0]) for m in (12, 16))
        rows = has[firms.established[has] < end - 180]
        known = following + rng.integers(0, 25, len(rows))
        values = _statement_values(firms, rows, year, rng)
        items = len(STATEMENT_ITEMS)
        frame = framed(
            FINANCIAL_STATEMENTS,
            {
                "uscc": firms.code.gather(np.repeat(rows, items)),
                "known_on": dates(np.repeat(known, items)),
                "supplier": pl.Series(["applicant", "bank"]).gather(np.repeat(audited[rows], items).astype(np.int64)),
                "period_end": dates(np.full(len(rows) * items, end - 1)),
                "item": pl.Series(STATEMENT_ITEMS).gather(np.tile(np.arange(items), len(rows))),
                "value_fen": np.column_stack([values[item] for item in STATEMENT_ITEMS]).ravel().astype(np.int64),
                "audited": np.repeat(audited[rows], items),
            },
        )
        lots.append(frame.filter(pl.Series(np.repeat(known <= firms.last_day, items))))
    return pl.concat(lots).sort("uscc", "period_end", maintain_order=True)


def _statement_values(firms: Firms, rows: Ints, year: int, rng: np.random.Generator) -> dict[str, Floats]:
    sales, size = yearly_sales(firms, np.array([year]))[rows, 0], len(rows)
    margin = rng.uniform(0.15, 0.5, size)
    cost = sales * (1 - margin)
    shares = {
        "receivables": sales * rng.uniform(0.05, 0.4, size),
        "inventory": cost * rng.uniform(0.02, 0.35, size),
        "prepayments": cost * rng.uniform(0, 0.1, size),
        "payables": cost * rng.uniform(0.05, 0.3, size),
        "advances_received": sales * rng.uniform(0, 0.1, size),
        "own_funds": sales * rng.uniform(0.02, 0.15, size),
        "other_funding": sales * rng.uniform(0, 0.05, size) * (rng.random(size) < 0.3),
        "expected_revenue": sales * np.exp(firms.growth[rows]),
    }
    values = {"revenue": sales, "cogs": cost, "profit": sales * (margin - 0.2), **shares}
    return {name: np.rint(value) for name, value in values.items()}
