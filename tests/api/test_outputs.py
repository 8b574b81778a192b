"""What a command may write over: files of its own, never facts and never somebody's own file."""

import json
import re
import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from tests.api.test_exit_codes import assert_clear
from tests.damaged import panicking
from tests.ground import Ground, done, ground, run


@pytest.fixture
def town(tmp_path: Path) -> Ground:
    return ground().copy(tmp_path / "town")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["invoices.parquet", "debts.csv", "truth.parquet", "extra.csv"])
@pytest.mark.parametrize("option", ["--out", "--csv", "--xlsx"])
def test_limits_do_not_go_by_the_name_of_a_source_file(town: Ground, option: str, name: str) -> None:
    before = content(town.root)
    out = [] if option == "--out" else ["--out", town.root / "new.parquet"]
    ended = run(town.home, "score", town.park, *out, option, town.park / name)
    assert_clear(ended, 2, [f"{name} is the name of a source file"])
    assert content(town.root) == before


@pytest.mark.parametrize("name", ["invoices.parquet", "enterprises.csv"])
def test_a_report_does_not_go_by_the_name_of_a_source_file(town: Ground, name: str) -> None:
    before = content(town.root)
    ended = run(town.home, "data", "check", town.park, "--report", town.park / name)
    assert_clear(ended, 2, [f"{name} is the name of a source file"])
    assert content(town.root) == before


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--out", "mine"),
        ("--csv", "mine"),
        ("--xlsx", "mine"),
        ("--out", "limits.csv"),
        ("--csv", "limits.parquet"),
        ("--out", "new.run.json"),
    ],
)
def test_somebodys_own_file_is_not_written_over(town: Ground, option: str, name: str) -> None:
    done(town.home, "score", town.park, "--out", town.root / "limits.parquet", "--csv", town.root / "limits.csv")
    (town.root / "mine").write_text("dear,diary\n", encoding="utf-8")
    (town.root / "new.run.json").write_text("{}", encoding="utf-8")
    before = content(town.root)
    out = ["--out", town.root / "other.parquet"] if option != "--out" else []
    ended = run(town.home, "score", town.park, *out, option, town.root / name)
    assert_clear(ended, 2, [f"{name} is there already"])
    assert content(town.root) == before


@pytest.mark.parametrize(("name", "words"), [("features.parquet", "feature rows"), ("limits.run.json", "run")])
def test_what_goes_beside_the_limits_writes_over_nothing_foreign(tmp_path: Path, name: str, words: str) -> None:
    pl.DataFrame({"mine": [1]}).write_parquet(tmp_path / name)
    before = content(tmp_path)
    ended = run(ground().home, "score", ground().park, "--out", tmp_path / "limits.parquet")
    assert_clear(ended, 2, [f"{name} is there already", words])
    assert content(tmp_path) == before


def test_a_report_writes_over_an_earlier_report_only(town: Ground) -> None:
    report, mine = town.root / "report.json", town.root / "mine.json"
    for _ in range(2):
        done(town.home, "data", "check", town.park, "--report", report)
    mine.write_text('{"my": "settings"}', encoding="utf-8")
    assert_clear(run(town.home, "data", "check", town.park, "--report", mine), 2, ["mine.json is there already"])
    assert mine.read_text(encoding="utf-8") == '{"my": "settings"}'


def test_a_check_goes_on_after_an_unusable_file_and_names_every_one(town: Ground) -> None:
    path, report = town.park / "invoices.parquet", town.root / "report.json"
    invoices = pl.read_parquet(path)
    first = pl.int_range(pl.len()) == 0
    invoices.with_columns(gross_fen=pl.when(first).then(pl.col("gross_fen") + 1).otherwise("gross_fen")).write_parquet(
        path
    )
    (town.park / "debts.parquet").write_bytes(b"PAR1 torn")
    (town.park / "feeds.parquet").write_bytes(b"")
    ended = run(town.home, "data", "check", town.park, "--report", report)
    assert_clear(ended, 3, ["debts.parquet: damaged", "feeds.parquet: is empty"])
    assert re.search(
        rf"invoices +{invoices.height:,} +{invoices.height - 1:,} +1 +0 +gross_not_net_plus_tax 1", ended.stdout
    )
    assert pl.read_csv(town.park / "quarantine" / "invoices.csv")["row"].to_list() == [1]
    assert "what each code means: jifen data describe" in ended.stdout
    described = done(town.home, "data", "describe")
    assert "gross_not_net_plus_tax" in described
    assert "conflicting_versions" in described
    said = json.loads(report.read_text(encoding="utf-8"))
    assert said["sources"]["invoices"]["quarantined"] == 1
    assert {problem.split(":")[0] for problem in said["unusable"]} == {"debts.parquet", "feeds.parquet"}


