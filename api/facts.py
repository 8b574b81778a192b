"""One enterprise's facts: read from the hall's tables as checked sources, and parted as they are delivered."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from typing import Annotated, Any, cast

import polars as pl
import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, create_model

from api.database import Connection, Pool, transaction
from data_contracts.checking import DOUBTS_SCHEMA, SEPARATOR, Checked, assembled, checked, checked_text
from data_contracts.parsing import FAILURE_SUFFIX
from data_contracts.rules import rules_of
from data_contracts.sources import SOURCES, Source, Sources

FACTS: Mapping[str, str] = {
    "enterprises": "SELECT * FROM hall.visible_enterprises WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "qualifications": "SELECT * FROM hall.visible_qualifications WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "financial_statements": "SELECT * FROM hall.visible_financial_statements WHERE uscc = ANY($1) "
    "ORDER BY batch_id, line",
    "social_insurance": "SELECT * FROM hall.visible_social_insurance WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "innovation_indicators": "SELECT * FROM hall.visible_innovation_indicators WHERE uscc = ANY($1) "
    "ORDER BY batch_id, line",
    "tax_filings": "SELECT * FROM hall.visible_tax_filings WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "taxpayer_ratings": "SELECT * FROM hall.visible_taxpayer_ratings WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "invoices": "SELECT * FROM hall.visible_invoices WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "debts": "SELECT * FROM hall.visible_debts WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "public_records": "SELECT * FROM hall.visible_public_records WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "loan_outcomes": "SELECT * FROM hall.visible_loan_outcomes WHERE uscc = ANY($1) ORDER BY batch_id, line",
    "feeds": "SELECT * FROM hall.visible_feeds WHERE uscc = ANY($1) ORDER BY batch_id, line",
}
"""The statement that reads each source; a batch that is still being loaded is not in these views."""

PEERS = frozenset({"enterprises", "debts"})
"""Sources of which the features of an enterprise also read the rows of its group's other members."""

_OF_ANOTHER = "uscc_of_another"
_MOST_INTEGER = 2**53 - 1
"""Beyond it JSON's integers are not the same everywhere (RFC 7493)."""


@dataclass(frozen=True)
class Known:
    """What is known of one enterprise, and `hall.facts_mark` of it at that instant: whether it is still all."""

    sources: Sources
    mark: str


async def known_of_enterprise(pool: Pool, uscc: str) -> Known:
    """What is known of an enterprise, read at one instant, with the group members' rows that its features need.

    The rows pass the contracts once more, all batches together: what repeats or contradicts another batch's row is left
    out and casts its doubt as it does within one file. The check is done in a worker thread.
    """
    async with transaction(pool) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        members = await _with_members(connection, uscc)
        rows = {name: await connection.fetch(FACTS[name], members if name in PEERS else [uscc]) for name in SOURCES}
        doubts = await connection.fetch(
            "SELECT uscc, source, direction, known_on FROM hall.visible_doubt WHERE uscc = $1", uscc
        )
        mark = cast("str", await connection.fetchval("SELECT hall.facts_mark($1)", uscc))
    return Known(await asyncio.to_thread(_checked_together, rows, doubts), mark)


def _checked_together(rows: Mapping[str, Sequence[Any]], doubts: Sequence[Any]) -> Sources:
    return _together(
        {name: _frame(SOURCES[name], found) for name, found in rows.items()},
        pl.DataFrame([tuple(row) for row in doubts], schema=DOUBTS_SCHEMA, orient="row"),
    )


async def _with_members(connection: Connection, uscc: str) -> list[str]:
    rows = await connection.fetch(
        """
        SELECT $1::text AS uscc
        UNION
        SELECT m.uscc FROM hall.visible_enterprises m
        WHERE m.group_id IN (
            SELECT e.group_id FROM hall.visible_enterprises e WHERE e.uscc = $1 AND e.group_id IS NOT NULL)
        """,
        uscc,
    )
    return [row["uscc"] for row in rows]


def _frame(source: Source, rows: Sequence[Any]) -> pl.DataFrame:
    names = list(source.columns)
    return pl.DataFrame([[row[name] for name in names] for row in rows], schema=source.types, orient="row")


def _together(frames: Mapping[str, pl.DataFrame], doubts: pl.DataFrame) -> Sources:
    """Sources of rows of several batches; `doubts` were cast as the batches were delivered."""
    found, _ = assembled({name: checked(SOURCES[name], frame) for name, frame in frames.items()})
    return replace(found, doubts=pl.concat([found.doubts, doubts]))


# ----------------------------------------------------------------------------------------------------------- deliveries


def _cell(source: Source, name: str) -> tuple[Any, Any]:
    """The JSON type of a column, for pydantic; values are judged by the contract, row by row."""
    kind = source.types[name]
    column = source.columns[name]
    words = Field(default=None, title=column.title, description=column.description)
    if kind == pl.Int64:
        return Annotated[StrictInt | None, Field(ge=-_MOST_INTEGER, le=_MOST_INTEGER)], words
    if kind == pl.Boolean:
        return Annotated[bool | None, Field(strict=True)], words
    if kind == pl.Date:
        return Annotated[StrictStr | None, Field(max_length=10, json_schema_extra={"format": "date"})], words
    return Annotated[StrictStr | None, Field(max_length=400)], words


_CLOSED = ConfigDict(extra="forbid", frozen=True)

