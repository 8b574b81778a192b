"""Parquet files, read or refused. A file is one file: a `*` or `[` in its path is only a character."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from data_contracts.errors import ContractError

_MOST_MESSAGE = 160
Answer = TypeVar("Answer")


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of one file; of the columns named, or all.

    Raises:
        ContractError: damaged, truncated, no parquet file, or not to be opened.
    """
    wanted = None if columns is None else list(columns)
    return _tried(path, lambda: pl.read_parquet(path, columns=wanted, glob=False, hive_partitioning=False))


def parquet_schema(path: Path) -> pl.Schema:
    """The columns of one file.

    Raises:
        ContractError: see `read_parquet`.
    """
    return _tried(path, lambda: pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema())


def _tried(path: Path, read: Callable[[], Answer]) -> Answer:
    """What polars reads, or a refusal; damaged files also make its parquet reader panic, which is no `Exception`."""
    try:
        return read()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as fault:
        said = (str(fault).splitlines() or [""])[0][:_MOST_MESSAGE]
        raise ContractError(
            f"{path.name} cannot be used", [f"{path.name}: damaged, truncated or not a parquet file ({said})"]
        ) from fault
