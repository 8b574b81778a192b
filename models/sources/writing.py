"""Writing files so that a reader sees the whole of one or nothing of it."""

import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import polars as pl

from data_contracts.errors import UsageError
from data_contracts.sources import SOURCES

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; what stands there takes the place of `path` when the block ends well.

    When the block raises (an interrupt as well), `path` is as it was and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield beside
        _flush(beside)
        os.replace(beside, path)  # noqa: PTH105  (the call that is atomic, by its own name)
        _flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_folder(frames: Mapping[str, pl.DataFrame], folder: Path, form: Format = "parquet") -> None:
    """Write source files, all of them or none.

    Args:
        frames: by source name, typed as in their contracts.
        folder: made if it is not there; files of the same names are replaced.
        form: of the files.

    Raises:
        UsageError: the folder holds other source files, which would mix with these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {f"{name}.{form}" for name in frames}
    others = sorted(f"{name}.{ending}" for name in SOURCES for ending in FORMATS)
    mixed = [name for name in others if name not in names and (folder / name).exists()]
    if mixed:
        raise UsageError(f"{folder} already holds other source files; name an empty folder", mixed)
    with ExitStack() as whole:
        for name, frame in frames.items():
            write_frame(frame, whole.enter_context(replacing(folder / f"{name}.{form}")), form)


def write_frame(frame: pl.DataFrame, path: Path, form: Format) -> None:
    """Write one frame; in a CSV null is an empty cell, a day is YYYY-MM-DD and a boolean true or false."""
    if form == "parquet":
        frame.write_parquet(path, compression="zstd")
    else:
        frame.write_csv(path)
