"""Files that cannot be used are refused with a sentence, not a traceback."""

from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from data_contracts.errors import ContractError
from data_contracts.sources import SOURCES
from models.sources.reading import read_source
from tests import make

DEBTS = SOURCES["debts"]
GOOD = make.frame("debts", [make.debt(debt_id=f"账户-{number}") for number in range(3)])
TEXT = GOOD.write_csv()


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ContractError) as refused:
        read_source(path, DEBTS)
    assert refused.value.problems
    return str(refused.value)


@pytest.mark.parametrize("encoding", ["gb18030", "gbk"])
def test_chinese_national_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    said = refusal(tmp_path / "debts.csv", TEXT.encode(encoding))
    assert "not UTF-8 (first seen in line 2), probably GB18030 (GBK); save it as UTF-8" in said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    said = refusal(tmp_path / "debts.csv", TEXT.encode(encoding))
    assert "UTF-16" in said or "UTF-32" in said


def test_bytes_of_no_encoding_are_named(tmp_path: Path) -> None:
    assert "of an unknown encoding" in refusal(tmp_path / "debts.csv", TEXT.encode() + b"\xff\xff\xff\x81")


@pytest.mark.parametrize("name", ["debts.csv", "debts.parquet"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "is empty" in refusal(tmp_path / name, b"")


@pytest.mark.parametrize("data", [b"\n\n", b"\xef\xbb\xbf", b" \n", b"\xef\xbb\xbf\r\n"])
def test_a_blank_header_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "the header, is blank" in refusal(tmp_path / "debts.csv", data)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_a_header_alone_is_no_rows(tmp_path: Path, end: str) -> None:
    path = tmp_path / "debts.csv"
    path.write_text(TEXT.split("\n")[0] + end, newline="")
    found = read_source(path, DEBTS)
    assert (found.read, found.good.height, found.quarantined.height) == (0, 0, 0)
    assert found.good.schema == DEBTS.types


@pytest.mark.parametrize("data", [TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "debts.csv"
    path.write_bytes(data.rstrip())
    assert read_source(path, DEBTS).good.equals(GOOD)


def test_a_byte_order_mark_before_a_broken_line_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "debts.csv"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode() + b"x\n")
    found = read_source(path, DEBTS)
    assert found.good.equals(GOOD)
    assert found.quarantined["line"].to_list() == ["x"]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    twice = "\n".join(f"{line},{line.split(',')[3]}" for line in TEXT.rstrip().split("\n"))
    assert "column 'lender_id' is there twice" in refusal(tmp_path / "debts.csv", twice.encode())


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.99])
def test_a_truncated_parquet_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "debts.parquet"
    GOOD.write_parquet(path)
    data = path.read_bytes()
    assert "debts.parquet" in refusal(path, data[: int(len(data) * keep)])


def test_a_damaged_parquet_is_refused_or_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "debts.parquet"
    GOOD.write_parquet(path, statistics=False)
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with suppress(ContractError):
            found = read_source(path, DEBTS)
            assert found.read == found.good.height + found.quarantined.height


def test_a_csv_named_parquet_is_refused(tmp_path: Path) -> None:
    assert "not a parquet file" in refusal(tmp_path / "debts.parquet", TEXT.encode())


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "debts.csv").mkdir()
    with pytest.raises(ContractError, match="is a folder"):
        read_source(tmp_path / "debts.csv", DEBTS)


def test_a_name_with_a_pattern_in_it_is_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "park [2024] *"
    folder.mkdir()
    GOOD.write_parquet(folder / "debts.parquet")
    assert read_source(folder / "debts.parquet", DEBTS).good.equals(GOOD)


def test_a_field_of_ten_million_characters_is_kept_whole(tmp_path: Path) -> None:
    long = "长" * 10_000_000
    for cell in (long, f'"{long}"'):
        (tmp_path / "debts.csv").write_text(TEXT.replace("账户-1", cell))
        found = read_source(tmp_path / "debts.csv", DEBTS)
        assert found.good.height == 2
        assert found.quarantined.select("row", "rules", "debt_id").rows() == [(2, "debt_id_wrong_length", long)]


def test_text_of_every_field_survives_quotes_and_commas(tmp_path: Path) -> None:
    ids = ["a,b", 'a "quoted" one', '"', '""', ",", "'", "a b", "账户"]
    frame = make.frame("debts", [make.debt(debt_id=each) for each in ids])
    frame.write_csv(tmp_path / "debts.csv")
    assert read_source(tmp_path / "debts.csv", DEBTS).good["debt_id"].to_list() == ids
    quoted = frame.write_csv(quote_style="always")
    (tmp_path / "debts.csv").write_text(quoted)
    assert read_source(tmp_path / "debts.csv", DEBTS).good.equals(frame.with_columns(pl.col("closed_on")))
