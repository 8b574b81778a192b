"""The rules of a source as expressions, compiled once from its pandera contract and its `Source.rules`.

Pandera's `validate` takes about 25 ms a source even for one row, the same rules in one polars select one or two. The
contract stays the only declaration: a property test asks that both refuse the same rows, and a kind of check that is
not known here stops the import instead of passing in silence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import polars as pl
from pandera.api.checks import Check
from pandera.api.polars.components import Column

from data_contracts import repeats
from data_contracts.parsing import FAILURE_MEANING
from data_contracts.sources import NO_CONTROL_CHARACTER, SOURCES, Rule, Source

Statistics = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """How one kind of pandera check reads here.

    Attributes:
        suffix: of the code; the column comes before it.
        holds: from a column and the check's statistics to a boolean expression, null where the column is null.
        meaning: what the check asks, as a phrase.
    """

    suffix: str
    holds: Callable[[pl.Expr, Statistics], pl.Expr]
    meaning: Callable[[Statistics], str]


def _form_of(pattern: str) -> str:
    """The pattern as pandera reads it: it asks for a match at the start, whether or not the pattern says so."""
    return pattern if pattern.startswith("^") else f"^{pattern}"


KINDS: dict[str, Kind] = {
    "greater_than_or_equal_to": Kind(
        "too_small", lambda column, s: column >= s["min_value"], lambda s: f"not below {s['min_value']}"
    ),
    "greater_than": Kind("too_small", lambda column, s: column > s["min_value"], lambda s: f"above {s['min_value']}"),
    "less_than_or_equal_to": Kind(
        "too_large", lambda column, s: column <= s["max_value"], lambda s: f"not above {s['max_value']}"
    ),
    "less_than": Kind("too_large", lambda column, s: column < s["max_value"], lambda s: f"below {s['max_value']}"),
    "isin": Kind(
        "not_listed",
        lambda column, s: column.is_in(list(s["allowed_values"])),
        lambda s: f"one of {', '.join(map(str, s['allowed_values']))}",
    ),
    "str_matches": Kind(
        "wrong_form",
        lambda column, s: column.str.contains(_form_of(s["pattern"])),
        lambda s: f"of the form {s['pattern']}",
    ),
    "str_length": Kind(
        "wrong_length",
        lambda column, s: column.str.len_chars().is_between(s["min_value"], s["max_value"]),
        lambda s: f"{s['min_value']} to {s['max_value']} characters",
    ),
}
"""The kinds of check a contract may use, by pandera's name for them."""


@cache
def rules_of(name: str) -> tuple[Rule, ...]:
    """Every rule of the source of that name: nulls and checks column by column, then what fields satisfy together."""
    return compiled(SOURCES[name])


@cache
def broken_rules(name: str) -> tuple[pl.Expr, ...]:
    """For each of `rules_of(name)` a boolean column under its code: true where a row breaks it, never null."""
    return tuple((~rule.holds).fill_null(value=False).alias(rule.code) for rule in rules_of(name))


def compiled(source: Source) -> tuple[Rule, ...]:
    """The rules of a source; each code is stable, and written once.

    Raises:
        ValueError: the contract uses something that these rules would not enforce.
    """
    _refuse_unknown_settings(source)
    fields = [rule for name, column in source.columns.items() for rule in _rules_of_column(name, column)]
    rules = (*fields, *source.rules)
    codes = [rule.code for rule in rules]
    if len(set(codes)) != len(codes):
        raise ValueError(f"{source.name}: two rules with one code")
    return rules


def _rules_of_column(name: str, column: Column) -> list[Rule]:
    value = pl.col(name)
    rules = [] if column.nullable else [Rule(f"{name}_null", (name,), value.is_not_null(), f"{name} is there")]
    for check in column.checks:
        kind, statistics = _kind_of(name, check), check.statistics or {}
        holds = kind.holds(value, statistics)
        rules.append(Rule(f"{name}_{kind.suffix}", (name,), holds, f"{name} is {kind.meaning(statistics)}"))
    return rules


