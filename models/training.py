"""A model of any wide table: for public data sets, and for columns outside the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ContractError, UsageError
from models.categories import CategoryColumn, category_column
from models.certificate import Certificate
from models.encoding import Encoder, Input, NumberColumn, is_number, number_column, require_columns
from models.fitting import plan_for, sample_of, train
from models.leaks import Alarm, alarms
from models.pipeline import Pipeline, check_label


@dataclass(frozen=True, slots=True)
class FittedTable:
    """A model of a wide table.

    Args:
        pipeline: the trained model.
        certificate: the proof that it keeps the directions it was given; without any, that there was none to keep.
        alarms: columns that know the outcome better than they should; all were used all the same.
    """

    pipeline: Pipeline
    certificate: Certificate
    alarms: tuple[Alarm, ...]

    def pd(self, table: pl.DataFrame) -> pl.Series:
        """Probability of default of each row at the training base rate: Float64, named "pd".

        Columns the model does not know are ignored.

        Raises:
            ContractError: names every column that is missing or cannot be read.
        """
        log_odds = pl.Series("pd", self.pipeline.log_odds(table), dtype=pl.Float64)
        # polars takes the exponential one value at a time, so a row alone gives the bits it gives in a batch.
        return log_odds.to_frame().select(1.0 / (1.0 + (-pl.col("pd")).exp())).to_series().rename("pd")


def fit_table(
    table: pl.DataFrame, target: pl.Series | str, *, directions: Mapping[str, int] | None = None, seed: int = 0
) -> FittedTable:
    """Train on every column of a table.

    Args:
        table: numbers, booleans, dates and text, with or without missing values (infinite counts as missing).
        target: whether each row defaulted, boolean or 0 and 1; or the name of the column that says so.
        directions: column name → +1 (more means riskier) or -1 (more means safer): the model then keeps these orders,
            and a missing value is never better than the worst one seen.
        seed: the same seed, rows and columns give the same model.

    Raises:
        ContractError: the target is not two-valued, has nulls, or has fewer than two rows of either outcome; or a
            column is neither number nor text.
        UsageError: a direction is not +1 or -1, or is given for an absent or a text column.
    """
    columns, defaulted = _parts(table, target)
    wanted = _directions(columns, directions or {})
    check_label(defaulted, columns.height)
    encoder = _encoder(columns, defaulted, wanted)
    plan = plan_for(columns.height, int(defaulted.sum()), "auto", seed, constrained=True)
    inputs = tuple(
        Input(column.name, column.direction, column.scale)
        for column in encoder.columns
        if isinstance(column, NumberColumn)
    )
    pipeline = train(sample_of(encoder, columns, defaulted), inputs, plan)
    return FittedTable(pipeline, pipeline.certificate(), alarms(columns, defaulted))


def _parts(table: pl.DataFrame, target: pl.Series | str) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    if isinstance(target, str):
        require_columns(table, [target])
        return table.drop(target), label_of(table[target])
    return table, label_of(target)


def label_of(target: pl.Series) -> NDArray[np.bool_]:
    """A target as booleans.

    Raises:
        ContractError: it holds nulls, or anything but false, true, 0 and 1.
    """
    if target.null_count():
        raise ContractError(f"the target holds {target.null_count()} null(s); each row needs an outcome")
    if target.dtype == pl.Boolean:
        return target.to_numpy().astype(np.bool_)
    if not target.dtype.is_numeric():
        raise ContractError(f"the target is {target.dtype}; it must be boolean, or 0 and 1")
    values = target.cast(pl.Float64).to_numpy()
    if not np.isin(values, (0.0, 1.0)).all():
        raise ContractError("the target holds values other than 0 and 1")
    return values == 1.0


def _directions(columns: pl.DataFrame, directions: Mapping[str, int]) -> dict[str, int]:
    problems = [f"{name}: no such column" for name in directions if name not in columns.columns]
    present = {name: sign for name, sign in directions.items() if name in columns.columns}
    problems += [
        f"{name}: the direction {sign!r} is not +1 or -1" for name, sign in present.items() if sign not in (-1, 1)
    ]
    problems += [f"{name}: text has no direction" for name in present if not is_number(columns[name].dtype)]
    if problems:
        raise UsageError("the directions cannot be kept", problems)
    return {name: int(sign) for name, sign in present.items()}


def _encoder(columns: pl.DataFrame, defaulted: NDArray[np.bool_], directions: Mapping[str, int]) -> Encoder:
    unreadable = [
        f"{name} is {dtype}"
        for name, dtype in columns.schema.items()
        if not (is_number(dtype) or dtype in (pl.String, pl.Categorical, pl.Enum))
    ]
    if unreadable or not columns.width:
        raise ContractError("the table holds columns that are neither numbers nor text, or none at all", unreadable)
    found: list[NumberColumn | CategoryColumn] = []
    for name in columns.columns:
        if is_number(columns[name].dtype):
            found.append(number_column(columns, Input(name, directions.get(name, 0))))
        elif columns[name].n_unique() > 1:
            found.append(category_column(columns, name, defaulted))
        else:
            found.append(NumberColumn(name, 0, "linear", 0.0, 0.0, 0.0, has_missing=False, constant=True))
    return Encoder(tuple(found))
