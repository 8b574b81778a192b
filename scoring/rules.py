"""A rule of policy is a SQL expression over catalogue columns, so that a risk officer can read and write it.

Only what looks at one row is allowed: comparisons, AND / OR / NOT, IN, BETWEEN, IS NULL, COALESCE, CASE, +, - and *.
An aggregate, a window or a subquery would make a firm's decision depend on who else is in the batch. Numbers are whole.
Null means the rule cannot tell. A rule must not run the wrong way either: where the catalogue says that more is safer,
more may never turn a pass into a failure.
"""

import itertools
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

import polars as pl

from scoring.catalogue import CATALOGUE, FEED_STATES
from scoring.rule_cuts import ARITHMETIC, COMPARISONS, Cuts, Node, columns, cuts_of, expression_of, literals, values_of

_DTYPES: dict[str, pl.DataType] = {"text": pl.String(), "flag": pl.Boolean()}
_NODES = frozenset({"BinaryExpr", "Column", "Literal", "Function", "Ternary", "Cast"})
_OPERATORS = COMPARISONS | ARITHMETIC.keys() | {"And", "Or"}
_FUNCTIONS = frozenset({"Coalesce", "Abs", "IsNull", "IsNotNull", "IsIn", "Not", "Mul", "Add", "Sub"})
_MOST_CHARACTERS = 2_000
_MOST_GRID = 20_000

SCHEMA: dict[str, pl.DataType] = {
    name: _DTYPES.get(feature.unit, pl.Float64() if feature.unit == "points" else pl.Int64())
    for name, feature in CATALOGUE.items()
}
"""The columns a rule may name, and their types."""
_NUMERIC = frozenset(name for name, dtype in SCHEMA.items() if dtype.is_numeric())


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
    tree = _tree(found)
    # polars writes a comparison with a decimal number as another kind of part, so the number is named and not the part.
    problems += _decimals(tree) or sorted(
        {f"{what} is not allowed: a rule looks at one row only" for what in _foreign(tree)}
    )
    if not problems:
        problems = _type_problems(found)
    if problems:
        raise ValueError("\n".join(problems))
    return found


def wrong_ways(sql: str, *, null_may_pass: bool = False) -> list[str]:
    """The columns in which a rule runs the wrong way: a safer value turns its pass into a failure.

    Decided by trying every combination of values on both sides of each value at which an answer may change
    (`scoring.rule_cuts`); other columns are held fixed. What is not known counts as worse than anything known, and an
    incomplete feed as worse than a complete one, so no rule can reward withholding.

    Args:
        sql: the rule.
        null_may_pass: for expressions whose "not known" is answered by a condition elsewhere.

    Raises:
        ValueError: the rule cannot be read, computes in a way that cannot be judged, or has too many numbers to be
            tried.
    """
    table, cuts = _tried(sql)
    return sorted({name for name, wrong in _judged(table, cuts, null_may_pass=null_may_pass) if wrong})


def needs(sql: str, column: str) -> bool:
    """Whether the rule looks at the column and never passes while that is not known, whatever else is.

    Raises:
        ValueError: as `wrong_ways`.
    """
    table, cuts = _tried(sql)
    places = [name for name in table.columns if name == column or column in cuts.differences.get(name, {})]
    return bool(places) and not table.filter(pl.col(name).is_null() for name in places)["passes"].any()


def better_unknown(sql: str) -> list[str]:
    """The columns of feeds that a rule would rather not know: it passes while one is null, and fails for some value.

    Other columns are held fixed. A null beside feeds of which the rule itself asks that they be complete is no
    withholding: there is then nothing to know, as in a share of sales without a sale.

    Raises:
        ValueError: as `wrong_ways`.
    """
    table, cuts = _tried(sql)
    tried = [name for name in table.columns if name != "passes"]
    found: set[str] = set()
    for name in tried:
        others = [other for other in tried if other != name]
        is_known = pl.col(name).is_not_null().cast(pl.Int64)
        for column in cuts.differences.get(name, (name,)):
            feeds = CATALOGUE[column].feeds
            if feeds and _drops(_withheld(table, feeds), is_known, others):
                found.add(column)
    return sorted(found)


def _withheld(table: pl.DataFrame, feeds: Sequence[str]) -> pl.DataFrame:
    """The rows in which what these feeds tell may be withheld; a feed that the rule does not name always may be."""
    if not set(feeds) <= set(table.columns):
        return table
    return table.filter(pl.any_horizontal(pl.col(feed).ne_missing("complete") for feed in feeds))


