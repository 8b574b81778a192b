"""Training rows: each loan with the features of its enterprise as of the loan's own day, made by the serving function.

The label is default within the horizon; a default without a date counts, and how many there are is told. Good and bad
loans must have had the same chance to be seen (docs/decisions/loan-labels.md):

- A loan opened less than the horizon before the last day that its lender watched any loan is left out, default or not:
  of such a vintage the defaults are known already and the good loans are not.
- Of the others, a loan without default is good once it was watched to its maturity or for the horizon, whichever comes
  first. The lender looked on for longer, so a short loan that it stopped watching at maturity was not in arrears then.

What an applicant says of its own loans is no label and no look of the lender.

One loan per enterprise is used, the latest, so that no enterprise can stand on both sides of a split.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ContractError
from data_contracts.sources import LAST_DAY, SOURCES, Sources
from models.baselines import Comparison
from models.encoding import Input
from scoring.catalogue import CATALOGUE, MODEL_INPUTS
from scoring.features import features, narrowed
from scoring.feeds import heard, latest

HORIZON_MONTHS = 12
LABEL_KNOWN_ON = "label_known_on"
LABEL = (
    "default (more than 90 days past due, five-class substandard or worse, written off, compensated, or distressed "
    f"restructuring) within {HORIZON_MONTHS} months of the loan's opening; undated defaults count; good if watched "
    f"without default to maturity or for {HORIZON_MONTHS} months; loans opened under {HORIZON_MONTHS} months before "
    "the lender's last look are left out, defaults too"
)

INPUTS = tuple(Input(feature.name, feature.direction, feature.scale) for feature in MODEL_INPUTS)
"""The inputs of a catalogue model."""


@dataclass(frozen=True)
class Dataset:
    """Labelled rows.

    Attributes:
        table: `uscc`, `loan_id`, `seen_on` (the day the features are of) and the feature columns.
        defaulted: one label a row.
        left_out: why loans were not used: reason → how many.
        undated: of the defaults, how many carry no day of their own; whether they fell within the horizon is assumed.
        labels_known_on: the day by which the last label was known.
    """

    table: pl.DataFrame
    defaulted: NDArray[np.bool_]
    left_out: dict[str, int]
    undated: int
    labels_known_on: date


def dataset(
    sources: Sources, *, as_of: date | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Join each usable loan with its enterprise's features.

    Args:
        sources: checked facts, with outcomes.
        as_of: no fact known after this day is looked at, even for later loans (an earlier window); by default each
            loan's own day alone decides.
        on_progress: called with days done and in all.

    Raises:
        ContractError: no usable loan.
    """
    loans, left_out = _usable(sources)
    seen = pl.col("opened_on") if as_of is None else pl.min_horizontal("opened_on", pl.lit(as_of))
    loans = loans.with_columns(seen_on=seen)
    days = loans["seen_on"].unique().sort().to_list()
    parts: list[pl.DataFrame] = []
    for number, day in enumerate(days, start=1):
        usccs = loans.filter(pl.col("seen_on") == day)["uscc"].to_list()
        parts.append(features(narrowed(sources, usccs), day, only=usccs).with_columns(seen_on=pl.lit(day)))
        if on_progress is not None:
            on_progress(number, len(days))
    if not parts:
        raise _no_loan(left_out)
    joined = loans.join(pl.concat(parts), on=["uscc", "seen_on"], how="inner").sort("uscc")
    if joined.height < loans.height:
        left_out["enterprise not known on the day"] = loans.height - joined.height
    if joined.is_empty():
        raise _no_loan(left_out)
    undated = joined.filter("undated").height
    table = joined.drop("defaults", "undated", LABEL_KNOWN_ON)
    known_on = joined[LABEL_KNOWN_ON].max()
    assert isinstance(known_on, date)
    return Dataset(table, joined["defaults"].to_numpy(), left_out, undated, known_on)


def _no_loan(left_out: Mapping[str, int]) -> ContractError:
    return ContractError(
        "there is no loan to train on", [f"{count} left out: {why}" for why, count in left_out.items()]
    )


