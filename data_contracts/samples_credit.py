"""Debts, public records and past loans of the made-up park."""

import numpy as np
import polars as pl

from data_contracts.samples_days import NEVER, Bools, Floats, Ints, dates, first_days, framed, stream
from data_contracts.samples_firms import Firms, normal_share
from data_contracts.samples_marks import Deliveries
from data_contracts.sources import DEBTS, LOAN_OUTCOMES, PUBLIC_RECORDS

BANK_FEED_SHARE = 0.3
_KINDS = (
    "administrative_penalty",
    "lawsuit_defendant",
    "abnormal_operation",
    "enforcement",
    "judgment_defaulter",
    "tax_violation",
    "serious_violation",
)
_KIND_SHARES = (0.36, 0.34, 0.14, 0.07, 0.04, 0.03, 0.02)


def has_bank_feed(firms: Firms, seed: int) -> Bools:
    """Whose bank handed in its credit report."""
    return stream(seed, "bank feed").random(firms.size) < BANK_FEED_SHARE


def debts(firms: Firms, deliveries: Deliveries, reported: Bools, seed: int) -> pl.DataFrame:
    """Up to three debts of the firms with a bank feed, reported at the end of every delivered period.

    Args:
        firms: the park.
        deliveries: periods at whose ends balances are reported.
        reported: firms with a bank feed.
        seed: of the park.
    """
    rng = stream(seed, "debts")
    count = np.where(reported, rng.integers(0, 4, firms.size), 0)
    owner = np.repeat(np.arange(firms.size), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    before = first_days(firms.joined)[owner] - rng.integers(30, 900, len(owner))
    opened = np.maximum(before, firms.established[owner] + 10)
    limit = np.rint(firms.yearly_fen[owner] * rng.uniform(0.02, 0.2, len(owner)) / 1_000_000) * 1_000_000 + 10_000_000
    kind = rng.choice(5, len(owner), p=[0.3, 0.3, 0.25, 0.1, 0.05])
    debt, period = _pairs(owner, deliveries)
    day = deliveries.last[period]
    kept = opened[debt] <= day
    debt, period, day = debt[kept], period[kept], day[kept]
    balance = np.rint(limit[debt] * rng.beta(2, 2, len(debt))).astype(np.int64)
    overdue = _overdue_days(firms, owner[debt], day, rng)
    return framed(
        DEBTS,
        {
            "uscc": firms.code.gather(owner[debt]),
            "known_on": dates(deliveries.known[period]),
            "supplier": "bank",
            "lender_id": pl.select(pl.format("bank-{}", pl.Series(debt % 9 + 1))).to_series(),
            "debt_id": pl.select(pl.format("D{}-{}", pl.Series(owner[debt]), pl.Series(number[debt]))).to_series(),
            "as_of": dates(day),
            "kind": pl.Series(["unsecured", "working_capital", "secured", "guarantee", "other"]).gather(kind[debt]),
            "balance_fen": balance,
            "limit_fen": limit[debt].astype(np.int64),
            "overdue_days": overdue,
            "five_class": pl.Series(["normal", "special_mention", "substandard", "doubtful"]).gather(
                np.searchsorted([1, 91, 181], overdue, side="right")
            ),
            "opened_on": dates(opened[debt]),
            "closed_on": dates(np.full(len(debt), NEVER)),
        },
    )


def _pairs(owner: Ints, deliveries: Deliveries) -> tuple[Ints, Ints]:
    """Every debt with every period of its owner, as places in both lists."""
    begins = np.searchsorted(deliveries.firm, owner, side="left")
    many = np.searchsorted(deliveries.firm, owner, side="right") - begins
    debt = np.repeat(np.arange(len(owner)), many)
    within = np.arange(len(debt)) - np.repeat(np.cumsum(many) - many, many)
    return debt, begins[debt] + within


def _overdue_days(firms: Firms, firm: Ints, day: Ints, rng: np.random.Generator) -> Ints:
    """Careless firms are past due now and then; after a default the days only add up."""
    careless = normal_share(firms.careless)[firm]
    slips = rng.random(len(firm)) < 0.06 * careless**5
    since = day - firms.default_day[firm] + 91
    return np.where(since > 91, since, np.where(slips, rng.integers(3, 80, len(firm)), 0))


def public_records(firms: Firms, seed: int) -> pl.DataFrame:
    """Listings, penalties and lawsuits of a few firms, most of them careless; three of five are removed later."""
    rng = stream(seed, "public records")
    rate = 0.015 + 0.45 * normal_share(firms.careless) ** 8
    many = rng.poisson(rate)
    firm = np.repeat(np.arange(firms.size), many)
    from_day = np.maximum(first_days(firms.start), firms.established)[firm]
    listed = from_day + (rng.random(len(firm)) * (firms.last_day - from_day)).astype(np.int64)
    kind = rng.choice(len(_KINDS), len(firm), p=_KIND_SHARES)
    judged = np.flatnonzero((firms.default_day < NEVER) & (rng.random(firms.size) < 0.4))
    firm = np.concatenate([firm, judged])
    listed = np.concatenate([listed, firms.default_day[judged] + 100])
    kind = np.concatenate([kind, np.full(len(judged), _KINDS.index("judgment_defaulter"))])
    removed = np.where(rng.random(len(firm)) < 0.6, listed + rng.integers(30, 500, len(firm)), NEVER)
    rows = [
        _record_rows(firms, firm, kind, listed, np.full(len(firm), NEVER), listed + 2),
        _record_rows(firms, firm, kind, listed, removed, np.where(removed < NEVER, removed + 2, NEVER)),
    ]
    key = ["uscc", "kind", "listed_on", "known_on"]
    return pl.concat(rows).unique(key, keep="first", maintain_order=True).sort(key)


def _record_rows(firms: Firms, firm: Ints, kind: Ints, listed: Ints, removed: Ints, known: Ints) -> pl.DataFrame:
    kept = known <= firms.last_day
    return framed(
        PUBLIC_RECORDS,
        {
            "uscc": firms.code.gather(firm[kept]),
            "known_on": dates(known[kept]),
            "supplier": "authority",
            "kind": pl.Series(_KINDS).gather(kind[kept]),
            "listed_on": dates(listed[kept]),
            "removed_on": dates(removed[kept]),
        },
    )


def loan_outcomes(firms: Firms, seed: int) -> pl.DataFrame:
    """One loan of the firms that have one, watched for 12 months from its opening, known ten days later."""
    rng = stream(seed, "loans")
    rows = np.flatnonzero(firms.has_loan)
    ends = first_days(firms.joined[rows] + 12)
    amount = np.rint(firms.yearly_fen[rows] * rng.uniform(0.03, 0.15, len(rows)) / 1_000_000) * 1_000_000 + 5_000_000
    loss = np.rint(amount * rng.beta(2, 2, len(rows)))
    defaulted = firms.defaulted[rows]
    return framed(
        LOAN_OUTCOMES,
        {
            "uscc": firms.code.gather(rows),
            "known_on": dates(ends + 10),
            "supplier": "bank",
            "lender_id": pl.select(pl.format("bank-{}", pl.Series(rows % 9 + 1))).to_series(),
            "loan_id": loan_ids(rows),
            "opened_on": dates(first_days(firms.joined[rows])),
            "term_months": np.full(len(rows), 12),
            "amount_fen": amount.astype(np.int64),
            "defaulted": defaulted,
            "defaulted_on": dates(firms.default_day[rows]),
            "observed_until": dates(ends),
            "loss_fen": _where_defaulted(loss, defaulted),
        },
    )


def loan_ids(rows: Ints) -> pl.Series:
    """Ids of the loans of the firms at these places."""
    return pl.select(pl.format("L{}", pl.Series(rows + 1))).to_series()


def _where_defaulted(loss: Floats, defaulted: Bools) -> pl.Series:
    return pl.select(pl.when(pl.Series(defaulted)).then(pl.Series(loss.astype(np.int64)))).to_series()


def truth(firms: Firms) -> pl.DataFrame:
    """The hidden answer, one row a loan: `uscc`, `loan_id`, `opened_on`, `true_pd` at opening, `defaulted`."""
    rows = np.flatnonzero(firms.has_loan)
    return pl.DataFrame(
        {
            "uscc": firms.code.gather(rows),
            "loan_id": loan_ids(rows),
            "opened_on": dates(first_days(firms.joined[rows])),
            "true_pd": firms.pd[rows],
            "defaulted": firms.defaulted[rows],
        }
    )
