"""The wheel holds everything the program reads, and nothing else claims our names."""

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_contracts", "scoring", "models", "api")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("jifen-*.whl")
    return built


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert any(name.startswith("scoring/rulesets/") and name.endswith(".yaml") for name in ours)
    assert ours <= inside, sorted(ours - inside)
    assert {name.split("/")[0] for name in inside} == {*PACKAGES, f"jifen-{VERSION}.dist-info"}


def test_the_wheel_alone_can_read_its_rulesets_and_policies(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "from pathlib import Path; import scoring; from scoring.points import parse_ruleset;"
        "here = Path(scoring.__file__).parent; print(here);"
        "found = sorted((here / 'rulesets').glob('*.yaml'));"
        "print(*[parse_ruleset(path.read_text(encoding='utf-8')).version for path in found])"
    )
    said = run("-c", script, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"), PYTHONSAFEPATH="1").splitlines()
    assert said[0] == str(tmp_path / "site" / "scoring")
    assert len(said[1].split()) == len(list((ROOT / "scoring" / "rulesets").glob("*.yaml")))


def test_no_dependency_ships_a_top_level_name_of_ours() -> None:
    owners = packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["jifen"])) == {"jifen"}


def test_changelog_program_and_project_name_the_same_version() -> None:
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    script = "import sys; sys.argv = ['jifen', '--version']; from api.cli import app; app()"
    assert VERSION in run("-c", script, cwd=ROOT, PYTHONPATH=str(ROOT))