def _usable(sources: Sources) -> tuple[pl.DataFrame, dict[str, int]]:
    loans = latest(heard(sources, "loan_outcomes", LAST_DAY), SOURCES["loan_outcomes"].key)
    horizon = pl.col("opened_on").dt.offset_by(f"{HORIZON_MONTHS}mo")
    months = pl.min_horizontal(pl.col("term_months"), HORIZON_MONTHS)
    watched_enough = pl.col("observed_until") >= pl.col("opened_on").dt.offset_by(pl.format("{}mo", months))
    defaults = pl.col("defaulted") & (pl.col("defaulted_on").is_null() | (pl.col("defaulted_on") <= horizon))
    loans = loans.with_columns(
        defaults=defaults,
        undated=pl.col("defaulted") & pl.col("defaulted_on").is_null(),
        last_look=pl.col("observed_until").max().over("lender_id"),
    )
    ripe = loans.filter(pl.col("last_look") >= horizon)
    watched = ripe.filter(pl.col("defaults") | watched_enough)
    known = watched.join(sources.enterprises.select("uscc").unique(), on="uscc", how="semi")
    one = known.sort("uscc", "opened_on", "lender_id", "loan_id").unique("uscc", keep="last", maintain_order=True)
    left_out = {
        f"opened under {HORIZON_MONTHS} months before the lender's last look": loans.height - ripe.height,
        f"watched neither to maturity nor for {HORIZON_MONTHS} months, without default": ripe.height - watched.height,
        "enterprise not in the registry": watched.height - known.height,
        "an earlier loan of the same enterprise": known.height - one.height,
    }
    loans = one.select("uscc", "loan_id", "opened_on", "defaults", "undated", pl.col("known_on").alias(LABEL_KNOWN_ON))
    return loans, left_out


def comparisons(rule: str = "sales_36m_fen") -> dict[str, Comparison]:
    """The rivals of a catalogue model: the one-variable rule, free features, and its own features without signs."""
    free = tuple(
        Input(feature.name, 0, feature.scale)
        for feature in CATALOGUE.values()
        if feature.use == "model" or feature.name in FREE
    )
    words = f"the log of {CATALOGUE[rule].name} alone"
    return {
        "one_variable": Comparison("one_variable", words, f"仅用{CATALOGUE[rule].zh}的对数", (Input(rule, 0, "log"),)),
        "free_logistic": Comparison("ridge", "logistic on free features", "自由特征逻辑回归", free),
        "free_lightgbm": Comparison("lightgbm", "LightGBM as it comes on free features", "自由特征默认LightGBM", free),
        "unsigned": Comparison("unsigned", "the same features without sign constraints", "同特征无符号约束"),
    }


FREE = (
    "invoices_out_12m",
    "mean_invoice_fen",
    "sales_growth_12m_bp",
    "sales_cv_12m_bp",
    "top1_share_12m_bp",
    "buyer_hhi_12m_bp",
    "purchases_12m_fen",
    "unlinked_red_12m_fen",
    "declared_to_invoiced_bp",
)
"""Shown features that the rivals may use besides the model's own: the usual ones of invoice models."""


FACTS = tuple(name for name in SOURCES if name != "loan_outcomes")
"""The sources of what is known of a firm; what became of a loan is a label."""


def default_as_of(sources: Sources) -> date:
    """The day after the latest fact known that is heard; loan outcomes do not count.

    An applicant's word about what others deliver is not heard, so it does not move the day of a whole park either.

    Raises:
        ContractError: there is no fact at all.
    """
    heard_on = (heard(sources, name, LAST_DAY)["known_on"].max() for name in FACTS)
    days = [day for day in heard_on if isinstance(day, date)]
    if not days:
        raise ContractError("there is no fact, so there is no day to look from", ["every source is empty"])
    return date.fromordinal(max(days).toordinal() + 1)


def told_of_lately(sources: Sources, day: date, within_days: int) -> tuple[int, int]:
    """Of how many firms of the registry a fact became known in so many days before `day`, and how many there are."""
    since = date.fromordinal(day.toordinal() - within_days)
    heard_of = (heard(sources, name, day).filter(pl.col("known_on") >= since)["uscc"] for name in FACTS)
    firms = sources.enterprises["uscc"].unique()
    return firms.filter(firms.is_in(pl.concat(list(heard_of)).unique().implode())).len(), firms.len()
