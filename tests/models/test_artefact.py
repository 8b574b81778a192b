import json
import shutil
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ArtefactError
from models.artefact import Parts, load, manifest_of, save
from models.calibration import Calibration
from models.encoding import Input
from tests.models.trained import development, parts, sample


@pytest.fixture(name="stored", scope="module")
def _stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"), parts())


@pytest.fixture(name="copied")
def _copied(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / stored.name))


def problems_of(folder: Path) -> tuple[str, ...]:
    with pytest.raises(ArtefactError) as refused:
        load(folder)
    return refused.value.problems


def resealed(folder: Path) -> Path:
    """The folder with hashes and name made to fit whatever it now holds, as a careful forger would."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    names = [path.name for path in folder.iterdir() if path.name != "manifest.json"]
    manifest["files"] = {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    return folder.rename(folder.with_name(f"20260131-{sha256(text.encode()).hexdigest()[:12]}"))


def test_a_model_comes_back_to_the_bit(stored: Path) -> None:
    model, trained = load(stored), development()
    table, defaulted = sample()
    assert np.array_equal(model.log_odds(table), trained.pipeline.log_odds(table))
    bag = model.bag_log_odds(table)
    assert bag.shape == (table.height, 3)
    for place, member in enumerate(trained.bag):
        assert np.array_equal(bag[:, place], member.log_odds(table))
    assert np.array_equal(model.oof_log_odds, trained.oof_log_odds)
    assert model.own_log_odds is not None
    assert np.array_equal(model.own_log_odds, model.log_odds(sample()[0]))
    assert np.array_equal(model.oof_defaulted, defaulted)
    assert model.references == {"sales_fen": (1.0, 2.5), "late_days": (0.0, 3.0)}
    assert model.inputs == trained.pipeline.inputs
    assert model.base_rate == defaulted.mean()


def test_one_row_alone_has_the_bits_it_has_in_the_batch(stored: Path) -> None:
    model = load(stored)
    table, _ = sample()
    whole, bag = model.log_odds(table), model.bag_log_odds(table)
    for row in (0, 7, table.height - 1):
        assert model.log_odds(table[row])[0] == whole[row]
        assert np.array_equal(model.bag_log_odds(table[row])[0], bag[row])


def test_the_version_is_the_day_and_the_hash_of_what_is_in_it(stored: Path, tmp_path: Path) -> None:
    assert stored.name.startswith("20260131-")
    assert len(stored.name) == len("20260131-") + 12
    assert save(tmp_path, parts()).name == stored.name
    assert save(tmp_path, parts(label="180 days late")).name != stored.name
    assert save(tmp_path, parts(as_of=date(2026, 2, 1))).name.startswith("20260201-")


def test_the_manifest_says_what_a_reader_must_know(stored: Path) -> None:
    manifest = manifest_of(stored)
    assert (manifest.label, manifest.horizon, manifest.rows) == ("90 days late", "12 months", 90)
    assert manifest.sentence == development().sentence
    assert (manifest.certificate.holds, manifest.certificate.pipelines) == (True, 4)
    assert {"lightgbm", "numpy", "polars", "python"} <= set(manifest.packages)
    assert manifest.metrics["figures"][0]["metrics"]["auc"]["mean"] == development().figures[0].metrics["auc"].mean


def test_a_model_stored_without_its_own_log_odds_still_loads(copied: Path) -> None:
    training = json.loads((copied / "training.json").read_bytes())
    del training["own_log_odds"]
    (copied / "training.json").write_text(json.dumps(training))
    model = load(resealed(copied))
    assert model.own_log_odds is None
    assert np.array_equal(model.oof_log_odds, development().oof_log_odds)


def test_nothing_stored_is_a_pickle(stored: Path) -> None:
    assert {path.suffix for path in stored.iterdir()} == {".json", ".txt"}


def test_one_changed_byte_in_any_file_is_refused_and_named(copied: Path) -> None:
    for path in sorted(copied.iterdir()):
        original = path.read_bytes()
        for place in (0, len(original) // 2, len(original) - 1):
            path.write_bytes(original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :])
            assert path.name in problems_of(copied)[0]
        path.write_bytes(original)
    load(copied)


@settings(max_examples=40)
@given(st.data())
def test_any_changed_cut_or_added_byte_is_refused(stored: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(stored.iterdir())))
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    changes = {
        "changed": original[:place] + bytes([original[place] ^ flip]) + original[place + 1 :],
        "cut": original[:place],
        "added": original[:place] + bytes([flip]) + original[place:],
    }
    try:
        path.write_bytes(data.draw(st.sampled_from(list(changes.values()))))
        with pytest.raises(ArtefactError):
            load(stored)
    finally:
        path.write_bytes(original)


def test_every_missing_changed_and_foreign_file_is_named_at_once(copied: Path) -> None:
    (copied / "bag.json").unlink()
    (copied / "training.json").write_text("{}")
    (copied / "notes.txt").write_text("x")
    assert problems_of(copied) == (
        "bag.json is missing",
        "training.json was changed",
        "notes.txt does not belong to the model",
    )


def test_a_renamed_or_absent_model_is_refused(copied: Path, tmp_path: Path) -> None:
    assert "renamed" in problems_of(copied.rename(tmp_path / "20260131-000000000000"))[0]
    assert problems_of(tmp_path / "20260131-aaaaaaaaaaaa") == ("manifest.json is missing",)


def test_a_format_of_another_program_is_refused(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_bytes()) | {"format": "jifen-model/9", "new": 1}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    problems = problems_of(resealed(copied))
    assert any("format" in problem for problem in problems)
    assert any("new" in problem for problem in problems)


@pytest.mark.parametrize("content", ["[]", "{}", "not json", '{"boosters": "x"}', '{"boosters": 99}'])
def test_files_that_hold_something_else_are_refused_without_a_traceback(copied: Path, content: str) -> None:
    (copied / "pipeline.json").write_text(content)
    assert problems_of(resealed(copied))


def test_a_model_whose_certificate_does_not_hold_is_stored_but_not_loaded(tmp_path: Path) -> None:
    trained = development()
    falling = Calibration(trained.pipeline.calibration.intercept, -1.0)
    bad = replace(trained, bag=(trained.bag[0], replace(trained.bag[1], calibration=falling)))
    (problem,) = problems_of(save(tmp_path, parts(of=bad)))
    assert problem.startswith("bag member 2: calibration")


def test_a_swapped_leaf_is_refused_even_when_every_hash_fits(copied: Path) -> None:
    # The file is forged whole, so only the certificate, computed anew, can tell.
    path = next(path for path in sorted(copied.glob("*.txt")) if len(_leaves(path.read_text())) > 1)
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines):
        if line.startswith("leaf_value=") and len(line.split()) > 1:
            lines[number] = "leaf_value=" + " ".join(reversed(line.removeprefix("leaf_value=").split()))
    path.write_text("\n".join(lines))
    assert any("leaf values fall" in problem for problem in problems_of(resealed(copied)))


def _leaves(text: str) -> list[str]:
    return next((line.split() for line in text.split("\n") if line.startswith("leaf_value=") and " " in line), [])


def test_a_bag_member_that_promises_less_than_the_pipeline_is_refused(tmp_path: Path) -> None:
    trained = development()
    free = tuple(Input(one.name, 0, one.scale) for one in trained.pipeline.inputs)
    lax = replace(trained, bag=(replace(trained.bag[0], inputs=free),))
    assert "other inputs" in problems_of(save(tmp_path, parts(of=lax)))[0]


def test_a_model_saved_twice_is_left_as_it_is_unless_it_was_changed(tmp_path: Path) -> None:
    folder = save(tmp_path, parts())
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert save(tmp_path, parts()) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    (folder / "bag.json").write_text("[]")
    with pytest.raises(ArtefactError):
        save(tmp_path, parts())


def test_an_interrupted_save_leaves_nothing(tmp_path: Path) -> None:
    class Interrupting(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise KeyboardInterrupt

    whole = parts()
    label = Interrupting("x")
    trees = tuple(replace(one, text=label) for one in whole.development.pipeline.trees)
    cut: Parts = parts(of=replace(whole.development, pipeline=replace(whole.development.pipeline, trees=trees)))
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, cut)
    assert list(tmp_path.iterdir()) == []
