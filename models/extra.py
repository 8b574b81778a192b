"""Columns from outside the catalogue, to try: `extra.parquet` or `extra.csv` in a data folder, `uscc` and numbers."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from data_contracts.errors import ContractError
from models.sources.folder import EXTRA
from models.sources.parquet import read_parquet
from scoring.catalogue import CATALOGUE, SEEN

MOST_ROWS = 20
_OWN = frozenset(
    {"uscc", "loan_id", "opened_on", "seen_on", "defaults", "defaulted", "decision_id", "asked_fen", "input_hash"}
)


def read_extra(folder: Path, names: Sequence[str]) -> pl.DataFrame | None:
    """`uscc` and the columns named, as Float64; None where none is named.

    Raises:
        ContractError: no such file, `uscc` is not text, a column is missing, not a number or named like one of the
            program's own, holds NaN or infinity, or an enterprise stands twice.
    """
    if not names:
        return None
    names = list(dict.fromkeys(names))
    path = next((folder / name for name in EXTRA if (folder / name).is_file()), None)
    if path is None:
        raise ContractError(
            f"there is no {' or '.join(EXTRA)} in the data folder", [f"needed for {name}" for name in names]
        )
    table = _table(path)
    problems = [f"there is no column {name}" for name in ("uscc", *names) if name not in table.columns]
    problems += [
        f"{name} is not a number" for name in names if name in table.columns and not _number(table[name].dtype)
    ]
    problems += [f"the name {name} is taken by a column of the program; rename it" for name in names if _taken(name)]
    problems += [problem for name in names if name in table.columns for problem in _not_finite(table[name])]
    if "uscc" in table.columns:
        problems += _code_problems(table["uscc"])
    if problems:
        raise ContractError(f"{path.name} does not hold what was named", problems)
    return table.select(pl.col("uscc").cast(pl.String), *(pl.col(name).cast(pl.Float64) for name in names))


def _table(path: Path) -> pl.DataFrame:
    """The whole file; its path is no pattern, and a credit code of digits is text as well."""
    if path.suffix == ".parquet":
        return read_parquet(path)
    try:
        return pl.read_csv(path, infer_schema_length=None, schema_overrides={"uscc": pl.String}, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ContractError(f"{path.name} cannot be read", [type(error).__name__]) from error


def _code_problems(codes: pl.Series) -> list[str]:
    if codes.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return ["uscc is not text"]
    return ["an enterprise stands twice"] if codes.is_duplicated().any() else []


def _number(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype == pl.Boolean()


def _not_finite(values: pl.Series) -> list[str]:
    """Where a column holds what is no value; a cell that is not known is left empty (null)."""
    if not values.dtype.is_float():
        return []
    rows = (~values.is_finite()).fill_null(value=False).arg_true() + 1
    named = ", ".join(str(row) for row in rows.head(MOST_ROWS))
    more = f" and {rows.len() - MOST_ROWS:,} more" if rows.len() > MOST_ROWS else ""
    return [f"{values.name} is NaN or infinite in row {named}{more}; leave unknown cells empty"] if rows.len() else []


def _taken(name: str) -> bool:
    return name in CATALOGUE or name in _OWN or name.endswith((SEEN, "_sha256", "_ppb"))
