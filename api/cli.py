"""The program `jifen`: the risk officer's commands and the demonstration."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api.cli_ledger import ledger
from api.cli_service import service
from data_contracts.errors import JifenError
from models.cli import MOST_SEED, home, officer
from models.surroundings import code_version

NAMED_WRONGLY = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
"""A file or folder that the caller named and that cannot be read or written: bad usage; else the disk failed."""


class Program(TyperGroup):
    """Turns what the world did wrong into one clear message and the exit code of its kind; no traceback."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  (typer keeps the type of its context to itself)
        """Run the command; exit 0 ok, 1 failed check, 2 bad usage, 3 bad data."""
        try:
            return super().invoke(ctx)
        except JifenError as error:
            typer.echo(f"{error.code}: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            typer.echo(f"file: {error.strerror or error}: {error.filename or ''}".rstrip(": "), err=True)
            raise typer.Exit(2 if isinstance(error, NAMED_WRONGLY) else 1) from None


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pure-credit reference limits 纯信用参考额度 for small firms, from validated enterprise data.\n\n"
    "Exit codes: 0 ok, 1 failed check, 2 bad usage, 3 bad data. A database that does not answer is 2 as well.",
)
app.add_typer(officer)
app.add_typer(service)
app.add_typer(ledger)


def _print_version(asked: bool) -> None:  # noqa: FBT001  (how typer hands a flag to its callback)
    if asked:
        typer.echo(f"jifen {code_version()}")
        raise typer.Exit


@app.callback()
def program(
    *,
    _asked: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command("demo")
def demo_command(
    *,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to work; by default HOME/demo, or the next that is free.")
    ] = None,
    enterprises: Annotated[
        int, typer.Option("--enterprises", min=200, max=20_000, help="How many made-up firms.")
    ] = 600,
    requests: Annotated[int, typer.Option("--requests", min=1, max=5_000, help="How many of them apply.")] = 200,
    institutions: Annotated[int, typer.Option("--institutions", min=1, max=500, help="How many banks race.")] = 57,
    outlets: Annotated[int, typer.Option("--outlets", min=1, max=20_000, help="How many outlets they have.")] = 546,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="The same seed gives the same park.")] = 1,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Of the hall; 0: any that is free.")] = 0,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Open the hall, or end after the limits.")] = True,
) -> None:
    """Run the whole job on a made-up park: check, train, limits; then open the hall and let simulated banks grab.

    In a terminal the hall stays open until Ctrl-C.

    Example: jifen demo --enterprises 600 --seed 1
    """
    from api.demo import Demo, run_demo

    run_demo(folder, Demo(enterprises, requests, institutions, outlets, seed, port, serve))


@app.command("migrate")
def migrate_command(
    *,
    check: Annotated[bool, typer.Option("--check", help="Apply nothing; exit 1 if something is missing.")] = False,
) -> None:
    """Bring the database to this program's schema; the service does the same as it starts.

    Without JIFEN_DATABASE_URL it is the embedded PostgreSQL under JIFEN_HOME.

    Prints which settings of the hall are the operator's own. Those that the file JIFEN_HALL_POLICY names are; without a
    file they stay as they were set before, and a file with `settings: {}` puts all back to jifen's.

    Example: jifen migrate
    """
    import asyncio

    from api.migrating import missing_by, prepare_by
    from api.settings import Settings

    if check:
        missing = asyncio.run(missing_by(Settings()))
        typer.echo("\n".join(f"missing {version}" for version in missing) or "nothing is missing")
        raise typer.Exit(1 if missing else 0)
    applied, own = asyncio.run(prepare_by(Settings()))
    typer.echo("\n".join(f"applied {version}" for version in applied) or "nothing to apply")
    for one in own:
        typer.echo(f"the operator's own: {one.name} {one.value} (shipped: {one.shipped})")


@app.command("load")
def load_command(
    folder: Annotated[Path, typer.Argument(help="Folder of source files, one per contract, parquet or CSV.")],
) -> None:
    """Check a folder of source files and bring its good rows into the service; the same files count once.

    Bad rows go to DIR/quarantine as in `jifen data check`. A load that was interrupted does not count; repeat it.

    Example: jifen load park
    """
    import asyncio

    from api.database import service_database
    from api.loading import Loaded, load
    from api.settings import Settings
    from models import progress, views

    async def loaded() -> Loaded:
        async with service_database(Settings()) as pool:
            with progress.working("loading") as told:
                return await load(pool, folder, told)

    done = asyncio.run(loaded())
    if done.folder is not None:
        progress.console().print(views.check_table(done.folder))
    if done.before:
        typer.echo(f"batch {done.batch_id}: these files were loaded before; nothing was added")
    else:
        typer.echo(f"batch {done.batch_id}: {sum(done.rows.values()):,} rows count from now on")


@app.command("replay")
def replay_command(
    decision_id: Annotated[str, typer.Argument(help="Id of a decision, of the service or from a limits file.")],
    limits: Annotated[
        Path | None, typer.Option("--from", help="A limits file; its feature rows and run lie beside it.")
    ] = None,
) -> None:
    """Recompute a stored decision and compare it byte for byte; exit 1 and what differs if it comes out otherwise.

    Without --from it is a decision that the service stored.

    Example: jifen replay d0123456789abcdef01234567
    Example: jifen replay d0123456789abcdef01234567 --from limits.parquet
    """
    import asyncio

    from api.replaying import replay_stored
    from api.settings import Settings
    from models.replay import replay

    if limits is None:
        same = asyncio.run(replay_stored(Settings(), decision_id, home()))
    else:
        same = replay(decision_id, limits, home())
    typer.echo(f"{same.decision_id}: same bytes, sha256 {same.sha256}")


def main() -> None:
    """Run the program."""
    sys.exit(app())
