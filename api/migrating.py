"""Bringing the database to this program's schema: numbered SQL files, each applied once, whole or not at all.

Several processes may start at once: one applies, the others wait and find nothing left to do. Files only go forward,
and one that was released is never edited: its hash is kept beside its name. Until 0.1.0 is released files are edited in
place, and a database that an earlier commit made is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg

from api.database import Connection, connected, database_url
from api.reference import OwnValue, bring_in_line, own_values
from api.settings import Settings
from data_contracts.errors import JifenError

MIGRATIONS: Traversable = files("api") / "migrations"
_SESSION = {"application_name": "jifen migrate", "search_path": "hall, public", "timezone": "UTC"}
_LOCK = int.from_bytes(sha256(b"jifen: one migrates at a time").digest()[:8], signed=True)
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationError(JifenError):
    """The database cannot be brought to this program's schema; what was applied before stays applied."""

    code = "migration-refused"
    exit_code = 1


@dataclass(frozen=True)
class Migration:
    """One file: `version` is its name without the ending, such as 0001_ground."""

    version: str
    sql: str

    @property
    def hash(self) -> str:
        """SHA-256 of the text, with the line ends of Unix."""
        return sha256(self.sql.encode()).hexdigest()


def migrations(folder: Traversable = MIGRATIONS) -> list[Migration]:
    """The files of a folder in the order of their numbers.

    Raises:
        MigrationError: names every file whose name is none of a migration, or whose number another has too.
    """
    names = sorted(one.name for one in folder.iterdir() if one.name.endswith(".sql"))
    problems = [f"{name} is not named like 0001_ground.sql" for name in names if not _NAME.fullmatch(name)]
    numbers = [name[:4] for name in names]
    problems += [f"{name}: its number stands twice" for name in names if numbers.count(name[:4]) > 1]
    if problems:
        raise MigrationError("The migrations of this program are not in order.", problems)
    return [Migration(name.removesuffix(".sql"), (folder / name).read_text(encoding="utf-8")) for name in names]


async def migrate(url: str, folder: Traversable = MIGRATIONS) -> list[str]:
    """Apply what is missing, as the role of the URL, which becomes the owner of what is made.

    Returns:
        The versions applied now, in order; empty: there was nothing to do.

    Raises:
        MigrationError: an applied file was edited, the database is ahead of this program, or a file failed; a file
            that failed left nothing behind, those before it stay.
        Overloaded: the database cannot be reached.
    """
    known = migrations(folder)
    async with connected(url, server_settings=_SESSION) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        # A table that is in use is waited for briefly: behind a waiting change of a table every reader of it waits.
        await connection.execute("SET lock_timeout = '5s'")
        await _make_room(connection)
        applied = await _applied(connection)
        missing = _missing(known, applied)
        for one in missing:
            await _apply(connection, one)
    return [one.version for one in missing]


async def prepare(url: str, policy: Path | None = None) -> list[str]:
    """Bring the database to this program: its schema, then what the hall looks up; again it changes nothing.

    Args:
        url: of the owner.
        policy: the operator's own values (JIFEN_HALL_POLICY); None: those set before stay.

    Returns:
        The versions applied now.

    Raises:
        MigrationError, Overloaded: see `migrate`.
        PolicyError: see `bring_in_line`.
    """
    applied = await migrate(url)
    async with connected(url, server_settings=_SESSION) as connection:
        await bring_in_line(connection, policy)
    return applied


async def prepare_by(settings: Settings) -> tuple[list[str], list[OwnValue]]:
    """`prepare` the database of the settings, which is started if it is the embedded one.

    Returns:
        The versions applied now, and the operator's own values that are in force.
    """
    async with database_url(settings) as url:
        applied = await prepare(url, settings.hall_policy)
        async with connected(url, server_settings=_SESSION) as connection:
            return applied, await own_values(connection)


async def missing_by(settings: Settings) -> list[str]:
    """What is `missing` in the database of the settings, which is started if it is the embedded one."""
    async with database_url(settings) as url, connected(url, server_settings=_SESSION) as connection:
        return await missing(connection)


async def missing(connection: Connection) -> list[str]:
    """Versions that this program needs and the database lacks; the service asks it before it says that it is ready.

    Raises:
        MigrationError: as `migrate`, but for a database that is ahead: during an upgrade the former program goes on.
    """
    if await connection.fetchval("SELECT to_regclass('hall.migration') IS NULL"):
        return [one.version for one in migrations()]
    applied = await _applied(connection)
    known = migrations()
    _raise_if(_edited(known, applied))
    return [one.version for one in known if one.version not in applied]


def _missing(known: list[Migration], applied: Mapping[str, str]) -> list[Migration]:
    names = {one.version for one in known}
    latest = max(applied, default="")
    problems = _edited(known, applied)
    problems += [f"{name} was applied by a newer program" for name in sorted(applied) if name not in names]
    left = [one for one in known if one.version not in applied]
    problems += [f"{one.version} comes before {latest}, which is applied" for one in left if one.version < latest]
    _raise_if(problems)
    return left


def _edited(known: list[Migration], applied: Mapping[str, str]) -> list[str]:
    return [
        f"{one.version} was edited after it was applied"
        for one in known
        if applied.get(one.version, one.hash) != one.hash
    ]


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise MigrationError("The database and this program do not belong together.", problems)


async def _make_room(connection: Connection) -> None:
    await connection.execute(
        """
        CREATE SCHEMA IF NOT EXISTS hall;
        CREATE TABLE IF NOT EXISTS hall.migration (
            version text PRIMARY KEY,
            sha256 text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        """
    )


async def _applied(connection: Connection) -> dict[str, str]:
    rows = await connection.fetch("SELECT version, sha256 FROM hall.migration")
    return {row["version"]: row["sha256"] for row in rows}


async def _apply(connection: Connection, one: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(one.sql)
            await connection.execute(
                "INSERT INTO hall.migration (version, sha256) VALUES ($1, $2)", one.version, one.hash
            )
    except asyncpg.PostgresError as error:
        place = getattr(error, "position", None)
        line = f" (line {one.sql.count(chr(10), 0, int(place)) + 1})" if place else ""
        raise MigrationError(f"{one.version} failed and left nothing behind.", [f"{error}{line}"]) from error
