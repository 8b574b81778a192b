"""The house's conventions, each held by a check; every check is seen to fail on something that breaks it."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from textwrap import dedent

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_contracts", "scoring", "models", "api")
PURE = ("data_contracts", "scoring")
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules_of(*packages: str) -> list[Path]:
    return sorted(module for package in packages for module in (ROOT / package).rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---------------------------------------------------------------------------------------------------- import contracts


def lint_imports(folder: Path) -> tuple[int, str]:
    run = subprocess.run(
        [BIN / "lint-imports", "--no-logo", "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(BIN), "COLUMNS": "400", "NO_COLOR": "1"},
    )
    return run.returncode, run.stdout + run.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contracts_hold() -> None:
    code, said = lint_imports(ROOT)
    assert code == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("contract", "offences"),
    [
        ("imports flow one way", {"data_contracts": ["scoring"], "scoring": ["models"], "models": ["api"]}),
        (
            "do no I/O",
            {
                "data_contracts": ["pathlib", "asyncpg", "time"],
                "scoring": ["os", "io", "typer", "rich", "asyncpg", "fastapi", "random", "socket"],
            },
        ),
        ("know probabilities", {"data_contracts": ["lightgbm"], "scoring": ["lightgbm"]}),
        ("models know no HTTP", {"models": ["fastapi", "asyncpg"]}),
    ],
    ids=["one-way", "pure", "no-model", "shell-outside"],
)
def test_an_import_contract_fails_when_it_is_broken(copy: Path, contract: str, offences: dict[str, list[str]]) -> None:
    for package, targets in offences.items():
        lines = "".join(f"import {target}\n" for target in targets)
        (copy / package / "offence.py").write_text(lines, encoding="utf-8")
    code, said = lint_imports(copy)
    assert code == 1, said
    assert re.search(rf"{re.escape(contract)}.* BROKEN", said), said
    for package, targets in offences.items():
        for target in targets:
            assert re.search(rf"{package}\.offence -> {target}\b|{package}.* import {target}\b", said), (target, said)


# -------------------------------------------------------------------------------------------------------------- purity

CLOCKS = {"now", "today", "utcnow", "fromtimestamp", "monotonic", "perf_counter"}
DOORS = re.compile(r"(read|scan|write|sink)_(csv|parquet|ipc|json|ndjson|excel|avro|database|delta)")
FILES = {"load", "save", "savez", "savetxt", "loadtxt", "genfromtxt", "fromfile", "tofile", "memmap"}
DRAWS = {"sample", "shuffle"}


def impurities(source: str) -> list[str]:
    """What a pure module must not call: files, clocks, unseeded draws, code out of text."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        last = name.rsplit(".", 1)[-1]
        seeded = bool(call.args) or any(keyword.arg == "seed" for keyword in call.keywords)
        is_impure = (
            name in {"open", "eval", "exec", "input", "print", "__import__", "compile"}
            or last in CLOCKS
            or DOORS.fullmatch(last) is not None
            or (name.startswith(("np.", "numpy.")) and last in FILES)
            or (".random." in name and last not in {"default_rng", "Generator", "SeedSequence", "PCG64"})
            or (last == "default_rng" and not seeded)
            or (last in DRAWS and not any(keyword.arg == "seed" for keyword in call.keywords) and "rng" not in name)
        )
        if is_impure:
            found.append(f"line {call.lineno}: {name}")
    return found


@pytest.mark.parametrize("module", modules_of(*PURE), ids=named)
def test_a_pure_module_opens_no_file_reads_no_clock_and_draws_nothing_unseeded(module: Path) -> None:
    assert impurities(module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "open('a')",
        "date.today()",
        "datetime.now(UTC)",
        "pl.read_csv('a')",
        "frame.write_parquet('a')",
        "np.load('a')",
        "np.random.normal()",
        "np.random.default_rng()",
        "frame.sample(3)",
        "pl.col('a').shuffle()",
        "eval('1')",
    ],
)
def test_an_impure_call_is_found(line: str) -> None:
    assert impurities(line)


