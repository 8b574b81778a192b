"""Migrations: each file once, whole or not at all, whoever else is starting; and the ground they lay."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from api.database import Connection, DatabaseRefused, Overloaded, Pool, connected, transaction
from api.migrating import MIGRATIONS, MigrationError, migrate, migrations, missing

SHIPPED = [one.version for one in migrations()]
FIRST = """
CREATE TABLE hall.one (n int PRIMARY KEY);
CREATE FUNCTION hall.told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; RETURN NEW; END $$;
CREATE TRIGGER told AFTER INSERT ON hall.one FOR EACH ROW EXECUTE FUNCTION hall.told();
"""
NOTHING = "SELECT 1"


def folder_of(folder: Path, **sql: str) -> Path:
    """A folder of migrations; a file's name is that of the argument after its first letter."""
    folder.mkdir(exist_ok=True)
    for name, text in sql.items():
        (folder / f"{name[1:]}.sql").write_text(text)
    return folder


async def asked(url: str, question: str) -> object:
    async with connected(url, server_settings={}) as connection:
        return await connection.fetchval(question)


async def test_of_several_processes_at_once_one_applies_and_the_others_wait(empty_database: str) -> None:
    applied = await asyncio.gather(*[migrate(empty_database) for _ in range(4)])
    assert sorted(applied, key=len) == [[], [], [], SHIPPED]
    assert await migrate(empty_database) == []


async def test_a_file_that_fails_leaves_nothing_of_itself_and_keeps_those_before_it(
    empty_database: str, tmp_path: Path
) -> None:
    folder = folder_of(
        tmp_path, _0001_one=FIRST, _0002_bad="CREATE TABLE hall.two (n int);\n\nSELECT nothing FROM hall.two;"
    )
    with pytest.raises(MigrationError, match=r"0002_bad failed.*\n.*\"nothing\" does not exist.*line 3"):
        await migrate(empty_database, folder)
    assert await asked(empty_database, "SELECT to_regclass('hall.two')::text") is None
    assert await asked(empty_database, "SELECT to_regclass('hall.one')::text") == "hall.one"
    folder_of(tmp_path, _0002_bad="CREATE TABLE hall.two (n int)")
    assert await migrate(empty_database, folder) == ["0002_bad"]


async def test_an_edited_file_a_late_one_and_a_newer_database_are_refused_together(
    empty_database: str, tmp_path: Path
) -> None:
    before = folder_of(tmp_path / "before", _0001_one=FIRST, _0003_three=NOTHING, _0004_four=NOTHING)
    await migrate(empty_database, before)
    after = folder_of(tmp_path / "after", _0001_one=FIRST + "-- edited", _0002_two=NOTHING, _0003_three=NOTHING)
    with pytest.raises(MigrationError) as refused:
        await migrate(empty_database, after)
    assert refused.value.problems == (
        "0001_one was edited after it was applied",
        "0004_four was applied by a newer program",
        "0002_two comes before 0004_four, which is applied",
    )
    assert await asked(empty_database, "SELECT count(*) FROM hall.migration") == 3


