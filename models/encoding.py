"""Table columns to the numbers a model sees: oriented by risk, clipped, with missing at the worst end.

A directed input is turned so that more means riskier, clipped to what training saw, and a missing value becomes
one step worse than the worst: whatever is non-decreasing in the encoded number is then monotone in the fact, and
withholding a fact never helps. An undirected input keeps its own order and may stay missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ContractError, UsageError
from models.categories import CategoryColumn

Floats = NDArray[np.float64]
Scale = Literal["linear", "log"]

# Beyond this a difference of two values may overflow; no ratio or amount is larger.
LARGEST = 1e150


@dataclass(frozen=True, slots=True)
class Input:
    """A column that a model may use, and what is promised of it.

    Args:
        name: column of the table.
        direction: +1 more means riskier, -1 more means safer, 0 no promise.
        scale: "log" is sign(x) · ln(1 + |x|), for money and counts.
    """

    name: str
    direction: int = 0
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        """Refuse a direction or scale that does not exist."""
        if self.direction not in (-1, 0, 1):
            raise UsageError(f"the direction of {self.name} is {self.direction!r}; it must be -1, 0 or +1")
        if self.scale not in ("linear", "log"):
            raise UsageError(f"the scale of {self.name} is {self.scale!r}; it must be linear or log")


@dataclass(frozen=True, slots=True)
class Feature:
    """One encoded number: where it comes from and what is known of it.

    Args:
        name: column of the table it comes from.
        direction: +1 if every model must be non-decreasing in it, else 0 (the encoder has turned -1 round).
        kind: "number"; "evidence" (log-odds of a category) and "frequency" (log of its count); "level" (its index).
        low, high: range of the present values in training.
        has_missing: whether training held a missing value.
    """

    name: str
    direction: int
    kind: Literal["number", "evidence", "frequency", "level"]
    low: float
    high: float
    has_missing: bool


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """How one numeric or boolean column is encoded.

    Args:
        missing: the number that stands for a missing value: above `high` where directed; NaN where the model is
            left to see the gap; a middle value where training held no gap to learn from.
        constant: true where training saw one value only; the column then has no effect.
    """

    name: str
    direction: int
    scale: Scale
    low: float
    high: float
    missing: float
    has_missing: bool
    constant: bool

    def features(self) -> tuple[Feature, ...]:
        """The one feature of this column; none where it is constant."""
        if self.constant:
            return ()
        return (Feature(self.name, abs(self.direction), "number", self.low, self.high, self.has_missing),)

    def held(self, values: Floats) -> Floats:
        """Oriented values, clipped to what training saw, and with the number for missing in place of NaN."""
        return np.where(np.isnan(values), self.missing, np.clip(values, self.low, self.high))

    def to_json(self) -> dict[str, Any]:
        """Plain values; a native gap (NaN) is written as null."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return {"kind": "number", **plain, "missing": None if np.isnan(self.missing) else self.missing}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The column that `to_json` wrote."""
        values = {name: plain[name] for name in cls.__slots__}
        return cls(**{**values, "missing": np.nan if values["missing"] is None else values["missing"]})


