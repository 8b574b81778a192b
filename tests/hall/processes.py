"""The hall as it is run: `jifen serve` in processes of its own, which may be killed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import asyncpg

from api.postgres import Postgres

PROGRAM = Path(sys.executable).parent / "jifen"
POLICY = "settings: {gate_ms: 0, gate_waits_for_working_time: 0}\n"
"""Rounds open at once and at night: whether a race is right does not hang on office hours."""

SERVER_DIED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver may say where a server died or starts."""


class Serving:
    """A program that serves a database on a port; a context manager.

    Args:
        url: of the database, as its owner.
        home: an empty folder.
        processes: how many share the port.
    """

    def __init__(self, url: str, home: Path, processes: int = 1) -> None:
        policy = home / "hall_policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        self._log = (home / "serve.log").open("ab")
        self._words = [str(PROGRAM), "serve", "--port", "0", "--processes", str(processes)]
        self._surroundings = os.environ | {
            "JIFEN_DATABASE_URL": url,
            "JIFEN_HOME": str(home),
            "JIFEN_HALL_POLICY": str(policy),
            "JIFEN_RATE_LIMITS": "off",
        }
        self.address = ""

    def __enter__(self) -> Self:
        self._program = subprocess.Popen(
            self._words, env=self._surroundings, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._program.stdout is not None
        said = self._program.stdout.readline()
        found = re.search(r"http://\S+:\d+", said)
        assert found, f"jifen serve said {said!r}, see {self._log.name}"
        self.address = found[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._program.send_signal(signal.SIGTERM)
        self._program.wait(15)
        assert self._program.stdout is not None
        self._program.stdout.close()
        self._log.close()

    def workers(self) -> list[int]:
        """Process numbers of those that take calls, where several share the port."""
        return [pid for pid in children(self._program.pid) if b"spawn_main" in _command(pid)]


def crash(postgres: Postgres) -> None:
    """End all processes of a server at once, as a machine's end would: what only they knew is lost."""
    postmaster = postgres.pid()
    assert postmaster is not None
    kill_with_children(postmaster)
    # While its last moments pass, its port still takes connections, and who starts it then would find it running.
    while postgres.pid() == postmaster:
        time.sleep(0.001)


def kill_with_children(postmaster: int) -> None:
    # It must not see its children die: it would start to put things in order.
    os.kill(postmaster, signal.SIGSTOP)
    for pid in [*children(postmaster), postmaster]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children(parent: int) -> list[int]:
    """Process numbers of a process's children."""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _parent(folder) == parent]


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
