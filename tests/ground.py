"""A small town on disk, made once a test run by the program itself: a park, a champion, a challenger, limits."""

import atexit
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TextIO

import polars as pl
from typer.testing import CliRunner, Result

from api.cli import app

FIRMS, SEED = 200, 3


@dataclass(frozen=True)
class Ground:
    """`root` holds `park`, `home` (JIFEN_HOME) and `limits.parquet`; nobody may write to it: others use it too."""

    root: Path
    champion: str
    challenger: str

    @property
    def park(self) -> Path:
        return self.root / "park"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def limits(self) -> pl.DataFrame:
        return pl.read_parquet(self.root / "limits.parquet")

    @property
    def best(self) -> dict[str, object]:
        """The decision with the highest limit."""
        return self.limits.sort("limit_fen", "uscc").row(-1, named=True)

    def copy(self, folder: Path) -> "Ground":
        """The same town in an empty folder, for a test that changes it."""
        shutil.copytree(self.root, folder, dirs_exist_ok=True)
        return Ground(folder, self.champion, self.challenger)


def run(home: Path, *words: str | Path) -> Result:
    """The program in this process, without a terminal."""
    environment = {"JIFEN_HOME": str(home), "COLUMNS": "100", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def done(home: Path, *words: str | Path) -> str:
    """What a command prints; it must end well."""
    result = run(home, *words)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.output


def started(
    home: Path, words: Sequence[str | Path], *, largest_file: int | None = None, **more: str
) -> subprocess.Popen[str]:
    """The program in a process of its own; `largest_file`: bytes after which the disk is full."""
    script = "import sys; from api.cli import app; sys.argv[0] = 'jifen'; app()"
    if largest_file is not None:
        limits = f"({largest_file}, {largest_file})"
        script = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, {limits}); {script}"
    root = Path(__file__).resolve().parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        env={**os.environ, "JIFEN_HOME": str(home), "PYTHONPATH": str(root), "POLARS_MAX_THREADS": "2", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@cache
def ground() -> Ground:
    """The town; of the processes of a test run the first makes it, and the last one removes it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", secrets.token_hex(8))
    folder = Path(tempfile.gettempdir()) / f"jifen-ground-{os.getuid()}-{run[:16]}"
    folder.mkdir(mode=0o755, exist_ok=True)
    root, made = folder / "town", folder / "versions"
    with (folder / "gate").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not made.is_file():
            made.write_text(" ".join(_town(root)))
    used = (folder / "used").open("w")
    fcntl.flock(used, fcntl.LOCK_SH)
    atexit.register(_left, folder, used)
    return Ground(root, *made.read_text().split())


def _left(folder: Path, used: TextIO) -> None:
    """Remove the town if no other process uses it."""
    with suppress(BlockingIOError):
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _town(root: Path) -> list[str]:
    """Versions of champion and challenger."""
    park, home = root / "park", root / "home"
    done(home, "data", "sample", park, "--enterprises", str(FIRMS), "--seed", str(SEED))
    versions = [
        done(home, "train", park, "--trials", "1", "--seed", str(seed)).split("challenger ")[-1].strip()
        for seed in (0, 1)
    ]
    minutes = "test minutes: it beats, does not beat, cannot tell, not compared"
    done(home, "models", "promote", versions[0], "--minutes", minutes)
    done(home, "score", park, "--out", root / "limits.parquet")
    return versions
