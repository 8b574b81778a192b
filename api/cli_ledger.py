"""Commands of the ledger: the invariants, the outcomes that models learn from, the fairness of a month."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import UsageError

ledger = typer.Typer(no_args_is_help=True)
exports = typer.Typer(no_args_is_help=True, help="Write what the hall knows as files.")
ledger.add_typer(exports, name="export")


@exports.command("outcomes")
def outcomes_command(
    file: Annotated[Path, typer.Argument(help="To write: .parquet or .csv; replaced whole or not at all.")],
) -> None:
    """Write what became of the loans made through the hall as `loan_outcomes`, which `jifen train` learns from.

    Example: jifen export outcomes loan_outcomes.parquet
    """
    from api.database import database_url, pool_of
    from api.outcomes import export_outcomes
    from api.settings import Settings

    async def exported() -> int:
        async with database_url(Settings()) as url, pool_of(url) as pool:
            return await export_outcomes(pool, file)

    typer.echo(f"{file}: {asyncio.run(exported()):,} outcomes")


@exports.command("fairness")
def fairness_command(
    file: Annotated[Path, typer.Argument(help="To write: .json or .csv; replaced whole or not at all.")],
    month: Annotated[str, typer.Option("--month", help="By the day the gate opened, in Beijing, such as 2026-11.")],
) -> None:
    """Write win shares by size of institution and by connection, with an exact test of equal opportunity.

    What it can say and what not stands in docs/operations.md.

    Example: jifen export fairness fairness.json --month 2026-11
    """
    import re

    from api.database import database_url, pool_of
    from api.fairness_reports import MONTH, export_fairness
    from api.settings import Settings

    if re.fullmatch(MONTH, month, re.ASCII) is None:
        raise UsageError(f"{month}: name a month as 2026-11")

    async def exported() -> int:
        async with database_url(Settings()) as url, pool_of(url) as pool:
            return await export_fairness(pool, file, month)

    typer.echo(f"{file}: {asyncio.run(exported()):,} groups")


@ledger.command("invariants")
def invariants_command(
    watch: Annotated[
        float | None, typer.Option("--watch", min=0.1, help="Ask again every so many seconds, until one is broken.")
    ] = None,
) -> None:
    """Count what breaks each invariant of the hall, on one snapshot; exit 1 if anything does.

    A database that does not answer breaks none: with --watch it is asked again, without it the exit code is 2.

    Example: jifen invariants
    Example: jifen invariants --watch 10
    """
    from rich.table import Table

    from api.database import Overloaded, database_url, listening
    from api.invariants import INVARIANTS, violated
    from api.problems import out_of_reach
    from api.settings import Settings
    from models import progress

    async def is_broken() -> bool:
        async with database_url(Settings()) as url:
            while True:
                started = time.monotonic()
                try:
                    async with listening(url) as connection:
                        found = await violated(connection)
                except Exception as error:
                    if not (isinstance(error, Overloaded | OSError) or out_of_reach(error)):
                        raise
                    if watch is None:
                        raise Overloaded("The database does not answer.", [type(error).__name__]) from error
                    typer.echo(f"the database does not answer ({type(error).__name__}); asking again", err=True)
                    await asyncio.sleep(watch)
                    continue
                table = Table("", "invariant", "rows", "first", caption=f"{time.monotonic() - started:.2f} s")
                for one in INVARIANTS:
                    rows = found[one.name]
                    table.add_row(one.name, one.sentence, str(len(rows)), str(rows[0][0]) if rows else "")
                progress.console().print(table)
                broken = any(found.values())
                if broken or watch is None:
                    return broken
                await asyncio.sleep(watch)

    raise typer.Exit(1 if asyncio.run(is_broken()) else 0)
