"""From a probability of default to whole parts per billion, a score and a grade."""

import math

import polars as pl

from scoring.policy import BP, Grades

PPB = 1_000_000_000
"""Policy looks at probabilities in whole parts per billion, so that no threshold compares floats."""
LEAST_PPB = 1
MOST_PPB = PPB - 1

BASE_SCORE = 600
BASE_ODDS = 50
POINTS_TO_DOUBLE_ODDS = 20
LEAST_SCORE = 300
MOST_SCORE = 900


def parts_per_billion(pd: pl.Expr) -> pl.Expr:
    """A probability in [0, 1] as Int64 parts per billion, kept inside 1 and 10^9 - 1."""
    return (pd * PPB).round().cast(pl.Int64).clip(LEAST_PPB, MOST_PPB)


def score(pd_ppb: pl.Expr) -> pl.Expr:
    """Int32 points; more is safer: `clip(round(600 + 20/ln 2 · (ln((1-pd)/pd) - ln 50)), 300, 900)`, PDO 20.

    Source: jifen default.
    """
    # No division by a constant: polars multiplies long columns by a rounded reciprocal, with other last bits.
    odds = ((PPB - pd_ppb) / pd_ppb).log() - math.log(BASE_ODDS)
    points = odds * (POINTS_TO_DOUBLE_ODDS / math.log(2)) + BASE_SCORE
    return points.round().clip(LEAST_SCORE, MOST_SCORE).cast(pl.Int32)


def grade(pd_ppb: pl.Expr, grades: Grades) -> pl.Expr:
    """The band of policy that a PD falls into; never of the rounded score."""
    return _by_band(pd_ppb, grades, [band.grade for band in grades.bands], pl.String())


def tax_multiple_bp(pd_ppb: pl.Expr, grades: Grades) -> pl.Expr:
    """The multiple m of the grade, in bp: 10,000 is once the yearly tax."""
    return _by_band(pd_ppb, grades, [band.tax_multiple_bp for band in grades.bands], pl.Int64())


def band_edges_ppb(grades: Grades) -> list[int]:
    """The upper edges of all bands but the last, in parts per billion."""
    return [band.pd_below_bp * (PPB // BP) for band in grades.bands[:-1]]


def _by_band(pd_ppb: pl.Expr, grades: Grades, values: list[str] | list[int], dtype: pl.DataType) -> pl.Expr:
    chain = pl.when(pd_ppb.is_null()).then(pl.lit(None, dtype))
    for edge, value in zip(band_edges_ppb(grades), values, strict=False):
        chain = chain.when(pd_ppb < edge).then(pl.lit(value, dtype))
    return chain.otherwise(pl.lit(values[-1], dtype))