@dataclass(frozen=True, slots=True)
class Encoder:
    """All columns of one model, in the order it was given."""

    columns: tuple[NumberColumn | CategoryColumn, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The encoded numbers, in the order of the columns of `encoded`."""
        found: list[Feature] = []
        for column in self.columns:
            if isinstance(column, NumberColumn):
                found.extend(column.features())
            else:
                name, rare = column.name, False
                found.append(Feature(name, 0, "evidence", min(column.evidence), max(column.evidence), rare))
                found.append(Feature(name, 0, "frequency", 0.0, max(column.frequency), rare))
                found.append(Feature(name, 0, "level", -1.0, float(len(column.levels) - 1), rare))
        return tuple(found)

    def encoded(self, table: pl.DataFrame) -> Floats:
        """Encode a table: float64, one row a row, one column a feature.

        Raises:
            ContractError: names every column that is missing or of a type that cannot be read.
        """
        require_columns(table, [column.name for column in self.columns])
        numbers = [column for column in self.columns if isinstance(column, NumberColumn) and not column.constant]
        # One pass over all columns: for a single row, asking polars column by column took most of a decision's time.
        turned = table.select(orientation(table.schema, column.name, column.scale) for column in numbers)
        arrays: list[Floats] = []
        for column in self.columns:
            if not isinstance(column, NumberColumn):
                arrays.extend(column.arrays(table))
            elif not column.constant:
                values = turned[column.name].to_numpy()
                arrays.append(column.held(-values if column.direction < 0 else values))
        matrix = np.empty((table.height, len(arrays)), dtype=np.float64, order="F")
        for index, array in enumerate(arrays):
            matrix[:, index] = array
        return matrix

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values."""
        return [column.to_json() for column in self.columns]

    @classmethod
    def from_json(cls, plain: Sequence[Mapping[str, Any]]) -> Self:
        """The encoder that `to_json` wrote."""
        kinds = {"number": NumberColumn, "category": CategoryColumn}
        return cls(tuple(kinds[column["kind"]].from_json(column) for column in plain))


def is_number(dtype: pl.DataType) -> bool:
    """Whether a column of this type can be encoded as a number."""
    return dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.Null)


def require_columns(table: pl.DataFrame, names: Sequence[str]) -> None:
    """Raise a ContractError that names every absent column."""
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise ContractError(f"the table lacks {len(absent)} column(s) of the model", absent)


def orientation(schema: pl.Schema, name: str, scale: Scale) -> pl.Expr:
    """A column on its scale, Float64 under its own name; NaN where null, NaN or infinite.

    The logarithm is taken by polars, one value at a time: numpy's vector loops may round the last values of an
    array differently from the first, and a row alone must give the bits it gives in a batch.
    """
    return _orientation(schema[name], name, scale)


@lru_cache(maxsize=4096)
def _orientation(dtype: pl.DataType, name: str, scale: Scale) -> pl.Expr:
    if not is_number(dtype):
        raise ContractError(f"column {name} is {dtype}; the model needs a number")
    physical = pl.col(name).to_physical() if dtype.is_temporal() else pl.col(name)
    number = physical.cast(pl.Float64)
    present = number.is_finite().fill_null(value=False)
    magnitude = number.abs().clip(upper_bound=LARGEST)
    scaled = magnitude.log1p() if scale == "log" else magnitude
    signed = pl.when(number < 0).then(-scaled).otherwise(scaled)
    return pl.when(present).then(signed).otherwise(float("nan")).alias(name)


def oriented(values: pl.Series, direction: int, scale: Scale) -> Floats:
    """Values on their scale, turned so that more means riskier; NaN where null, NaN or infinite."""
    frame = values.to_frame()
    numbers = frame.select(orientation(frame.schema, values.name, scale)).to_series().to_numpy()
    return -numbers if direction < 0 else numbers.copy()


def number_column(table: pl.DataFrame, wanted: Input) -> NumberColumn:
    """Learn how to encode one numeric column from training rows (labels play no part)."""
    values = oriented(table[wanted.name], wanted.direction, wanted.scale)
    known = values[~np.isnan(values)]
    has_missing = known.size < values.size
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if wanted.direction:
        missing = high + max(0.05 * (high - low), 1e-6 * abs(high), 1e-6)
    else:
        missing = np.nan if has_missing else (float(np.median(known)) if known.size else 0.0)
    constant = known.size == 0 or (low == high and not has_missing)
    return NumberColumn(wanted.name, wanted.direction, wanted.scale, low, high, missing, has_missing, constant)


def fit_encoder(table: pl.DataFrame, inputs: Sequence[Input]) -> Encoder:
    """Learn the encoding of numeric inputs.

    Raises:
        ContractError: names every absent column.
        UsageError: an input is named twice, or there is none.
    """
    names = [wanted.name for wanted in inputs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError("an input is named twice", twice)
    require_columns(table, names)
    return Encoder(tuple(number_column(table, wanted) for wanted in inputs))
