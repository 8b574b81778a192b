"""What every test may ask for, and how long properties are tried."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile(
    "check",
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "soak",
    max_examples=int(os.environ.get("JIFEN_SOAK", "1000")),
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("soak" if "JIFEN_SOAK" in os.environ else "check")


MEMORY, DISK = Path("/dev/shm"), Path("/var/tmp")
"""Where the tests' servers may lie: every system user may go there, and pytest's own folders are closed to some."""
ROOM_BYTES = 4 << 30
PLACE_NAME = "JIFEN_TEST_PLACE"
"""Variable that tells the processes of a run the place that was chosen; set beforehand, it is the choice."""


def place(memory: Path = MEMORY, disk: Path = DISK) -> Path:
    """In memory where it has room, which takes a fifth off the tests: what they write need not outlive the machine.

    Root's server may run from copies of its programs, which need a place where programs may be executed; a container
    has its memory mounted without that.
    """
    if not (memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM_BYTES):
        return disk
    return disk if os.statvfs(memory).f_flag & os.ST_NOEXEC else memory


def pytest_configure() -> None:
    """Choose the place before there are workers, who inherit it: what is free may differ when they start."""
    os.environ.setdefault(PLACE_NAME, str(place()))


@pytest.fixture(scope="session")
def soak_length() -> int:
    """How many examples a soak test tries: `make soak SOAK=...`."""
    return int(os.environ.get("JIFEN_SOAK", "1000"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: `JIFEN_DATA`, or `shared/data` beside the checkout; a test skips without it."""
    named = os.environ.get("JIFEN_DATA")
    places = [Path(named)] if named else [ROOT.parent / "shared" / "data"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no real data at {places[0]}: set JIFEN_DATA to the folder that holds cumcm2020c, sba, ...")
