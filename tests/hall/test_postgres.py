"""The embedded server: made, shared and stopped by its users, and no death of a process loses data."""

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from api.cli import app
from api.postgres import Postgres
from api.programs import Programs, ServerError, found_programs
from api.settings import Settings
from data_contracts.errors import UsageError
from tests.hall.processes import SERVER_DIED

ROOT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands its server to another user")

HOLD = """
import sys
from pathlib import Path
from api.postgres import Postgres
from api.settings import Settings
with Postgres(Path(sys.argv[1]), Settings().postgres_bin) as postgres:
    print(postgres.pid(), flush=True)
    sys.stdin.readline()
print(postgres.pid(), flush=True)
"""


def embedded(home: Path) -> Postgres:
    return Postgres(home, Settings().postgres_bin, {"fsync": "off"})


def answer(url: str, question: str) -> object:
    async def asked() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return asyncio.run(asked())


def tell(url: str, *statements: str) -> None:
    for statement in statements:
        answer(url, statement)


def suppressing(url: str, question: str) -> None:
    with suppress(*SERVER_DIED):
        answer(url, question)


class Holder:
    """Another process that uses the server until it is told to end."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, home],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pid = int(self.process.stdout.readline())

    def ended(self) -> str:
        """What it says of the server after it left: its process number, or None."""
        return self.process.communicate("\n", timeout=60)[0].strip()

    def killed(self) -> None:
        self.process.kill()
        self.process.communicate()


def killed(pid: int | None) -> None:
    """Kill a postmaster and wait until nothing but a zombie is left of it."""
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)


def test_a_cold_start_makes_a_database_and_a_warm_start_finds_what_was_written(home: Path) -> None:
    with embedded(home) as postgres:
        tell(postgres.url(), "CREATE TABLE kept (name text)", "INSERT INTO kept VALUES ('福')")
        first = postgres.pid(), postgres.port
        asked = "SELECT current_setting('data_checksums') || ' ' || current_setting('server_encoding')"
        assert answer(postgres.url(), asked) == "on UTF8"
        assert answer(postgres.url(), "SELECT datcollate FROM pg_database WHERE datname = 'jifen'") == "C.UTF-8"
    assert postgres.pid() is None
    with embedded(home) as postgres:
        assert answer(postgres.url(), "SELECT name FROM kept") == "福"
        assert postgres.pid() != first[0]
        assert postgres.port == first[1], "other processes' pools connect again to the same port"


def test_a_second_process_joins_and_the_last_one_out_stops_the_server(made_home: Path) -> None:
    first = Holder(made_home)
    second = Holder(made_home)
    assert second.pid == first.pid
    assert first.ended() == str(first.pid), "the server was stopped though another uses it"
    assert second.ended() == "None"


def test_a_killed_user_leaves_a_server_that_the_next_reuses_and_stops(made_home: Path) -> None:
    """Neither its lock nor its group's signals pass to the server."""
    holder = Holder(made_home)
    os.killpg(holder.process.pid, signal.SIGINT)  # Ctrl-C at the keyboard goes to the whole group
    holder.process.communicate()
    assert embedded(made_home).pid() is None, "an interrupted user leaves in order"
    holder = Holder(made_home)
    holder.killed()
    left = embedded(made_home)
    assert left.pid() == holder.pid
    left.start()
    assert left.pid() == holder.pid
    assert left.stop()
    assert left.pid() is None


def test_a_server_left_behind_is_stopped_only_while_nobody_uses_it(made_home: Path) -> None:
    holder = Holder(made_home)
    assert not embedded(made_home).stop_if_unused()
    holder.killed()
    assert embedded(made_home).stop_if_unused()
    assert embedded(made_home).pid() is None


