"""`fit_table` against logistic regression, LightGBM as it comes, and a WoE scorecard, on public data sets.

    python benchmarks/tables.py                          SBA compact, Polish year files 1, 3 and 5
    python benchmarks/tables.py gmsc heloc --folds 3     others, by name
    python benchmarks/tables.py all --rows 20000         every set, at most so many rows of each

Five stratified folds; a fold's figure is on rows that nothing had seen. The PD is used as it comes from each, so log
loss judges its calibration too. The sets are found in $JIFEN_DATA or ../shared/data; row numbers and columns that their
READMEs name as leaks are left out (`polish1+leaks` and so on keep them).

The baselines need the extra `bench`.
"""

import argparse
import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.metrics import auc, log_loss
from models.splits import stratified_folds
from models.training import fit_table

try:
    import lightgbm as lgb
    import optbinning
    import pandas as pd
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer
except ImportError as error:
    raise SystemExit(f"{error}: the baselines need the extra `bench` (pip install -e '.[bench]')") from error

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Fitted = Callable[[pl.DataFrame], Floats]
TARGET = "is_default"


@dataclass(frozen=True)
class Set:
    """Where a data set is and which columns are left out, beside row numbers."""

    path: str
    without: tuple[str, ...] = ()
    year_file: int | None = None


POLISH = "polish_bankruptcy/firm_years.parquet"
POLISH_LEAKS = ("x11", "x21", "x27")
SETS = {
    "compact": Set("sba/compact.parquet", ("source_row", "loan_nr", "term_months")),
    "stratified": Set(
        "sba/stratified.parquet", ("loan_nr", "sample", "in_both_samples", "design_weight", "term_months")
    ),
    "polish1": Set(POLISH, POLISH_LEAKS, 1),
    "polish3": Set(POLISH, POLISH_LEAKS, 3),
    "polish5": Set(POLISH, POLISH_LEAKS, 5),
    "polish1+leaks": Set(POLISH, (), 1),
    "polish3+leaks": Set(POLISH, (), 3),
    "polish5+leaks": Set(POLISH, (), 5),
    "taiwan": Set("taiwan_bankruptcy/data.parquet"),
    "heloc": Set("heloc/data.parquet"),
    "gmsc": Set("gmsc/data.parquet"),
    "uci_credit_card": Set("uci_credit_card/data.parquet"),
    "german_credit": Set("german_credit/data.parquet"),
}
DEFAULT_SETS = ("compact", "polish1", "polish3", "polish5")
ROW_NUMBERS = ("row_id", "source_row", "year_file", "years_to_outcome")


def data_folder() -> Path:
    """Where the data sets are."""
    return Path(os.environ.get("JIFEN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def table_of(name: str, rows: int | None) -> tuple[pl.DataFrame, Flags]:
    """One data set and its labels; an even sample of at most `rows`."""
    chosen = SETS[name]
    table = pl.read_parquet(data_folder() / chosen.path).filter(pl.col(TARGET).is_not_null())
    if chosen.year_file is not None:
        table = table.filter(pl.col("year_file") == chosen.year_file)
    table = table.drop(*chosen.without, *ROW_NUMBERS, strict=False)
    if rows is not None and table.height > rows:
        table = table.sample(rows, seed=0)
    return table.drop(TARGET), table[TARGET].to_numpy()


def frame_of(table: pl.DataFrame) -> pd.DataFrame:
    """As pandas: numbers and booleans as float64, dates as days, text as text."""
    plain = table.select(
        (pl.col(name).to_physical().cast(pl.Float64) if dtype != pl.String else pl.col(name))
        for name, dtype in table.schema.items()
    )
    frame = plain.to_pandas()
    # The binning package reads text from object columns only.
    return frame.astype({name: object for name, dtype in table.schema.items() if dtype == pl.String})


def ours(table: pl.DataFrame, defaulted: Flags) -> Fitted:
    """`fit_table` as it comes."""
    fitted = fit_table(table, pl.Series(defaulted))
    return lambda rows: fitted.pd(rows).to_numpy()


def logistic(table: pl.DataFrame, defaulted: Flags) -> Fitted:
    """Normal scores of ranks, medians and flags for missing, one column a level; ridge as scikit-learn has it."""
    numbers = make_pipeline(
        QuantileTransformer(output_distribution="normal", n_quantiles=200, random_state=0),
        SimpleImputer(strategy="median", add_indicator=True),
    )
    levels = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10)
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (levels, make_column_selector(dtype_exclude="number")),
    )
    model = make_pipeline(columns, LogisticRegression(max_iter=1_000))
    model.fit(frame_of(table), defaulted)
    return lambda rows: model.predict_proba(frame_of(rows))[:, 1]


