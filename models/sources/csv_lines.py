"""The lines of a CSV, each judged on its own, so that one broken line cannot swallow the lines after it.

A record is a line: fields parted by commas; a field that holds a comma or a quote stands in quotes, a quote inside is
doubled (RFC 4180). A quoted field may not go on over a line break: such a record is found, kept together and set
aside whole, so that nothing hidden in it is taken for a row. Every other line that is not well formed is set aside
alone.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass

import polars as pl

from data_contracts.checking import BROKEN_SCHEMA

_INNER = '[^"]*(?:""[^"]*)*'
FIELD = f'(?:"{_INNER}"|[^",]*)'
WELL_FORMED = f"^{FIELD}(?:,{FIELD})*$"
OPEN = f'^(?:{FIELD},)*"{_INNER}$'
"""Ends inside a quoted field."""
INSIDE = f"^{_INNER}$"
"""Could stand wholly inside a quoted field."""
CLOSES = f'^{_INNER}"(?:,{FIELD})*(?:,"{_INNER})?$'
"""Begins inside a quoted field, ends that field and goes on well formed; it may open another."""
_QUOTED = re.compile(f'"{_INNER}(?:"|$)')

WRONG_NUMBER_OF_FIELDS = "wrong_number_of_fields"
STRAY_QUOTE = "stray_quote"
LINE_BREAK_IN_FIELD = "line_break_in_field"
MEANINGS = {
    WRONG_NUMBER_OF_FIELDS: "the line has as many fields as the header",
    STRAY_QUOTE: "every quote on the line opens or closes a field, or is doubled inside one",
    LINE_BREAK_IN_FIELD: "no quoted field goes on over the end of its line",
}
"""What a line keeps that does not break the rule."""


@dataclass(frozen=True)
class Lines:
    """The lines of a file after its header.

    Attributes:
        records: text of the well-formed records, in order.
        rows: number of each among the data rows of the file, from 1; blank lines have no number.
        broken: `row`, `rule` and `line` of what is set aside.
        all_records: every line after the header is a record, so the file can be read as it stands.
    """

    records: pl.Series
    rows: pl.Series
    broken: pl.DataFrame
    all_records: bool


@dataclass(frozen=True)
class _Bad:
    first: int
    last: int
    rule: str


def divided(lines: pl.Series, fields: int) -> Lines:
    """Part the lines after a header into records and broken ones.

    Args:
        lines: text without line ends, blank lines included.
        fields: number of columns in the header, at least 2.
    """
    judged = pl.DataFrame({"line": lines}).select(
        "line", _is_record(fields).alias("is_record"), blank=pl.col("line") == ""
    )
    if judged["is_record"].all():
        rows = pl.int_range(1, lines.len() + 1, dtype=pl.Int64, eager=True)
        return Lines(lines, rows, pl.DataFrame(schema=BROKEN_SCHEMA), all_records=True)
    bad = _bad(lines, (~judged["is_record"] & ~judged["blank"]).arg_true().to_list(), fields)
    starts, within = [each.first for each in bad], [at for each in bad for at in range(each.first + 1, each.last + 1)]
    counts = ~judged["blank"].scatter(within, values=True) if within else ~judged["blank"]
    numbers = counts.cum_sum().cast(pl.Int64)
    standing = judged["is_record"].scatter([*starts, *within], values=False)
    text = ["\n".join(lines[each.first : each.last + 1].to_list()) for each in bad]
    rules = [each.rule for each in bad]
    broken = pl.DataFrame({"row": numbers.gather(starts), "rule": rules, "line": text}, schema=BROKEN_SCHEMA)
    return Lines(lines.filter(standing), numbers.filter(standing), broken, all_records=False)


def _is_record(fields: int) -> pl.Expr:
    line = pl.col("line")
    plain = line.str.count_matches(",", literal=True) == fields - 1
    quoted = line.str.contains(_record_form(fields))
    return pl.when(line.str.contains('"', literal=True)).then(quoted).otherwise(plain)


def _record_form(fields: int) -> str:
    return f"^{FIELD}(?:,{FIELD}){{{fields - 1}}}$"


def _bad(lines: pl.Series, suspects: list[int], fields: int) -> list[_Bad]:
    """What is wrong with each line that is no record; lines inside a record with line breaks go with its first."""
    text = lines.gather(suspects)
    is_open = text.str.contains(OPEN).to_list()
    well_formed = text.str.contains(WELL_FORMED).to_list()
    ends = _ends(lines) if any(is_open) else []
    found: list[_Bad] = []
    for at, opens, whole in zip(suspects, is_open, well_formed, strict=True):
        if found and at <= found[-1].last:
            continue
        last = _last_line(lines, at, ends, fields) if opens else None
        if last is not None:
            found.append(_Bad(at, last, LINE_BREAK_IN_FIELD))
        else:
            found.append(_Bad(at, at, WRONG_NUMBER_OF_FIELDS if whole else STRAY_QUOTE))
    return found


def _ends(lines: pl.Series) -> list[tuple[int, bool]]:
    """Lines that cannot stand wholly inside a quoted field, and whether the field could end well on them."""
    places = (~lines.str.contains(INSIDE)).arg_true()
    return list(zip(places.to_list(), lines.gather(places).str.contains(CLOSES).to_list(), strict=True))


def _last_line(lines: pl.Series, first: int, ends: list[tuple[int, bool]], fields: int) -> int | None:
    """The line on which the record that starts at `first` ends; null when no record of the right size comes of it.

    A line that closes one field and opens another adds a field, so no more than `fields` lines are looked at.
    """
    begun = 1 + _commas(lines[first])
    for place in range(bisect_right(ends, (first, True)), len(ends)):
        last, closes = ends[place]
        line = lines[last]
        begun += _commas(f'"{line}')
        if not closes or begun > fields:
            return None
        if line.count('"') % 2 == 1:
            return last if begun == fields else None
    return None


def _commas(text: str) -> int:
    """Commas outside quotes."""
    return _QUOTED.sub("", text).count(",")


def header_of(line: str) -> list[str] | None:
    """The names in a header line; null when it is not well formed."""
    bare = line.removeprefix("\ufeff")
    if not pl.Series([bare]).str.contains(WELL_FORMED).item():
        return None
    names = [match.group(1) for match in re.finditer(f"(?:^|,)({FIELD})", bare)]
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names]
