"""Writing files so that a reader sees the whole of one or nothing of it."""

import fcntl
import os
import re
import secrets
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import polars as pl

from data_contracts.errors import UsageError
from data_contracts.sources import SOURCES

Format = Literal["parquet", "csv"]
FORMATS: tuple[Format, ...] = ("parquet", "csv")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path beside `path` to write to; what stands there takes the place of `path` when the block ends well.

    When the block raises (an interrupt as well), `path` is as it was and nothing is left beside it.

    Raises:
        OSError: the disk failed, also where polars says so by an error of its own.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield beside
        flush(beside)
        os.replace(beside, path)  # noqa: PTH105  (the call that is atomic, by its own name)
        flush(path.parent)
    except pl.exceptions.PolarsError as error:
        said = _OS_ERROR.search(str(error))
        if said is None:
            raise
        raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Generator[None]:
    """Keep other writers of ours out of a folder; the lock goes with the process, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Wait until the disk holds a file, or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_folder(
    frames: Mapping[str, pl.DataFrame],
    folder: Path,
    form: Format = "parquet",
    *,
    beside: Mapping[str, pl.DataFrame] | None = None,
) -> None:
    """Write source files, all of them or none.

    Args:
        frames: by source name, typed as in their contracts.
        folder: made if it is not there; files of the same names are replaced.
        form: of the files.
        beside: by file name, parquet tables that come and go with them.

    Raises:
        UsageError: the folder holds other source files, which would mix with these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_others(folder, frames, form)
    with ExitStack() as whole:
        # `enterprises`, without which a folder is refused, goes first and comes back last: a mixture of old and new
        # files, as an end between two renames leaves it, is never taken for a park.
        first = {name: frame for name, frame in frames.items() if name == "enterprises"}
        for name, frame in (first | dict(frames)).items():
            write_frame(frame, whole.enter_context(replacing(folder / f"{name}.{form}")), form)
        for name, frame in (beside or {}).items():
            write_frame(frame, whole.enter_context(replacing(folder / name)), "parquet")
        (folder / f"enterprises.{form}").unlink(missing_ok=True)


def refuse_others(folder: Path, names: Iterable[str], form: Format) -> None:
    """Refuse to write source files beside others that they would not replace.

    Raises:
        UsageError: the folder holds other source files, which would mix with these.
    """
    written = {f"{name}.{form}" for name in names}
    there = sorted(f"{name}.{ending}" for name in SOURCES for ending in FORMATS)
    mixed = [name for name in there if name not in written and (folder / name).exists()]
    if mixed:
        raise UsageError(f"{folder} already holds other source files; name an empty folder", mixed)


def write_frame(frame: pl.DataFrame, path: Path, form: Format) -> None:
    """Write one frame; in a CSV null is an empty cell, a day is YYYY-MM-DD and a boolean true or false."""
    if form == "parquet":
        frame.write_parquet(path, compression="zstd")
    else:
        frame.write_csv(path)