def test_a_check_removes_no_quarantine_that_it_did_not_write(town: Ground) -> None:
    (town.park / "quarantine").mkdir()
    (town.park / "quarantine" / "invoices.csv").write_text("dear,diary\n", encoding="utf-8")
    before = content(town.root)
    ended = run(town.home, "data", "check", town.park)
    assert_clear(ended, 2, ["invoices.csv is there already and is no quarantine that jifen wrote"])
    assert content(town.root) == before


def test_scoring_again_replaces_its_own_files(town: Ground) -> None:
    words = ["--csv", town.root / "l.csv", "--xlsx", town.root / "l.xlsx", "--out", town.root / "limits.parquet"]
    done(town.home, "score", town.park, *words)
    done(town.home, "score", town.park, *words)


def test_limits_of_two_endings_do_not_share_a_run(town: Ground) -> None:
    before = content(town.root)
    ended = run(town.home, "score", town.park, "--out", town.root / "limits.dat")
    assert_clear(ended, 2, ["limits.run.json belongs to limits.parquet"])
    assert content(town.root) == before


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        (["--csv", "limits.run.json"], ["--csv", "the run record of --out"]),
        (["--xlsx", "limits.run.json"], ["--xlsx", "the run record of --out"]),
        (["--csv", "sub/../limits.run.json"], ["--csv", "the run record of --out"]),
        (["--csv", "sub/../limits.parquet"], ["--out", "--csv"]),
        (["--xlsx", "link"], ["--out", "--xlsx"]),
        (["--csv", "rows"], ["--csv", "the feature rows of --out"]),
        (["--csv", "new.csv", "--xlsx", "./sub/../new.csv"], ["--csv", "--xlsx"]),
    ],
)
def test_no_two_files_of_a_run_are_one_however_they_are_spelt(town: Ground, words: list[str], pair: list[str]) -> None:
    (town.root / "sub").mkdir()
    (town.root / "link").symlink_to("limits.parquet")
    (town.root / "rows").symlink_to("features.parquet")
    before = content(town.root)
    paths = [word if word.startswith("--") else f"{town.root}/{word}" for word in words]
    ended = run(town.home, "score", town.park, "--out", town.root / "limits.parquet", *paths)
    assert_clear(ended, 2, [*pair, "are the same file, named twice"])
    assert content(town.root) == before


def test_a_new_run_is_not_its_own_table(town: Ground) -> None:
    before = content(town.root)
    words = ["--out", town.root / "new.parquet", "--csv", town.root / "new.run.json"]
    assert_clear(run(town.home, "score", town.park, *words), 2, ["--csv and the run record of --out, new.run.json"])
    assert content(town.root) == before


def original(folder: Path) -> None:
    """The data set cumcm2020c with one firm and one invoice sold."""
    firm = {"enterprise_id": "E1", "name_masked": "***公司", "is_default": False}
    pl.DataFrame([firm]).write_parquet(folder / "enterprises.parquet")
    annotation = {"enterprise_id": "E1", "industry_class": "services"}
    pl.DataFrame([annotation]).write_parquet(folder / "industry_annotation.parquet")
    money = pl.Decimal(18, 2)
    types = {"amount_net": money, "tax": money, "amount_gross": money}
    invoice = {"enterprise_id": "E1", "invoice_no": "1", "issue_date": date(2019, 5, 5), "is_void": False}
    amounts = {"amount_net": Decimal("1.00"), "tax": Decimal("0.03"), "amount_gross": Decimal("1.03")}
    for name, other in (("input_invoices", "seller_id"), ("output_invoices", "buyer_id")):
        rows = pl.DataFrame([{**invoice, **amounts, other: "B1"}], schema_overrides=types)
        rows.write_parquet(folder / f"{name}.parquet")


