"""Reading a parquet file: the file that was named, whole, or a refusal; no damage is a traceback."""

from pathlib import Path

import polars as pl
import pytest

from data_contracts.errors import ContractError
from models.sources.parquet import parquet_schema, read_parquet
from tests.damaged import panicking


def test_a_file_that_makes_the_reader_panic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as refused:
        read_parquet(panicking(tmp_path / "mine.parquet"))
    assert [problem.split(" (")[0] for problem in refused.value.problems] == [
        "mine.parquet: damaged, truncated or not a parquet file"
    ]


@pytest.mark.parametrize("keep", [0, 3, 200, 1000])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = panicking(tmp_path / "mine.parquet")
    path.write_bytes(path.read_bytes()[:keep])
    for read in (read_parquet, parquet_schema):
        with pytest.raises(ContractError, match=r"mine.parquet cannot be used"):
            read(path)


def test_a_path_is_no_pattern_and_no_column(tmp_path: Path) -> None:
    for folder, value in (("q[1]", 1), ("q1", 2), ("year=2026", 3)):
        path = tmp_path / folder / "mine.parquet"
        path.parent.mkdir()
        pl.DataFrame({"x": [value]}).write_parquet(path)
        assert read_parquet(path).to_dict(as_series=False) == {"x": [value]}
        assert parquet_schema(path).names() == ["x"]
