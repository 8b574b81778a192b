"""Writing a made-up park to a folder."""

from pathlib import Path
from typing import cast

import polars as pl

from data_contracts.errors import ContractError, UsageError
from data_contracts.samples import park
from data_contracts.sources import SOURCES
from models.sources.folder import TRUTH
from models.sources.parquet import parquet_schema, read_parquet
from models.sources.writing import FORMATS, Format, refuse_others, write_folder

_TRUTH_COLUMNS = {"uscc", "loan_id", "opened_on", "true_pd", "defaulted"}
_NAME = "^示例企业"
_MOST_OTHER_NAMES = 0.2
"""Of the enterprises of a made-up park: what dirt leaves of their names."""


def write_park(
    folder: Path, enterprises: int, seed: int, *, dirty_share: float = 0.0, form: str = "parquet", force: bool = False
) -> dict[str, int]:
    """Write a park's source files and `truth.parquet` with the true PD of each past loan; returns rows by source.

    All of them appear, or none. A made-up park that is there already is replaced.

    Args:
        folder: made if it is not there.
        enterprises: how many.
        seed: the same seed gives the same park.
        dirty_share: share of rows of each kind of dirt.
        form: of the source files.
        force: replace source files that are no made-up park as well.

    Raises:
        UsageError: an unknown format, or a folder that holds other source files.
    """
    if form not in FORMATS:
        raise UsageError(f"there is no format {form!r}", [f"known: {', '.join(FORMATS)}"])
    folder.mkdir(parents=True, exist_ok=True)
    refuse_others(folder, SOURCES, cast("Format", form))
    facts = [f"{name}.{form}" for name in SOURCES if (folder / f"{name}.{form}").exists()]
    if facts and not force and not _is_made_up(folder, form):
        raise UsageError(
            f"{folder} holds source files that are no made-up park; name another folder, or replace them: --force",
            facts,
        )
    made = park(enterprises, seed, dirty_share=dirty_share)
    write_folder(made.frames, folder, cast("Format", form), beside={TRUTH: made.truth})
    return {name: frame.height for name, frame in made.frames.items()}


def _is_made_up(folder: Path, form: str) -> bool:
    """A park's truth is there, and the enterprises beside it, if any, have the names of a park."""
    registry = folder / f"enterprises.{form}"
    try:
        if not set(parquet_schema(folder / TRUTH)) >= _TRUTH_COLUMNS:
            return False
        if not registry.exists():
            return True
        names = _registry(registry)["name"].drop_nulls()
    except (ContractError, pl.exceptions.PolarsError, OSError):
        return False
    return bool((~names.str.contains(_NAME)).sum() <= _MOST_OTHER_NAMES * names.len())


def _registry(path: Path) -> pl.DataFrame:
    return read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False, glob=False)
