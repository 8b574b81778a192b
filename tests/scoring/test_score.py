from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rulebooks import rulebook
from scoring.score import PPB, grade, parts_per_billion, score, tax_multiple_bp

GRADES = rulebook("torch-points").policy.grades
PARTS = st.integers(1, PPB - 1)


def scored(parts: list[int]) -> list[int]:
    return pl.DataFrame({"pd": parts}).select(score(pl.col("pd"))).to_series().to_list()


@pytest.mark.parametrize(
    ("pd", "points"),
    [(1 / 51, 600), (1 / 101, 620), (1 / 26, 580), (1e-9, 900), (1 - 1e-9, 300)],
)
def test_twenty_points_double_the_odds(pd: float, points: int) -> None:
    assert pl.select(score(parts_per_billion(pl.lit(pd)))).item() == points


@given(parts=st.lists(PARTS, min_size=2, max_size=50))
def test_a_score_does_not_depend_on_how_many_are_scored(parts: list[int]) -> None:
    assert scored(parts) == [scored([one])[0] for one in parts]


@given(a=PARTS, b=PARTS)
def test_a_riskier_firm_never_scores_higher_nor_has_a_better_grade_or_multiple(a: int, b: int) -> None:
    safer, riskier = sorted([a, b])
    points = scored([safer, riskier])
    assert points[0] >= points[1]
    table = pl.DataFrame({"pd": [safer, riskier]})
    order = [band.grade for band in GRADES.bands]
    found = table.select(grade(pl.col("pd"), GRADES)).to_series().to_list()
    assert order.index(found[0]) <= order.index(found[1])
    multiples = table.select(tax_multiple_bp(pl.col("pd"), GRADES)).to_series().to_list()
    assert multiples[0] >= multiples[1]


@given(parts=PARTS)
def test_a_grade_is_the_band_its_pd_falls_into(parts: int) -> None:
    found = pl.DataFrame({"pd": [parts]}).select(grade(pl.col("pd"), GRADES)).item()
    share = Fraction(parts, PPB)
    expected = next(band.grade for band in GRADES.bands if share < Fraction(band.pd_below_bp, 10_000))
    assert found == expected
