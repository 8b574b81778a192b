"""The pool and its transactions: whole or nothing, and what each fault of the database means to a caller."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from api.database import (
    Connection,
    Contended,
    EffectUnknown,
    Overloaded,
    Pool,
    connected,
    database_url,
    in_transaction,
    listening,
    pool_of,
    service_database,
    transaction,
)
from api.postgres import Postgres
from api.settings import Settings
from tests.hall.processes import kill_with_children


@pytest.fixture
async def table(database: str) -> str:
    """A table of two rows that the service may change."""
    async with connected(database, server_settings={}) as owner:
        await owner.execute(
            """
            CREATE TABLE hall.pot (id int PRIMARY KEY, amount hall.fen, note jsonb);
            GRANT INSERT, UPDATE ON hall.pot TO jifen_service;
            INSERT INTO hall.pot VALUES (1, 0), (2, 0);
            """
        )
    return "pot"


async def added(connection: Connection, number: int = 1) -> None:
    await connection.execute("UPDATE pot SET amount = amount + 1 WHERE id = $1", number)


async def amount(pool: Pool) -> int:
    return await pool.fetchval("SELECT sum(amount)::int FROM pot")


async def test_a_transaction_is_whole_or_nothing(pool: Pool, table: str) -> None:
    async with transaction(pool) as connection:
        await added(connection)

    async def failing() -> None:
        async with transaction(pool) as connection:
            await added(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert await amount(pool) == 1


async def test_a_fault_of_the_caller_stays_its_own(pool: Pool, table: str) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with transaction(pool) as connection:
            await connection.execute("INSERT INTO pot VALUES (1, 0)")
    with pytest.raises(FileNotFoundError):
        async with transaction(pool):
            raise FileNotFoundError


async def test_a_session_is_the_services_and_a_connection_given_back_is_clean(pool: Pool) -> None:
    async with transaction(pool) as connection:
        await connection.execute("SET LOCAL statement_timeout = '1s'")
    asked = (
        "SELECT current_user::text, current_setting('search_path'), current_setting('TimeZone'),"
        " current_setting('statement_timeout'), current_setting('lock_timeout')"
    )
    assert tuple(await pool.fetchrow(asked)) == ("jifen_service", "hall, public", "UTC", "10s", "5s")


@pytest.mark.parametrize("value", [{"资金": [1, None, 2**53, 'a"b']}, [], "x", None, True])
async def test_jsonb_comes_back_as_it_went(pool: Pool, table: str, value: object) -> None:
    async with transaction(pool) as connection:
        await connection.execute("UPDATE pot SET note = $1 WHERE id = 1", value)
        assert await connection.fetchval("SELECT note FROM pot WHERE id = 1") == value
        if isinstance(value, dict):
            assert await connection.fetchval("SELECT note -> '资金' ->> 0 FROM pot WHERE id = 1") == "1"


async def test_transactions_that_deadlock_are_done_anew_until_each_is_done(pool: Pool, table: str) -> None:
    tries = 0

    async def work(connection: Connection, first: int, second: int) -> None:
        nonlocal tries
        tries += 1
        await added(connection, first)
        await asyncio.sleep(0.1)
        await added(connection, second)

    await asyncio.gather(
        in_transaction(pool, lambda connection: work(connection, 1, 2)),
        in_transaction(pool, lambda connection: work(connection, 2, 1)),
    )
    assert await amount(pool) == 4
    assert tries > 2, "they did not meet"


async def test_a_long_wait_for_a_lock_is_tried_three_times_and_then_contended(pool: Pool, table: str) -> None:
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SET LOCAL lock_timeout = '10ms'")
        await added(connection)

    async with transaction(pool) as holder:
        await added(holder)
        with pytest.raises(Contended) as refused:
            await in_transaction(pool, work)
    assert (tries, refused.value.code, refused.value.status) == (3, "overloaded", 503)
    assert await amount(pool) == 1


async def test_a_statement_that_takes_too_long_is_overloaded_and_is_not_tried_again(pool: Pool) -> None:
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("SET LOCAL statement_timeout = '20ms'")
        await connection.execute("SELECT pg_sleep(9)")

    with pytest.raises(Overloaded):
        await in_transaction(pool, work)
    assert tries == 1


async def test_a_pool_without_a_free_connection_is_overloaded(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.database.ACQUIRE_SECONDS", 0.05)
    async with pool_of(database, most=1) as pool, transaction(pool):
        with pytest.raises(Overloaded):
            async with transaction(pool):
                pass


async def test_a_connection_that_breaks_before_the_commit_is_overloaded_and_the_pool_recovers(
    database: str, pool: Pool, table: str
) -> None:

    async def broken() -> None:
        async with transaction(pool) as connection:
            await added(connection)
            async with connected(database, server_settings={}) as owner:
                await owner.execute("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
            await added(connection)

    with pytest.raises(Overloaded):
        await broken()
    async with transaction(pool) as connection:
        await added(connection)
    assert await amount(pool) == 1


async def test_a_connection_that_breaks_during_the_commit_says_that_the_effect_is_unknown(
    database: str, table: str
) -> None:
    """503 guarantees no effect, so this is 500; the change was in fact made."""
    async with cut_wire(database) as (url, cut), pool_of(url, most=1) as pool:

        async def unheard() -> None:
            async with transaction(pool) as connection:
                await added(connection)
                cut.set()

        with pytest.raises(EffectUnknown) as unknown:
            await unheard()
        assert (unknown.value.code, unknown.value.status) == ("internal", 500)
    async with pool_of(database) as pool:
        for _ in range(100):
            if await amount(pool) == 1:
                break
            await asyncio.sleep(0.05)
        assert await amount(pool) == 1


@asynccontextmanager
async def cut_wire(database: str) -> AsyncGenerator[tuple[str, asyncio.Event]]:
    """The database behind a wire that, once cut, carries what goes there and no answer: the client sees an end."""
    there = urlsplit(database)
    cut = asyncio.Event()

    async def carry(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        answers, on = await asyncio.open_connection(there.hostname, there.port)

        async def forth() -> None:
            while data := await client.read(65536):
                on.write(data)
                await on.drain()
            on.close()

        async def home() -> None:
            while data := await answers.read(65536):
                if cut.is_set():
                    break
                back.write(data)
                await back.drain()
            back.close()

        await asyncio.gather(forth(), home(), return_exceptions=True)

    server = await asyncio.start_server(carry, "127.0.0.1", 0, family=socket.AF_INET)
    port = server.sockets[0].getsockname()[1]
    try:
        yield there._replace(netloc=f"{there.username}:{there.password}@127.0.0.1:{port}").geturl(), cut
    finally:
        server.close()


async def test_work_that_is_cancelled_leaves_nothing_and_frees_its_connection(database: str, table: str) -> None:
    async with pool_of(database, most=1) as pool:

        async def work() -> None:
            async with transaction(pool) as connection:
                await added(connection)
                await connection.execute("SELECT pg_sleep(30)")

        task = asyncio.create_task(work())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await amount(pool) == 0


async def test_a_listener_hears_what_a_transaction_says_once_it_is_committed(database: str, pool: Pool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with listening(database) as ear:
        await ear.add_listener("bell", lambda *said: heard.put_nowait(said[-1]))
        async with transaction(pool) as connection:
            await connection.execute("SELECT pg_notify('bell', 'one')")
            await asyncio.sleep(0.05)
            assert heard.empty()
        assert await asyncio.wait_for(heard.get(), 5) == "one"


async def test_without_a_url_the_service_starts_migrates_and_stops_a_database_of_its_own(
    made_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made_home / "data").mkdir()
    monkeypatch.delenv("JIFEN_DATABASE_URL", raising=False)
    monkeypatch.setenv("JIFEN_HOME", str(made_home / "data"))
    async with service_database(Settings()) as pool:
        assert await pool.fetchval("SELECT current_database() || ' ' || current_user") == "jifen jifen_service"
        assert await pool.fetchval("SELECT count(*) > 0 FROM migration")
    assert Postgres(made_home / "data" / "postgres").pid() is None


async def test_a_lasting_database_that_cannot_be_started_is_tried_again_and_never_made_anew(
    made_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator who lays another database in its place must not find an empty one there."""
    monkeypatch.delenv("JIFEN_DATABASE_URL", raising=False)
    monkeypatch.setenv("JIFEN_HOME", str(made_home))
    postgres = Postgres(made_home / "postgres")
    async with database_url(Settings(), lasting=True) as url:
        postmaster, aside = postgres.pid(), postgres.data.with_name("aside")
        assert postmaster is not None
        postgres.data.rename(aside)
        kill_with_children(postmaster)
        said = ""
        async with asyncio.timeout(10):
            while said.count("does not start") < 2:
                await asyncio.sleep(0.1)
                said += capsys.readouterr().out
        assert not postgres.data.exists()
        aside.rename(postgres.data)
        async with asyncio.timeout(20):
            while not await answers(url):  # noqa: ASYNC110  (another process has no event)
                await asyncio.sleep(0.1)
    assert postgres.pid() is None


async def answers(url: str) -> bool:
    with suppress(Overloaded):
        async with connected(url, server_settings={}) as owner:
            return bool(await owner.fetchval("SELECT true"))
    return False


def test_the_password_in_a_url_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIFEN_DATABASE_URL", "postgresql://jifen:opensesame@db/jifen")
    assert "opensesame" not in repr(Settings()) + str(Settings()) + Settings().model_dump_json()
