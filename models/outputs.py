"""What a command may write over: files that it wrote itself, never facts and never somebody's own file."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from data_contracts.errors import ContractError
from data_contracts.sources import SOURCES
from models.sources.folder import EXTRA, TRUTH
from models.sources.parquet import parquet_schema
from models.sources.writing import FORMATS

FACTS = frozenset({*(f"{name}.{ending}" for name in SOURCES for ending in FORMATS), *EXTRA, TRUTH})
"""Names that a data folder reads as facts; nothing else goes by them, in whatever folder."""
_PARQUET = b"PAR1"
_TEXT_MARK = b"\xef\xbb\xbf"


def output_problems(files: Mapping[Path, str]) -> list[str]:
    """Why files cannot be written: the name of a source file, or something there that jifen did not write.

    Args:
        files: path → what goes there: `limits`, `features`, `run`, `csv`, `xlsx` or `report`.
    """
    problems = [f"{path.name} is the name of a source file; name another" for path in files if path.name in FACTS]
    problems += [
        f"{path} is there already and is no {_WORDS[kind]} that jifen wrote; name another or take it away"
        for path, kind in files.items()
        if path.name not in FACTS and path.is_file() and path.stat().st_size and not _KINDS[kind](path)
    ]
    return problems


def is_limits(path: Path) -> bool:
    """A table of decisions, as far as its columns say."""
    return _has_columns(path, {"decision_id", "limit_fen", "input_hash"})


def is_parquet(path: Path) -> bool:
    """It begins as parquet files do; it may be torn."""
    with path.open("rb") as handle:
        return handle.read(len(_PARQUET)) == _PARQUET


def _has_columns(path: Path, columns: set[str]) -> bool:
    try:
        return columns <= set(parquet_schema(path))
    except ContractError:
        return False


def _is_csv(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.readline().removeprefix(_TEXT_MARK).startswith(b"decision_id,")


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as book:
            return b"decision_id" in book.read("xl/sharedStrings.xml")
    except (zipfile.BadZipFile, KeyError):
        return False


def _is_json(path: Path, keys: set[str]) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and keys <= content.keys()


_WORDS = {
    "limits": "limits file",
    "features": "file of feature rows",
    "run": "run",
    "csv": "table of limits",
    "xlsx": "workbook of limits",
    "report": "report of a check",
}
_KINDS: Mapping[str, Callable[[Path], bool]] = {
    "limits": is_limits,
    "features": lambda path: _has_columns(path, {"decision_id", "row_sha256"}),
    "run": lambda path: _is_json(path, {"as_of", "model_version", "policy_version"}),
    "csv": _is_csv,
    "xlsx": _is_workbook,
    "report": lambda path: _is_json(path, {"sources", "warnings"}),
}
