"""What the documents say about the code is held to the code."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from api.metrics import REGISTRY
from data_contracts.sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in sorted((ROOT / "docs" / "decisions").glob("*.md")) if page.name != "README.md"]
NO_FIGURES = {"jifen_service", "jifen_copy"}
"""A role and a database that the pages name."""
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def glossary() -> list[tuple[str, str, set[str]]]:
    rows = ROW.findall((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    return [(zh, en, set(re.findall(r"`(\w+)`", code))) for zh, en, code in rows if zh != "中文"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_decision_names_the_check_that_holds_it_and_the_check_exists(page: Path) -> None:
    _, _, checks = page.read_text(encoding="utf-8").partition("## The check that holds it")
    named = NAMED.findall(checks)
    assert named, "no check: only a wish"
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert test in tests, f"{file}::{test}"


def exported() -> set[str]:
    """Names of figures as /metrics tells them, also of those that have counted nothing yet."""
    for module in ("hub", "metrics", "sequencer", "sweeper"):  # those that count
        importlib.import_module(f"api.{module}")
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("", "_bucket", "_sum", "_count")}
    return {f"{family.name}{ending}" for family in REGISTRY.collect() for ending in endings[family.type]}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_figure_that_a_page_names_is_exported(page: Path) -> None:
    named = set(re.findall(r"\bjifen_[a-z0-9_]+", page.read_text(encoding="utf-8"))) - NO_FIGURES
    assert named <= exported(), sorted(named - exported())


def test_each_chinese_term_has_one_english_name_and_the_other_way_round() -> None:
    for terms in zip(*((zh, en) for zh, en, _ in glossary()), strict=True):
        assert sorted(terms) == sorted(set(terms))


def test_every_column_title_stands_in_the_glossary_with_its_columns() -> None:
    columns: dict[str, set[str]] = {}
    for source in SOURCES.values():
        for name, column in source.columns.items():
            columns.setdefault(str(column.title), set()).add(name)
    listed = {zh: code for zh, _, code in glossary()}
    assert {title: listed.get(title) for title in columns} == columns
