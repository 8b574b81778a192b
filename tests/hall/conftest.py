"""A real PostgreSQL for every test of the hall: one server a run, one database a test, copied from a prepared one.

JIFEN_TEST_DATABASE_URL lets the tests run on a server of one's own (its role must be able to create databases and
roles); JIFEN_POSTGRES_BIN starts other programs than the wheel's, such as those of a system's PostgreSQL 15.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from datetime import time as dt_time
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

import api
from api.database import Pool, pool_of
from api.loading import load
from api.migrating import migrations, prepare
from api.postgres import Postgres
from api.settings import Settings
from data_contracts.samples import AS_OF
from tests.conftest import DISK, MEMORY, PLACE_NAME
from tests.ground import ground

OURS = f"jifen-test-{os.getuid()}-"
FORGOTTEN_SECONDS = 3600
READ = [one.sql for one in migrations()] + [
    path.read_text() for path in sorted(Path(api.__file__).parent.glob("*.yaml"))
]
TEMPLATE = f"jifen_test_{sha256(''.join([*READ, version('chinesecalendar')]).encode()).hexdigest()[:16]}"
"""A template that other files or another calendar made is another one."""


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop of the service, on which all asynchronous tests and fixtures run."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty folder that every system user may reach; whatever server is left in it is stopped."""
    with own_folder("home") as folder:
        yield folder
        Postgres(folder).stop()


@pytest.fixture(scope="session")
def made_once() -> Iterator[Path]:
    """The home of a server that was made and stopped; nobody may write to it."""
    with own_folder("made") as folder:
        with Postgres(folder, Settings().postgres_bin, {"fsync": "off"}):
            pass
        yield folder


@pytest.fixture
def made_home(home: Path, made_once: Path) -> Path:
    """The home of a server that was made and stopped, of the test's own: copied, which is quicker than to make one."""
    subprocess.run(["cp", "-a", f"{made_once}/.", home], check=True)
    return home


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Iterator[str]:
    """Address of a server of the run, as its owner; the processes of the run share it."""
    named = os.environ.get("JIFEN_TEST_DATABASE_URL")
    if named:
        yield named
        return
    place = Path(os.environ[PLACE_NAME]) / f"{OURS}{testrun_uid[:12]}"
    gate = tmp_path_factory.getbasetemp().parent / "jifen-server.lock"
    # What a test writes need not outlive the machine.
    postgres = Postgres(place, Settings().postgres_bin, {"fsync": "off", "synchronous_commit": "off"})
    with gate.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(MEMORY, DISK)
        postgres.start()
    yield postgres.url("postgres")
    with gate.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if postgres.stop():
            shutil.rmtree(place)


@contextmanager
def own_folder(kind: str) -> Generator[Path]:
    """An empty folder that every system user may reach; no sweep takes it for forgotten, however long it is used."""
    folder = Path(tempfile.mkdtemp(prefix=f"{OURS}{kind}-", dir=os.environ[PLACE_NAME]))
    folder.chmod(0o711)
    with _locked(folder, fcntl.LOCK_SH):
        yield folder
    shutil.rmtree(folder)


def sweep(*places: Path) -> None:
    """Remove what killed runs left behind, servers as well; what is young or in use stays."""
    for left in [one for place in places for one in place.glob(f"{OURS}*")]:
        # Another run uses it, or sweeps it at the same time.
        with suppress(BlockingIOError, FileNotFoundError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
            is_old = time.time() - left.stat().st_mtime > FORGOTTEN_SECONDS
            if is_old and all(Postgres(place).stop_if_unused() for place in (left, left / "postgres")):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path, how: int) -> Generator[None]:
    """Hold a kernel lock on the folder itself, which the death of its holder ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """Name of a prepared database that nobody connects to; it is made once for these migrations."""

    async def made() -> None:
        connection = await asyncpg.connect(server)
        try:
            await connection.execute("SELECT pg_advisory_lock(5202607)")
            if await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", TEMPLATE):
                return
            await connection.execute(f"DROP DATABASE IF EXISTS {TEMPLATE}_part")
            await connection.execute(f"CREATE DATABASE {TEMPLATE}_part TEMPLATE template0 ENCODING 'UTF8'")
            await prepare(on(server, f"{TEMPLATE}_part"))
            await connection.execute(f"ALTER DATABASE {TEMPLATE}_part RENAME TO {TEMPLATE}")
        finally:
            await connection.close()

    asyncio.run(made())
    return TEMPLATE


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """Address of a prepared database of the test's own, as its owner."""
    yield from _database(server, template)


@pytest.fixture
def empty_database(server: str) -> Iterator[str]:
    """Address of a database of the test's own with nothing in it, as its owner."""
    yield from _database(server, "template0")


@pytest.fixture(scope="session")
def town(server: str, template: str) -> Iterator[str]:
    """Name of a database in which the park of `tests.ground` is loaded and whose clock stands at the park's day."""
    name = f"jifen_test_town_{secrets.token_hex(6)}"
    asyncio.run(_said(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))

    async def filled() -> None:
        connection = await asyncpg.connect(on(server, name))
        noon = datetime.combine(AS_OF, dt_time(12), timezone(timedelta(hours=8)))
        await connection.execute(
            "INSERT INTO hall.clock_offset (tenant, \"offset\") VALUES ('default', $1)", noon - datetime.now(UTC)
        )
        await connection.close()
        async with pool_of(on(server, name)) as opened:
            await load(opened, ground().park, lambda _: None)

    asyncio.run(filled())
    yield name
    asyncio.run(_said(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def town_database(server: str, town: str) -> Iterator[str]:
    """Address of a database of the test's own with the park of `tests.ground` in it, as its owner."""
    yield from _database(server, town)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    """The service's pool on the test's database."""
    async with pool_of(database) as opened:
        yield opened


@pytest.fixture
async def owner(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database as its owner, who may do what the service may not."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        connection.terminate()


def on(server: str, database: str) -> str:
    """The same server's address with another database."""
    return urlsplit(server)._replace(path=f"/{database}").geturl()


def _database(server: str, template: str) -> Iterator[str]:
    name = f"jifen_test_{secrets.token_hex(6)}"
    asyncio.run(_said(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    yield on(server, name)
    asyncio.run(_said(server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _said(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
