"""Text columns to numbers: the log-odds that a level showed in training, shrunk to the base rate.

A level's own rows must not vote on their own number, or a model learns to trust noise: in training each row sees
figures from the other folds only (cross-fitting), afterwards from all of training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ContractError

# A level needs about this many rows before its own rate outweighs the base rate (jifen default).
PRIOR_ROWS = 20.0


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """How one text column is encoded: by the level's evidence, its frequency, and its index.

    Args:
        levels: in order of their count in training, then by name; None stands for null where training held nulls.
        evidence: shrunken log-odds of each level, and last that of a level never seen (the base rate).
        frequency: ln(1 + count) of each level, and last 0 for a level never seen.
    """

    name: str
    levels: tuple[str | None, ...]
    evidence: tuple[float, ...]
    frequency: tuple[float, ...]

    def codes(self, table: pl.DataFrame) -> NDArray[np.int64]:
        """Index into `levels`, -1 for a level never seen."""
        values = as_text(table[self.name])
        known = {level: index for index, level in enumerate(self.levels) if level is not None}
        null = self.levels.index(None) if None in self.levels else -1
        coded = values.replace_strict(list(known), list(known.values()), default=-1, return_dtype=pl.Int64)
        frame = pl.DataFrame({"value": values, "code": coded})
        return frame.select(pl.when(pl.col("value").is_null()).then(null).otherwise("code")).to_series().to_numpy()

    def arrays(self, table: pl.DataFrame) -> tuple[NDArray[np.float64], ...]:
        """Evidence, frequency and index of each row."""
        codes = self.codes(table)
        return np.array(self.evidence)[codes], np.array(self.frequency)[codes], codes.astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": "category", **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The column that `to_json` wrote."""
        levels, evidence, frequency = (tuple(plain[name]) for name in ("levels", "evidence", "frequency"))
        return cls(plain["name"], levels, evidence, frequency)


def as_text(values: pl.Series) -> pl.Series:
    """A text column as plain strings; categorical and enumerated columns by their labels."""
    if values.dtype == pl.Null:
        return values.cast(pl.String)
    if values.dtype in (pl.Categorical, pl.Enum, pl.String):
        return values.cast(pl.String)
    raise ContractError(f"column {values.name} is {values.dtype}; the model needs text")


def evidence_of(defaults: NDArray[np.float64], rows: NDArray[np.float64], base: float) -> NDArray[np.float64]:
    """Shrunken log-odds: ln((d + a·p) / (n - d + a·(1 - p))), a = PRIOR_ROWS, p = base rate."""
    odds = (defaults + PRIOR_ROWS * base) / (rows - defaults + PRIOR_ROWS * (1 - base))
    return np.log(odds)


def category_column(table: pl.DataFrame, name: str, defaulted: NDArray[np.bool_]) -> CategoryColumn:
    """Learn a text column's levels and their evidence from training rows."""
    frame = pl.DataFrame({"level": as_text(table[name]), "default": defaulted.astype(np.float64)})
    counted = frame.group_by("level").agg(rows=pl.len(), defaults=pl.col("default").sum())
    counted = counted.sort(["rows", "level"], descending=[True, False])
    rows = np.append(counted["rows"].to_numpy().astype(np.float64), 0.0)
    defaults = np.append(counted["defaults"].to_numpy(), 0.0)
    evidence = evidence_of(defaults, rows, float(defaulted.mean()))
    return CategoryColumn(
        name, tuple(counted["level"].to_list()), tuple(evidence.tolist()), tuple(np.log1p(rows).tolist())
    )


def cross_fitted(
    codes: NDArray[np.int64],
    defaulted: NDArray[np.bool_],
    folds: NDArray[np.int64],
    held_out: int | None,
) -> NDArray[np.float64]:
    """Evidence of each row's level from the other folds; rows of fold `held_out` vote on nobody's."""
    levels, count = int(codes.max()) + 1, int(folds.max()) + 1
    cell = codes * count + folds
    rows = np.bincount(cell, minlength=levels * count).reshape(levels, count).astype(np.float64)
    defaults = np.bincount(cell, weights=defaulted, minlength=levels * count).reshape(levels, count)
    if held_out is not None:
        rows[:, held_out] = 0.0
        defaults[:, held_out] = 0.0
    base = float(defaults.sum() / rows.sum())
    other_rows = rows.sum(axis=1)[codes] - rows[codes, folds]
    other_defaults = defaults.sum(axis=1)[codes] - defaults[codes, folds]
    return evidence_of(other_defaults, other_rows, base)
