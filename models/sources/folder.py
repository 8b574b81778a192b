"""A data folder: one file a source, parquet or CSV, read and checked together; and its quarantine."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from data_contracts.checking import SEPARATOR, Checked, assembled
from data_contracts.errors import ContractError, UsageError
from data_contracts.rules import Code, Description, codes, described
from data_contracts.sources import SOURCES, Sources
from models.sources import csv_lines
from models.sources.reading import read_source
from models.sources.writing import FORMATS, replacing

QUARANTINE = "quarantine"
_QUARANTINE_HEADER = b"file,row,rules,"
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


@dataclass(frozen=True)
class Examined:
    """What could be read of a folder, and what keeps it from being used.

    Attributes:
        found: what the files that could be read hold.
        unread: sources of the files that could not.
        fault: null where the folder can be used; names everything wrong over all files.
    """

    found: Folder
    unread: frozenset[str]
    fault: ContractError | UsageError | None


def read_folder(folder: Path, *, on_progress: Callable[[str], None] | None = None) -> Folder:
    """Read and check every source file in a folder; a file that is missing is a feed that was not delivered.

    Args:
        folder: holds `enterprises.parquet` or `.csv`, and others.
        on_progress: told the name of each file before it is read.

    Raises:
        ContractError: a file cannot be used, or `enterprises` is missing; names everything wrong over all files.
        UsageError: nothing is wrong but that files may not be read.
    """
    examined = examine(folder, on_progress=on_progress)
    if examined.fault is not None:
        raise examined.fault
    return examined.found


def examine(folder: Path, *, on_progress: Callable[[str], None] | None = None) -> Examined:
    """Read and check every source file in a folder, and go on where one cannot be used; see `read_folder`.

    Raises:
        ContractError: there is no such folder.
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
    fault = None
    if problems:
        fault = ContractError(f"{folder} cannot be used", [*problems, *barred])
    elif barred:
        fault = UsageError(f"files of {folder} may not be read", barred)
    sources, found = assembled(checks)
    if "enterprises" not in checks:
        found = checks  # without a registry no row is about a stranger
    reports = {name: _report(name, files[name].name, check) for name, check in found.items()}
    quarantined = {name: check.quarantined for name, check in found.items()}
    unread = frozenset(name for name in SOURCES if name not in checks and _files_of(folder, name))
    return Examined(Folder(sources, reports, quarantined, _strange_files(folder)), unread, fault)


def _files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of each source that has one, and what is wrong with the choice."""
    files: dict[str, Path] = {}
    problems: list[str] = []
    for name in SOURCES:
        there = _files_of(folder, name)
        if len(there) > 1:
            problems.append(f"{name}: both {there[0].name} and {there[1].name} are there; leave one")
        elif there:
            files[name] = there[0]
        elif name == "enterprises":
            problems.append("enterprises: the file is missing (enterprises.parquet or enterprises.csv)")
    return files, problems


def _files_of(folder: Path, name: str) -> list[Path]:
    return [path for ending in FORMATS if (path := folder / f"{name}.{ending}").exists()]


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


def require_own_quarantine(folder: Path) -> None:
    """Refuse to check a folder whose quarantine holds what no check wrote: it would be replaced or removed.

    Raises:
        UsageError: names each such file.
    """
    place = folder / QUARANTINE
    if place.exists() and not place.is_dir():
        raise UsageError("the quarantine cannot be written", [f"{place} is a file; take it away"])
    foreign = [path for name in SOURCES if (path := place / f"{name}.csv").exists() and not _is_quarantine(path)]
    if foreign:
        raise UsageError(
            "the quarantine cannot be written",
            [f"{path} is there already and is no quarantine that jifen wrote; take it away" for path in foreign],
        )


def _is_quarantine(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        line = handle.readline(len(_QUARANTINE_HEADER))
    return line in {b"", _QUARANTINE_HEADER}


def write_quarantine(folder: Path, found: Folder, *, unread: Collection[str] = ()) -> list[Path]:
    """Write `quarantine/SOURCE.csv` for each source with quarantined rows and remove those of an earlier check.

    Args:
        folder: that was checked.
        found: what was found in it.
        unread: sources that could not be read; what an earlier check set aside of them stays.

    Each holds `file`, `row` (1-based data row), `rules`, the original columns as text, and `line`: the text of a row
    that could not be divided into columns.

    Returns:
        The files written.

    Raises:
        UsageError: see `require_own_quarantine`.
    """
    require_own_quarantine(folder)
    place = folder / QUARANTINE
    held = {name: rows for name, rows in found.quarantined.items() if rows.height}
    if held:
        place.mkdir(exist_ok=True)
    for name, rows in held.items():
        named = rows.drop("exact_duplicate").insert_column(0, pl.lit(found.reports[name].file).alias("file"))
        with replacing(place / f"{name}.csv") as beside:
            named.write_csv(beside)
    for name in SOURCES.keys() - held.keys() - set(unread):
        (place / f"{name}.csv").unlink(missing_ok=True)
    return [place / f"{name}.csv" for name in held]


def describe() -> list[Description]:
    """Every column of every source, from the contracts."""
    return [column for source in SOURCES.values() for column in described(source)]


def quarantine_codes() -> list[Code]:
    """Every code that `rules` of a quarantine may hold."""
    return [*codes(), *(Code("", code, meaning) for code, meaning in csv_lines.MEANINGS.items())]
