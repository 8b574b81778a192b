"""`jifen serve`: one process or several, and an end within three seconds."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from api.postgres import Postgres
from tests.ground import ground
from tests.hall.processes import crash

BIN = Path(sys.executable).parent


@contextmanager
def hall(
    database: str, *words: str, folder: Path | None = None, **told: str
) -> Generator[tuple[subprocess.Popen[str], str]]:
    """A running `jifen serve` and its address; `folder`: where it is started, `told`: more of its surroundings."""
    environment = os.environ | {"JIFEN_DATABASE_URL": database} | told
    process = subprocess.Popen(
        [BIN / "jifen", "serve", "--port", "0", *words], stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said.startswith("the hall is open at http://127.0.0.1:"), said
        yield process, said.split()[5].rstrip(",")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_serves_and_ends_within_three_seconds_of_sigterm(database: str) -> None:
    with hall(database) as (process, address):
        assert httpx2.get(f"{address}/readyz").status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 3


def test_it_says_where_models_and_database_are_and_who_the_champion_is(
    database: str, home: Path, made_once: Path, tmp_path: Path
) -> None:
    with hall(database, folder=tmp_path, JIFEN_HOME="") as (process, _):
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert said == [f"models: {tmp_path / 'var'}, no champion yet\n", "database: as JIFEN_DATABASE_URL says\n"]
    subprocess.run(["cp", "-a", made_once, home / "postgres"], check=True)
    shutil.copytree(ground().home, home, dirs_exist_ok=True)
    with hall("", JIFEN_HOME=str(home)) as (process, _):
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        assert said == [f"models: {home}, champion {ground().champion}\n", f"database: {home / 'postgres'}\n"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_it_serves_before_the_numerical_libraries_are_loaded() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, api.serving; print({'lightgbm', 'scipy'} & set(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == "set()\n"


def test_several_processes_share_a_port_and_one_that_dies_is_started_again(database: str) -> None:
    with hall(database, "--processes", "2") as (process, address):
        children = serving(process.pid)
        children[0].kill()
        until = time.monotonic() + 20
        while len(serving(process.pid)) < 2 or children[0] in serving(process.pid):
            assert time.monotonic() < until
            time.sleep(0.1)
        while not is_ready(address):
            assert time.monotonic() < until
            time.sleep(0.1)
        figures = httpx2.get(f"{address}/metrics", timeout=5).text
        assert 'route="/readyz",status="200"' in figures
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert not any(child.is_running() for child in [*children, *serving(process.pid)])


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_embedded_database_that_was_killed_is_started_again(home: Path, made_once: Path, processes: str) -> None:
    subprocess.run(["cp", "-a", made_once, home / "postgres"], check=True)
    postgres = Postgres(home / "postgres")
    try:
        with hall("", "--processes", processes, JIFEN_HOME=str(home)) as (process, address):
            for _ in range(2):
                before = postgres.pid()
                assert before is not None
                crash(postgres)
                until = time.monotonic() + 20
                while postgres.pid() is None or not is_ready(address):
                    assert time.monotonic() < until
                    time.sleep(0.1)
                assert postgres.pid() != before
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert postgres.pid() is None
    finally:
        postgres.stop_if_unused()


def is_ready(address: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{address}/readyz", timeout=5).status_code == 200
    return False


@pytest.mark.soak
def test_children_of_a_parent_that_was_killed_end_too(database: str) -> None:
    with hall(database, "--processes", "2") as (process, address):
        children = serving(process.pid)
        while True:
            with contextlib.suppress(httpx2.TransportError):
                httpx2.get(f"{address}/healthz", timeout=5)
                break
        process.kill()
        _, alive = psutil.wait_procs(children, 10)
        assert not alive


def serving(parent: int) -> list[psutil.Process]:
    """The processes that serve; Python's own for their clean-up is none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            child
            for child in psutil.Process(parent).children()
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
        ]
    return []