async def test_line_ends_of_windows_are_no_edit(empty_database: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, _0001_one=FIRST)
    await migrate(empty_database, folder)
    (folder / "0001_one.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert await migrate(empty_database, folder) == []


def test_names_out_of_order_are_refused_together(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, _0001_one="", _0001_other="", _2_two="")
    with pytest.raises(MigrationError) as refused:
        migrations(folder)
    assert refused.value.problems == (
        "2_two.sql is not named like 0001_ground.sql",
        "0001_one.sql: its number stands twice",
        "0001_other.sql: its number stands twice",
    )


async def test_the_service_is_told_what_is_missing_and_lives_with_a_newer_database(
    empty_database: str, pool: Pool
) -> None:
    async with connected(empty_database, server_settings={}) as connection:
        assert await missing(connection) == SHIPPED
    async with transaction(pool) as connection:
        assert await missing(connection) == []
    await migrate(empty_database)
    async with connected(empty_database, server_settings={}) as connection:
        await connection.execute("INSERT INTO hall.migration VALUES ('9999_later', '')")
        assert await missing(connection) == []
        with pytest.raises(MigrationError, match="9999_later was applied by a newer program"):
            await migrate(empty_database)


def test_jifen_migrate_brings_a_database_up_to_date_and_says_what_it_did(empty_database: str, tmp_path: Path) -> None:
    def jifen(*words: str, url: str = empty_database, policy: str = "") -> tuple[int, str]:
        environment = {**os.environ, "JIFEN_DATABASE_URL": url, "JIFEN_HALL_POLICY": policy}
        command = [sys.executable, "-c", "from api.cli import main; main()", "migrate", *words]
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        return run.returncode, run.stdout + run.stderr

    assert jifen("--check") == (1, "".join(f"missing {one}\n" for one in SHIPPED))
    assert jifen() == (0, "".join(f"applied {one}\n" for one in SHIPPED))
    assert jifen() == (0, "nothing to apply\n")
    assert jifen("--check") == (0, "nothing is missing\n")
    own = tmp_path / "hall.yaml"
    own.write_text("settings: {contact_minutes: 60}\n")
    said = "nothing to apply\nthe operator's own: contact_minutes 60 (shipped: 120)\n"
    assert jifen(policy=str(own)) == jifen() == (0, said)
    own.write_text("settings: {}\n")
    assert jifen(policy=str(own)) == jifen() == (0, "nothing to apply\n")
    code, said = jifen(url="postgresql://nobody:secret@127.0.0.1:1/none")
    assert (code, said.split(":")[0]) == (2, "overloaded")
    code, said = jifen(url=re.sub(":[^:@]+@", ":secret@", empty_database))
    assert (code, said.split(":")[0]) == (2, "database-refused")
    assert "secret" not in said


async def test_an_unreachable_server_is_overloaded_and_a_wrong_name_is_refused(database: str) -> None:
    with pytest.raises(Overloaded):
        await migrate("postgresql://127.0.0.1:1/none")
    with pytest.raises(DatabaseRefused, match="no_such_database"):
        await migrate(database.rsplit("/", 1)[0] + "/no_such_database")


@pytest.mark.parametrize("between", ["/", "?", "#", "[", "%zz@x:"])
async def test_no_part_of_a_password_that_breaks_the_address_is_told(between: str) -> None:
    with pytest.raises((DatabaseRefused, Overloaded)) as caught:
        await migrate(f"postgresql://jifen:geheim{between}wort@127.0.0.1:1/hall")
    said = str(caught.value)
    assert "geheim" not in said
    assert "wort" not in said
    if isinstance(caught.value, DatabaseRefused):
        assert "percent-encode the password" in said
        assert caught.value.__suppress_context__, "a log shows the parser's error as well"


# ---------------------------------------------------------------------------------------------------------- the ground


async def test_the_clock_of_the_hall_runs_and_moves_by_its_offset_and_only_the_owner_moves_it(
    database: str, pool: Pool
) -> None:
    """S5: `hall_now()` is `clock_timestamp()` plus the tenant's offset, never the transaction's start."""
    async with pool.acquire() as service, service.transaction():
        apart = "SELECT hall_now() - clock_timestamp() BETWEEN '-1 s' AND '0 s', hall_now() > now()"
        assert tuple(await service.fetchrow(apart)) == (True, True)
        first = await service.fetchval("SELECT hall_now()")
        assert await service.fetchval("SELECT hall_now()") > first
    async with connected(database, server_settings={}) as owner:
        await owner.execute("INSERT INTO hall.clock_offset VALUES ('default', '3 days'), ('other', '9 days')")
    async with pool.acquire() as service:
        assert await service.fetchval("SELECT hall_now() - clock_timestamp() BETWEEN '2 d 23:59:59' AND '3 d'")
        for statement in ("UPDATE clock_offset SET \"offset\" = '0'", "INSERT INTO clock_offset VALUES ('x', '0')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(statement)


async def made(owner: Connection) -> None:
    await owner.execute(
        """
        CREATE TABLE hall.entry (id int GENERATED ALWAYS AS IDENTITY, amount hall.fen, firm hall.uscc);
        CALL hall.append_only('hall.entry');
        CREATE TABLE hall.kept (id int);
        CREATE TABLE hall.state (id int PRIMARY KEY, version int);
        GRANT INSERT ON hall.entry, hall.state TO jifen_service;
        GRANT UPDATE (version) ON hall.state TO jifen_service;
        """
    )


async def test_the_service_may_read_and_only_add_or_change_what_a_migration_grants(database: str, pool: Pool) -> None:
    """U3: missing privilege, and no way back to the owner's."""
    async with connected(database, server_settings={}) as owner:
        await made(owner)
    async with pool.acquire() as service:
        await service.execute("INSERT INTO state VALUES (1, 1)")
        await service.execute("UPDATE state SET version = 2")
        await service.execute("INSERT INTO entry (amount) VALUES (1)")
        assert await service.fetchval("SELECT count(*) FROM entry") == 1
        assert await service.fetchval("SELECT count(*) FROM kept") == 0
        await service.execute("RESET ROLE")
        for statement in (
            "INSERT INTO kept VALUES (1)",
            "UPDATE state SET id = 2",
            "DELETE FROM state",
            "TRUNCATE state",
            "UPDATE entry SET amount = 2",
            "DELETE FROM entry",
            "DELETE FROM migration",
            "CREATE TABLE hall.mine ()",
            "DROP TABLE hall.state",
            "ALTER TABLE hall.entry DISABLE TRIGGER ALL",
            "CALL hall.append_only('hall.state')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await service.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hall.entry SET amount = 2",
        "UPDATE hall.entry SET amount = 2 WHERE false",
        "DELETE FROM hall.entry",
        "TRUNCATE hall.entry",
        "SET session_replication_role = replica; DELETE FROM hall.entry",
    ],
)
async def test_an_append_only_table_refuses_a_change_also_by_its_owner(database: str, statement: str) -> None:
    """U3: UPDATE / DELETE / TRUNCATE is refused by trigger."""
    async with connected(database, server_settings={}) as owner:
        await made(owner)
        await owner.execute("INSERT INTO hall.entry (amount) VALUES (1)")
        with pytest.raises(asyncpg.RestrictViolationError, match=r"hall\.entry is append-only"):
            await owner.execute(statement)


async def test_a_row_of_a_partition_is_append_only_too(database: str) -> None:
    async with connected(database, server_settings={}) as owner:
        await owner.execute(
            """
            CREATE TABLE hall.book (day date) PARTITION BY RANGE (day);
            CREATE TABLE hall.book_26 PARTITION OF hall.book FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
            CALL hall.append_only('hall.book');
            INSERT INTO hall.book VALUES ('2026-11-01');
            """
        )
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute("DELETE FROM hall.book_26")


@pytest.mark.parametrize(
    ("amount", "firm"),
    [(-1, "91350200MA2XYZ0014"), (1, "91350200ma2xyz0014"), (1, "91350200MA2XYZ001"), (1, "91350200MA2XYZ0014\n")],
)
async def test_money_is_not_negative_and_a_credit_code_has_18_characters(database: str, amount: int, firm: str) -> None:
    async with connected(database, server_settings={}) as owner:
        await made(owner)
        insert = "INSERT INTO hall.entry (amount, firm) VALUES ($1, $2)"
        await owner.execute(insert, 2**63 - 1, "91350200MA2XYZ0014")
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(insert, amount, firm)


def test_migrations_ship_with_the_package() -> None:
    assert (MIGRATIONS / "0001_ground.sql").is_file()
    assert SHIPPED[0] == "0001_ground"
