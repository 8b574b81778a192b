"""Dirt for the made-up park: rows that break one named rule each, so that a test can ask that all of them are caught.

The kinds are read from the contracts: every null forbidden, bound, list, form and length of every column, every rule
over several fields, and every way in which a row can repeat another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from pandera.api.polars.components import Column

from data_contracts.repeats import CONFLICTING_VERSIONS, EXACT_DUPLICATE, SAME_FROM_ANOTHER, VOID_VALID_CONFLICT
from data_contracts.rules import KINDS
from data_contracts.samples_days import stream
from data_contracts.sources import SOURCES, Source

DIRT_SCHEMA = {"source": pl.String, "row": pl.Int64, "rule": pl.String}
_DIGITAL = r"^\d{20}$"
_MISTYPED = "91350211000000019J"


@dataclass(frozen=True)
class Kind:
    """One kind of dirt.

    Attributes:
        rule: code of the rule that it breaks.
        edits: new values of columns.
        where: rows on which the edits break the rule.
        added: the edited row is added at the end, beside the clean one, instead of replacing it.
        spoils_clean: the clean row goes to quarantine, and the added one stays unless `both`.
        both: the clean and the added row go to quarantine.
    """

    rule: str
    edits: dict[str, pl.Expr]
    where: pl.Expr
    added: bool = False
    spoils_clean: bool = False
    both: bool = False


def dirtied(
    frames: Mapping[str, pl.DataFrame], share: float, seed: int
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Typed frames with dirt.

    Args:
        frames: clean frames by source name.
        share: of a source's rows, for each kind; one row at least where a row can hold the kind.
        seed: of the choice of rows.

    Returns:
        The frames, and one row per row that belongs in quarantine: `source`, `row` (1-based) and a `rule` it breaks.
    """
    return spread(frames, share, seed, _typed_kinds)