def _tried(sql: str) -> tuple[pl.DataFrame, Cuts]:
    """Every combination of values on both sides of each cut, with whether the rule `passes`."""
    cuts = cuts_of(_tree(expression(sql)), _NUMERIC)
    found = expression_of(cuts.tree)
    names = sorted(found.meta.root_names())
    grids = {name: _values(name, cuts) for name in names}
    if _size(grids) > _MOST_GRID:
        raise ValueError("too many numbers and columns in one rule to try its directions; split it")
    rows = list(itertools.product(*grids.values()))
    table = pl.DataFrame(rows, schema={name: SCHEMA.get(name, pl.Int64()) for name in names}, orient="row")
    return table.with_columns(passes=found.fill_null(value=False)), cuts


def _judged(table: pl.DataFrame, cuts: Cuts, *, null_may_pass: bool) -> Iterator[tuple[str, bool]]:
    """Each catalogue column, with whether the rule runs the wrong way in it, or in a difference that it moves."""
    tried = [name for name in table.columns if name != "passes"]
    for name in tried:
        others = [other for other in tried if other != name]
        if name in CATALOGUE:
            better = CATALOGUE[name].better
            if CATALOGUE[name].group == "feeds":
                place = (pl.col(name) == "complete").fill_null(value=False).cast(pl.Int64)
                yield name, _drops(table.filter(pl.col(name).is_in(FEED_STATES)), place, others)
            elif better is not None:
                yield name, _falls(table, name, others, up=better == "more", null_may_pass=null_may_pass)
            continue
        for column, factor in cuts.differences[name].items():
            better = CATALOGUE[column].better
            if better is not None:
                up = (better == "more") == (factor > 0)
                yield column, _falls(table, name, others, up=up, null_may_pass=null_may_pass)


def _falls(table: pl.DataFrame, name: str, others: list[str], *, up: bool, null_may_pass: bool) -> bool:
    """Does a pass turn into a failure as the values of a column rise (`up`), or as they fall?"""
    place = pl.col(name).rank("dense", descending=not up).cast(pl.Int64).fill_null(0)
    return _drops(table, place, others, pl.col(name).is_not_null() if null_may_pass else None)


def _drops(table: pl.DataFrame, place: pl.Expr, others: list[str], counts: pl.Expr | None = None) -> bool:
    """Does a pass turn into a failure on the way from the worst place to the best?"""
    placed = table.with_columns(place=place)
    ranked = placed if counts is None else placed.filter(counts)
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


def _values(name: str, cuts: Cuts) -> list[object]:
    """Null, and values on each cut and on both sides of it; of text, every text that there is."""
    if name in cuts.differences:
        return [None, -1, 0, 1]
    unit = CATALOGUE[name].unit
    if unit == "flag":
        return [None, False, True]
    if unit == "text":
        return [None, *sorted({*FEED_STATES, "A", "small", *cuts.texts})]
    least = -10_000 if unit == "bp" else 0
    numbers = {Fraction(0), *cuts.numbers}
    if unit == "points":
        marks = sorted({max(number, Fraction(least)) for number in numbers})
        between = [(low + high) / 2 for low, high in itertools.pairwise(marks)]
        return [None, *(float(value) for value in sorted({*marks, *between, marks[-1] + 1}))]
    around = {floor(number) + step for number in numbers for step in (-1, 0)}
    around |= {ceil(number) + step for number in numbers for step in (0, 1)}
    return [None, *sorted({max(value, least) for value in around})]


def _type_problems(found: pl.Expr) -> list[str]:
    empty = pl.DataFrame(schema=SCHEMA)
    try:
        dtype = empty.select(found.alias("answer")).schema["answer"]
    except pl.exceptions.PolarsError as error:
        return [f"types do not fit: {_first_line(error)}"]
    return [] if dtype == pl.Boolean else [f"gives {dtype}, not true or false"]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]


def _tree(found: pl.Expr) -> Node:
    with warnings.catch_warnings():
        # The JSON form is for reading within one run only, which is all that is done with it here.
        warnings.simplefilter("ignore")
        return json.loads(found.meta.serialize(format="json"))


def _decimals(tree: Node) -> list[str]:
    numbers = [value for one in literals(tree) for value in values_of(one) if isinstance(value, float | Decimal)]
    return [f"{number}: numbers are whole, in the column's own unit (fen, bp, months)" for number in numbers]


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
            # NOT casts what it turns round to true or false.
            is_plain = not columns(inside["expr"]) or inside["dtype"] == {"Literal": "Boolean"}
            yield from _foreign(inside["expr"]) if is_plain else ["CAST of a column"]
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
