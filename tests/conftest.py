"""What every test may ask for, and how long properties are tried."""

import os
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
