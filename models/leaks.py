"""Leak alarms: columns that know the outcome better than anything known before it should.

Published results of AUC 0.95 and more on small-firm loans often rest on one column that was rewritten after the default
(a term that is no longer whole years), or on values that are missing for one group only because the two groups were
collected differently. An alarm is a figure and a sentence; who calls decides whether to warn or to refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import lightgbm as lgb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.metrics import auc
from models.splits import stratified_folds

POWER = 0.85
"""A column that alone has this AUC, either way round, is suspected."""
JOINT_MISSING = 0.70
"""Out-of-fold AUC of a model that sees only which values are missing."""
MISSING_ODDS = 5.0
"""The odds of default where a value is missing, against where it is not: surely this many times, or surely a fifth."""
FEWEST = 10
"""Fewer rows of a class, or fewer missing values, prove nothing."""
_SURE = 3.0  # standard errors of a log odds ratio: one-sided 99.9 %
_FOLDS = 5
_SHRINK = 10.0  # rows of the base rate mixed into the rate of one value
_COARSE, _FINE = 20, 1_000  # parts of a numeric column; distinct values up to which each is its own part
_MOST_ROWS = 60_000  # the joint model sees an even sample of at most this many rows
_MODULI = (12, 10, 100, 1000)  # whole years in months; amounts typed by hand end in zeros

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Parts = NDArray[np.int64]


@dataclass(frozen=True)
class Alarm:
    """One suspicion. `columns` are those it rests on: more than one only for `missing_jointly`.

    `kind`, and what `figure` is: `target`, each value has one outcome only (1); `power`, AUC of the value; `shape`,
    out-of-fold AUC of a tree on the value, its remainder or its rounding; `missing`, odds ratio of a missing value;
    `missing_jointly`, out-of-fold AUC of a model on missing flags only; `id`, share of distinct values.
    """

    column: str
    kind: str
    figure: float
    sentence: str
    columns: tuple[str, ...]


def alarms(table: pl.DataFrame, defaulted: Flags, *, power: float = POWER) -> tuple[Alarm, ...]:
    """Every suspicion about every column, in the order of columns, the joint one last; never raises for a leak.

    NaN and infinity count as missing. The answer depends on the rows' values and order only.
    """
    found: list[Alarm] = []
    flags: dict[str, Flags] = {}
    folds = stratified_folds(defaulted, _FOLDS, seed=0)
    for name in table.columns:
        values, codes = _values(table[name]), _codes(table[name])
        missing = np.isnan(values) if values is not None else codes < 0
        flags[name] = missing
        of_values = _repeats_target(name, codes, defaulted) or _power(name, values, defaulted, power)
        raised = (
            _identifies(name, table[name], missing),
            of_values or _shape(name, values, codes, defaulted, folds, power),
            _missing(name, missing, defaulted),
        )
        found.extend(alarm for alarm in raised if alarm is not None)
    joint = _missing_jointly(flags, defaulted)
    return tuple(found if joint is None else [*found, joint])


def _values(column: pl.Series) -> Floats | None:
    """Numbers with NaN for missing; None for text, whose order means nothing."""
    if column.dtype.is_temporal():
        column = column.to_physical()
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        return None
    values = column.cast(pl.Float64).to_numpy().astype(np.float64, copy=True)
    values[~np.isfinite(values)] = np.nan
    return values


def _codes(column: pl.Series) -> Parts:
    """Equal values share a number from 0 up; -1 for missing."""
    values = _values(column)
    if values is not None:
        _, place = np.unique(values, return_inverse=True)
        return np.where(np.isnan(values), -1, place).astype(np.int64)
    ranks = column.cast(pl.String).rank("dense").cast(pl.Int64) - 1
    return ranks.fill_null(-1).to_numpy().astype(np.int64)


def _identifies(name: str, column: pl.Series, missing: Flags) -> Alarm | None:
    """Text that hardly repeats, or whole numbers that never repeat and are dense or rise row by row."""
    observed = column.filter(pl.Series(~missing))
    if len(observed) < 5 * FEWEST or not (column.dtype == pl.String or column.dtype.is_integer()):
        return None
    share = observed.n_unique() / len(observed)
    if column.dtype == pl.String:
        is_id = share > 0.9
    else:
        span = int(observed.max() or 0) - int(observed.min() or 0) + 1  # pyright: ignore[reportArgumentType] checked integer above
        is_id = share == 1 and (span <= 2 * len(observed) or bool(observed.is_sorted()))
    if not is_id:
        return None
    sentence = f"{name}: {share:.0%} of its values are distinct; it names rows and cannot hold for new ones"
    return Alarm(name, "id", share, sentence, (name,))


def _repeats_target(name: str, codes: Parts, defaulted: Flags) -> Alarm | None:
    """Few values, each with one outcome only (missing is a value)."""
    rows = np.bincount(codes + 1)
    bad = np.bincount(codes + 1, weights=defaulted)
    used = int(np.sum(rows > 0))
    if not 2 <= used <= 20 or len(codes) < max(FEWEST, 5 * used) or bool(np.any((bad > 0) & (bad < rows))):
        return None
    if bad.sum() in (0, len(codes)):
        return None
    sentence = f"{name}: each of its {used} values has one outcome only; it is the label under another name"
    return Alarm(name, "target", 1.0, sentence, (name,))


def _power(name: str, values: Floats | None, defaulted: Flags, power: float) -> Alarm | None:
    if values is None:
        return None
    seen = ~np.isnan(values)
    if not _both_enough(defaulted[seen]):
        return None
    figure = auc(defaulted[seen], values[seen])
    figure = max(figure, 1 - figure)
    if figure <= power:
        return None
    return Alarm(name, "power", figure, f"{name}: its value alone has AUC {figure:.3f} (alarm above {power})", (name,))


def _both_enough(defaulted: Flags) -> bool:
    return int(defaulted.sum()) >= FEWEST and int((~defaulted).sum()) >= FEWEST


def _shape(
    name: str, values: Floats | None, codes: Parts, defaulted: Flags, folds: Parts, power: float
) -> Alarm | None:
    """What one tree on this column alone would find: rates of parts learnt on four fifths and judged on the fifth."""
    if not _both_enough(defaulted):
        return None
    best, how = 0.0, ""
    for parts, words in _partitions(values, codes):
        figure = auc(defaulted, _rates_out_of_fold(parts, defaulted, folds))
        if figure > best:
            best, how = figure, words
    if best <= power:
        return None
    sentence = f"{name}: a tree on {how} alone has out-of-fold AUC {best:.3f} (alarm above {power})"
    return Alarm(name, "shape", best, sentence, (name,))


def _partitions(values: Floats | None, codes: Parts) -> Iterator[tuple[Parts, str]]:
    """Ways to cut one column into parts, part 0 being the missing ones; with the words that say how."""
    if int(codes.max(initial=-1)) < _FINE or values is None:
        yield codes + 1, "its values"
    if values is None:
        return
    seen = ~np.isnan(values)
    observed = values[seen]
    if not len(observed):
        return
    edges = np.unique(np.quantile(observed, np.linspace(0, 1, _COARSE + 1)[1:-1]))
    yield _spread(np.searchsorted(edges, observed), seen), "its value in twentieths"
    whole = observed == np.floor(observed)
    if not bool(whole.all()):
        yield _spread(whole, seen), "whether its value is whole"
        return
    for modulus in _MODULI:
        yield _spread(np.mod(observed, modulus), seen), f"its remainder by {modulus}"


def _spread(parts: NDArray[np.generic], seen: Flags) -> Parts:
    everywhere = np.zeros(len(seen), dtype=np.int64)
    everywhere[seen] = parts.astype(np.int64) + 1
    return everywhere


def _rates_out_of_fold(parts: Parts, defaulted: Flags, folds: Parts) -> Floats:
    """Default rate of each row's part among the other folds, shrunk to their base rate."""
    many = int(parts.max()) + 1
    rows, bad = np.bincount(parts, minlength=many), np.bincount(parts, weights=defaulted, minlength=many)
    rates = np.empty(len(parts))
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        other_rows = rows - np.bincount(parts[out], minlength=many)
        other_bad = bad - np.bincount(parts[out], weights=defaulted[out], minlength=many)
        base = other_bad.sum() / max(1, other_rows.sum())
        # How far the part lies above the base, so that folds with different bases can be ranked together.
        rates[out] = ((other_bad + _SHRINK * base) / (other_rows + _SHRINK) - base)[parts[out]]
    return rates


