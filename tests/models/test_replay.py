"""D5: a stored decision comes out again byte for byte, or it is said exactly what differs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import Result

from models.batch import LIMITS
from models.replay import FEATURES, run_file
from models.sources.writing import alone_in
from tests.api.test_exit_codes import assert_clear
from tests.damaged import panicking
from tests.ground import Ground, done, ground, run, started


@pytest.fixture
def town(tmp_path: Path) -> Ground:
    return ground().copy(tmp_path / "town")


def replayed(town: Ground, decision: object = None, home: Path | None = None) -> Result:
    wanted = town.best["decision_id"] if decision is None else decision
    return run(town.home if home is None else home, "replay", str(wanted), "--from", town.root / "limits.parquet")


def changed(path: Path, **columns: pl.Expr) -> None:
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def test_the_limits_file_has_the_columns_that_others_rely_on() -> None:
    limits = ground().limits
    assert dict(limits.schema) == dict(LIMITS)
    assert limits.height == limits["uscc"].n_unique() == limits["decision_id"].n_unique() == 200
    assert (limits["limit_fen"] > 0).any()


def test_every_kind_of_decision_replays_in_another_process() -> None:
    town = ground()
    chosen = town.limits.group_by("outcome", pl.col("limit_fen") > 0).first().sort("outcome")["decision_id"].to_list()
    assert len(chosen) >= 3
    for decision in chosen[:-1]:
        assert replayed(town, decision).exit_code == 0
    process = started(town.home, ["replay", chosen[-1], "--from", town.root / "limits.parquet"])
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "same bytes" in said


def test_scoring_twice_gives_the_same_files(tmp_path: Path) -> None:
    done(ground().home, "score", ground().park, "--out", tmp_path / "limits.parquet")
    for name in ("limits.parquet", "features.parquet", "limits.run.json"):
        assert (tmp_path / name).read_bytes() == (ground().root / name).read_bytes(), name


def test_a_changed_decision_is_named_column_by_column(town: Ground) -> None:
    before = int(str(town.best["limit_fen"]))
    changed(town.root / "limits.parquet", limit_fen=pl.col("limit_fen") + 1_000_000)
    ended = replayed(town)
    assert ended.exit_code == 1
    assert f"limit_fen: stored {before + 1_000_000}, comes out as {before}" in ended.stderr
    assert "rate_bp" not in ended.stderr


@pytest.mark.parametrize("column", ["sales_12m_fen", "employees", "mean_invoice_fen"])
def test_a_changed_feature_is_noticed_even_if_it_decides_nothing(town: Ground, column: str) -> None:
    changed(town.root / FEATURES, **{column: pl.col(column).fill_null(0) + 1})
    ended = replayed(town)
    assert ended.exit_code == 1
    assert "changed after it was written" in ended.stderr


def rewritten(town: Ground, **values: object) -> None:
    path = run_file(town.root / "limits.parquet")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_changed_policy_in_the_run_comes_out_otherwise(town: Ground) -> None:
    policy = json.loads(run_file(town.root / "limits.parquet").read_text(encoding="utf-8"))["policy"]
    rewritten(town, policy=policy.replace("funding: {value: 200", "funding: {value: 300"))
    ended = replayed(town)
    assert ended.exit_code == 1
    assert "rate_bp: stored" in ended.stderr
    assert "policy_version: stored" in ended.stderr


def test_a_changed_day_in_the_run_comes_out_otherwise(town: Ground) -> None:
    rewritten(town, as_of="2026-06-30")
    ended = replayed(town)
    assert ended.exit_code == 1
    assert "as_of: stored 2026-07-01, comes out as 2026-06-30" in ended.stderr


def test_another_model_in_the_run_comes_out_otherwise(town: Ground) -> None:
    rewritten(town, model_version=town.challenger)
    ended = replayed(town)
    assert ended.exit_code == 1
    assert "model_version: stored" in ended.stderr


def test_what_was_otherwise_around_a_decision_is_said_beside_what_differs(town: Ground) -> None:
    packages = json.loads(run_file(town.root / "limits.parquet").read_text(encoding="utf-8"))["packages"]
    rewritten(town, packages=packages | {"polars": "0.1"}, processor="abacus")
    assert replayed(town).exit_code == 0
    changed(town.root / "limits.parquet", score=pl.col("score") + 1)
    said = replayed(town).stderr
    assert "polars was 0.1, is" in said
    assert "processor was abacus, is" in said


@pytest.mark.parametrize("value", [5, "never", None, {"a": 1}])
@pytest.mark.parametrize("name", ["as_of", "policy", "size_classes", "model_version"])
def test_a_run_of_wrong_values_is_refused_by_name(town: Ground, name: str, value: object) -> None:
    rewritten(town, **{name: value})
    ended = replayed(town)
    assert ended.exit_code == 3
    assert "Traceback" not in ended.output
    assert isinstance(ended.exception, SystemExit)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"as_of": "2026-01-01"}'])
def test_a_torn_run_is_refused(town: Ground, text: str) -> None:
    run_file(town.root / "limits.parquet").write_text(text, encoding="utf-8")
    ended = replayed(town)
    assert ended.exit_code == 3
    assert "is not a run of jifen" in ended.stderr


@pytest.mark.parametrize("name", ["limits.parquet", FEATURES])
def test_a_torn_table_or_one_of_other_columns_is_refused(town: Ground, name: str) -> None:
    path = town.root / name
    decision = town.best["decision_id"]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert replayed(town, decision).exit_code == 3
    panicking(path)
    assert_clear(replayed(town, decision), 3, [f"{name}: damaged, truncated or not a parquet file"])
    pl.DataFrame({"decision_id": [decision]}).write_parquet(path)
    assert replayed(town, decision).exit_code == 3


@pytest.mark.parametrize("name", ["limits.parquet", FEATURES, "limits.run.json"])
def test_a_file_that_is_gone_is_asked_for(town: Ground, name: str) -> None:
    decision = town.best["decision_id"]
    (town.root / name).unlink()
    ended = replayed(town, decision)
    assert ended.exit_code == 2
    assert name in ended.stderr


def test_an_unknown_decision_is_bad_usage(town: Ground) -> None:
    ended = replayed(town, "d000000000000000000000000")
    assert ended.exit_code == 2
    assert "no decision" in ended.stderr


def test_a_model_that_is_gone_or_changed_is_refused(town: Ground, tmp_path: Path) -> None:
    assert replayed(town, home=tmp_path / "elsewhere").exit_code == 3
    model = town.home / "models" / town.champion / "pipeline.json"
    model.write_bytes(model.read_bytes() + b" ")
    ended = replayed(town)
    assert ended.exit_code == 3
    assert "pipeline.json was changed" in ended.stderr


def test_limits_under_two_policies_in_one_folder_both_replay(town: Ground) -> None:
    old = town.best["decision_id"]
    out = town.root / "other.parquet"
    done(town.home, "score", town.park, "--out", out, "--policy", "cumcm2020c")
    new = pl.read_parquet(out)
    assert not set(new["decision_id"]) & set(town.limits["decision_id"])
    assert replayed(town, old).exit_code == 0
    done(town.home, "replay", new["decision_id"][0], "--from", out)
    done(town.home, "score", town.park, "--out", out, "--policy", "cumcm2020c")
    assert pl.read_parquet(town.root / FEATURES).height == 400
    assert_frame_equal(pl.read_parquet(out), new)


@pytest.mark.parametrize("name", ["second.dat", "second"])
def test_runs_of_other_endings_in_one_folder_all_replay(town: Ground, name: str) -> None:
    old, out = town.best["decision_id"], town.root / name
    done(town.home, "score", town.park, "--out", out, "--policy", "cumcm2020c")
    third = town.root / "third.parquet"
    done(town.home, "score", town.park, "--out", third, "--csv", town.root / "third.csv", "--as-of", "2026-08-01")
    for limits in (out, third):
        done(town.home, "replay", pl.read_parquet(limits)["decision_id"][0], "--from", limits)
    assert replayed(town, old).exit_code == 0


@pytest.mark.parametrize("name", ["q[1]", "q*"])
def test_limits_in_a_folder_whose_name_could_be_a_pattern_replay(town: Ground, name: str) -> None:
    folder = town.root / name
    for out, policy in ((folder / "limits.parquet", "torch-points"), (folder / "other.parquet", "cumcm2020c")):
        done(town.home, "score", town.park, "--out", out, "--policy", policy)
    (town.root / "q1").mkdir()
    (town.root / "q1" / "limits.parquet").write_bytes(b"of somebody else")
    for out in (folder / "limits.parquet", folder / "other.parquet"):
        decision = pl.read_parquet(out, glob=False)["decision_id"][0]
        done(town.home, "replay", decision, "--from", out)


def awaited(folder: Path) -> bool:
    """Whether somebody waits for the lock of a folder (proc_locks(5))."""
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    return any("-> FLOCK" in line and f":{folder.stat().st_ino} " in line for line in lines)


def test_limits_wait_for_those_that_are_being_written_beside_them(town: Ground) -> None:
    out = town.root / "other.parquet"
    with ThreadPoolExecutor(1) as pool:
        with alone_in(town.root):
            waiting = pool.submit(done, town.home, "score", town.park, "--out", out, "--policy", "cumcm2020c")
            latest = time.monotonic() + 60
            while not awaited(town.root):
                assert not waiting.done(), "it did not wait"
                assert time.monotonic() < latest
                time.sleep(0.05)
            assert not out.exists()
        assert "200 decisions" in waiting.result(120)
    assert pl.read_parquet(town.root / FEATURES).height == 400
