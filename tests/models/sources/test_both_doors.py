"""CSV and parquet refuse the same rows, for the same reasons, and lose none."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.checking import Checked
from data_contracts.errors import ContractError
from data_contracts.sources import SOURCES, Source
from models.sources.reading import read_source
from models.sources.writing import write_frame
from tests import make
from tests.data_contracts.faults import ACROSS_FIELDS, Fault, faults


def through(door: str, frame: pl.DataFrame, source: Source, folder: Path) -> Checked:
    path = folder / f"{source.name}.{door}"
    write_frame(frame, path, "csv" if door == "csv" else "parquet")
    return read_source(path, source)


def as_text(source: Source, bad: Fault) -> pl.DataFrame:
    text = make.frame(source, [bad.record]).select(pl.all().cast(pl.String))
    return text.with_columns(pl.lit(cell).alias(name) for name, cell in bad.cells.items())


def test_every_rule_across_fields_has_a_fault() -> None:
    for name, source in SOURCES.items():
        assert {rule.code for rule in source.rules} - {"uscc_check_character"} == set(ACROSS_FIELDS[name])


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("door", ["csv", "parquet"])
def test_every_fault_of_every_column_is_quarantined_with_its_rule(name: str, door: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    bad = [fault for fault in faults(source) if door == "csv" or not fault.cells]
    good = make.frame(source, [make.MAKERS[name]()])
    if door == "csv":
        frame = pl.concat([good.select(pl.all().cast(pl.String)), *(as_text(source, fault) for fault in bad)])
    else:
        frame = pl.concat([good, *(make.frame(source, [fault.record]) for fault in bad)])
    found = through(door, frame, source, tmp_path)
    assert found.good.equals(good)
    assert found.read == 1 + len(bad)
    assert found.quarantined["row"].to_list() == list(range(2, 2 + len(bad)))
    for fault, rules in zip(bad, found.quarantined["rules"], strict=True):
        assert fault.rule in rules.split("; "), fault
    kept = found.quarantined.select(list(source.columns))
    assert kept.equals(frame[1:].select(pl.all().cast(pl.String)), null_equal=True)


@pytest.mark.parametrize("name", SOURCES)
def test_a_cell_that_cannot_be_read_breaks_one_rule_only(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    bad = [fault for fault in faults(source) if fault.cells]
    found = through("csv", pl.concat([as_text(source, fault) for fault in bad]), source, tmp_path)
    assert found.quarantined["rules"].to_list() == [fault.rule for fault in bad]


OTHER_TYPES: dict[object, list[pl.DataType]] = {
    pl.String: [pl.Categorical(), pl.Enum(["a"]), pl.Int64(), pl.Binary(), pl.Null()],
    pl.Int64: [pl.Int32(), pl.UInt8(), pl.UInt64(), pl.Float64(), pl.String(), pl.Decimal(18, 2), pl.Null()],
    pl.Date: [pl.Datetime("us"), pl.String(), pl.Int32(), pl.Null()],
    pl.Boolean: [pl.UInt8(), pl.Int64(), pl.String(), pl.Null()],
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_parquet_column_of_another_type_refuses_the_file_and_names_both_types(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    good = make.frame(source, [make.MAKERS[name]()])
    path = tmp_path / f"{name}.parquet"
    for column, dtype in source.types.items():
        for other in OTHER_TYPES[dtype]:
            wrong = pl.Series(column, [None], dtype=other)
            good.with_columns(wrong).write_parquet(path)
            with pytest.raises(ContractError) as refused:
                read_source(path, source)
            assert len(refused.value.problems) == 1
            assert f"{name}.{column}: expected" in refused.value.problems[0]
            assert str(dtype) in refused.value.problems[0]
            assert f"found {str(other).split('(')[0]}" in refused.value.problems[0]


def test_every_wrong_column_of_a_file_is_named(tmp_path: Path) -> None:
    good = make.frame("invoices", [make.invoice()])
    wrong = good.drop("red_of", "gross_fen").with_columns(pl.col("net_fen").cast(pl.Float64), extra=pl.lit(1))
    for door, count in (("csv", 3), ("parquet", 4)):
        with pytest.raises(ContractError) as refused:
            through(door, wrong, SOURCES["invoices"], tmp_path)
        assert len(refused.value.problems) == count


def test_the_order_of_the_columns_does_not_matter(tmp_path: Path) -> None:
    frame = make.frame("invoices", [make.invoice()])
    turned = frame.select(reversed(frame.columns))
    for door in ("csv", "parquet"):
        assert through(door, turned, SOURCES["invoices"], tmp_path).good.equals(frame)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
AMOUNT = st.integers(-(2**63), 2**63 - 1) | st.none() | st.integers(-3, 3)


@given(
    records=st.lists(
        st.builds(
            dict,
            counterparty_id=TEXT,
            net_fen=AMOUNT,
            is_void=st.booleans() | st.none(),
            direction=st.sampled_from(["in", "out", "In"]) | TEXT,
            red_of=st.none() | TEXT,
        ),
        min_size=1,
        max_size=6,
    )
)
def test_both_doors_part_any_rows_alike(records: list[make.Record], tmp_path: Path) -> None:
    rows = [make.invoice() | record | {"tax_fen": 0, "gross_fen": record["net_fen"]} for record in records]
    frame = make.frame("invoices", rows)
    texts, typed = (through(door, frame, SOURCES["invoices"], tmp_path) for door in ("csv", "parquet"))
    assert texts.good.equals(typed.good)
    assert texts.read == texts.good.height + texts.quarantined.height
    assert typed.read == typed.good.height + typed.quarantined.height
    whole = texts.quarantined.filter(pl.col("line").is_null())
    assert (
        whole["rules"].to_list()
        == typed.quarantined.filter(pl.col("row").is_in(whole["row"].implode()))["rules"].to_list()
    )
