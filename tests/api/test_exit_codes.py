"""0 ok, 1 failed check, 2 bad usage, 3 bad data; one clear message on the error stream, never a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from api import cli
from tests.ground import done, ground, run, started

Words = Callable[[Path], list[str | Path]]
"""The words of a command; it is handed an empty folder."""


def bare(folder: Path, *keep: str) -> Path:
    """A park with these files only."""
    folder.mkdir()
    for name in keep:
        shutil.copy(ground().park / name, folder)
    return folder


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


WRONG_POLICY = """\
name: Wrong Name
version: 2026-11-01
surprise: 1
surprise: 2
"""

CASES: list[tuple[str, int, Words, list[str]]] = [
    ("an unknown folder", 3, lambda t: ["data", "check", t / "nowhere"], ["nowhere is not a folder"]),
    ("a folder to train on that is not there", 3, lambda t: ["train", t / "nowhere"], ["nowhere is not a folder"]),
    ("a folder without enterprises", 3, lambda t: ["data", "check", bare(t / "p", "feeds.parquet")], ["enterprises"]),
    ("no loans", 3, lambda t: ["train", bare(t / "p", "enterprises.parquet")], ["no loan to train on"]),
    (
        "a torn file",
        3,
        lambda t: ["data", "check", written(t / "p" / "enterprises.parquet", "PAR1 torn").parent],
        ["enterprises.parquet"],
    ),
    (
        "an unknown policy",
        2,
        lambda t: ["score", ground().park, "--out", t / "o.parquet", "--policy", "none-such"],
        ["none-such", "torch-points.2026-11-01"],
    ),
    (
        "a policy file that is not there",
        2,
        lambda t: ["policy", "check", t / "none.yaml"],
        ["none.yaml cannot be read"],
    ),
    (
        "a broken policy, everything at once",
        3,
        lambda t: ["policy", "check", written(t / "w.yaml", WRONG_POLICY)],
        ["name:", "surprise", "repeated", "grades:", "limit:", "rules:"],
    ),
    ("a policy that is no text", 3, lambda _: ["policy", "check", ground().park / "feeds.parquet"], ["not UTF-8"]),
    ("an unknown policy to show", 2, lambda _: ["policy", "show", "none-such"], ["none-such"]),
    (
        "an unknown model",
        2,
        lambda t: ["score", ground().park, "--out", t / "o.parquet", "--model", "20260101-000000000000"],
        ["no model 20260101-000000000000", "registered"],
    ),
    ("an unknown model to show", 2, lambda _: ["models", "show", "../../etc"], ["no model"]),
    ("an unknown model to promote", 2, lambda _: ["models", "promote", "x", "--minutes", "m"], ["no model x"]),
    ("no minutes", 2, lambda _: ["models", "promote", ground().challenger, "--minutes", " "], ["minutes"]),
    ("an unknown enterprise", 2, lambda _: ["explain", ground().park, "91350211MA0000000X"], ["no enterprise"]),
    ("a day that is none", 2, lambda t: ["score", ground().park, "--out", t / "o", "--as-of", "2026-02-30"], ["as-of"]),
    ("words for a day", 2, lambda _: ["train", ground().park, "--as-of", "yesterday"], ["as-of"]),
    ("the end of time", 2, lambda _: ["explain", ground().park, "x", "--as-of", "9999-12-31"], ["as-of"]),
    (
        "a day before every firm",
        2,
        lambda t: ["score", ground().park, "--out", t / "o", "--as-of", "1991-01-01"],
        ["no enterprise"],
    ),
    (
        "a day before every loan",
        3,
        lambda _: ["train", ground().park, "--as-of", "1991-01-01"],
        ["no loan to train on", "enterprise not known on the day"],
    ),
    ("no firms", 2, lambda t: ["data", "sample", t / "p", "--enterprises", "0"], ["enterprises"]),
    ("too many firms", 2, lambda t: ["data", "sample", t / "p", "--enterprises", "20001"], ["enterprises"]),
    ("half a firm", 2, lambda t: ["data", "sample", t / "p", "--enterprises", "1.5"], ["enterprises"]),
    ("a seed beyond reason", 2, lambda t: ["data", "sample", t / "p", "--seed", "99999999999"], ["seed"]),
    ("too much dirt", 2, lambda t: ["data", "sample", t / "p", "--dirty-share", "0.2"], ["dirty-share"]),
    ("an unknown format", 2, lambda t: ["data", "sample", t / "p", "--format", "xls"], ["parquet, csv"]),
    (
        "a park over a park of the other format",
        2,
        lambda t: ["data", "sample", bare(t / "p", "feeds.parquet"), "--format", "csv"],
        ["already holds", "feeds.parquet"],
    ),
    ("an unknown data set", 2, lambda t: ["data", "import", "none", t, t / "o"], ["cumcm2020c"]),
    ("a data set that is not there", 3, lambda t: ["data", "import", "cumcm2020c", t / "no", t / "o"], []),
    (
        "a file where the folder of the limits should be",
        2,
        lambda t: ["score", ground().park, "--out", written(t / "f", "") / "o.parquet"],
        ["cannot be written"],
    ),
    ("limits named as a folder", 2, lambda t: ["score", ground().park, "--out", t], ["is a folder"]),
    (
        "limits named as the feature rows",
        2,
        lambda t: ["score", ground().park, "--out", t / "features.parquet"],
        ["feature rows"],
    ),
    (
        "limits twice into one file",
        2,
        lambda t: ["score", ground().park, "--out", t / "o", "--csv", t / "o"],
        ["named twice"],
    ),
    (
        "a park where a file is",
        2,
        lambda t: ["data", "sample", written(t / "f", ""), "--enterprises", "2"],
        ["f"],
    ),
    (
        "a report where a file is in the way",
        2,
        lambda t: ["data", "check", bare(t / "p", "enterprises.parquet"), "--report", written(t / "f", "") / "r.json"],
        ["f"],
    ),
    ("an unknown command", 2, lambda _: ["scores"], ["scores"]),
    ("an extra column without its file", 3, lambda _: ["train", ground().park, "--extra-column", "x"], ["extra"]),
    ("a demonstration too small", 2, lambda _: ["demo", "--enterprises", "10"], ["enterprises"]),
]


@pytest.mark.parametrize(("code", "words", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_the_world_did_wrong_has_its_code_and_a_message(
    code: int, words: Words, said: list[str], tmp_path: Path
) -> None:
    ended = run(ground().home, *words(tmp_path))
    assert_clear(ended, code, said)
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "o.parquet").exists()


def assert_clear(ended: Result, code: int, said: list[str]) -> None:
    assert ended.exit_code == code, (ended.output, ended.exception)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    assert "Traceback" not in ended.output
    assert ended.stderr.strip()
    for words in said:
        assert words in " ".join(ended.stderr.split()), ended.stderr


@pytest.mark.parametrize(
    "words", [["score", "PARK", "--out", "o.parquet"], ["explain", "PARK", "x"], ["models", "champion"]]
)
def test_without_a_champion_one_is_told_how_to_get_one(words: list[str], tmp_path: Path) -> None:
    real = [str(ground().park) if word == "PARK" else word for word in words]
    assert_clear(run(tmp_path / "home", *real), 2, ["no champion", "jifen train DIR", "jifen models promote"])


def test_an_empty_registry_is_listed_as_empty(tmp_path: Path) -> None:
    assert "模型 Models" in done(tmp_path / "home", "models", "list")


def test_the_folder_of_the_limits_is_made(tmp_path: Path) -> None:
    out, csv = tmp_path / "new" / "deep" / "limits.parquet", tmp_path / "other" / "limits.csv"
    xlsx = tmp_path / "third" / "limits.xlsx"
    done(ground().home, "score", ground().park, "--out", out, "--csv", csv, "--xlsx", xlsx)
    assert all(path.stat().st_size for path in (out, csv, xlsx, out.parent / "features.parquet"))


def test_a_full_disk_is_a_failed_check_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = started(tmp_path, ["data", "sample", tmp_path / "p", "--enterprises", "20"], largest_file=20_000)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert "Traceback" not in said
    assert "File too large" in said
    assert list((tmp_path / "p").iterdir()) == []


def test_the_version_is_that_of_the_project() -> None:
    ended = run(ground().home, "--version")
    assert (ended.exit_code, ended.output) == (0, f"jifen {cli.code_version()}\n")
