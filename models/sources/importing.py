"""Importers by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from data_contracts.errors import ContractError, UsageError
from models.sources import cumcm2020c
from models.sources.parquet import read_parquet
from models.sources.writing import Format, refuse_others, write_folder

FORM: Format = "parquet"

IMPORTERS: Mapping[str, Callable[[Path], dict[str, pl.DataFrame]]] = {"cumcm2020c": cumcm2020c.frames_of}
"""What `jifen data import KIND` knows."""


def import_folder(kind: str, src: Path, folder: Path, *, force: bool = False) -> dict[str, int]:
    """Convert a data set to source files; returns rows by source.

    Args:
        kind: the importer.
        src: the data set.
        folder: made if it is not there; an earlier import of the same enterprises is replaced.
        force: replace source files of other enterprises as well; never those that the set does not have.

    Raises:
        UsageError: an unknown kind, a folder that holds other source files, or one within the other.
        ContractError: the data set is not as it should be.
    """
    if kind not in IMPORTERS:
        raise UsageError(f"there is no importer {kind!r}", [f"known: {', '.join(IMPORTERS)}"])
    # The names of the original and of our files overlap, so writing beside it would write over it.
    here, there = src.resolve(), folder.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UsageError(
            "the data set and the source files need folders of their own, none within the other",
            [str(here), str(there)],
        )
    frames = IMPORTERS[kind](src)
    refuse_others(folder, frames, FORM)
    facts = [] if force else _of_others(folder, frames)
    if facts:
        raise UsageError(
            f"{folder} holds source files that are no import of {kind}; name another folder, or replace them: --force",
            facts,
        )
    write_folder(frames, folder, FORM)
    return {name: frame.height for name, frame in frames.items()}


def _of_others(folder: Path, frames: Mapping[str, pl.DataFrame]) -> list[str]:
    """The files that an import would replace although they speak of enterprises that are not in it, or cannot be read.

    The credit codes of a set are made up, so an enterprise of somebody's own is never among them.
    """
    codes = frames["enterprises"]["uscc"].implode()
    found: list[str] = []
    for name in frames:
        path = folder / f"{name}.{FORM}"
        if not path.exists():
            continue
        try:
            own = read_parquet(path, ["uscc"])["uscc"].cast(pl.String).is_in(codes)
        except (ContractError, pl.exceptions.PolarsError):
            found.append(path.name)
        else:
            found += [] if own.fill_null(value=False).all() else [path.name]
    return found