def _missing(name: str, missing: Flags, defaulted: Flags) -> Alarm | None:
    """The odds ratio of a missing value, if it is surely large: its bound three standard errors nearer to one."""
    if not FEWEST <= int(missing.sum()) <= len(missing) - FEWEST:
        return None
    cells = [
        float(np.sum((missing == gap) & (defaulted == bad))) + 0.5 for gap in (True, False) for bad in (True, False)
    ]
    log_ratio = float(np.log(cells[0] / cells[1]) - np.log(cells[2] / cells[3]))
    surely = abs(log_ratio) - _SURE * float(np.sqrt(sum(1 / cell for cell in cells)))
    if surely <= np.log(MISSING_ODDS):
        return None
    rate, other = float(defaulted[missing].mean()), float(defaulted[~missing].mean())
    sentence = (
        f"{name}: missing in {int(missing.sum())} rows, of which {rate:.1%} defaulted, against {other:.1%} of the"
        " others; that it is missing gives the label away"
    )
    return Alarm(name, "missing", float(np.exp(log_ratio)), sentence, (name,))


def _missing_jointly(flags: dict[str, Flags], defaulted: Flags) -> Alarm | None:
    """Out-of-fold AUC of a small booster that sees nothing but which values are missing."""
    distinct: dict[bytes, str] = {}
    for name, missing in flags.items():
        if FEWEST // 2 <= int(missing.sum()) < len(missing):
            distinct.setdefault(missing.tobytes(), name)
    names = list(distinct.values())
    if len(names) < 2 or not _both_enough(defaulted):
        return None
    every = -(-len(defaulted) // _MOST_ROWS)
    label = defaulted[::every]
    seen = np.column_stack([flags[name][::every] for name in names]).astype(np.float64)
    folds = stratified_folds(label, _FOLDS, seed=0)
    if not _both_enough(label):
        return None
    scores, gains = np.zeros(len(label)), np.zeros(len(names))
    for fold in range(_FOLDS):
        booster = _flag_booster(seen[folds != fold], label[folds != fold])
        scores[folds == fold] = np.asarray(booster.predict(seen[folds == fold], raw_score=True, num_threads=1))
        gains += booster.feature_importance("gain")
    figure = auc(label, scores)
    if figure <= JOINT_MISSING:
        return None
    told = tuple(names[place] for place in np.argsort(-gains, kind="stable") if gains[place] > 0.05 * gains.sum())
    sentence = (
        f"{', '.join(told)}: a model that sees only which values are missing has out-of-fold AUC {figure:.3f}"
        f" (alarm above {JOINT_MISSING})"
    )
    return Alarm(", ".join(told), "missing_jointly", figure, sentence, told)


def _flag_booster(flags: Floats, defaulted: Flags) -> lgb.Booster:
    parameters = {
        "objective": "binary",
        "num_leaves": 8,
        "learning_rate": 0.1,
        "min_data_in_leaf": 5,
        "min_sum_hessian_in_leaf": 0.1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": 0,
        "verbosity": -1,
    }
    return lgb.train(parameters, lgb.Dataset(flags, label=defaulted.astype(np.float64)), num_boost_round=40)