def _kind_of(name: str, check: Check) -> Kind:
    kind = KINDS.get(check.name or "")
    if kind is None or check.raise_warning or check.groupby or check.element_wise or not check.ignore_na:
        raise ValueError(f"{name}: check {check.name} is not enforced by data_contracts.rules")
    statistics = check.statistics or {}
    if check.name == "str_length" and (statistics["min_value"] is None or statistics["max_value"] is None):
        raise ValueError(f"{name}: str_length needs both bounds")
    return kind


def _refuse_unknown_settings(source: Source) -> None:
    schema = source.contract.to_schema()
    plain = schema.strict is True and not (schema.coerce or schema.checks or schema.unique or schema.ordered)
    if not plain:
        raise ValueError(f"{source.name}: a setting of the contract is not enforced by data_contracts.rules")
    for name, column in source.columns.items():
        if column.unique or column.regex or column.coerce or column.default is not None or not column.required:
            raise ValueError(f"{source.name}.{name}: a setting of the column is not enforced by data_contracts.rules")
        if source.types.get(name) not in TYPE_NAMES:
            raise ValueError(f"{source.name}.{name}: type {column.dtype} is not known to data_contracts.rules")


TYPE_NAMES: dict[object, str] = {
    pl.String: "text",
    pl.Int64: "integer (int64)",
    pl.Date: "date (YYYY-MM-DD)",
    pl.Boolean: "true or false",
}
"""The four types of a column, as a person is told of them."""


@dataclass(frozen=True)
class Description:
    """One column of one source, as `jifen data describe` prints it.

    Attributes:
        nullable: null, "not observed", is allowed.
        allowed: range, list or form that values must keep; empty: any.
        title: the field's Chinese name.
    """

    source: str
    column: str
    type: str
    nullable: bool
    allowed: str
    title: str
    meaning: str
    in_key: bool


def described(source: Source) -> list[Description]:
    """The columns of a source in the order of the file, from its contract."""
    return [
        Description(
            source=source.name,
            column=name,
            type=TYPE_NAMES[source.types[name]],
            nullable=column.nullable,
            allowed=_allowed(column),
            title=column.title or "",
            meaning=column.description or "",
            in_key=name in source.key or name == "known_on",
        )
        for name, column in source.columns.items()
    ]


@dataclass(frozen=True)
class Code:
    """One code that may stand in a quarantine, as `jifen data describe` prints it.

    Attributes:
        source: the source that it belongs to; empty: any.
        code: as written; where any column may come first, `COLUMN_` stands for it.
        meaning: what a row keeps that does not carry the code.
    """

    source: str
    code: str
    meaning: str


COLUMN = "COLUMN_"
_COLUMN_MEANING = {
    "null": "the cell is not empty",
    "too_small": "not below what the column allows",
    "too_large": "not above what the column allows",
    "not_listed": "one of the values that the column allows",
    "wrong_form": "of the form that the column allows",
    "wrong_length": "neither shorter nor longer than the column allows",
    **FAILURE_MEANING,
}


def codes() -> list[Code]:
    """The rules across fields of each source, then what any source may break."""
    across = [Code(name, rule.code, rule.meaning) for name, source in SOURCES.items() for rule in source.rules]
    of_columns = [Code("", f"{COLUMN}{suffix}", meaning) for suffix, meaning in _COLUMN_MEANING.items()]
    return [*across, *of_columns, *(Code("", code, meaning) for code, meaning in repeats.MEANINGS.items())]


def _allowed(column: Column) -> str:
    bounds = {check.name: check.statistics or {} for check in column.checks}
    least = bounds.pop("greater_than_or_equal_to", None)
    most = bounds.pop("less_than_or_equal_to", None)
    both = [f"{_plain(least['min_value'])} to {_plain(most['max_value'])}"] if least and most else []
    one = [KINDS[name].meaning(s) for name, s in bounds.items() if name and not _is_no_control(s)]
    return "; ".join([*both, *one])


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else f"{value:,}" if isinstance(value, int) else str(value)


def _is_no_control(statistics: Statistics) -> bool:
    return statistics.get("pattern") == NO_CONTROL_CHARACTER


for _name in SOURCES:
    broken_rules(_name)
