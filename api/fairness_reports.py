"""The monthly fairness report (F2): a month's attempts read from the hall and judged; as an answer and as a file."""

import asyncio
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from api.database import Connection, Pool, transaction
from api.fairness import LEVEL, Fairness, Group, fairness
from data_contracts.errors import UsageError
from models.sources.writing import replacing

MONTH = r"20[0-9]{2}-(0[1-9]|1[0-2])"
"""A month as it is named, such as 2026-11."""

_SCHEMA = {
    "fr_id": pl.String(),
    "round": pl.Int32(),
    "institution_id": pl.String(),
    "size_class": pl.String(),
    "means": pl.String(),
    "won": pl.Boolean(),
}


async def monthly(pool: Pool, month: str) -> dict[str, Any]:
    """The report on the rounds whose gate opened in a month of Beijing, as far as it is over."""
    async with transaction(pool) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        told = await connection.fetchrow(
            """
            SELECT hall.iso(now) AS read_at,
                now >= hall.start_of((($1::text || '-01')::date + interval '1 month')::date) AS is_over
            FROM hall.hall_now() AS now
            """,
            month,
        )
        attempts = await attempts_of(connection, month)
    assert told is not None  # the clock gives one
    found: Fairness = await asyncio.to_thread(fairness, attempts)
    return {
        "month": month,
        "is_over": told["is_over"],
        "read_at": told["read_at"],
        "level_bp": round(10_000 * LEVEL),
        "contested_rounds": found.contested_rounds,
        "groups": found.rows(),
    }


async def attempts_of(connection: Connection, month: str) -> pl.DataFrame:
    """Who tried for the rounds of a month, as `fairness` takes it."""
    rows = await connection.fetch(
        """
        SELECT * FROM hall.attempts_between(hall.start_of(($1::text || '-01')::date),
            hall.start_of((($1::text || '-01')::date + interval '1 month')::date))
        """,
        month,
    )
    return pl.DataFrame([tuple(row) for row in rows], schema=_SCHEMA, orient="row")


async def export_fairness(pool: Pool, path: Path, month: str) -> int:
    """Write a month's report to `path`, whole or not at all; returns the number of its groups.

    Args:
        pool: of the service.
        path: ends in .json (the answer of the API) or .csv (a line a group, the month's own figures in each).
        month: such as 2026-11.

    Raises:
        UsageError: another ending.
    """
    if path.suffix not in (".json", ".csv"):
        raise UsageError(f"{path.name}: name a file that ends in .json or .csv")
    report = await monthly(pool, month)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        if path.suffix == ".json":
            beside.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        else:
            whole = {name: value for name, value in report.items() if name != "groups"}
            columns = [*whole, *(field.name for field in fields(Group))]
            lines = [[*whole.values(), *group.values()] for group in report["groups"]]
            pl.DataFrame(lines, schema=columns, orient="row", infer_schema_length=None).write_csv(beside)
    return len(report["groups"])
