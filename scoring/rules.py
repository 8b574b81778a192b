"""A rule of policy is a SQL expression over catalogue columns, so that a risk officer can read and write it.

Only what looks at one row is allowed: comparisons, AND / OR / NOT, IN, BETWEEN, IS NULL, COALESCE, CASE, +, - and *.
An aggregate, a window or a subquery would make a firm's decision depend on who else is in the batch. Null means the
rule cannot tell. A rule must not run the wrong way either: where the catalogue says that more is safer, more may never
turn a pass into a failure.
"""

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache

import polars as pl

from scoring.catalogue import CATALOGUE, FEED_STATES

_DTYPES: dict[str, pl.DataType] = {"text": pl.String(), "flag": pl.Boolean()}
_NODES = frozenset({"BinaryExpr", "Column", "Literal", "Function", "Ternary", "Cast"})
_OPERATORS = frozenset(
    {"Eq", "EqValidity", "NotEq", "NotEqValidity", "Lt", "LtEq", "Gt", "GtEq", "And", "Or", "Plus", "Minus", "Multiply"}
)
_FUNCTIONS = frozenset({"Coalesce", "Abs", "IsNull", "IsNotNull", "IsIn", "Not", "Mul", "Add", "Sub"})
_MOST_CHARACTERS = 2_000
_MOST_GRID = 20_000

SCHEMA: dict[str, pl.DataType] = {
    name: _DTYPES.get(feature.unit, pl.Float64() if feature.unit == "points" else pl.Int64())
    for name, feature in CATALOGUE.items()
}
"""The columns a rule may name, and their types."""


@lru_cache(maxsize=1_024)
def expression(sql: str) -> pl.Expr:
    """The rule as an expression; it gives a Boolean per row, null where the rule cannot tell.

    Kept for the next use: reading a rule takes longer than putting it to a firm.

    Raises:
        ValueError: with every problem, one a line.
    """
    if len(sql) > _MOST_CHARACTERS:
        raise ValueError(f"a rule has at most {_MOST_CHARACTERS:,} characters")
    try:
        found = pl.sql_expr(sql)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ValueError(f"not an SQL expression: {_first_line(error)}") from error
    problems = [f"there is no column {name}" for name in sorted(set(found.meta.root_names()) - SCHEMA.keys())]
    problems += sorted({f"{what} is not allowed: a rule looks at one row only" for what in _foreign(_tree(found))})
    if not problems:
        problems = _type_problems(found)
    if problems:
        raise ValueError("\n".join(problems))
    return found


def wrong_ways(sql: str, *, null_may_pass: bool = False) -> list[str]:
    """The columns in which a rule runs the wrong way: a safer value turns its pass into a failure.

    Decided by trying every combination of the values around the rule's own numbers; other columns are held fixed. What
    is not known counts as worse than anything known, and an incomplete feed as worse than a complete one, so no rule
    can reward withholding.

    Args:
        sql: the rule.
        null_may_pass: for expressions whose "not known" is answered by a condition elsewhere.

    Raises:
        ValueError: the rule cannot be read, or has too many numbers to be tried.
    """
    found = expression(sql)
    names = sorted(set(found.meta.root_names()))
    grids = {name: _values(name, _numbers(_tree(found))) for name in names}
    if _size(grids) > _MOST_GRID:
        raise ValueError("too many numbers and columns in one rule to try its directions; split it")
    rows = list(itertools.product(*grids.values()))
    table = pl.DataFrame(rows, schema={name: SCHEMA[name] for name in names}, orient="row")
    table = table.with_columns(passes=found.fill_null(value=False))
    return [
        name
        for name in names
        if _runs_wrong(table, name, [other for other in names if other != name], null_may_pass=null_may_pass)
    ]


def _runs_wrong(table: pl.DataFrame, name: str, others: list[str], *, null_may_pass: bool) -> bool:
    """Does a pass turn into a failure on the way from the worst value of a column to its best?"""
    feature = CATALOGUE[name]
    if feature.group == "feeds":
        place = (pl.col(name) == "complete").fill_null(value=False).cast(pl.Int64)
        ranked = table.filter(pl.col(name).is_in(FEED_STATES)).with_columns(place=place)
    elif feature.better is not None:
        worst_first = pl.col(name).rank("dense", descending=feature.better == "less").cast(pl.Int64)
        ranked = table.with_columns(place=worst_first.fill_null(0))
        ranked = ranked.filter(pl.col(name).is_not_null()) if null_may_pass else ranked
    else:
        return False
    passed = pl.col("passes").cast(pl.Int8)
    best = ranked.group_by("place", *others).agg(most=passed.max(), least=passed.min()).sort("place")
    before = pl.col("most").cum_max().shift(1)
    drop = (before.over(others, order_by="place") if others else before) > pl.col("least")
    return bool(best.select(drop.any()).item())


def _size(grids: Mapping[str, list[object]]) -> int:
    size = 1
    for values in grids.values():
        size *= len(values)
    return size


def _values(name: str, numbers: list[int]) -> list[object]:
    unit = CATALOGUE[name].unit
    if unit == "flag":
        return [None, False, True]
    if unit == "text":
        return [None, *FEED_STATES, "A", "small"]
    least = -10_000 if unit == "bp" else 0
    around = sorted({max(number + step, least) for number in (0, *numbers) for step in (-1, 0, 1)})
    return [None, *(float(number) if unit == "points" else number for number in around)]


def _type_problems(found: pl.Expr) -> list[str]:
    empty = pl.DataFrame(schema=SCHEMA)
    try:
        dtype = empty.select(found.alias("answer")).schema["answer"]
    except pl.exceptions.PolarsError as error:
        return [f"types do not fit: {_first_line(error)}"]
    return [] if dtype == pl.Boolean else [f"gives {dtype}, not true or false"]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]


def _tree(found: pl.Expr) -> object:
    with warnings.catch_warnings():
        # The JSON form is for reading within one run only, which is all that is done with it here.
        warnings.simplefilter("ignore")
        return json.loads(found.meta.serialize(format="json"))


def _foreign(node: object) -> Iterator[str]:
    """The names of the parts of an expression that a rule may not have."""
    if not isinstance(node, dict):
        yield str(node)
        return
    for kind, inside in node.items():
        if kind not in _NODES:
            yield kind
        elif kind == "BinaryExpr":
            if inside["op"] not in _OPERATORS:
                yield str(inside["op"])
            yield from _foreign(inside["left"])
            yield from _foreign(inside["right"])
        elif kind == "Cast":
            yield from _foreign(inside["expr"])
        elif kind == "Ternary":
            for part in ("predicate", "truthy", "falsy"):
                yield from _foreign(inside[part])
        elif kind == "Function":
            name = _function_name(inside["function"])
            if name not in _FUNCTIONS:
                yield name
            for part in inside["input"]:
                yield from _foreign(part)


def _function_name(function: object) -> str:
    """`{"Sql": {"IsIn": …}}` is IsIn, `"Coalesce"` is Coalesce."""
    while isinstance(function, dict) and function:
        kind, inside = next(iter(function.items()))
        if kind not in {"Boolean", "Sql", "Binary"}:
            return kind if kind != "StringExpr" else f"text function {_function_name(inside)}"
        function = inside
    return str(function)


def _numbers(node: object) -> list[int]:
    """Every whole number written in an expression."""
    if isinstance(node, dict):
        return [number for kind, inside in node.items() if kind != "Series" for number in _numbers(inside)]
    if isinstance(node, list):
        return [number for inside in node for number in _numbers(inside)]
    return [node] if isinstance(node, int) and not isinstance(node, bool) else []
