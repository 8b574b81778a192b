"""Connections to the database: the pool, transactions, and what the database's faults mean to a caller."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import asyncpg
import orjson
import structlog

from api.settings import Settings
from data_contracts.errors import JifenError

if TYPE_CHECKING:
    from api.postgres import Postgres

log = structlog.get_logger()

Connection: TypeAlias = asyncpg.Connection
Pool: TypeAlias = asyncpg.Pool
Answer = TypeVar("Answer")

SERVICE_ROLE = "jifen_service"
TRIES = 3
ACQUIRE_SECONDS = 5
CONNECT_SECONDS = 10
LOOK_SECONDS = 1.0
"""Between two looks at whether the embedded server runs."""
LONGEST_PAUSE_SECONDS = 10.0
"""Between two tries to start it."""

_SESSION: Mapping[str, str] = {
    "application_name": "jifen",
    # Given at the door, the role is the session's own: RESET ROLE comes back to it and not to the owner.
    "role": SERVICE_ROLE,
    "search_path": "hall, public",
    "timezone": "UTC",
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "jit": "off",
}
_NO_ENTRY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
)
_BUSY = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # the server ends, or a statement ran into its time-out
    asyncpg.InsufficientResourcesError,
    asyncpg.InternalClientError,  # what the driver says when the server ends a connection between two statements
)
_CONTENDED = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError)


class Overloaded(JifenError):
    """The database is out of reach or too busy. Nothing was changed: the same request may be sent again."""

    code = "overloaded"
    status = 503
    exit_code = 2


class Contended(Overloaded):
    """Transactions stood in each other's way, and this one gave in."""


class EffectUnknown(JifenError):
    """The connection broke while the change was being committed. Repeat the request with the same key."""

    code = "internal"
    status = 500
    exit_code = 1


class DatabaseRefused(JifenError):
    """The database named in JIFEN_DATABASE_URL takes no connection from us: a wrong role, password or name."""

    code = "database-refused"
    exit_code = 2


@asynccontextmanager
async def service_database(settings: Settings) -> AsyncGenerator[Pool]:
    """The pool of a prepared database: the one that is named, or an embedded one that runs while it is used.

    Raises:
        JifenError: it cannot be reached, started or prepared.
    """
    from api.migrating import prepare

    async with database_url(settings) as url:
        await prepare(url, settings.hall_policy)
        async with pool_of(url, most=settings.pool_size) as pool:
            yield pool


