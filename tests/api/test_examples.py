"""The help is the manual: each command has an example, and each example runs."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.cli import app
from tests.ground import Ground, done, ground, run

ROOT = Path(__file__).resolve().parents[2]


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    command = typer.main.get_command(app) if command is None else command
    inner = getattr(command, "commands", {})
    if not inner:
        yield words, command
    for name, found in inner.items():
        yield from commands(found, (*words, name))


COMMANDS = dict(commands())
EXAMPLES = [
    line.strip().removeprefix("Example: ")
    for command in COMMANDS.values()
    for line in (command.help or "").splitlines()
    if line.strip().startswith("Example: ")
]


def test_the_program_has_the_commands_that_others_rely_on() -> None:
    assert {" ".join(words) for words in COMMANDS} == {
        "demo",
        "data sample",
        "data import",
        "data check",
        "data describe",
        "train",
        "models list",
        "models show",
        "models promote",
        "models champion",
        "score",
        "explain",
        "replay",
        "policy check",
        "policy show",
        "serve",
        "migrate",
        "load",
        "openapi",
        "clients add",
        "clients add-key",
        "clients list",
        "clients revoke",
        "invariants",
        "export outcomes",
        "export fairness",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_an_example_and_says_what_each_argument_is(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert f"Example: jifen {' '.join(words)}" in shown.output
    for parameter in COMMANDS[words].params:
        assert parameter.help or parameter.name == "help", parameter.name


def test_the_help_of_the_program_names_every_command_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert all(f" {words[0]} " in shown.output for words in COMMANDS)
    assert "0 ok, 1 failed check, 2 bad usage, 3 bad data" in shown.output


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    copied = ground().copy(tmp_path_factory.mktemp("workshop"))
    shutil.copy(ROOT / "scoring" / "policies" / "torch-points.2026-11-01.yaml", copied.root / "my-policy.yaml")
    return copied


def substituted(example: str, real: Ground) -> list[str]:
    """The words after `jifen`, with real names for made-up ones and the smallest sizes."""
    names = {
        "20260701-0123456789ab": real.challenger,
        "913502110000000094": str(real.best["uscc"]),
        "d0123456789abcdef01234567": str(real.best["decision_id"]),
        "600": "200",
        "park": "new-park" if "sample" in example else "park",
    }
    program, *words = shlex.split(example)
    assert program == "jifen"
    if "promote" in words:
        words[-1] += ": beats, does not beat, cannot tell, not compared"
    return [names.get(word, word) for word in words] + (["--trials", "1"] if words[0] == "train" else [])


SERVICE = ("serve", "migrate", "load", "openapi", "clients", "invariants", "export")
"""Commands that want a database: their examples run in tests/hall/test_service_examples.py."""


def needs_a_database(example: str) -> bool:
    words = shlex.split(example)
    return words[1] in SERVICE or (words[1] == "replay" and "--from" not in words)


ALONE = [one for one in EXAMPLES if "data import" not in one and "demo" not in one and not needs_a_database(one)]


@pytest.mark.parametrize("example", ALONE)
def test_every_example_runs(example: str, workshop: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop.root)
    assert done(workshop.home, *substituted(example, workshop)).strip()


def test_the_example_of_the_importer_runs_on_the_real_invoices(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = [one for one in EXAMPLES if "data import" in one]
    monkeypatch.chdir(tmp_path)
    words = [str(shared_data / "cumcm2020c") if word == "SRC" else word for word in shlex.split(example)[1:]]
    assert "enterprises: 425 rows" in done(tmp_path / "home", *words)


def test_the_example_of_the_demonstration_prints_its_table_and_ends_there_if_it_shall_not_serve(
    workshop: Ground, tmp_path: Path
) -> None:
    (example,) = [one for one in EXAMPLES if "demo" in one]
    words = substituted(example, workshop)
    # With some five defaults it is luck whether a model is better than a coin, and one that is not is not promoted.
    words[words.index("--seed") + 1] = "4"
    said = done(tmp_path, *words, "--no-serve")
    assert "参考额度 Reference limits, not offers" in said
    assert "等级 Grade" in said
    assert "same bytes" in said
    left = {path.name for path in (tmp_path / "demo").iterdir()}
    assert left == {
        ".jifen-demo",
        "park",
        "home",
        "limits.parquet",
        "limits.run.json",
        "features.parquet",
        "limits.csv",
    }


def test_the_demonstration_empties_only_a_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "home" / "somebody").mkdir(parents=True)
    (tmp_path / "home" / "somebody" / "letters.txt").write_text("dear", encoding="utf-8")
    refused = run(tmp_path, "demo", "--folder", tmp_path)
    assert refused.exit_code == 2
    assert "no demonstration made" in refused.output
    assert (tmp_path / "home" / "somebody" / "letters.txt").read_text(encoding="utf-8") == "dear"
