"""A data folder: one file a source, parquet or CSV, read and checked together; and its quarantine."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_contracts.checking import SEPARATOR, Checked, assembled
from data_contracts.errors import ContractError, UsageError
from data_contracts.rules import Description, described
from data_contracts.sources import SOURCES, Sources
from models.sources.reading import read_source
from models.sources.writing import FORMATS, replacing

QUARANTINE = "quarantine"
TRUTH = "truth.parquet"
EXTRA = ("extra.parquet", "extra.csv")
_ALSO_THERE = frozenset({QUARANTINE, TRUTH, *EXTRA})
"""What may stand beside the sources: the quarantine, the hidden truth of a made-up park, and columns from outside the
catalogue, which `train --extra-column` reads and `score` after it."""


@dataclass(frozen=True)
class SourceReport:
    """What checking one file found.

    Attributes:
        file: name of the file.
        read: rows in it; always good + quarantined.
        duplicates: quarantined rows that only repeat another row.
        by_rule: quarantined rows by rule; a row that broke two rules is in both counts.
    """

    source: str
    file: str
    read: int
    good: int
    quarantined: int
    duplicates: int
    warnings: tuple[str, ...]
    by_rule: Mapping[str, int]


@dataclass(frozen=True)
class Folder:
    """A folder read and checked.

    Attributes:
        sources: the good rows of all files.
        reports: by source name, of the files that are there.
        quarantined: the other rows, as `Checked.quarantined`, of the same sources.
        warnings: about the folder itself.
    """

    sources: Sources
    reports: Mapping[str, SourceReport]
    quarantined: Mapping[str, pl.DataFrame]
    warnings: tuple[str, ...]


def read_folder(folder: Path, *, on_progress: Callable[[str], None] | None = None) -> Folder:
    """Read and check every source file in a folder; a file that is missing is a feed that was not delivered.

    Args:
        folder: holds `enterprises.parquet` or `.csv`, and others.
        on_progress: told the name of each file before it is read.

    Raises:
        ContractError: a file cannot be used, or `enterprises` is missing; names everything wrong over all files.
        UsageError: nothing is wrong but that files may not be read.
    """
    if not folder.is_dir():
        raise ContractError(f"{folder} is not a folder", [f"{folder}: no such folder"])
    files, problems = _files(folder)
    checks: dict[str, Checked] = {}
    barred: list[str] = []
    for name, path in files.items():
        if on_progress:
            on_progress(path.name)
        try:
            checks[name] = read_source(path, SOURCES[name])
        except ContractError as fault:
            problems += fault.problems or (fault.sentence,)
        except PermissionError as fault:
            barred.append(f"{path.name}: may not be read ({fault.strerror})")
        except OSError as fault:
            problems.append(f"{path.name}: cannot be opened ({fault.strerror})")
    if problems:
        raise ContractError(f"{folder} cannot be used", [*problems, *barred])
    if barred:
        raise UsageError(f"files of {folder} may not be read", barred)
    sources, found = assembled(checks)
    reports = {name: _report(name, files[name].name, check) for name, check in found.items()}
    return Folder(sources, reports, {name: check.quarantined for name, check in found.items()}, _strange_files(folder))


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of each source that has one, and what is wrong with the choice."""
    files: dict[str, Path] = {}
    problems: list[str] = []
    for name in SOURCES:
        there = [path for ending in FORMATS if (path := folder / f"{name}.{ending}").exists()]
        if len(there) > 1:
            problems.append(f"{name}: both {there[0].name} and {there[1].name} are there; leave one")
        elif there:
            files[name] = there[0]
        elif name == "enterprises":
            problems.append("enterprises: the file is missing (enterprises.parquet or enterprises.csv)")
    return files, problems


def _strange_files(folder: Path) -> tuple[str, ...]:
    known = {f"{name}.{ending}" for name in SOURCES for ending in FORMATS} | _ALSO_THERE
    strange = sorted(path.name for path in folder.iterdir() if path.name not in known)
    return tuple(f"{name} is not a source file and was not read" for name in strange)


def _report(name: str, file: str, check: Checked) -> SourceReport:
    codes = check.quarantined["rules"].str.split(SEPARATOR).explode(empty_as_null=False)
    return SourceReport(
        source=name,
        file=file,
        read=check.read,
        good=check.good.height,
        quarantined=check.quarantined.height,
        duplicates=int(check.quarantined["exact_duplicate"].sum()),
        warnings=check.warnings,
        by_rule=dict(sorted(Counter(codes).items(), key=lambda counted: (-counted[1], counted[0]))),
    )


def write_quarantine(folder: Path, found: Folder) -> list[Path]:
    """Write `quarantine/SOURCE.csv` for each source with quarantined rows and remove those of an earlier check.

    Each holds `file`, `row` (1-based data row), `rules`, the original columns as text, and `line`: the text of a row
    that could not be divided into columns.

    Returns:
        The files written.
    """
    place = folder / QUARANTINE
    held = {name: rows for name, rows in found.quarantined.items() if rows.height}
    if held:
        place.mkdir(exist_ok=True)
    for name, rows in held.items():
        named = rows.drop("exact_duplicate").insert_column(0, pl.lit(found.reports[name].file).alias("file"))
        with replacing(place / f"{name}.csv") as beside:
            named.write_csv(beside)
    for name in SOURCES.keys() - held.keys():
        (place / f"{name}.csv").unlink(missing_ok=True)
    return [place / f"{name}.csv" for name in held]


def describe() -> list[Description]:
    """Every column of every source, from the contracts."""
    return [column for source in SOURCES.values() for column in described(source)]