@asynccontextmanager
async def database_url(settings: Settings, *, lasting: bool = False) -> AsyncGenerator[str]:
    """Where the owner connects; an embedded server runs as long as the block.

    Args:
        settings: name the database, or where the embedded one is.
        lasting: for a block that may take days; an embedded server that dies meanwhile is started again.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    # Not needed with a database of one's own, and it cannot be imported on Windows.
    from api.postgres import Postgres

    async with Postgres(settings.data_folder() / "postgres", settings.postgres_bin) as postgres:
        ended = asyncio.Event()
        keeping = asyncio.create_task(_keep_running(postgres, ended)) if lasting else None
        try:
            yield postgres.url()
        finally:
            ended.set()
            if keeping is not None:
                await keeping  # a start under way cannot be broken off, and would leave a server behind


async def _keep_running(postgres: "Postgres", ended: asyncio.Event) -> None:
    """Until the end, start the server again whenever it died; after a failure with pauses that grow."""
    pause = LOOK_SECONDS
    while not ended.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), pause)
        try:
            if not ended.is_set() and postgres.pid() is None:
                await asyncio.to_thread(postgres.restart)
                log.warning("the embedded database had died and was started again")
            pause = LOOK_SECONDS
        except Exception as fault:  # noqa: BLE001  (it must not end while the hall is open)
            log.error("the embedded database is down and does not start", fault=str(fault))  # noqa: TRY400
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


@asynccontextmanager
async def connected(url: str, *, server_settings: Mapping[str, str]) -> AsyncGenerator[Connection]:
    """A connection outside the pool, as the role of the URL.

    Raises:
        DatabaseRefused, Overloaded: there is none.
    """
    with _door():
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=dict(server_settings))
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


@asynccontextmanager
async def listening(url: str, **session: str) -> AsyncGenerator[Connection]:
    """A connection of its own for LISTEN, as the service; one from the pool would keep listening after its return.

    Args:
        url: see `connected`.
        session: settings of the session in place of those of the pool, such as `statement_timeout="60s"`.
    """
    async with connected(url, server_settings={**_SESSION, **session}) as connection:
        yield connection


@asynccontextmanager
async def pool_of(url: str, *, least: int = 1, most: int = 16) -> AsyncGenerator[Pool]:
    """A pool of connections as the service's role.

    A connection is given back as it is, without the usual round trip of clearing it: nothing that outlives a
    transaction (SET, LISTEN, a session's advisory lock) may be done on it.

    Raises:
        DatabaseRefused, Overloaded: there is no connection.
    """
    with _door():
        pool = await asyncpg.create_pool(
            url,
            min_size=least,
            max_size=most,
            init=_prepared,
            reset=_left_alone,
            timeout=CONNECT_SECONDS,
            server_settings=dict(_SESSION),
        )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), CONNECT_SECONDS)
        except TimeoutError:
            pool.terminate()


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncGenerator[Connection]:
    """A connection in a transaction, which is committed when the block ends well, else rolled back.

    Raises:
        Overloaded: no connection, or it broke, or a statement took too long; nothing was changed.
        Contended: a deadlock, a conflict or a long wait for a lock; nothing was changed.
        EffectUnknown: the connection broke during the commit.
    """
    try:
        connection = cast("Connection", await pool.acquire(timeout=ACQUIRE_SECONDS))  # a proxy that acts as one
    except _NO_ENTRY as error:
        raise Overloaded("The database is out of reach or too busy; nothing was changed.") from error
    try:
        block = connection.transaction()
        try:
            await block.start()
            yield connection
        except BaseException as error:
            fault = _fault(error, connection)
            if isinstance(error, asyncpg.InternalClientError):
                _drop(connection)
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await block.rollback()
            if fault is not None:
                raise fault from error
            raise
        try:
            await block.commit()
        except Exception as error:
            if _is_lost(error, connection):
                _drop(connection)
                raise EffectUnknown("The connection to the database broke while the change was committed.") from error
            fault = _fault(error, connection)
            if fault is not None:
                raise fault from error
            raise
    finally:
        await pool.release(connection, timeout=ACQUIRE_SECONDS)


async def in_transaction(pool: Pool, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Do `work` in a transaction, anew when transactions stood in each other's way, up to `TRIES` times.

    Args:
        pool: see `pool_of`.
        work: has no effect but on the connection handed to it, since it may run several times.

    Raises:
        Overloaded, Contended, EffectUnknown: see `transaction`.
    """
    for tried in range(1, TRIES):
        try:
            async with transaction(pool) as connection:
                return await work(connection)
        except Contended:
            # Unequal waits, so that the same two do not meet again.
            await asyncio.sleep(tried * 0.01 * (1 + secrets.randbelow(100) / 50))
    async with transaction(pool) as connection:
        return await work(connection)


def _fault(error: BaseException, connection: Connection) -> JifenError | None:
    """What a fault of the database means to the caller before the commit; None: it is not the database's."""
    if isinstance(error, _CONTENDED):
        return Contended("Others change the same rows; nothing was changed.")
    is_broken = isinstance(error, asyncpg.InterfaceError | OSError) and _is_closed(connection)
    if isinstance(error, _BUSY) or is_broken:
        return Overloaded("The database is out of reach or too busy; nothing was changed.")
    return None


def _is_lost(error: Exception, connection: Connection) -> bool:
    """Whether the server's answer to a commit is not known: it did not come, or came from a server that was ending."""
    refused = isinstance(error, asyncpg.PostgresError) and not isinstance(error, _BUSY)
    return not (refused or isinstance(error, asyncpg.QueryCanceledError)) or _is_closed(connection)


def _drop(connection: Connection) -> None:
    """Let nobody use a connection whose state is not known."""
    with suppress(asyncpg.InterfaceError):  # the pool took it away from us already
        connection.terminate()


def _is_closed(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # The pool took a broken connection away from us.


@contextmanager
def _door() -> Generator[None]:
    """Say what it means that a connection cannot be opened."""
    try:
        yield
    except _NO_ENTRY as error:
        raise Overloaded("The database cannot be reached.", [f"{type(error).__name__}: {error}"]) from error
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        # What the parser says may repeat a part of the password, also in a log that shows what came before.
        advice = "percent-encode the password, such as %2F for /, and see that host and port are as they should be"
        raise DatabaseRefused(
            "The address of the database cannot be read.", [f"{type(error).__name__}: {advice}"]
        ) from None
    except asyncpg.PostgresError as error:
        raise DatabaseRefused("The database refuses us.", [f"{type(error).__name__}: {error}"]) from error


async def _prepared(connection: Connection) -> None:
    # Binary jsonb is a version byte, 1, and the text.
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda stored: orjson.loads(stored[1:]),
        format="binary",
    )


async def _left_alone(_connection: Any) -> None:  # noqa: ANN401  (asyncpg hands over a proxy it keeps to itself)
    """Nothing: see `pool_of`."""
