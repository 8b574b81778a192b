"""Importers by name."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from data_contracts.errors import UsageError
from models.sources import cumcm2020c
from models.sources.writing import write_folder

IMPORTERS: Mapping[str, Callable[[Path], dict[str, pl.DataFrame]]] = {"cumcm2020c": cumcm2020c.frames_of}
"""What `jifen data import KIND` knows."""


def import_folder(kind: str, src: Path, folder: Path) -> dict[str, int]:
    """Convert a data set to source files; returns rows by source.

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
    write_folder(frames, folder)
    return {name: frame.height for name, frame in frames.items()}
