"""A reader sees the whole of a file or nothing of it."""

from pathlib import Path

import polars as pl
import pytest

from data_contracts.errors import UsageError
from models.sources.folder import read_folder
from models.sources.writing import FORMATS, Format, replacing, write_folder
from tests import make


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupt_leaves_the_old_file_and_no_trace(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "limits.csv"
    path.write_text("old")
    with pytest.raises(stop), replacing(path) as beside:  # noqa: PT012
        beside.write_text("half")
        raise stop
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "limits.csv"
    path.write_text("old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == tmp_path
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "limits.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "limits.csv").mkdir()
    with pytest.raises(OSError), replacing(tmp_path / "limits.csv") as beside:  # noqa: PT011
        beside.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["limits.csv"]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_reads_back_the_same(tmp_path: Path, form: Format) -> None:
    frames = make.marked(make.frames(**{name: [maker()] for name, maker in make.MAKERS.items()}))
    write_folder(frames, tmp_path / "new" / "park", form)
    found = read_folder(tmp_path / "new" / "park")
    assert found.warnings == ()
    for name, frame in frames.items():
        assert getattr(found.sources, name).equals(frame), name


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_folder(make.frames(), tmp_path, "csv")
    old = (tmp_path / "enterprises.csv").read_bytes()
    unwritable = make.frame("debts", [make.debt()]).with_columns(closed_on=pl.Series([object()], dtype=pl.Object))
    with pytest.raises(pl.exceptions.PolarsError):
        write_folder({"enterprises": make.frame("enterprises", []), "debts": unwritable}, tmp_path, "csv")
    assert [path.name for path in tmp_path.iterdir()] == ["enterprises.csv"]
    assert (tmp_path / "enterprises.csv").read_bytes() == old


def test_sources_of_two_parks_are_never_mixed(tmp_path: Path) -> None:
    write_folder(make.frames(debts=[make.debt()]), tmp_path)
    with pytest.raises(UsageError) as refused:
        write_folder(make.frames(), tmp_path)
    assert refused.value.problems == ("debts.parquet",)
    with pytest.raises(UsageError):
        write_folder(make.frames(debts=[make.debt()]), tmp_path, "csv")
    write_folder(make.frames(debts=[]), tmp_path)
    assert read_folder(tmp_path).sources.debts.is_empty()