@pytest.mark.parametrize("line", ["np.random.default_rng(7)", "frame.sample(3, seed=7)", "date(2026, 1, 1)"])
def test_a_seeded_draw_is_pure(line: str) -> None:
    assert impurities(line) == []


# ----------------------------------------------------------------------------------------------------------- type gate

SNIPPET = dedent(
    """
    from datetime import date

    import polars as pl

    from data_contracts.sources import Sources
    from scoring.features import features


    def gate(frame: pl.DataFrame, sources: Sources) -> None:
        day = date(2026, 1, 1)
        features(sources, day)
        features(frame, day)  # refused
        Sources(
            enterprises=frame,  # refused
            qualifications=sources.qualifications,
            financial_statements=sources.financial_statements,
            innovation_indicators=sources.innovation_indicators,
            social_insurance=sources.social_insurance,
            tax_filings=sources.tax_filings,
            taxpayer_ratings=sources.taxpayer_ratings,
            invoices=frame.filter(pl.col("net_fen") > 0),  # refused
            debts=sources.invoices,  # refused
            public_records=sources.public_records,
            loan_outcomes=sources.loan_outcomes,
            feeds=sources.feeds,
            doubts=sources.doubts,
        )
    """
)


def test_a_frame_that_was_not_checked_is_a_type_error(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"include": ["snippet.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "standard"}),
        encoding="utf-8",
    )
    run = subprocess.run(
        [BIN / "basedpyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(run.stdout)["generalDiagnostics"]
    wrong = sorted({finding["range"]["start"]["line"] for finding in said if finding["severity"] == "error"})
    refused = [number for number, line in enumerate(SNIPPET.splitlines()) if line.endswith("# refused")]
    assert wrong == refused, said


# ---------------------------------------------------------------------------------------------------- names and length


LONGER = {"data_contracts/sources.py", "scoring/catalogue.py"}
"""Twelve contracts on one page, and all features on another: data rather than code, looked up by name."""


@pytest.mark.parametrize("module", modules_of(*PACKAGES), ids=named)
def test_a_module_has_one_subject_and_a_function_fits_on_a_page(module: Path) -> None:
    text = module.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= 400 or named(module) in LONGER, f"{lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


def test_a_module_is_named_after_what_is_in_it() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base"}
    assert [named(module) for module in modules_of(*PACKAGES) if module.stem in vague] == []


def test_a_package_re_exports_nothing_so_that_a_name_has_one_address() -> None:
    for module in modules_of(*PACKAGES):
        if module.name == "__init__.py":
            body = ast.parse(module.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), module


# -------------------------------------------------------------------------------------------------------- dependencies


def declared(*, extra: str | None = None) -> dict[str, Requirement]:
    project = PROJECT["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def test_the_lock_names_no_host_and_every_file_by_its_hash() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--find-links|--trusted", text)
    pins = re.split(r"(?m)^(?=[A-Za-z0-9])", text.split("\n", 1)[1])
    assert len(pins) > 20
    assert all("--hash=sha256:" in pin for pin in pins if pin.strip())


def test_the_lock_satisfies_what_the_project_declares() -> None:
    pins = locked()
    for name, wanted in (declared() | declared(extra="dev")).items():
        assert wanted.specifier.contains(pins[name]), name


def test_every_third_party_import_is_declared() -> None:
    owners = packages_distributions()
    known = set(declared())
    unknown = set()
    for module in modules_of(*PACKAGES):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.split(".")[0] for name in names} - set(PACKAGES) - sys.stdlib_module_names:
                if not known & {canonicalize_name(owner) for owner in owners.get(top, [])}:
                    unknown.add(f"{named(module)}: {top}")
    assert not unknown


def test_the_merge_check_runs_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "check", "soak", "lock"} <= targets
    assert "make check" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"make {target}" in readme for target in ("demo", "test"))