def spread(
    frames: Mapping[str, pl.DataFrame], share: float, seed: int, kinds_of: Callable[[Source], list[Kind]]
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """As `dirtied`, with kinds of dirt of the caller's own."""
    dirty: dict[str, pl.DataFrame] = {}
    found = [pl.DataFrame(schema=DIRT_SCHEMA)]
    for name, frame in frames.items():
        source = SOURCES[name]
        dirty[name], dirt = _dirtied_source(source, frame, share, kinds_of(source), stream(seed, f"dirt of {name}"))
        found.append(dirt)
    return dirty, pl.concat(found)


def _dirtied_source(
    source: Source, frame: pl.DataFrame, share: float, kinds: list[Kind], rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    wanted = max(1, round(share * frame.height))
    free = ~frame.select([*source.key, "known_on"]).is_duplicated().to_numpy() & (rng.random(frame.height) < 0.9)
    numbered = frame.with_row_index("row", offset=1)
    changed, added, spoilt = [], [], []
    for kind in kinds:
        able = np.flatnonzero(free & frame.select(kind.where.fill_null(value=False)).to_series().to_numpy())
        chosen = np.sort(rng.permutation(able)[:wanted])
        free[chosen] = False
        rows = numbered[chosen].with_columns(**kind.edits)
        (added if kind.added else changed).append(rows.with_columns(broken=pl.lit(kind.rule)))
        if not kind.added or kind.spoils_clean or kind.both:
            spoilt.append(rows.select("row", rule=pl.lit(kind.rule)))
    replaced = pl.concat([*changed, numbered.head(0).with_columns(broken=pl.lit(""))])
    kept = numbered.join(replaced.select("row"), on="row", how="anti")
    lot = pl.concat([*added, numbered.head(0).with_columns(broken=pl.lit(""))])
    lot = lot.drop("row").with_row_index("row", offset=frame.height + 1)
    caught = {kind.rule for kind in kinds if kind.added and (kind.both or not kind.spoils_clean)}
    spoilt.append(lot.filter(pl.col("broken").is_in(list(caught))).select("row", rule="broken"))
    together = pl.concat([kept, replaced.drop("broken"), lot.drop("broken")]).sort("row").drop("row")
    dirt = pl.concat(spoilt).select(pl.lit(source.name).alias("source"), pl.col("row").cast(pl.Int64), "rule")
    return together, dirt.sort("row")


def _typed_kinds(source: Source) -> list[Kind]:
    columns = [kind for name, column in source.columns.items() for kind in _column_kinds(name, column)]
    return [*_rule_kinds(source), *_repeat_kinds(source), *columns]


def _column_kinds(name: str, column: Column) -> list[Kind]:
    everywhere = pl.lit(value=True)
    dtype = _dtype(column)
    kinds = [] if column.nullable else [Kind(f"{name}_null", {name: pl.lit(None, dtype)}, everywhere)]
    for check in column.checks:
        value = _breaking(str(check.name), check.statistics or {})
        kinds.append(Kind(f"{name}_{KINDS[str(check.name)].suffix}", {name: pl.lit(value, dtype)}, everywhere))
    return kinds


def _dtype(column: Column) -> type[pl.DataType]:
    assert column.dtype is not None, "every column of a contract has a type"
    return column.dtype.type


def _breaking(check: str, statistics: Mapping[str, object]) -> object:
    """A value that a check of a contract refuses; a day or a whole number beyond a bound."""
    match check:
        case "greater_than_or_equal_to":
            least = statistics["min_value"]
            return least - 1 if isinstance(least, int) else least - timedelta(days=1)  # pyright: ignore[reportOperatorIssue]
        case "less_than_or_equal_to":
            most = statistics["max_value"]
            return most + 1 if isinstance(most, int) else most + timedelta(days=1)  # pyright: ignore[reportOperatorIssue]
        case "isin":
            return "unheard-of"
        case "str_matches":
            return "\n"
        case "str_length":
            return "9" * (int(str(statistics["max_value"])) + 1)
        case _:
            raise ValueError(f"no value is known that breaks {check}")


def _rule_kinds(source: Source) -> list[Kind]:
    """One kind for each rule over several fields.

    Raises:
        ValueError: a rule was added to a contract, and its dirt was not.
    """
    special, everywhere = _special_kinds(), pl.lit(value=True)
    kinds: list[Kind] = []
    for rule in source.rules:
        if rule.code in special:
            kinds.append(special[rule.code])
        elif rule.code.endswith("_written_otherwise"):
            (name,) = rule.fields
            kinds.append(Kind(rule.code, {name: pl.col(name) + " "}, pl.col(name).is_not_null()))
        elif rule.code.endswith("_names_nobody"):
            (name,) = rule.fields
            kinds.append(Kind(rule.code, {name: pl.lit("NULL")}, everywhere))
        elif "_before_" in rule.code:
            later, earlier = rule.fields
            day_before = pl.col(earlier).dt.offset_by("-1d")
            kinds.append(
                Kind(rule.code, {later: day_before}, pl.col(later).is_not_null() & pl.col(earlier).is_not_null())
            )
        else:
            raise ValueError(f"{source.name}: no dirt is known that breaks {rule.code}")
    return kinds


def _special_kinds() -> dict[str, Kind]:
    code, tax = pl.col("uscc"), pl.col("tax_fen")
    other_end = pl.when(code.str.ends_with("0")).then(pl.lit("1")).otherwise(pl.lit("0"))
    paper = ~pl.col("invoice_no").str.contains(_DIGITAL)
    everywhere = pl.lit(value=True)
    yes, no = pl.lit(value=True), pl.lit(value=False)
    kinds = [
        Kind("uscc_check_character", {"uscc": code.str.slice(0, 17) + other_end}, everywhere),
        *(
            Kind(f"{one}_check_character", {one: pl.lit(_MISTYPED)}, everywhere)
            for one in ("counterparty_id", "group_id")
        ),
        Kind("month_not_first_day", {"month": pl.col("month").dt.offset_by("1d")}, everywhere),
        Kind("value_without_report", {"state": pl.lit("missing")}, pl.col("value").is_not_null()),
        Kind("known_on_before_year", {"known_on": pl.date(pl.col("year") - 1, 12, 31)}, everywhere),
        Kind("arrears_above_tax", {"arrears_fen": tax + 1, "paid_on": pl.lit(None, pl.Date)}, everywhere),
        Kind("arrears_after_payment", {"arrears_fen": tax}, (tax > 0) & pl.col("paid_on").is_not_null()),
        Kind("gross_not_net_plus_tax", {"gross_fen": pl.col("gross_fen") + 1}, everywhere),
        Kind("red_of_on_positive", {"red_of": pl.lit("12345678")}, pl.col("net_fen") > 0),
        Kind("digital_invoice_void", {"is_void": yes}, ~paper & (pl.col("net_fen") > 0)),
        Kind("default_day_without_default", {"defaulted": no}, pl.col("defaulted_on").is_not_null()),
        Kind("direction_of_invoices_only", {"direction": pl.lit("in")}, pl.col("source") != "invoices"),
    ]
    return {kind.rule: kind for kind in kinds}


_CONTRADICTIONS: dict[str, dict[str, pl.Expr]] = {
    "enterprises": {"name": pl.lit("另一名称")},
    "qualifications": {"valid_to": pl.col("valid_to") + pl.duration(days=1)},
    "financial_statements": {"audited": ~pl.col("audited")},
    "social_insurance": {"arrears_fen": pl.col("arrears_fen") + 1},
    "innovation_indicators": {"unit": pl.when(pl.col("unit") == "bp").then(pl.lit("count")).otherwise(pl.lit("bp"))},
    "tax_filings": {"declared_sales_fen": pl.col("declared_sales_fen") + 1},
    "taxpayer_ratings": {"grade": pl.when(pl.col("grade") == "D").then(pl.lit("C")).otherwise(pl.lit("D"))},
    "invoices": {"net_fen": pl.col("net_fen") - 1, "gross_fen": pl.col("gross_fen") - 1},
    "debts": {"overdue_days": pl.col("overdue_days") + 1},
    "public_records": {"removed_on": pl.when(pl.col("removed_on").is_null()).then("listed_on")},
    "loan_outcomes": {"term_months": pl.col("term_months") + 1},
    "feeds": {"row_count": pl.col("row_count") + 1},
}
"""By source: what contradicts a row and keeps the contract."""


def _repeat_kinds(source: Source) -> list[Kind]:
    everywhere = pl.lit(value=True)
    of_authority = pl.col("supplier") == "authority"
    kinds = [
        Kind(EXACT_DUPLICATE, {}, everywhere, added=True),
        Kind(SAME_FROM_ANOTHER, {"supplier": pl.lit("bank")}, of_authority, added=True),
        Kind(CONFLICTING_VERSIONS, _CONTRADICTIONS[source.name], everywhere, added=True, both=True),
    ]
    if "is_void" in source.columns:
        valid_paper = ~pl.col("is_void") & ~pl.col("invoice_no").str.contains(_DIGITAL)
        voided = {"is_void": pl.lit(value=True)}
        kinds.append(Kind(VOID_VALID_CONFLICT, voided, valid_paper, added=True, spoils_clean=True))
    return kinds
