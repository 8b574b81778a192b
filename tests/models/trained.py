"""A small trained model, made once a test run."""

from datetime import date
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.artefact import Facts, Parts
from models.baselines import Comparison
from models.encoding import Input
from models.validation import Development, develop

INPUTS = (Input("sales_fen", -1, "log"), Input("late_days", 1))
RULE = Comparison("one_variable", "log of sales alone", "仅用销售额的对数", (Input("sales_fen", -1, "log"),))


@cache
def sample(rows: int = 90, seed: int = 0) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """Rows whose default depends on both inputs; some late days are missing."""
    stream = np.random.default_rng(seed)
    sales, late = stream.lognormal(15, 1, rows), stream.poisson(3, rows)
    risk = 1.2 * (15 - np.log(sales)) + 0.5 * (late - 3) - 1
    table = pl.DataFrame({"firm": np.arange(rows), "sales_fen": sales.astype(np.int64), "late_days": late})
    gone = stream.random(rows) < 0.1
    table = table.with_columns(late_days=pl.when(~pl.Series(gone)).then("late_days"))
    return table, stream.random(rows) < 1 / (1 + np.exp(-risk))


@cache
def development() -> Development:
    """Judged against the rule by 2 x 2 folds; three bootstrap members."""
    table, defaulted = sample()
    return develop(table, defaulted, INPUTS, comparisons={"rule": RULE}, seed=0, repeats=2, folds=2, bag=3)


def parts(*, as_of: date = date(2026, 1, 31), of: Development | None = None, label: str = "90 days late") -> Parts:
    """A model ready to be stored."""
    references = {"sales_fen": (1.0, 2.5), "late_days": (0.0, 3.0)}
    return Parts(of or development(), references, Facts(as_of, label, "12 months", "0" * 64))
