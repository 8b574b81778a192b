"""A data folder is judged as a whole, and its quarantine tells what was set aside."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import polars as pl
import pytest

from data_contracts import repeats
from data_contracts.errors import ContractError, UsageError
from data_contracts.parsing import FAILURE_SUFFIX
from data_contracts.rules import rules_of
from data_contracts.sources import SOURCES
from models.sources import csv_lines
from models.sources.folder import describe, examine, quarantine_codes, read_folder, write_quarantine
from models.sources.writing import FORMATS, Format, write_folder
from tests import make


@pytest.fixture
def park(tmp_path: Path) -> Path:
    write_folder(make.frames(invoices=[make.invoice()], debts=[make.debt()]), tmp_path, "csv")
    return tmp_path


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(ContractError) as refused:
        read_folder(folder)
    assert refused.value.exit_code == 3
    return refused.value.problems


def test_everything_wrong_with_a_folder_is_said_at_once(park: Path) -> None:
    (park / "enterprises.csv").unlink()
    make.frame("invoices", []).write_parquet(park / "invoices.parquet")
    (park / "debts.csv").write_text("uscc,known_on\n")
    (park / "feeds.csv").write_text("")
    (park / "loan_outcomes.parquet").mkdir()
    (park / "tax_filings.csv").write_bytes("企业".encode("gbk"))
    said = "\n".join(problems(park))
    assert "enterprises: the file is missing" in said
    assert "invoices: both invoices.parquet and invoices.csv are there" in said
    assert said.count("debts.csv: debts: column") == len(SOURCES["debts"].columns) - 2
    assert "feeds.csv: is empty" in said
    assert "loan_outcomes.parquet: is a folder" in said
    assert "tax_filings.csv: its text is not UTF-8" in said


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert problems(tmp_path / "nowhere") == (f"{tmp_path / 'nowhere'}: no such folder",)


def test_a_missing_source_is_a_feed_that_was_not_delivered(park: Path) -> None:
    (park / "invoices.csv").unlink()
    found = read_folder(park)
    assert set(found.reports) == {"enterprises", "debts"}
    assert found.sources.invoices.is_empty()


def test_a_file_that_is_no_source_is_a_warning(park: Path) -> None:
    for name in ("Invoices.csv", "notes.txt", "truth.parquet", "extra.parquet", "extra.csv"):
        (park / name).write_text("x")
    assert read_folder(park).warnings == (
        "Invoices.csv is not a source file and was not read",
        "notes.txt is not a source file and was not read",
    )


def test_progress_names_each_file(park: Path) -> None:
    told: list[str] = []
    read_folder(park, on_progress=told.append)
    assert told == ["enterprises.csv", "invoices.csv", "debts.csv"]


def test_the_report_counts_rows_and_rules(park: Path) -> None:
    bad = make.invoice(gross_fen=1, direction="up")
    records = [make.invoice(), make.invoice(), bad, make.invoice(gross_fen=2)]
    make.frame("invoices", records).write_csv(park / "invoices.csv")
    report = read_folder(park).reports["invoices"]
    assert (report.file, report.read, report.good, report.quarantined, report.duplicates) == (
        "invoices.csv",
        4,
        1,
        3,
        1,
    )
    assert report.by_rule == {"gross_not_net_plus_tax": 2, "direction_not_listed": 1, "exact_duplicate": 1}


def test_the_quarantine_holds_the_original_row_its_file_its_number_and_every_rule(park: Path) -> None:
    lines = (park / "invoices.csv").read_text().rstrip().split("\n")
    bad = lines[1].replace(",1000000,", ",1e6,").replace(",out,", ",up,")
    (park / "invoices.csv").write_text("\n".join([*lines, bad, '"broken', "", lines[1]]))
    written = write_quarantine(park, read_folder(park))
    assert written == [park / "quarantine" / "invoices.csv"]
    held = pl.read_csv(written[0], infer_schema=False)
    assert held.columns == ["file", "row", "rules", *SOURCES["invoices"].columns, "line"]
    assert held.select("file", "row", "rules", "line").rows() == [
        ("invoices.csv", "2", "net_fen_not_integer; direction_not_listed", None),
        ("invoices.csv", "3", "stray_quote", '"broken'),
        ("invoices.csv", "4", "exact_duplicate", None),
    ]
    original = held[0].select(list(SOURCES["invoices"].columns)).fill_null("").row(0)
    assert ",".join(original) == bad


def test_the_quarantine_of_an_earlier_check_is_removed(park: Path) -> None:
    place = park / "quarantine"
    place.mkdir()
    (place / "debts.csv").write_text("file,row,rules,uscc\ndebts.csv,1,stale,\n")
    (place / "notes.txt").write_text("not ours")
    assert write_quarantine(park, read_folder(park)) == []
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_a_quarantine_that_no_check_wrote_is_neither_replaced_nor_removed(park: Path) -> None:
    place = park / "quarantine"
    place.mkdir()
    mine = {"invoices.csv": b"uscc,known_on\n", "debts.csv": b"\xff\x00"}
    for name, content in mine.items():
        (place / name).write_bytes(content)
    bad = [make.invoice(gross_fen=1)]
    for records in (bad, [make.invoice()]):
        make.frame("invoices", records).write_csv(park / "invoices.csv")
        with pytest.raises(UsageError) as refused:
            write_quarantine(park, read_folder(park))
        assert [problem.split(" is there")[0] for problem in refused.value.problems] == [
            str(place / "invoices.csv"),
            str(place / "debts.csv"),
        ]
        assert {path.name: path.read_bytes() for path in place.iterdir()} == mine


def test_a_quarantine_that_is_a_file_is_said_so(park: Path) -> None:
    (park / "quarantine").write_text("dear diary")
    with pytest.raises(UsageError, match="is a file"):
        write_quarantine(park, read_folder(park))


def test_what_an_earlier_check_set_aside_of_a_file_that_is_torn_now_stays(park: Path) -> None:
    make.frame("debts", [make.debt(overdue_days=-1)]).write_csv(park / "debts.csv")
    write_quarantine(park, read_folder(park))
    (park / "debts.csv").write_text("")
    examined = examine(park)
    assert examined.unread == {"debts"}
    write_quarantine(park, examined.found, unread=examined.unread)
    assert (park / "quarantine" / "debts.csv").is_file()


def test_without_a_registry_no_row_is_called_a_strangers(park: Path) -> None:
    (park / "enterprises.csv").write_text("")
    reports = examine(park).found.reports
    assert set(reports) == {"invoices", "debts"}
    assert all(report.warnings == () for report in reports.values())


def test_a_clean_folder_gets_no_quarantine(park: Path) -> None:
    write_quarantine(park, read_folder(park))
    assert not (park / "quarantine").exists()


def test_the_quarantine_is_no_strange_file(park: Path) -> None:
    (park / "quarantine").mkdir()
    assert read_folder(park).warnings == ()


def test_bad_rows_reach_the_doubts_of_the_sources(park: Path) -> None:
    make.frame("debts", [make.debt(overdue_days=-1)]).write_csv(park / "debts.csv")
    assert read_folder(park).sources.doubts["source"].to_list() == ["debts"]


def test_every_column_of_every_source_is_described() -> None:
    assert len(describe()) == sum(len(source.columns) for source in SOURCES.values())


def test_every_code_that_a_quarantine_may_hold_is_explained_once() -> None:
    explained = [(code.source, code.code) for code in quarantine_codes()]
    assert len(set(explained)) == len(explained)
    for name, source in SOURCES.items():
        failures = (f"{column}_{FAILURE_SUFFIX[dtype]}" for column, dtype in source.types.items() if dtype != pl.String)
        own = [rule.code for rule in rules_of(name)]
        for code in {*own, *failures, *constants(repeats), *constants(csv_lines)}:
            general = {("", f"COLUMN_{code.removeprefix(f'{column}_')}") for column in source.columns}
            assert {(name, code), ("", code), *general} & set(explained), (name, code)


def constants(module: ModuleType) -> list[str]:
    """The codes that a module writes."""
    found = [value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]
    codes = [value for value in found if re.fullmatch("[a-z]+(_[a-z]+)+", value)]
    assert len(codes) >= 3
    return codes


@contextmanager
def nobody() -> Generator[None]:
    """Without the rights of root, which may read everything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("form", FORMATS)
def test_files_that_may_not_be_read_are_all_named_and_not_called_damaged(form: Format) -> None:
    with TemporaryDirectory() as named:
        folder = Path(named)
        folder.chmod(0o755)
        write_folder(make.frames(invoices=[make.invoice()], debts=[make.debt()]), folder, form)
        for name in ("invoices", "debts"):
            (folder / f"{name}.{form}").chmod(0)
        (folder / f"enterprises.{form}").chmod(0o644)
        with nobody(), pytest.raises(UsageError) as refused:
            read_folder(folder)
        assert refused.value.exit_code == 2
        assert refused.value.problems == tuple(
            f"{name}.{form}: may not be read (Permission denied)" for name in ("invoices", "debts")
        )
        (folder / f"enterprises.{form}").write_bytes(b"")
        (folder / f"enterprises.{form}").chmod(0o644)
        with nobody():
            said = "\n".join(problems(folder))
        assert f"enterprises.{form}: is empty" in said
        assert f"debts.{form}: may not be read" in said
