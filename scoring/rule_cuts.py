"""Where the answer of a rule can change: what must be tried to know which way it runs.

A comparison of one column with a number changes at one value, whatever arithmetic stands in it: `2 * x - 6 < 100 * 100`
at 5,003. A comparison of several columns, as in `x - 3 * y > 5`, is judged as a column of its own, the difference,
which may take any value whatever the columns do elsewhere in the rule: that is stricter than the truth, never laxer.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import polars as pl

COMPARISONS = frozenset({"Eq", "EqValidity", "NotEq", "NotEqValidity", "Lt", "LtEq", "Gt", "GtEq"})
ARITHMETIC: Mapping[str, str] = {"Plus": "+", "Minus": "-", "Multiply": "*", "Add": "+", "Sub": "-", "Mul": "*"}
_UNORDERED = frozenset({"Eq", "EqValidity", "NotEq", "NotEqValidity"})
_MOST_FACTOR = 10_000
_MOST_NUMBER = 10**15

Node = Any
"""A part of an expression as polars writes it in JSON."""


@dataclass(frozen=True)
class Linear:
    """Numbers times columns, and a number."""

    factors: Mapping[str, int]
    constant: int

    def joined(self, other: "Linear", sign: int) -> "Linear":
        """The sum (`sign` 1) or difference (-1); factors that cancel are gone."""
        names = self.factors.keys() | other.factors.keys()
        sums = {name: self.factors.get(name, 0) + sign * other.factors.get(name, 0) for name in names}
        return Linear({name: factor for name, factor in sums.items() if factor}, self.constant + sign * other.constant)

    def times(self, number: int) -> "Linear":
        """Each part times a number."""
        return Linear({name: factor * number for name, factor in self.factors.items()}, self.constant * number)


@dataclass
class Cuts:
    """What reading a rule found.

    Attributes:
        tree: the rule, with each comparison of several columns replaced by one of its difference with 0.
        numbers: the values at which a column's answer may change.
        texts: every text in it.
        differences: name of a difference → factor of each column in it.
    """

    tree: Node = None
    numbers: set[Fraction] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    differences: dict[str, Mapping[str, int]] = field(default_factory=dict)


def cuts_of(tree: Node, numeric: frozenset[str]) -> Cuts:
    """Read a rule.

    Args:
        tree: the rule in JSON, of parts that `scoring.rules` lets in.
        numeric: the columns that hold numbers.

    Raises:
        ValueError: it computes with columns elsewhere than in a comparison, or multiplies them; or a number is so large
            that the arithmetic could overflow.
    """
    reader = _Reader(numeric)
    reader.found.tree = reader.read(tree)
    if "Abs" in functions(tree):
        reader.found.numbers |= {-number for number in reader.found.numbers}
    return reader.found


class _Reader:
    def __init__(self, numeric: frozenset[str]) -> None:
        self.numeric = numeric
        self.found = Cuts()

    def read(self, node: Node) -> Node:
        kind, inside = next(iter(node.items()))
        if not columns(node):
            for value in values_of(node):
                self._note(value)
            return node
        if kind == "BinaryExpr" and inside["op"] in COMPARISONS:
            return self._comparison(node)
        if _operation(node) is not None:
            _refuse("computing with columns is understood only directly in a comparison with <, <=, =, >= or >")
        match kind:
            case "BinaryExpr":
                return {kind: {**inside, "left": self.read(inside["left"]), "right": self.read(inside["right"])}}
            case "Cast":
                return {kind: {**inside, "expr": self.read(inside["expr"])}}
            case "Ternary":
                return {kind: {part: self.read(inside[part]) for part in ("predicate", "truthy", "falsy")}}
            case "Function":
                return {kind: {**inside, "input": [self.read(part) for part in inside["input"]]}}
            case _:
                return node

    def _comparison(self, node: Node) -> Node:
        parts = node["BinaryExpr"]
        left, right, operator = parts["left"], parts["right"], parts["op"]
        sides = self._linear(left), self._linear(right)
        if sides[0] is None or sides[1] is None:
            of_left, of_right = _given(left), _given(right)
            if of_left & self.numeric and of_right & self.numeric:
                _refuse("a comparison of columns inside COALESCE, CASE or ABS is not understood; write it in cases")
            if operator not in _UNORDERED and (of_left | of_right) - self.numeric:
                _refuse("text, true and false are compared by = and <> only")
            return {"BinaryExpr": {**parts, "left": self.read(left), "right": self.read(right)}}
        whole = sides[0].joined(sides[1], -1)
        if any(abs(factor) > _MOST_FACTOR for side in sides if side for factor in side.factors.values()):
            _refuse(f"a column is multiplied by {_MOST_FACTOR:,} at most")
        if any(abs(side.constant) > _MOST_NUMBER for side in sides if side):
            _refuse(f"a number is {_MOST_NUMBER:,} at most")
        if len(columns(node)) == 1:
            self.found.numbers |= {Fraction(-whole.constant, factor) for factor in whole.factors.values()}
            return node
        if operator in {"EqValidity", "NotEqValidity"}:
            _refuse("IS DISTINCT FROM between columns is not understood")
        name = f"difference {len(self.found.differences) + 1}"
        self.found.differences[name] = whole.factors
        zero = {"Literal": {"Dyn": {"Int": 0}}}
        return {"BinaryExpr": {"left": {"Column": name}, "op": operator, "right": zero}}

    def _linear(self, node: Node) -> Linear | None:
        """The part as a linear form; None if it is something else: text, a flag, a choice."""
        kind, inside = next(iter(node.items()))
        if kind == "Column":
            return Linear({inside: 1}, 0) if inside in self.numeric else None
        if not columns(node):
            values = values_of(node)
            number = values[0] if len(values) == 1 else None
            return Linear({}, number) if isinstance(number, int) and not isinstance(number, bool) else None
        operation = _operation(node)
        if operation is None:
            return None
        sign, operands = operation
        left, right = (self._linear(part) for part in operands)
        if left is None or right is None:
            _refuse("only columns and numbers can be added, subtracted and multiplied")
        if sign != "*":
            return left.joined(right, 1 if sign == "+" else -1)
        if left.factors and right.factors:
            _refuse("columns are multiplied by numbers only")
        return left.times(right.constant) if left.factors else right.times(left.constant)

    def _note(self, value: object) -> None:
        if isinstance(value, str):
            self.found.texts.add(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            if abs(value) > _MOST_NUMBER:
                _refuse(f"a number is {_MOST_NUMBER:,} at most")
            self.found.numbers.add(Fraction(value))


def columns(node: Node) -> frozenset[str]:
    """Every column that a part of a rule reads."""
    return frozenset(_named("Column", node))


def functions(node: Node) -> frozenset[str]:
    """Every plain function in a part of a rule, by its name."""
    return frozenset(name for name in _named("function", node) if isinstance(name, str))


def literals(node: Node) -> Iterator[Node]:
    """Every literal in a part of a rule; none of them inside the type of a cast."""
    if isinstance(node, list):
        for part in node:
            yield from literals(part)
    elif isinstance(node, dict):
        for kind, inside in node.items():
            if kind == "Literal":
                yield {kind: inside}
            elif kind != "dtype":
                yield from literals(inside)


def values_of(node: Node) -> list[object]:
    """What a part without columns comes to; of a list, all its values.

    Raises:
        ValueError: it cannot be computed.
    """
    try:
        found = expression_of(node)
        series = pl.select(found).to_series()
        values = (series.explode() if isinstance(series.dtype, pl.List) else series).to_list()
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"a number in it cannot be computed: {str(error).splitlines()[0]}") from error
    return values


def expression_of(node: Node) -> pl.Expr:
    """The expression of a tree that polars of this process wrote."""
    return pl.Expr.deserialize(json.dumps(node).encode(), format="json")


def _operation(node: Node) -> tuple[str, list[Node]] | None:
    """The sign and the operands of a part that adds, subtracts or multiplies."""
    kind, inside = next(iter(node.items()))
    if kind == "BinaryExpr" and inside["op"] in ARITHMETIC:
        return ARITHMETIC[inside["op"]], [inside["left"], inside["right"]]
    if kind == "Function" and isinstance(inside["function"], dict):
        binary = inside["function"].get("Sql", {})
        name = str(binary.get("Binary")) if isinstance(binary, dict) else ""
        if name in ARITHMETIC:
            return ARITHMETIC[name], inside["input"]
    return None


def _given(node: Node) -> frozenset[str]:
    """The columns whose own value a part may give, as COALESCE and CASE do; not those that it only asks about."""
    kind, inside = next(iter(node.items()))
    if kind == "Column":
        return frozenset({inside})
    if kind == "Cast":
        return _given(inside["expr"])
    if kind == "Ternary":
        return _given(inside["truthy"]) | _given(inside["falsy"])
    if kind == "Function" and inside["function"] in ("Coalesce", "Abs"):
        return frozenset[str]().union(*(_given(part) for part in inside["input"]))
    return columns(node) if _operation(node) is not None else frozenset()


def _named(key: str, node: Node) -> Iterator[Any]:
    if isinstance(node, list):
        for part in node:
            yield from _named(key, part)
    elif isinstance(node, dict):
        for kind, inside in node.items():
            if kind == key:
                yield inside
            if kind != "Literal":
                yield from _named(key, inside)


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)