def lightgbm_default(table: pl.DataFrame, defaulted: Flags) -> Fitted:
    """LightGBM's defaults, text columns as its own categories."""
    frame = frame_of(table)
    levels = {
        name: pd.CategoricalDtype(sorted(set(frame[name].dropna()))) for name in frame.select_dtypes(exclude="number")
    }

    def typed(rows: pl.DataFrame) -> pd.DataFrame:
        return frame_of(rows).astype(levels)

    model = lgb.LGBMClassifier(n_jobs=2, random_state=0, verbose=-1).fit(typed(table), defaulted)
    return lambda rows: np.asarray(model.predict_proba(typed(rows)))[:, 1]


def scorecard(table: pl.DataFrame, defaulted: Flags) -> Fitted:
    """Optimal binning to weights of evidence, then logistic regression: the usual scorecard."""
    frame = frame_of(table)
    text = list(frame.select_dtypes(exclude="number").columns)
    # Hundreds of levels make its solver run for hours; rare ones are joined, as its manual advises.
    joined = {name: {"cat_cutoff": 0.01} for name in text}
    process = optbinning.BinningProcess(
        list(frame.columns), categorical_variables=text, n_jobs=2, binning_fit_params=joined
    )
    weights = process.fit_transform(frame, defaulted.astype(int), metric="woe")
    model = LogisticRegression(max_iter=1_000).fit(weights, defaulted)

    def predicted(rows: pl.DataFrame) -> Floats:
        return model.predict_proba(process.transform(frame_of(rows), metric="woe", metric_missing="empirical"))[:, 1]

    return predicted


CONTENDERS: dict[str, Callable[[pl.DataFrame, Flags], Fitted]] = {
    "fit_table": ours,
    "logistic": logistic,
    "LightGBM default": lightgbm_default,
    "WoE scorecard": scorecard,
}


@dataclass(frozen=True)
class Figures:
    """One contender on one set, a figure a fold; seconds of CPU, since a shared machine's clock says little."""

    auc: Floats
    log_loss: Floats
    seconds: float


def figures(fit: Callable[[pl.DataFrame, Flags], Fitted], table: pl.DataFrame, defaulted: Flags, folds: int) -> Figures:
    """Cross-validated figures of one contender."""
    fold = stratified_folds(defaulted, folds, seed=0)
    aucs, losses, seconds = list[float](), list[float](), 0.0
    for number in range(folds):
        out = fold == number
        started = time.process_time()
        fitted = fit(table.filter(~out), defaulted[~out])
        seconds += time.process_time() - started
        chance = np.clip(fitted(table.filter(out)), 1e-6, 1 - 1e-6)
        log_odds = np.log(chance / (1 - chance))
        aucs.append(auc(defaulted[out], log_odds))
        losses.append(log_loss(defaulted[out], log_odds))
    return Figures(np.array(aucs), np.array(losses), seconds / folds)


def lines_of(name: str, results: dict[str, Figures]) -> list[str]:
    """The table of one set; differences are fold by fold, against the best of the others."""
    lines = [f"{name:<18}{'AUC':>17}{'log loss':>20}{'CPU s a fit':>13}"]
    for contender, found in results.items():
        lines.append(
            f"  {contender:<16}{found.auc.mean():>9.4f} ± {found.auc.std():.4f}"
            f"{found.log_loss.mean():>11.4f} ± {found.log_loss.std():.4f}{found.seconds:>13.1f}"
        )
    others = [found for contender, found in results.items() if contender != "fit_table"]
    if others and "fit_table" in results:
        mine = results["fit_table"]
        best_auc = max(others, key=lambda one: float(one.auc.mean()))
        best_loss = min(others, key=lambda one: float(one.log_loss.mean()))
        rise, fall = mine.auc - best_auc.auc, best_loss.log_loss - mine.log_loss
        slowest = max(one.seconds for one in others)
        lines.append(
            f"  fit_table better by{rise.mean():>+9.4f} ± {rise.std():.4f} AUC,{fall.mean():>+8.4f} ± {fall.std():.4f}"
            f" log loss; {mine.seconds / slowest:.2f} x the CPU time of the slowest other"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print versions and one table a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(DEFAULT_SETS), help=f"all, or of {', '.join(SETS)}")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=None, help="at most so many rows of each set")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help=f"of {', '.join(CONTENDERS)}")
    chosen = parser.parse_args(arguments)
    packages = ("polars", "numpy", "scipy", "lightgbm", "scikit-learn", "optbinning", "pandas")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages), flush=True)
    for name in list(SETS) if chosen.sets == ["all"] else chosen.sets:
        table, defaulted = table_of(name, chosen.rows)
        print(f"\n{table.height:,} rows x {table.width} columns, {defaulted.mean():.2%} defaults, {chosen.folds} folds")
        results = {one: figures(CONTENDERS[one], table, defaulted, chosen.folds) for one in chosen.only}
        print("\n".join(lines_of(name, results)), flush=True)


if __name__ == "__main__":
    main()
