"""One broken line never takes another with it, and nothing is lost."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.sources import SOURCES
from models.sources.csv_lines import divided, header_of
from models.sources.reading import read_source
from tests import make

SOURCE = SOURCES["debts"]


def broken(*lines: str, fields: int = 3) -> list[tuple[int, str, str]]:
    return divided(pl.Series(lines, dtype=pl.String), fields).broken.rows()


def test_a_stray_quote_loses_no_row() -> None:
    for stray in ('a,"b,c', 'a,b"b,c', 'a,"b"b,c', '"a,b,c', 'a,b,"c', '"'):
        lines = ["1,2,3", stray, *["4,5,6"] * 150, '7,"8",9']
        found = divided(pl.Series(lines), 3)
        assert found.broken.rows() == [(2, "stray_quote", stray)]
        assert found.rows.to_list() == [1, *range(3, 154)]


def test_a_row_with_a_field_too_many_or_too_few_goes_alone() -> None:
    assert broken("1,2", "1,2,3", '1,"2,2",3', '1,2,3,"4"', ",,") == [
        (1, "wrong_number_of_fields", "1,2"),
        (4, "wrong_number_of_fields", '1,2,3,"4"'),
    ]


def test_a_record_with_line_breaks_is_one_row_and_nothing_in_it_is_taken_for_a_row() -> None:
    record = ['1,"x', "forged,row,here", "", 'y "" z",3']
    found = divided(pl.Series(["0,0,0", *record, "4,5,6"]), 3)
    assert found.broken.rows() == [(2, "line_break_in_field", "\n".join(record))]
    assert found.records.to_list() == ["0,0,0", "4,5,6"]
    assert found.rows.to_list() == [1, 3]


def test_a_record_may_open_several_fields_over_many_lines() -> None:
    record = ['"x', *["forged,row,here"] * 500, '","y', "0,0,0", '",3']
    found = divided(pl.Series(["0,0,0", *record, "4,5,6"]), 3)
    assert found.broken.rows() == [(2, "line_break_in_field", "\n".join(record))]
    assert found.records.to_list() == ["0,0,0", "4,5,6"]


def test_a_quote_that_ends_a_record_of_another_size_is_a_stray_one() -> None:
    lines = ['1,"x', *["4,5,6"] * 100, 'y",3,4']
    found = divided(pl.Series(lines), 3)
    assert found.broken["rule"].to_list() == ["stray_quote", "stray_quote"]
    assert found.records.len() == 100


def test_a_quote_that_ends_amid_a_field_ends_no_record() -> None:
    found = divided(pl.Series(['1,"x', "4,5,6", 'y"z,3']), 3)
    assert found.broken["rule"].to_list() == ["stray_quote", "stray_quote"]
    assert found.records.to_list() == ["4,5,6"]


def test_blank_lines_are_no_rows() -> None:
    found = divided(pl.Series(["", "1,2,3", "", "4,5", "6,7,8", ""]), 3)
    assert (found.rows.to_list(), found.broken["row"].to_list()) == ([1, 3], [2])


@pytest.mark.parametrize(
    ("line", "names"),
    [("a,b", ["a", "b"]), ("\ufeffa,b", ["a", "b"]), ('"a","b ""c"""', ["a", 'b "c"']), ("a,,a", ["a", "", "a"])],
)
def test_a_header_is_read_as_it_stands(line: str, names: list[str]) -> None:
    assert header_of(line) == names


def test_a_header_with_a_stray_quote_is_none() -> None:
    assert header_of('a,"b') is None


FIELDS = st.lists(st.text(st.sampled_from('ab,"\n 中'), max_size=5), min_size=3, max_size=3)


@given(records=st.lists(FIELDS, min_size=1, max_size=6))
def test_what_the_standard_writer_writes_is_read_or_kept_whole(records: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(records)
    found = divided(pl.Series(out.getvalue().removesuffix("\n").split("\n")), 3)
    assert found.records.len() == sum("\n" not in "".join(record) for record in records)
    assert found.broken["rule"].to_list() == ["line_break_in_field"] * found.broken.height
    assert found.records.len() + found.broken.height == len(records)


NOISE = st.text(st.sampled_from('",\n\r x\x00é"中'), max_size=4)


@given(edits=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 90), NOISE), max_size=8))
def test_no_row_is_lost_whatever_is_typed_into_a_file(edits: list[tuple[int, int, str]], tmp_path: Path) -> None:
    good = make.frame("debts", [make.debt(debt_id=f"#{number}#") for number in range(20)]).write_csv()
    header, *lines = good.rstrip("\n").split("\n")
    for number, place, noise in edits:
        if f"#{number}#" in lines[number][:place] or f"#{number}#" in lines[number][place:]:
            lines[number] = lines[number][:place] + noise + lines[number][place:]
    path = tmp_path / "debts.csv"
    path.write_bytes("\n".join([header, *lines]).encode())
    found = read_source(path, SOURCE)
    assert found.read == found.good.height + found.quarantined.height
    kept = "\n".join(
        [*found.good["debt_id"], *found.quarantined.select(pl.concat_str(pl.all(), ignore_nulls=True)).to_series()]
    )
    assert all(f"#{number}#" in kept for number in range(20) if f"#{number}#" in lines[number])
    if not found.quarantined["rules"].str.contains("line_break_in_field").any():
        untouched = set(range(20)) - {number for number, _, _ in edits}
        assert {f"#{number}#" for number in untouched} <= set(found.good["debt_id"])
