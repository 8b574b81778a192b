"""D5: a stored decision comes out byte for byte in a new process; one changed byte is refused, or said."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from data_contracts.errors import ArtefactError, JifenError, ReplayError
from models.batch import Engine
from models.registry import models_folder
from models.replay import FEATURES, replay, row_bytes, run_file, write_decisions
from models.rulebooks import policy_text, ruleset_text, size_text
from tests.promises.conftest import ROOT_OF_CODE, Home
from tests.promises.test_d1_same_bits import asked_of
from tests.promises.worlds import World, kept

REPLAY = """
import sys
from pathlib import Path
from models.replay import replay
for one in sys.argv[3:]:
    print(replay(one, Path(sys.argv[1]), Path(sys.argv[2])).sha256)
"""


@pytest.fixture
def limits(tmp_path: Path, park_engine: Engine, thorny_world: World) -> Path:
    """A limits file of a few firms."""
    usccs = thorny_world.frames["enterprises"]["uscc"].unique().sort().gather_every(24)
    world = kept(thorny_world, usccs)
    decided = park_engine.decided(world.sources(), world.as_of, asked=asked_of(world))
    text = policy_text("torch-points")[0]
    texts = (text, ruleset_text(text), size_text())
    out = tmp_path / "limits.parquet"
    write_decisions(decided, out, as_of=world.as_of, engine=park_engine, texts=texts, caveats=())
    return out


def ids(limits: Path) -> list[str]:
    return pl.read_parquet(limits)["decision_id"].to_list()


def again(limits: Path, home: Path, decisions: list[str]) -> subprocess.CompletedProcess[str]:
    """Replay in a new process."""
    command = [sys.executable, "-c", REPLAY, str(limits), str(home), *decisions]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT_OF_CODE)


def flipped(path: Path, at: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def copied(home: Home, to: Path) -> Path:
    """A home folder with the one model in it."""
    folder = models_folder(home.folder) / home.version
    target = models_folder(to) / home.version
    target.mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return to


def test_every_decision_comes_out_byte_for_byte_in_a_new_process(limits: Path, park_home: Home) -> None:
    stored = pl.read_parquet(limits)
    done = again(limits, park_home.folder, ids(limits))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [sha256(row_bytes(stored[row])).hexdigest() for row in range(stored.height)]


@pytest.mark.parametrize("column", ["sales_12m_fen", "asked_fen", "debts_feed"])
def test_a_changed_feature_is_refused(limits: Path, park_home: Home, column: str) -> None:
    path = limits.parent / FEATURES
    rows = pl.read_parquet(path)
    change = pl.lit("missing ") if rows[column].dtype == pl.String else pl.col(column).fill_null(0) + 1
    rows.with_columns(change.cast(rows[column].dtype).alias(column)).write_parquet(path)
    with pytest.raises(ReplayError, match="changed after it was written"):
        replay(ids(limits)[0], limits, park_home.folder)


def test_a_flipped_byte_of_the_feature_file_never_replays_to_another_decision(limits: Path, park_home: Home) -> None:
    path = limits.parent / FEATURES
    first = ids(limits)[0]
    honest = replay(first, limits, park_home.folder)
    whole = path.read_bytes()
    for at in range(5, len(whole), len(whole) // 6):
        path.write_bytes(whole)
        flipped(path, at)
        try:
            found = replay(first, limits, park_home.folder)
        except JifenError:
            continue
        assert found.sha256 == honest.sha256, f"byte {at}"


def test_a_flipped_byte_of_any_model_file_is_refused(limits: Path, park_home: Home, tmp_path: Path) -> None:
    home = copied(park_home, tmp_path / "home")
    first = ids(limits)[0]
    replay(first, limits, home)
    for path in sorted((models_folder(home) / park_home.version).iterdir()):
        whole = path.read_bytes()
        flipped(path, len(whole) // 2)
        with pytest.raises(ArtefactError):
            replay(first, limits, home)
        path.write_bytes(whole)


def test_a_changed_policy_text_is_said(limits: Path, park_home: Home) -> None:
    run = run_file(limits)
    record = json.loads(run.read_text(encoding="utf-8"))
    changed = record["policy"].replace("brokers report 5 to 10 times", "brokers report 5 to 10 times.")
    assert changed != record["policy"]
    run.write_text(json.dumps(record | {"policy": changed}), encoding="utf-8")
    with pytest.raises(ReplayError, match="policy_version"):
        replay(ids(limits)[0], limits, park_home.folder)


def test_a_changed_decision_is_said(limits: Path, park_home: Home) -> None:
    stored = pl.read_parquet(limits)
    stored.with_columns(limit_fen=pl.col("limit_fen") + 1_000_000).write_parquet(limits)
    with pytest.raises(ReplayError, match="limit_fen"):
        replay(ids(limits)[0], limits, park_home.folder)