def test_a_killed_postmaster_keeps_what_was_committed(made_home: Path) -> None:
    """Also while one of its backends is still busy: that one is waited for."""
    with Postgres(made_home, Settings().postgres_bin) as postgres:
        tell(postgres.url(), "CREATE TABLE kept AS SELECT g AS n FROM generate_series(1, 1000) AS g")
        before = postgres.pid(), postgres.port
        busy = threading.Thread(
            target=suppressing, args=(postgres.url(), "SELECT count(*) FROM generate_series(1, 9e6)")
        )
        busy.start()
        while answer(postgres.url(), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%9e6%'") != 2:
            time.sleep(0.01)
        killed(before[0])
        assert postgres.pid() is None
        postgres.start()
        busy.join()
        assert postgres.pid() != before[0]
        assert postgres.port == before[1]
        assert answer(postgres.url(), "SELECT sum(n) FROM kept") == 500_500


@pytest.mark.parametrize("stranger", ["zombie", "another program"])
def test_a_process_number_that_is_no_living_postgres_is_no_server(made_home: Path, stranger: str) -> None:
    with embedded(made_home) as postgres:
        tell(postgres.url(), "CREATE TABLE kept ()")
        killed(postgres.pid())
        pid_file = postgres.data / "postmaster.pid"
        other = subprocess.Popen(["sleep", "60"] if stranger != "zombie" else ["true"])
        if stranger == "zombie":
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        try:
            lines = pid_file.read_text().split("\n")
            pid_file.write_text("\n".join([str(other.pid), *lines[1:]]))
            assert postgres.pid() is None
            postgres.start()
            assert answer(postgres.url(), "SELECT count(*) FROM kept") == 0
        finally:
            other.kill()
            other.wait()


def test_a_taken_port_is_given_up_for_another(made_home: Path) -> None:
    with embedded(made_home) as postgres:
        former = postgres.port
    with squatting(former), embedded(made_home) as postgres:
        assert postgres.port != former
        assert answer(postgres.url(), "SELECT 1") == 1


def test_a_restart_keeps_its_port_or_waits_for_it(made_home: Path) -> None:
    """Those who use the server know no other, and its use goes on whatever comes of the restart."""
    with embedded(made_home) as postgres:
        former = postgres.port
        killed(postgres.pid())
        with squatting(former):
            with pytest.raises(ServerError, match="could not bind"):
                postgres.restart()
            assert postgres.pid() is None
            assert not Postgres(made_home).stop_if_unused(), "somebody uses it"
        postgres.restart()
        assert (postgres.port, answer(postgres.url(), "SELECT 1")) == (former, 1)


@contextmanager
def squatting(port: int) -> Generator[None]:
    """Somebody else listens at a port."""
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", port))
        squatter.listen()
        yield


def test_the_password_is_private_and_asked_for_and_only_loopback_listens(made_home: Path) -> None:
    with embedded(made_home) as postgres:
        secret = made_home / "password"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.stat().st_uid == os.geteuid()
        assert len(secret.read_text()) >= 24
        assert not list(made_home.rglob("*.part"))
        with pytest.raises(asyncpg.InvalidPasswordError):
            answer(postgres.url().replace(secret.read_text(), "guess"), "SELECT 1")
        rules = "SELECT string_agg(DISTINCT auth_method, ',') FROM pg_hba_file_rules"
        assert answer(postgres.url(), rules) == "scram-sha-256"
        assert answer(postgres.url(), "SHOW unix_socket_directories") == ""
        listening = {
            line.split()[1].split(":")[0]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{postgres.port:04X}") and line.split()[3] == "0A"
        }
        assert listening == {"0100007F"}


@as_root
def test_root_hands_the_server_to_a_system_user_and_opens_no_folder(made_home: Path) -> None:
    modes = {path: path.stat().st_mode for path in (made_home, *made_home.parents)}
    accounts = Path("/etc/passwd").read_text()
    with embedded(made_home) as postgres:
        owner = Path(f"/proc/{postgres.pid()}").stat().st_uid
        assert pwd.getpwuid(owner).pw_name in {"postgres", "nobody"}
        assert postgres.data.stat().st_uid == owner
    assert {path: path.stat().st_mode for path in modes} == modes
    assert Path("/etc/passwd").read_text() == accounts


@as_root
def test_programs_out_of_reach_of_the_system_user_are_copied(home: Path, tmp_path: Path) -> None:
    programs = found_programs()
    if programs.package is None:
        pytest.skip("no wheel of PostgreSQL is installed")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for source in [programs.package, *programs.package.parent.glob(f"{programs.package.name}.libs")]:
        shutil.copytree(source, closed / source.name, symlinks=True)
    inside = closed / programs.package.name
    postgres = embedded(home)
    postgres._programs = Programs(inside / programs.folder.relative_to(programs.package), inside, programs.release)
    with postgres:
        assert answer(postgres.url(), "SELECT 1") == 1
        assert (home / "programs").is_dir()
        assert Path(f"/proc/{postgres.pid()}/exe").readlink().is_relative_to(home / "programs")
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_reached_is_bad_usage_and_nothing_is_made_in_it(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir()
    closed.chmod(0o700 if os.geteuid() == 0 else 0o500)
    try:
        with pytest.raises(UsageError, match="JIFEN_HOME"):
            embedded(closed / "jifen").start()
        assert not list(closed.iterdir())
        run = CliRunner().invoke(app, ["migrate"], env={"JIFEN_HOME": str(closed), "JIFEN_DATABASE_URL": ""})
        assert run.exit_code == 2
        assert run.stderr.startswith("usage: The database's folder")
    finally:
        closed.chmod(0o700)


def test_data_of_another_major_version_are_refused_and_left_alone(made_home: Path) -> None:
    version = embedded(made_home).data / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(ServerError, match="written by PostgreSQL 9"):
        embedded(made_home).start()
    assert version.read_text() == "9\n"


def test_what_keeps_the_server_from_starting_is_said(made_home: Path) -> None:
    postgres = embedded(made_home)
    postgres._settings["shared_buffers"] = "plenty"
    with pytest.raises(ServerError, match="shared_buffers"):
        postgres.start()
    assert postgres.pid() is None


def test_named_programs_are_used_or_refused_with_all_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "postgres").touch()
    with pytest.raises(UsageError) as refused:
        found_programs(tmp_path)
    assert refused.value.problems == ("no initdb", "no pg_ctl")
    (tmp_path / "initdb").touch()
    (tmp_path / "pg_ctl").touch()
    assert found_programs(tmp_path) == Programs(tmp_path)


async def test_a_start_that_is_given_up_leaves_no_server_behind(home: Path) -> None:
    postgres = embedded(home)

    async def used() -> None:
        async with postgres:
            raise AssertionError("it was given up before")

    task = asyncio.create_task(used())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert postgres.data.is_dir(), "the start was given up too early to have begun"
    assert postgres.pid() is None


def test_without_jifen_home_data_go_to_the_users_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIFEN_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", "/of/the/user")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Settings().data_folder() == Path("/of/the/user/jifen")
    assert Settings().models_folder() == Path.cwd() / "var"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Settings().data_folder() == Path("/var/lib/jifen")
    monkeypatch.setenv("JIFEN_HOME", "/named")
    assert Settings().data_folder() == Settings().models_folder() == Path("/named")
