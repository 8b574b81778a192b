"""The folder of a demonstration: its own while it runs, and only what a demonstration made is ever removed."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from api.postgres import Postgres
from api.settings import Settings
from data_contracts.errors import UsageError
from models.cli import home

MARK = ".jifen-demo"
"""Lies in a folder that a demonstration made and may empty again; whoever uses the folder holds its lock."""

MADE = ("park", "home")


@contextmanager
def demo_folder(named: Path | None, *, serves: bool) -> Generator[Path]:
    """An empty folder for one demonstration; what an earlier one left in it is removed.

    Args:
        named: by the caller; None: the usual one, or where another demonstration runs there, the next that is free.
        serves: a database will lie in it, which the system user of root's databases must reach.

    Raises:
        UsageError: the folder that was named is in use, or holds something that no demonstration made.
    """
    usual = _usual(serves=serves)
    places = [named] if named is not None else (usual if n == 1 else Path(f"{usual}-{n}") for n in count(1))
    for place in places:
        if place.is_dir() and any(place.iterdir()) and not (place / MARK).is_file():
            raise UsageError(f"{place} holds something that no demonstration made; name a new or empty folder")
        place.mkdir(parents=True, exist_ok=True)
        with (place / MARK).open("a") as lock:
            if _locked(lock.fileno()) and Postgres(place / "home" / "postgres").stop_if_unused():
                for old in MADE:
                    shutil.rmtree(place / old, ignore_errors=True)
                yield place
                return
    raise UsageError(f"{named} is in use by a demonstration that runs; name another folder")


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _usual(*, serves: bool) -> Path:
    """HOME/demo; with a database and as root, where another system user cannot reach that, the service's own place."""
    place = home() / "demo"
    if serves and os.geteuid() == 0 and not _is_open_to_others(place.absolute()):
        return Settings().data_folder() / "demo"
    return place


def _is_open_to_others(place: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in place.parents if one.exists())
