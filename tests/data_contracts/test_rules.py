"""The compiled rules are the contract's, no more and no less."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaErrors

from data_contracts.checking import checked
from data_contracts.rules import broken_rules, compiled, described, rules_of
from data_contracts.sources import SOURCES, TAXPAYER_RATINGS, Contract, Source
from tests import make

MAY_LIE_AHEAD = {("qualifications", "valid_to"), ("enterprises", "zone_entered_on")}
"""Days that are told before they come: the end of a validity."""
DAYS = [(name, day) for name, source in SOURCES.items() for day, kind in source.types.items() if kind == pl.Date]
TEXTS = ["", "x", "0" * 8, "X1234567\n", "a\x00b", "authority", "out", "reported", "I6513", "３５０２１１", "x" * 201]


def values(source: Source, name: str) -> st.SearchStrategy[Any]:
    """Values of the column's type: good ones, null, both sides of each bound, and strange texts."""
    good = make.MAKERS[source.name]()[name]
    column = source.columns[name]
    bounds = [value for check in column.checks for value in (check.statistics or {}).values()]
    if source.types[name] == pl.String:
        listed = [each for value in bounds if isinstance(value, list) for each in value]
        return st.sampled_from([good, None, *TEXTS, *listed])
    step: Any = timedelta(days=1) if source.types[name] == pl.Date else 1
    around = [near for bound in bounds for near in (bound - step, bound, bound + step)]
    return st.sampled_from([good, None, *around] if around else [True, False, None])


@st.composite
def tables(draw: st.DrawFn) -> tuple[Source, pl.DataFrame]:
    source = draw(st.sampled_from(list(SOURCES.values())))
    good = make.MAKERS[source.name]()
    rows: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 4))):
        changed = draw(st.lists(st.sampled_from(list(source.columns)), max_size=2, unique=True))
        rows.append(good | {name: draw(values(source, name)) for name in changed})
    return source, make.frame(source, rows)


def refused_by_pandera(source: Source, frame: pl.DataFrame) -> set[int]:
    try:
        source.contract.validate(frame, lazy=True)
    except SchemaErrors as fault:
        cases = fault.failure_cases
        assert isinstance(cases, pl.DataFrame)
        assert cases["index"].null_count() == 0
        return set(cases["index"].to_list())
    return set()


def refused_by_rules_across_fields(source: Source, frame: pl.DataFrame) -> set[int]:
    answers = [frame.select(rule.holds).to_series().to_list() for rule in source.rules]
    return {row for row in range(frame.height) if any(answer[row] is False for answer in answers)}


@given(table=tables())
def test_pandera_and_the_compiled_rules_refuse_the_same_rows(table: tuple[Source, pl.DataFrame]) -> None:
    source, frame = table
    verdicts = frame.select(broken_rules(source.name))
    ours = set(verdicts.select(pl.any_horizontal(pl.all())).to_series().arg_true().to_list())
    assert ours == refused_by_pandera(source, frame) | refused_by_rules_across_fields(source, frame)
    assert all(column.null_count() == 0 for column in verdicts.get_columns())


def contract_with(field: Any) -> Source:
    class Ratings(Contract):
        year: int = field

    return replace(TAXPAYER_RATINGS, contract=Ratings, key=("uscc", "year"), rules=())


@pytest.mark.parametrize(
    "field",
    [
        pa.Field(notin=[3]),
        pa.Field(eq=3),
        pa.Field(unique=True),
        pa.Field(ge=3, raise_warning=True),
        pa.Field(coerce=True),
    ],
    ids=["notin", "eq", "unique", "warning", "coerce"],
)
def test_a_kind_of_check_that_would_not_be_enforced_is_refused(field: Any) -> None:
    with pytest.raises(ValueError, match="not enforced"):
        compiled(contract_with(field))


def test_a_type_of_column_that_is_not_known_is_refused() -> None:
    class Ratings(Contract):
        share: float = pa.Field()

    with pytest.raises(ValueError, match="not known"):
        compiled(replace(TAXPAYER_RATINGS, contract=Ratings, rules=()))


def test_a_check_over_the_whole_frame_is_refused() -> None:
    class Ratings(Contract):
        @pa.dataframe_check
        def never(cls, data: pa.PolarsData) -> pl.LazyFrame:  # noqa: N805  (pandera hands in the class)
            return data.lazyframe.select(pl.lit(value=False))

    with pytest.raises(ValueError, match="not enforced"):
        compiled(replace(TAXPAYER_RATINGS, contract=Ratings, rules=()))


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_is_described_from_its_contract(name: str) -> None:
    columns = described(SOURCES[name])
    assert [column.column for column in columns] == list(SOURCES[name].columns)
    assert all(column.title and column.meaning and column.type for column in columns)
    assert {column.column for column in columns if column.in_key} == {*SOURCES[name].key, "known_on"}


def test_each_rule_has_a_meaning_and_fields_of_its_source() -> None:
    for name, source in SOURCES.items():
        for rule in rules_of(name):
            assert rule.meaning
            assert set(rule.fields) <= set(source.columns)


@pytest.mark.parametrize(("name", "day"), [one for one in DAYS if one[1] != "known_on" and one not in MAY_LIE_AHEAD])
def test_nothing_is_known_before_it_happened(name: str, day: str) -> None:
    """A day to come is refused: a debt that will be closed, a tax that will be paid or a loan still watched is none."""
    record = make.MAKERS[name]()
    found = checked(SOURCES[name], make.frame(name, [record | {day: record["known_on"] + timedelta(days=1)}]))
    broken = ";".join(found.quarantined["rules"]).split(";")
    assert any(rule.endswith(f"_before_{day}") for rule in broken), broken


@pytest.mark.parametrize(("name", "day"), sorted(MAY_LIE_AHEAD))
def test_what_may_lie_ahead_is_named_for_a_reason(name: str, day: str) -> None:
    record = make.MAKERS[name]()
    ahead = make.frame(name, [record | {day: record["known_on"] + timedelta(days=1)}])
    assert checked(SOURCES[name], ahead).quarantined.is_empty()


def test_a_day_of_the_range_is_written_as_a_day() -> None:
    allowed = {column.column: column.allowed for column in described(SOURCES["invoices"])}
    assert allowed["issued_on"] == f"{date(1949, 10, 1)} to {date(2199, 12, 31)}"


@pytest.mark.parametrize(
    ("field", "year", "code"),
    [
        (pa.Field(gt=2000), 2000, "year_too_small"),
        (pa.Field(lt=2000), 2000, "year_too_large"),
        (pa.Field(ge=2001), 2000, "year_too_small"),
        (pa.Field(le=1999), 2000, "year_too_large"),
        (pa.Field(isin=[1999]), 2000, "year_not_listed"),
        (pa.Field(), None, "year_null"),
    ],
)
def test_each_kind_of_check_names_its_code(field: Any, year: int | None, code: str) -> None:
    row = pl.DataFrame({"year": [year]}, schema={"year": pl.Int64})
    rules = [rule for rule in compiled(contract_with(field)) if rule.fields == ("year",)]
    broken = [rule.code for rule in rules if row.select(rule.holds).item() is False]
    assert broken == [code]
