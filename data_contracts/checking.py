"""Good rows, quarantined rows, and why: the only way to `Sources`, which is what the rest of the engine accepts.

Nothing stops at the first fault: each bad row carries every rule it broke, and good + quarantined = read, always.
What makes a whole file unusable (a missing column, a wrong type) is a `ContractError` with all reasons at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import polars as pl

from data_contracts.errors import ContractError
from data_contracts.parsing import failure_codes, parsed
from data_contracts.repeats import HARMLESS, repeats
from data_contracts.rules import TYPE_NAMES, broken_rules, rules_of
from data_contracts.sources import APPLICANT, DIRECTIONS, SOURCES, Source, Sources
from data_contracts.uscc import CodeState, states

SEPARATOR = "; "
CODE_FORM = "[0-9A-HJ-NPQRTUWXY]{18}"
DOUBTS_SCHEMA = {"uscc": pl.String, "source": pl.String, "direction": pl.String, "known_on": pl.Date}
BROKEN_SCHEMA = {"row": pl.Int64, "rule": pl.String, "line": pl.String}


@dataclass(frozen=True)
class Checked:
    """What checking one source found.

    Attributes:
        good: rows that keep the contract, in the order of the file, columns in the order of the contract.
        quarantined: `row` (1-based data row), `rules` (codes, joined by "; "), `exact_duplicate` (it repeats a
            row that stays, and no more), the columns of the contract as text, and `line`: the text of a row that has
            no columns.
        warnings: sentences about rows that are good but worth a look.
        read: rows that came in; always good + quarantined.
    """

    good: pl.DataFrame
    quarantined: pl.DataFrame
    warnings: tuple[str, ...]
    read: int


def empty(source: Source) -> pl.DataFrame:
    """No rows, typed as in the contract."""
    return pl.DataFrame(schema=source.types)


def no_broken_lines() -> pl.DataFrame:
    """No rows, typed as `checked_text` takes broken lines."""
    return pl.DataFrame(schema=BROKEN_SCHEMA)


def checked(source: Source, frame: pl.DataFrame, rows: pl.Series | None = None) -> Checked:
    """Part typed rows.

    Args:
        source: the contract to keep.
        frame: exactly the contract's columns and types, in any order.
        rows: number of each row in its file, when it is not 1, 2, 3, …

    Raises:
        ContractError: columns or types are not the contract's; names each.
    """
    problems = shape_problems(source, frame.schema)
    if problems:
        raise ContractError(f"{source.name}: not the columns of the contract", problems)
    typed = frame.select(list(source.columns))
    return _parted(source, typed, typed, pl.DataFrame(), rows, no_broken_lines())


def checked_text(
    source: Source, cells: pl.DataFrame, rows: pl.Series | None = None, broken: pl.DataFrame | None = None
) -> Checked:
    """Part rows of text, such as a CSV holds.

    Args:
        source: the contract to keep.
        cells: exactly the contract's columns, all String.
        rows: number of each row in its file, when it is not 1, 2, 3, …
        broken: `row`, `rule` and `line` of lines that could not be divided into columns; they go to quarantine.

    Raises:
        ContractError: columns are missing, unknown or not text; names each.
    """
    problems = name_problems(source, cells.columns)
    if problems:
        raise ContractError(f"{source.name}: not the columns of the contract", problems)
    text = cells.select(list(source.columns))
    read = parsed(source, text)
    lines = no_broken_lines() if broken is None else broken
    return _parted(source, read.frame, text, read.failed, rows, lines)


def shape_problems(source: Source, schema: Mapping[str, pl.DataType]) -> list[str]:
    """Everything that keeps a frame of this schema from being checked: columns missing, unknown, of a wrong type."""
    expected = source.types
    wrong = [
        f"{source.name}.{name}: expected {TYPE_NAMES[dtype]} {dtype}, found {schema[name]}"
        for name, dtype in expected.items()
        if name in schema and schema[name] != dtype
    ]
    return name_problems(source, list(schema)) + wrong


def name_problems(source: Source, names: list[str]) -> list[str]:
    """Columns that are missing, unknown or there twice."""
    missing = [f"{source.name}: column {name} is missing" for name in source.columns if name not in names]
    unknown = [f"{source.name}: column {_shown(name)} is unknown" for name in names if name not in source.columns]
    twice = [
        f"{source.name}: column {_shown(name)} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    return missing + unknown + twice


def sources_of(frames: Mapping[str, pl.DataFrame]) -> tuple[Sources, dict[str, Checked]]:
    """Check typed frames by source name; a source that is not given is empty.

    Raises:
        ContractError: a name is not a source's, or a frame is not of its contract's shape; names all, over all frames.
    """
    problems = [f"{_shown(name)} is not a source" for name in frames if name not in SOURCES]
    for name in [name for name in SOURCES if name in frames]:
        problems += shape_problems(SOURCES[name], frames[name].schema)
    if problems:
        raise ContractError("these frames are not sources", problems)
    return assembled({name: checked(SOURCES[name], frame) for name, frame in frames.items()})


def assembled(checks: Mapping[str, Checked]) -> tuple[Sources, dict[str, Checked]]:
    """Sources of what was checked, and the checks with the warnings that only all files together give."""
    known = checks["enterprises"].good["uscc"] if "enterprises" in checks else pl.Series([], dtype=pl.String)
    reports = {name: _with_strangers(checks[name], known) for name in SOURCES if name in checks}
    frames = {name: reports[name].good if name in reports else empty(SOURCES[name]) for name in SOURCES}
    doubts = pl.concat(
        [_doubts(SOURCES[name], report.quarantined) for name, report in reports.items()] or [_no_doubts()]
    )
    found = Sources(**cast("dict[str, object]", frames), doubts=doubts)  # pyright: ignore[reportArgumentType]
    return found, reports


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


def _parted(
    source: Source,
    typed: pl.DataFrame,
    original: pl.DataFrame,
    failed: pl.DataFrame,
    rows: pl.Series | None,
    broken: pl.DataFrame,
) -> Checked:
    if typed.is_empty() and broken.is_empty():
        return Checked(good=typed, quarantined=_no_quarantine(source.name).clone(), warnings=(), read=0)
    verdicts = _verdicts(source, typed, failed)
    is_bad = _is_bad(verdicts)
    standing = typed if is_bad is None else typed.filter(~is_bad)
    faults = _repeated(source, standing) if is_bad is None else _all_faults(source, standing, verdicts, is_bad)
    good = standing if faults.is_empty() else typed.filter(_kept(typed.height, faults["at"]))
    return Checked(
        good=good,
        quarantined=_quarantined(source, original, faults, rows, broken),
        warnings=_legacy_warning(good),
        read=typed.height + broken.height,
    )


def _verdicts(source: Source, typed: pl.DataFrame, failed: pl.DataFrame) -> pl.DataFrame:
    """One boolean column a rule, true where a row breaks it. A failed cell breaks that one rule of its column alone."""
    if not failed.width:
        return typed.select(broken_rules(source.name))
    codes = failure_codes(source, failed)
    unread = [pl.col(code) for code in codes.values()]
    judged = [
        broken & ~_failed_in(rule.fields, codes) if any(field in codes for field in rule.fields) else broken
        for rule, broken in zip(rules_of(source.name), broken_rules(source.name), strict=True)
    ]
    return typed.hstack(failed.rename(codes)).select(*unread, *judged)


def _failed_in(fields: tuple[str, ...], codes: Mapping[str, str]) -> pl.Expr:
    return pl.any_horizontal(codes[field] for field in fields if field in codes)


def _is_bad(verdicts: pl.DataFrame) -> pl.Series | None:
    """Rows that break any rule; null when none does, which is the usual case and the fast one."""
    broken = [column for column in verdicts.get_columns() if column.any()]
    return pl.DataFrame(broken).select(pl.any_horizontal(pl.all())).to_series() if broken else None


def _repeated(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    return repeats(source, rows).rename({"rule": "rules"})


def _all_faults(source: Source, standing: pl.DataFrame, verdicts: pl.DataFrame, is_bad: pl.Series) -> pl.DataFrame:
    """`at` (place of the row) and `rules` of every row that may not stay, repeats among the others included."""
    bad = verdicts.filter(is_bad)
    codes = [pl.when(pl.col(code)).then(pl.lit(code)) for code in verdicts.columns]
    rules = bad.select(rules=pl.concat_str(codes, separator=SEPARATOR, ignore_nulls=True)).to_series()
    repeated = _repeated(source, standing)
    places = (~is_bad).arg_true().gather(repeated["at"])
    faults = pl.concat(
        [
            pl.DataFrame({"at": is_bad.arg_true(), "rules": rules}),
            pl.DataFrame({"at": places, "rules": repeated["rules"]}),
        ]
    )
    return faults.sort("at")


def _kept(height: int, places: pl.Series) -> pl.Series:
    return pl.repeat(value=True, n=height, dtype=pl.Boolean, eager=True).scatter(places, values=False)


def _quarantined(
    source: Source, original: pl.DataFrame, faults: pl.DataFrame, rows: pl.Series | None, broken: pl.DataFrame
) -> pl.DataFrame:
    if faults.is_empty() and broken.is_empty():
        return _no_quarantine(source.name).clone()
    numbers = (faults["at"].cast(pl.Int64) + 1 if rows is None else rows.gather(faults["at"])).alias("row")
    held = original[faults["at"]].select(pl.all().cast(pl.String))
    parted = pl.DataFrame([numbers, faults["rules"]]).hstack(held).with_columns(line=pl.lit(None, pl.String))
    lines = broken.rename({"rule": "rules"})
    together = pl.concat([parted, lines], how="diagonal")
    exact = pl.col("rules").is_in(HARMLESS)
    return together.select("row", "rules", exact.alias("exact_duplicate"), *source.columns, "line").sort("row")


@cache
def _no_quarantine(name: str) -> pl.DataFrame:
    columns = dict.fromkeys(SOURCES[name].columns, pl.String)
    return pl.DataFrame(
        schema={"row": pl.Int64, "rules": pl.String, "exact_duplicate": pl.Boolean, **columns, "line": pl.String}
    )


def _legacy_warning(good: pl.DataFrame) -> tuple[str, ...]:
    like_legacy = good["uscc"].str.slice(8, 4) == "M000"
    if not like_legacy.any():
        return ()
    distinct = good["uscc"].filter(like_legacy).unique()
    legacy = distinct.filter(states(distinct) == CodeState.LEGACY.value)
    if legacy.is_empty():
        return ()
    rows = good["uscc"].is_in(legacy.implode()).sum()
    return (f"{rows} rows with {legacy.len()} credit codes of the Fujian pilot: their check character proves nothing",)


def _with_strangers(report: Checked, known: pl.Series) -> Checked:
    if report.good.is_empty():
        return report
    distinct = report.good["uscc"].unique()
    strangers = distinct.filter(~distinct.is_in(known.implode()))
    if strangers.is_empty():
        return report
    rows = report.good["uscc"].is_in(strangers.implode()).sum()
    sentence = f"{rows} rows are about {strangers.len()} credit codes that no good row of enterprises has"
    return replace(report, warnings=(*report.warnings, sentence))


def _no_doubts() -> pl.DataFrame:
    return pl.DataFrame(schema=DOUBTS_SCHEMA)


def _doubts(source: Source, quarantined: pl.DataFrame) -> pl.DataFrame:
    """Whom the quarantined rows cast doubt on; a day that cannot be read counts as "always".

    A day that lies before what it tells of can: if it is wrong, the right one is later, and the doubt covers more.
    """
    if quarantined.is_empty():
        return _no_doubts()
    suspect = quarantined.filter(~pl.col("exact_duplicate"))
    if source.is_delivered:  # what an applicant says there is not heard, so that it says it badly tells nothing
        suspect = suspect.filter(pl.col("supplier").ne_missing(APPLICANT))
    if suspect.is_empty():
        return _no_doubts()
    in_line = pl.col("line").str.extract_all(CODE_FORM).list.eval(_valid(pl.element())).list.first()
    day_in_question = pl.col("rules").str.contains(r"(^|; )known_on_(null|not_date|too_)")
    told = suspect.select(
        uscc=pl.coalesce("uscc", in_line),
        source=pl.lit(source.name),
        direction=_directions(source),
        known_on=pl.when(~day_in_question).then(pl.col("known_on").str.to_date("%Y-%m-%d", strict=False)),
    )
    valid = told.filter(states(told["uscc"]).is_in([CodeState.VALID.value, CodeState.LEGACY.value]))
    return valid.explode("direction").unique(maintain_order=True)


def _valid(codes: pl.Expr) -> pl.Expr:
    return codes.filter(
        codes.map_batches(lambda found: states(found) != CodeState.INVALID.value, return_dtype=pl.Boolean)
    )


def _directions(source: Source) -> pl.Expr:
    """Which feeds a row belongs to; an invoice that does not say puts both in doubt."""
    if source.name != "invoices":
        return pl.concat_list(pl.lit(None, pl.String))
    said = pl.col("direction").is_in(list(DIRECTIONS))
    return pl.when(said).then(pl.concat_list("direction")).otherwise(pl.lit(list(DIRECTIONS)))
