from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import PolicyError
from scoring.sme_size import NAMES, WAN_FEN, SizeClasses, parse_size_classes, size_class

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "scoring" / "size_classes" / "sme-size.2017-12-28.yaml").read_text(encoding="utf-8")
CLASSES = parse_size_classes(TEXT)
CASES: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "cases" / "sme_size.yaml").read_text(encoding="utf-8"))
SCHEMA = {"industry_code": pl.String, "employees": pl.Int64, "revenue_fen": pl.Int64, "total_assets_fen": pl.Int64}


def classes_of(rows: list[tuple[str, int | None, int | None, int | None]], classes: SizeClasses) -> list[str | None]:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.select(size_class(classes).alias("class"))["class"].to_list()


def in_fen(wan: int | None) -> int | None:
    return None if wan is None else wan * WAN_FEN


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['code']}-{case['why']}")
def test_the_official_bounds_decide_the_class(case: dict[str, Any]) -> None:
    row = (case["code"], case["employees"], in_fen(case["revenue_wan"]), in_fen(case["total_assets_wan"]))
    assert classes_of([row], CLASSES) == [case["class"]]


def test_all_cases_at_once_give_the_same_classes() -> None:
    rows = [(c["code"], c["employees"], in_fen(c["revenue_wan"]), in_fen(c["total_assets_wan"])) for c in CASES]
    assert classes_of(rows, CLASSES) == [case["class"] for case in CASES]


def test_one_fen_below_a_bound_is_below_it() -> None:
    bound = 2000 * WAN_FEN
    assert classes_of([("C39", 300, bound, None), ("C39", 300, bound - 1, None)], CLASSES) == ["medium", "small"]


CODES = st.sampled_from([code for industry in CLASSES.industries for code in industry.codes])
AMOUNTS = st.one_of(st.integers(0, 300_000 * WAN_FEN), st.none())
PEOPLE = st.one_of(st.integers(0, 3_000), st.none())


@given(code=CODES, people=PEOPLE, revenue=AMOUNTS, assets=AMOUNTS, more=st.integers(1, 10**12))
def test_growing_never_makes_a_firm_smaller(
    code: str, people: int | None, revenue: int | None, assets: int | None, more: int
) -> None:
    grown = None if revenue is None else revenue + more
    before, after = classes_of([(code, people, revenue, assets), (code, people, grown, assets)], CLASSES)
    if before is not None and after is not None:
        assert NAMES.index(after) >= NAMES.index(before)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("large: {revenue_wan: 20_000}", "large: {revenue_wan: 400}", "must rise from small to large"),
        ("large: {revenue_wan: 20_000}", "large: {employees: 5}", "all three classes or in none"),
        ("codes: [F52]", "codes: [F51]", "F51 stands twice"),
        ("codes: [F52]", "codes: [F52]\n    codes: [F53]", "the key is repeated"),
        ("codes: [F52]", "codes: [F52]\n    colour: red", "Extra inputs"),
        ("small: {revenue_wan: 50}", "small: {revenue_wan: '50'}", "valid integer"),
    ],
)
def test_a_wrong_table_is_refused(old: str, new: str, problem: str) -> None:
    assert old in TEXT
    with pytest.raises(PolicyError, match="table of size classes") as refused:
        parse_size_classes(TEXT.replace(old, new, 1))
    assert problem in str(refused.value)