ROWS: Mapping[str, type[BaseModel]] = {
    name: create_model(
        f"{source.contract.__name__}Row",
        __config__=_CLOSED,
        __doc__=(source.contract.__doc__ or name).splitlines()[0],
        **cast("dict[str, Any]", {column: _cell(source, column) for column in source.columns}),
    )
    for name, source in SOURCES.items()
}
"""One row of each source as JSON: its columns as the contract names them, each of which may be left out as null."""

FactsBody = cast(
    "type[BaseModel]",
    create_model(
        "FactsBody",
        __config__=_CLOSED,
        __doc__="Facts of one enterprise: rows by source. `uscc` may be left out of a row; the path names it.",
        **cast(
            "dict[str, Any]",
            {name: (Annotated[list[row], Field(max_length=20_000)], Field(default=[])) for name, row in ROWS.items()},
        ),
    ),
)


@dataclass(frozen=True)
class Delivery:
    """A delivery about one enterprise, parted by the contracts.

    Attributes:
        good: by source, rows as JSON, their days as text.
        quarantined: `source`, `line` (1-based place in the delivery), `rules` and the `row` as it came.
        doubts: whose feeds the quarantined rows make incomplete.
        errors: each broken rule with the JSON Pointer of its field or row.
        fingerprint: SHA-256 of the canonical delivery, as marked.
    """

    good: Mapping[str, list[dict[str, Any]]]
    quarantined: list[dict[str, Any]]
    doubts: list[dict[str, Any]]
    errors: list[dict[str, str]]
    fingerprint: str

    @property
    def report(self) -> dict[str, Any]:
        """What the one who delivered is told."""
        bad: dict[str, int] = {}
        for one in self.quarantined:
            bad[one["source"]] = bad.get(one["source"], 0) + 1
        return {
            "good": {name: len(rows) for name, rows in self.good.items()},
            "quarantined": bad,
            "errors": self.errors,
        }


def parted(uscc: str, delivered: Mapping[str, Sequence[Mapping[str, Any]]], supplier: str | None) -> Delivery:
    """Part a delivery.

    Args:
        uscc: whom the delivery is about; a row about another goes to quarantine and casts no doubt on that one.
        delivered: by source, rows with every column of the contract, null where none was given.
        supplier: what every row is marked as, whatever it says; None: each row says it itself.
    """
    marked = {name: [_marked(row, uscc, supplier) for row in rows] for name, rows in delivered.items() if len(rows) > 0}
    checks = {name: _checked(SOURCES[name], rows) for name, rows in marked.items()}
    good: dict[str, list[dict[str, Any]]] = {}
    quarantined: list[dict[str, Any]] = []
    for name, found in checks.items():
        broken = dict(found.quarantined.select("row", "rules").iter_rows())
        rules = {
            line: [*broken.get(line, "").split(SEPARATOR)] if line in broken else []
            for line in range(1, found.read + 1)
        }
        for line, row in enumerate(marked[name], start=1):
            if row["uscc"] != uscc:
                rules[line].append(_OF_ANOTHER)
            if rules[line]:
                came = {field: _storable(value) for field, value in delivered[name][line - 1].items()}
                quarantined.append({"source": name, "line": line, "rules": rules[line], "row": came})
        kept = found.good.filter(pl.col("uscc") == uscc).with_columns(pl.col(pl.Date).cast(pl.String))
        if kept.height:
            good[name] = kept.to_dicts()
    sources, _ = assembled(checks)
    doubts = sources.doubts.filter(pl.col("uscc") == uscc).with_columns(pl.col("known_on").cast(pl.String))
    return Delivery(
        good=good,
        quarantined=quarantined,
        doubts=doubts.to_dicts(),
        errors=[
            {"pointer": _pointer(one["source"], one["line"], rule), "rule": rule}
            for one in quarantined
            for rule in one["rules"]
        ],
        fingerprint=sha256(rfc8785.dumps({"uscc": uscc, "delivered": marked})).hexdigest(),
    )


def _marked(row: Mapping[str, Any], uscc: str, supplier: str | None) -> dict[str, Any]:
    about = uscc if row["uscc"] is None else row["uscc"]
    return {**row, "uscc": about, "supplier": row["supplier"] if supplier is None else supplier}


def _checked(source: Source, rows: Sequence[Mapping[str, Any]]) -> Checked:
    """The rows through the same door as the cells of a CSV."""
    cells = [[_text(row[name]) for name in source.columns] for row in rows]
    return checked_text(source, pl.DataFrame(cells, schema=dict.fromkeys(source.columns, pl.String), orient="row"))


def _text(value: str | int | date | None) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _storable(value: object) -> object:
    """A value that jsonb can hold: every character but NUL, which is kept as the text of its escape."""
    return value.replace("\x00", "\\u0000") if isinstance(value, str) else value


def _pointer(source: str, line: int, rule: str) -> str:
    """The field that a rule speaks of, or the row."""
    fields = {one.code: one.fields[0] for one in rules_of(source)} | {
        f"{name}_{FAILURE_SUFFIX[kind]}": name for name, kind in SOURCES[source].types.items() if kind in FAILURE_SUFFIX
    }
    field = "uscc" if rule == _OF_ANOTHER else fields.get(rule)
    return f"/{source}/{line - 1}" + (f"/{field}" if field else "")