def test_the_small_original_is_imported_into_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    original(tmp_path / "a")
    assert "invoices: 2 rows" in done(tmp_path / "home", "data", "import", "cumcm2020c", tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("name", ["enterprises", "invoices", "loan_outcomes", "feeds"])
def test_an_import_replaces_an_import_but_no_other_facts(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    original(tmp_path / "set")
    again = ["data", "import", "cumcm2020c", tmp_path / "set", tmp_path / "own"]
    done(tmp_path / "home", *again)
    done(tmp_path / "home", *again)
    shutil.copy(ground().park / f"{name}.parquet", tmp_path / "own" / f"{name}.parquet")
    before = content(tmp_path)
    assert_clear(run(tmp_path / "home", *again), 2, ["no import of cumcm2020c", "--force", f"{name}.parquet"])
    assert content(tmp_path) == before
    done(tmp_path / "home", *again, "--force")
    done(tmp_path / "home", *again)
    (tmp_path / "own" / f"{name}.parquet").write_text("dear diary", encoding="utf-8")
    assert_clear(run(tmp_path / "home", *again), 2, ["no import of cumcm2020c", f"{name}.parquet"])


@pytest.mark.parametrize("name", ["debts.parquet", "invoices.csv"])
def test_source_files_that_an_import_would_not_replace_are_refused_in_any_case(name: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    original(tmp_path / "set")
    words = ["data", "import", "cumcm2020c", tmp_path / "set", tmp_path / "own", "--force"]
    done(tmp_path / "home", *words)
    (tmp_path / "own" / name).write_text("dear diary", encoding="utf-8")
    before = content(tmp_path)
    assert_clear(run(tmp_path / "home", *words), 2, ["already holds other source files", name])
    assert content(tmp_path) == before
    said = " ".join(done(tmp_path / "home", "data", "import", "--help").replace("│", " ").split())
    assert "source files that the set does not have are refused in any case" in said


@pytest.mark.parametrize(("src", "target"), [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "x/../a")])
def test_an_import_does_not_write_into_its_own_original(
    src: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    original(tmp_path / src)
    before = content(tmp_path)
    ended = run(tmp_path / "home", "data", "import", "cumcm2020c", src, target)
    assert_clear(ended, 2, ["folders of their own"])
    assert content(tmp_path) == before


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_park_replaces_a_park_in_a_folder_whose_name_could_be_a_pattern(tmp_path: Path, form: str) -> None:
    again = ["data", "sample", tmp_path / "p[1]", "--enterprises", "3", "--format", form]
    done(tmp_path / "home", *again)
    done(tmp_path / "home", *again)


def test_a_park_whose_registry_makes_the_reader_panic_is_not_replaced(town: Ground) -> None:
    panicking(town.park / "enterprises.parquet")
    before = content(town.park)
    assert_clear(run(town.home, "data", "sample", town.park, "--enterprises", "3"), 2, ["no made-up park"])
    assert content(town.park) == before


def test_a_park_replaces_a_park_but_no_other_facts(town: Ground) -> None:
    again = ["data", "sample", town.park, "--enterprises", "3"]
    done(town.home, *again)
    assert pl.read_parquet(town.park / "enterprises.parquet")["uscc"].n_unique() == 3
    assert set(pl.read_parquet(town.park / "truth.parquet")["uscc"]) <= set(
        pl.read_parquet(town.park / "enterprises.parquet")["uscc"]
    )
    registry = town.park / "enterprises.parquet"
    pl.read_parquet(registry).with_columns(name=pl.lit("厦门某某科技有限公司")).write_parquet(registry)
    before = content(town.park)
    assert_clear(run(town.home, *again), 2, ["no made-up park", "--force", "enterprises.parquet"])
    assert content(town.park) == before
    (town.park / "truth.parquet").unlink()
    assert_clear(run(town.home, *again), 2, ["no made-up park"])
    done(town.home, *again, "--force")
    assert content(town.park) != before
    assert (town.park / "truth.parquet").is_file()
