"""中小微企业划型: is a firm large, medium, small or micro, by its industry's lower bounds.

A class needs every lower bound listed for its industry, and a bound includes its number ("以上"); so the class is the
lowest that any one metric points to. Source: 国统字〔2017〕213号 and 工信部联企业〔2011〕300号, kept as data in
`scoring/size_classes/`.
"""

import polars as pl
from pydantic import Field, model_validator

from scoring.strict_yaml import Record, record

WAN_FEN = 1_000_000
"""万元 in fen."""

NAMES = ("micro", "small", "medium", "large")
_METRICS = {
    "employees": pl.col("employees"),
    "revenue_wan": pl.col("revenue_fen"),
    "total_assets_wan": pl.col("total_assets_fen"),
}


class Bounds(Record):
    """Lower bounds of one class, in persons and 万元; null: the industry's classes do not ask for this metric."""

    employees: int | None = Field(default=None, gt=0)
    revenue_wan: int | None = Field(default=None, gt=0)
    total_assets_wan: int | None = Field(default=None, gt=0)


class Industry(Record):
    """One row of the table: which GB/T 4754 codes it covers, by their beginnings, and its three lower bounds."""

    id: str
    zh: str
    codes: tuple[str, ...] = Field(min_length=1)
    large: Bounds
    medium: Bounds
    small: Bounds

    @model_validator(mode="after")
    def _bounds_rise(self) -> "Industry":
        problems = []
        for metric in _METRICS:
            bounds = [getattr(self.small, metric), getattr(self.medium, metric), getattr(self.large, metric)]
            if any(bound is None for bound in bounds):
                if any(bound is not None for bound in bounds):
                    problems.append(f"{self.id}: {metric} must be in all three classes or in none")
            elif not bounds[0] < bounds[1] < bounds[2]:
                problems.append(f"{self.id}: {metric} must rise from small to large")
        if self.small == Bounds():
            problems.append(f"{self.id}: no bound at all")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class SizeClasses(Record):
    """The whole table, with its version and source."""

    version: str
    source: str
    industries: tuple[Industry, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _codes_belong_to_one_industry(self) -> "SizeClasses":
        codes = [code for industry in self.industries for code in industry.codes]
        repeated = sorted({code for code in codes if codes.count(code) > 1})
        if repeated:
            raise ValueError("\n".join(f"industry code {code} stands twice" for code in repeated))
        return self


def parse_size_classes(text: str) -> SizeClasses:
    """Read the table from YAML.

    Raises:
        PolicyError: with everything that is wrong with it.
    """
    return record(text, SizeClasses, "table of size classes")


def industry_of(classes: SizeClasses) -> pl.Expr:
    """The id of the industry that `industry_code` (section letter and 2 to 4 digits) falls in; null outside the table.

    The longest beginning wins. A code too short to tell, such as K70, has no industry.
    """
    owner = {code: industry.id for industry in classes.industries for code in industry.codes}
    lengths = sorted({len(code) for code in owner}, reverse=True)
    found = [_looked_up(pl.col("industry_code").str.slice(0, length), owner, pl.String) for length in lengths]
    return pl.coalesce(found)


def size_class(classes: SizeClasses, industry: pl.Expr | None = None) -> pl.Expr:
    """The size class of a row with `industry_code`, `employees`, `revenue_fen` and `total_assets_fen`.

    Args:
        classes: the table.
        industry: where `industry_of` has been worked out already; it is looked at many times.

    Returns:
        String: "large", "medium", "small" or "micro". Null where the industry is not in the table, or where a metric
        that its industry asks for is null, unless a metric that is known already makes the firm micro.
    """
    industry = industry_of(classes) if industry is None else industry
    ranks = [_rank(metric, value, industry, classes) for metric, value in _METRICS.items()]
    lowest = pl.min_horizontal(ranks)  # leaves nulls out
    unknown = pl.any_horizontal([rank.is_null() for rank in ranks])
    rank = pl.when(industry.is_not_null() & ((lowest == 0) | ~unknown)).then(lowest)
    return rank.replace_strict(dict(enumerate(NAMES)), default=None, return_dtype=pl.String)


def _rank(metric: str, value: pl.Expr, industry: pl.Expr, classes: SizeClasses) -> pl.Expr:
    """How many of the three lower bounds the metric reaches, 0 to 3; 3 where the industry does not ask for it."""
    unit = 1 if metric == "employees" else WAN_FEN
    reached = pl.lit(0, pl.Int32)
    for name in NAMES[1:]:
        bounds = {found.id: getattr(getattr(found, name), metric) for found in classes.industries}
        bound = _looked_up(industry, {key: at * unit for key, at in bounds.items() if at is not None}, pl.Int64)
        reached = reached + (value >= bound).cast(pl.Int32)
    # A metric is asked for in all three classes or in none.
    asked = [found.id for found in classes.industries if getattr(found.small, metric) is not None]
    return pl.when(industry.is_in(asked)).then(reached).otherwise(pl.lit(3, pl.Int32))


def _looked_up(key: pl.Expr, table: dict[str, str] | dict[str, int], dtype: type[pl.DataType]) -> pl.Expr:
    return key.replace_strict(list(table), list(table.values()), default=None, return_dtype=dtype)
