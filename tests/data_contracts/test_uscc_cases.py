from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.uscc import ALPHABET, CodeState, check_character, code_state, made_up_code, states

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "cases" / "credit_codes.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['code']}-{case['state']}")
def test_a_published_code_is_judged_as_the_standard_says(case: dict[str, Any]) -> None:
    assert code_state(case["code"]).value == case["state"]
    if "computed" in case:
        assert check_character(case["code"][:17]) == case["computed"]


def test_a_column_of_codes_is_judged_like_each_code_alone() -> None:
    codes = pl.Series([*(case["code"] for case in CASES), None, CASES[0]["code"]], dtype=pl.String)
    assert states(codes).to_list() == [*(case["state"] for case in CASES), None, CASES[0]["state"]]


@given(number=st.integers(0, 99_999_999), place=st.integers(0, 17), step=st.integers(1, 30))
def test_one_changed_character_is_always_noticed(number: int, place: int, step: int) -> None:
    code = made_up_code(number)
    assert code_state(code) is CodeState.VALID
    other = ALPHABET[(ALPHABET.index(code[place]) + step) % len(ALPHABET)]
    assert code_state(code[:place] + other + code[place + 1 :]) is not CodeState.VALID
