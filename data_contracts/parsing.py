"""From the text cells of a CSV to the typed columns of a source, column by column.

Nothing is guessed: dates are `YYYY-MM-DD`, integers are whole and have no separators, booleans are `true` or `false`,
an empty cell is null ("not observed"). A cell that is none of these fails its row; the row's text stays as it came.
"""

from dataclasses import dataclass

import polars as pl

from data_contracts.sources import Source


@dataclass(frozen=True)
class Parsed:
    """Cells read as types.

    Attributes:
        frame: the columns of the contract; null where a cell was empty or failed.
        failed: one boolean column for each column in which some cell failed, under the column's name.
    """

    frame: pl.DataFrame
    failed: pl.DataFrame


FAILURE_SUFFIX: dict[object, str] = {pl.Int64: "not_integer", pl.Date: "not_date", pl.Boolean: "not_boolean"}
"""What a failed cell's code says after the column's name."""


FAILURE_MEANING = {
    "not_integer": "the cell is a whole number without separators that fits 64 bits",
    "not_date": "the cell is a day of the calendar as YYYY-MM-DD",
    "not_boolean": "the cell is true or false",
}
"""What a cell keeps that does not fail so."""


def parsed(source: Source, cells: pl.DataFrame) -> Parsed:
    """Read text as the types of a source.

    Args:
        source: the source whose contract names the types.
        cells: all columns of the contract as String, null or "" for an empty cell.
    """
    text = cells.select(pl.col(name).replace("", None) for name in source.columns)
    types = source.types
    frame = text.select(_read(name, dtype) for name, dtype in types.items())
    lost = [name for name, dtype in types.items() if dtype != pl.String]
    lost = [name for name in lost if frame[name].null_count() > text[name].null_count()]
    failed = pl.DataFrame({name: frame[name].is_null() & text[name].is_not_null() for name in lost})
    return Parsed(frame, failed)


def failure_codes(source: Source, failed: pl.DataFrame) -> dict[str, str]:
    """The code of a failed cell, by column: `net_fen_not_integer`."""
    return {name: f"{name}_{FAILURE_SUFFIX[source.types[name]]}" for name in failed.columns}


def _read(name: str, dtype: object) -> pl.Expr:
    cell = pl.col(name)
    if dtype == pl.Int64:
        return pl.when(cell.str.contains("^-?[0-9]{1,19}$")).then(cell).cast(pl.Int64, strict=False)
    if dtype == pl.Date:
        day = pl.when(cell.str.contains("^[0-9]{4}-[0-9]{2}-[0-9]{2}$")).then(cell)
        return day.str.to_date("%Y-%m-%d", strict=False)
    if dtype == pl.Boolean:
        return cell.replace_strict(["true", "false"], [True, False], default=None, return_dtype=pl.Boolean)
    return cell
