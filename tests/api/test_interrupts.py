"""An end at any moment leaves nothing half-written, and the same command again succeeds."""

import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data_contracts.sources import SOURCES
from models.artefact import load, save
from models.registry import champion_version, listed, models_folder
from models.replay import FEATURES
from models.sources.folder import read_folder
from tests.ground import Ground, done, ground, started
from tests.models.trained import parts

SECONDS = {"data": 3.0, "train": 12.0, "score": 5.0}
"""Within which the end comes: about how long the command takes on a slow machine."""


def words(command: str, town: Ground) -> list[str | Path]:
    return {
        "data": ["data", "sample", town.root / "fresh", "--enterprises", "300", "--seed", "4"],
        "train": ["train", town.park, "--trials", "1", "--seed", "9"],  # better than a coin, so it may be promoted
        "score": ["score", town.park, "--out", town.root / "limits.parquet", "--model", town.challenger],
    }[command]


def whole_park(town: Ground) -> None:
    """Either there is no park yet (no `enterprises`), or it is the whole one."""
    fresh = town.root / "fresh"
    if (fresh / "enterprises.parquet").is_file():
        assert {path.stem for path in fresh.glob("[!.]*.parquet")} == {*SOURCES, "truth"}
        assert read_folder(fresh).reports["enterprises"].quarantined == 0


def whole_registry(town: Ground) -> None:
    """Every folder under a version's name is a sound model, and the registry can be read."""
    assert champion_version(town.home) == town.champion
    for folder in models_folder(town.home).glob("[!.]*"):
        load(folder)
    assert {town.champion, town.challenger} <= {entry.version for entry in listed(town.home)}


def whole_limits(town: Ground) -> None:
    """The limits file can be read and its decisions stand among the feature rows, of the old run or of the new."""
    limits = pl.read_parquet(town.root / "limits.parquet")
    assert limits.height == 200
    assert limits["model_version"].n_unique() == 1
    pl.read_parquet(town.root / FEATURES)


WHOLE: dict[str, Callable[[Ground], None]] = {"data": whole_park, "train": whole_registry, "score": whole_limits}


def ended_early(town: Ground, command: str, how: signal.Signals, after: float) -> subprocess.Popen[str]:
    process = started(town.home, words(command, town))
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(how)
    _, said = process.communicate(timeout=120)
    if how is signal.SIGINT:
        # Python itself prints a traceback when it is interrupted while still importing: nothing of ours runs then.
        assert "Traceback" not in said or "import" in said, said
    return process


def tried(town: Ground, command: str, how: signal.Signals, moments: list[float]) -> None:
    for after in moments:
        process = ended_early(town, command, how, after)
        assert process.returncode in {0, -how, 130, 1}
        WHOLE[command](town)
        if how is signal.SIGINT:
            assert not list(town.root.rglob("*.part")), "an interrupt leaves nothing beside"
    done(town.home, *words(command, town))
    WHOLE[command](town)


@pytest.mark.parametrize(
    ("command", "how"),
    [("data", signal.SIGKILL), ("data", signal.SIGINT), ("train", signal.SIGINT), ("score", signal.SIGKILL)],
)
def test_a_command_that_is_ended_leaves_nothing_half_written(command: str, how: signal.Signals, tmp_path: Path) -> None:
    town = ground().copy(tmp_path / "town")
    tried(town, command, how, [0.6 * SECONDS[command]])


@pytest.mark.soak
@pytest.mark.parametrize("command", SECONDS)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_a_command_that_is_ended_at_any_moment_leaves_nothing_half_written(
    command: str, how: signal.Signals, tmp_path: Path, soak_length: int
) -> None:
    town = ground().copy(tmp_path / "town")
    count = min(max(soak_length // 100, 5), 50)
    tried(town, command, how, list(np.random.default_rng(3).uniform(0.5, SECONDS[command], count)))


def test_two_trainings_and_two_promotions_at_once_are_both_whole(tmp_path: Path) -> None:
    town = ground().copy(tmp_path / "town")
    twins = [started(town.home, words("train", town)) for _ in range(2)]
    said = [twin.communicate(timeout=300) for twin in twins]
    assert [twin.returncode for twin in twins] == [0, 0], said
    versions = {out.split("challenger ")[-1].strip() for out, _ in said}
    assert len(versions) == 1
    assert [entry.version for entry in listed(town.home)].count(*versions) == 1
    minutes = "beats, does not beat, cannot tell, not compared"
    rivals = [
        started(town.home, ["models", "promote", version, "--minutes", minutes])
        for version in (town.challenger, *versions)
    ]
    ended = [rival.communicate(timeout=120) for rival in rivals]
    assert [rival.returncode for rival in rivals] == [0, 0], ended
    assert champion_version(town.home) in {town.challenger, *versions}
    whole = [entry.status for entry in listed(town.home)]
    assert sorted(whole) == ["champion", "retired", "retired"]


def test_the_same_model_stored_by_many_at_once_is_stored_once(tmp_path: Path) -> None:
    model = parts()
    with ThreadPoolExecutor(8) as many:
        folders = list(many.map(lambda _: save(tmp_path, model), range(16)))
    assert len(set(folders)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [folders[0].name]
    load(folders[0])


def test_a_half_written_file_of_an_earlier_end_is_not_taken_for_a_source(tmp_path: Path) -> None:
    done(tmp_path, "data", "sample", tmp_path / "p", "--enterprises", "3")
    (tmp_path / "p" / ".invoices.parquet.0a1b2c3d.part").write_bytes(b"half")
    (tmp_path / "p" / "invoices.parquet").unlink()
    assert "invoices" not in read_folder(tmp_path / "p").reports
