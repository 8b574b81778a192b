"""Commands of the service: serve, its clients, its OpenAPI file."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from data_contracts.errors import UsageError

if TYPE_CHECKING:
    from api.database import Connection

Answer = TypeVar("Answer")

service = typer.Typer(no_args_is_help=True)
clients = typer.Typer(no_args_is_help=True, help="The programs that may call the hall.")
service.add_typer(clients, name="clients")


@service.command("serve")
def serve_command(
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0: any that is free.")] = 8710,
    processes: Annotated[int, typer.Option("--processes", min=1, max=64, help="How many share the port.")] = 1,
) -> None:
    """Serve the hall: prepare the database, then take calls until Ctrl-C or SIGTERM.

    Without JIFEN_DATABASE_URL it is the embedded PostgreSQL. JIFEN_HOME is the folder of models and database. Without
    JIFEN_HOME models are read from `var` in the current folder, as `jifen train` keeps them, and the database lies in
    /var/lib/jifen for root, else in the user's data folder. Both places are printed.

    Example: jifen serve --port 8710 --processes 2
    """
    from api.serving import serve
    from api.settings import Settings

    serve(Settings(), host, port, processes, typer.echo)


@service.command("openapi")
def openapi_command() -> None:
    """Print the OpenAPI 3.1 file that clients are generated from.

    Example: jifen openapi > docs/openapi.json
    """
    from api.openapi import printed

    typer.echo(printed(), nl=False)


@clients.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    *,
    role: Annotated[str, typer.Option("--role", help="enterprise, portal, clerk, bank, institution-manager, ...")],
    key: Annotated[Path | None, typer.Option("--key", help="Its public key: JWK or PEM, P-256 or Ed25519.")] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make an Ed25519 key and keep its private half here.")
    ] = None,
    institution: Annotated[str | None, typer.Option("--institution", help="Of a bank or institution-manager.")] = None,
    outlet: Annotated[str | None, typer.Option("--outlet", help="Limits a bank's client to one outlet.")] = None,
    uscc: Annotated[str | None, typer.Option("--uscc", help="Of an enterprise.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Fewer scopes than the role's; again and again.")
    ] = None,
) -> None:
    """Add a client with its first key; prints the id that its assertions name as `iss` and `sub`, and the key's `kid`.

    Example: jifen clients add "Bank A" --role bank --institution in_0193 --key bank_a.jwk
    """
    from api.clients import NewClient, add_client

    client = NewClient(name, role, institution, outlet, uscc, tuple(scope) if scope else None)
    with _public_half(key, new_key) as jwk:
        made = _in_database(lambda connection: add_client(connection, client, jwk))
    typer.echo(f"client {made}\nkid {jwk['kid']}")


@clients.command("add-key")
def add_key_command(
    client: Annotated[str, typer.Argument(help="Its id.")],
    key: Annotated[Path | None, typer.Option("--key", help="Its further public key: JWK or PEM.")] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="Make an Ed25519 key and keep its private half here.")
    ] = None,
) -> None:
    """Add a further key, so that the former can be revoked without a break.

    Example: jifen clients add-key cn_0193 --key bank_a_2027.jwk
    """
    from api.clients import add_key

    with _public_half(key, new_key) as jwk:
        _in_database(lambda connection: add_key(connection, client, jwk))
    typer.echo(f"kid {jwk['kid']}")


@clients.command("list")
def list_command() -> None:
    """Show every client with the keys that work.

    Example: jifen clients list
    """
    from api.clients import all_clients

    for one in _in_database(all_clients):
        state = f"revoked {one.revoked_at:%Y-%m-%d}" if one.revoked_at else f"keys {' '.join(one.keys) or '-'}"
        typer.echo("\t".join([one.id, one.role, one.institution_id or "-", one.name, state]))


@clients.command("revoke")
def revoke_command(
    client: Annotated[str, typer.Argument(help="Its id.")],
    kid: Annotated[str | None, typer.Option("--kid", help="Only this key.")] = None,
) -> None:
    """Revoke a client or one of its keys: effective in every process within 30 seconds.

    Example: jifen clients revoke cn_0193 --kid 2026-1
    """
    from api.clients import revoke

    _in_database(lambda connection: revoke(connection, client, kid))
    typer.echo("revoked")


@contextmanager
def _public_half(key: Path | None, new_key_file: Path | None) -> Generator[dict[str, str]]:
    """The public half of a key; a new key is gone again if what it is made for is not done."""
    from api.clients import new_key, public_jwk

    match key, new_key_file:
        case Path() as named, None:
            yield public_jwk(named.read_bytes())
        case None, Path() as made:
            jwk = public_jwk(new_key(made))
            try:
                yield jwk
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        case _:
            raise UsageError("Name either --key or --new-key.")


def _in_database(work: "Callable[[Connection], Awaitable[Answer]]") -> Answer:
    """Do `work` as the owner of the service's database, prepared if it is not yet."""
    from api.database import connected, database_url
    from api.migrating import prepare
    from api.settings import Settings

    async def done() -> Answer:
        settings = Settings()
        async with database_url(settings) as url:
            await prepare(url, settings.hall_policy)
            async with connected(url, server_settings={"search_path": "hall, public", "timezone": "UTC"}) as connection:
                return await work(connection)

    return asyncio.run(done())
