"""A made-up park: every source, keeping every contract, with defaults drawn from a known probability.

It is for software tests, demonstrations and timings. Its sectors, figures and risks are invented, so nothing measured
on it says anything about real firms.
"""

from dataclasses import dataclass
from datetime import date

import polars as pl

from data_contracts import samples_credit, samples_dirt, samples_marks, samples_registry, samples_tax, samples_trade
from data_contracts.errors import UsageError
from data_contracts.samples_firms import Firms, made_up_firms
from data_contracts.sources import SOURCES

AS_OF = date(2026, 7, 1)
MOST_ENTERPRISES = 100_000


@dataclass(frozen=True)
class Park:
    """A made-up park.

    Attributes:
        frames: each source by name, typed as its contract.
        truth: one row a past loan: `uscc`, `loan_id`, `opened_on`, `true_pd` at opening, `defaulted`.
        gaps: feeds that are incomplete on purpose: `uscc`, `source`, `direction`, `fault`.
        dirt: rows that belong in quarantine: `source`, `row` (1-based), a `rule` it breaks.
    """

    frames: dict[str, pl.DataFrame]
    truth: pl.DataFrame
    gaps: pl.DataFrame
    dirt: pl.DataFrame


def park(enterprises: int, seed: int, *, dirty_share: float = 0.0, as_of: date = AS_OF) -> Park:
    """A park of `enterprises` firms; the same arguments give the same rows.

    Args:
        enterprises: how many, 1 to 100,000; each comes with about 250 invoices.
        seed: not negative.
        dirty_share: of each source's rows, for each kind of dirt; 0: every contract holds.
        as_of: the first of a month; every fact became known before it. Loans opened 13 to 24 months earlier.

    Raises:
        UsageError: an argument is out of range.
    """
    _refuse_bad_arguments(enterprises, seed, dirty_share, as_of)
    firms = made_up_firms(enterprises, seed, as_of)
    frames, gaps = _frames(firms, seed)
    dirt = pl.DataFrame(schema=samples_dirt.DIRT_SCHEMA)
    if dirty_share:
        frames, dirt = samples_dirt.dirtied(frames, dirty_share, seed)
    return Park(frames=frames, truth=samples_credit.truth(firms), gaps=gaps, dirt=dirt)


def _refuse_bad_arguments(enterprises: int, seed: int, dirty_share: float, as_of: date) -> None:
    problems: list[str] = []
    if not 1 <= enterprises <= MOST_ENTERPRISES:
        problems.append(f"enterprises must be 1 to {MOST_ENTERPRISES}, not {enterprises}")
    if seed < 0:
        problems.append(f"seed must not be negative, not {seed}")
    if not 0 <= dirty_share <= 0.01:
        problems.append(f"dirty_share must be 0 to 0.01 of the rows for each kind of dirt, not {dirty_share}")
    if as_of.day != 1 or not 2010 <= as_of.year <= 2100:
        problems.append(f"as_of must be the first of a month of the years 2010 to 2100, not {as_of}")
    if problems:
        raise UsageError("no such made-up park", problems)


def _frames(firms: Firms, seed: int) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    lines = samples_trade.made_up_lines(firms, samples_trade.monthly_sales(firms, seed), seed)
    invoiced = samples_trade.net_sales(firms, lines)
    periods = samples_marks.deliveries(firms)
    reported = samples_credit.has_bank_feed(firms, seed)
    frames = {
        "enterprises": samples_registry.enterprises(firms, seed),
        "qualifications": samples_registry.qualifications(firms, seed),
        "financial_statements": samples_registry.financial_statements(firms, seed),
        "social_insurance": samples_tax.social_insurance(firms, seed),
        "innovation_indicators": samples_registry.innovation_indicators(firms, seed),
        "tax_filings": samples_tax.tax_filings(firms, invoiced, seed),
        "taxpayer_ratings": samples_tax.taxpayer_ratings(firms, invoiced, seed),
        "invoices": samples_trade.invoices(firms, lines),
        "debts": samples_credit.debts(firms, periods, reported, seed),
        "public_records": samples_credit.public_records(firms, seed),
        "loan_outcomes": samples_credit.loan_outcomes(firms, seed),
    }
    marks = [
        samples_marks.marks_of(
            firms, periods, "invoices", direction, samples_marks.invoice_rows(lines, sold=direction == "out")
        )
        for direction in ("in", "out")
    ]
    for name in ("social_insurance", "tax_filings", "taxpayer_ratings", "public_records", "debts"):
        theirs = samples_marks.only_of(periods, reported) if name == "debts" else periods
        rows = samples_marks.source_rows(firms, name, frames[name])
        marks.append(samples_marks.marks_of(firms, theirs, name, None, rows))
    frames["feeds"], gaps = samples_marks.with_gaps(firms, pl.concat(marks), seed)
    return {name: frames[name] for name in SOURCES}, gaps
