"""What must be said aloud: rows that did not count, defaults without a date, a day before the model's own."""

import json
import re
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from models.registry import shown
from models.replay import run_file
from models.sources.folder import read_folder
from tests.api.test_exit_codes import assert_clear
from tests.ground import Ground, done, ground, run

NOT_A_PD = "carry no date of their own; this is no 12-month PD"


@pytest.fixture
def town(tmp_path: Path) -> Ground:
    return ground().copy(tmp_path / "town")


def edited(town: Ground, source: str, uscc: str, **columns: pl.Expr) -> int:
    """Change every row of an enterprise; how many there were."""
    path = town.park / f"{source}.parquet"
    rows = pl.read_parquet(path)
    its = pl.col("uscc") == uscc
    rows.with_columns(
        pl.when(its).then(value).otherwise(pl.col(name)).alias(name) for name, value in columns.items()
    ).write_parquet(path)
    return rows.filter(its).height


def mistype_a_date(town: Ground) -> None:
    """The last registry row of one enterprise became known in 2099."""
    last = pl.col("known_on") == pl.col("known_on").max().over("uscc")
    mistyped = pl.when(last).then(pl.date(2099, 1, 1)).otherwise("known_on")
    edited(town, "enterprises", str(town.best["uscc"]), known_on=mistyped)


def caveats_of(limits: Path) -> list[str]:
    """What the run of a limits file says beside it."""
    return json.loads(run_file(limits).read_text(encoding="utf-8"))["caveats"]


def flat(text: str) -> str:
    return " ".join(text.split())


def test_nothing_is_said_where_nothing_is_in_quarantine(town: Ground) -> None:
    said = done(town.home, "score", town.park, "--out", town.root / "limits.parquet")
    assert "quarantine" not in said
    assert NOT_A_PD not in said


def test_scoring_says_which_rows_did_not_count_and_names_the_firms_that_fell_out(town: Ground) -> None:
    gone, doubted = (str(code) for code in town.limits["uscc"].sort()[:2])
    broken = edited(town, "enterprises", gone, district=pl.lit("nowhere"))
    debts = edited(town, "invoices", doubted, gross_fen=pl.col("gross_fen") + 7)
    assert broken
    assert debts
    out = town.root / "limits.parquet"
    said = flat(done(town.home, "score", town.park, "--out", out))
    assert "199 decisions" in said
    assert f"{broken + debts:,} rows in quarantine (enterprises {broken:,}, invoices {debts:,})" in said
    assert f"1 enterprises without a usable registry row: {gone}" in said
    assert f"1 enterprises without a usable registry row: {gone}" in " ".join(caveats_of(out))
    assert f"jifen data check {town.park}" in said
    page = flat(done(town.home, "explain", town.park, doubted))
    assert f"in quarantine, which did not count 隔离的记录未计入: invoices {debts}" in page


def test_an_enterprise_whose_registry_rows_are_bad_is_bad_data_and_an_unknown_one_bad_usage(town: Ground) -> None:
    gone = str(town.limits["uscc"][0])
    edited(town, "enterprises", gone, district=pl.lit("nowhere"))
    ended = run(town.home, "explain", town.park, gone)
    assert_clear(ended, 3, [f"no registry row of {gone} is usable", "enterprises.parquet row", "district"])
    assert_clear(run(town.home, "explain", town.park, "91350211MA0000000X"), 2, ["no enterprise"])


def test_a_folder_without_one_usable_firm_is_bad_data(town: Ground) -> None:
    path = town.park / "enterprises.parquet"
    pl.read_parquet(path).with_columns(district=pl.lit("nowhere")).write_parquet(path)
    ended = run(town.home, "score", town.park, "--out", town.root / "new.parquet")
    assert_clear(ended, 3, ["has a usable registry row", "200 enterprises without"])


def test_training_says_which_outcomes_did_not_count(town: Ground) -> None:
    good = read_folder(town.park).sources.loan_outcomes
    one = str(good.filter(~pl.col("defaulted"))["uscc"].sort()[0])
    edited(town, "loan_outcomes", one, defaulted_on=pl.col("observed_until"))
    said = flat(done(town.home, "train", town.park, "--trials", "1"))
    assert "1 rows in quarantine (loan_outcomes 1), 0 enterprises without a usable registry row" in said


def test_undated_defaults_are_said_to_be_no_twelve_month_pd_by_every_command(town: Ground) -> None:
    path = town.park / "loan_outcomes.parquet"
    rows = pl.read_parquet(path)
    defaults = rows["defaulted"].sum()
    rows.with_columns(defaulted_on=pl.lit(None, pl.Date)).write_parquet(path)
    trained = done(town.home, "train", town.park, "--trials", "1")
    version = trained.split("challenger ")[-1].strip()
    sentence = re.compile(rf"(\d+) of \1 defaults {NOT_A_PD}")
    found = sentence.search(flat(trained))
    assert found
    assert int(found[1]) == defaults
    manifest = json.loads(done(town.home, "models", "show", version))
    assert manifest["undated"] == manifest["defaults"] == defaults
    assert manifest["horizon"] == f"12 months, assumed of {defaults} defaults without a date"
    assert sentence.search(" ".join(manifest["caveats"]))
    out = town.root / "limits.parquet"
    assert sentence.search(flat(done(town.home, "score", town.park, "--out", out, "--model", version)))
    assert sentence.search(run_file(out).read_text(encoding="utf-8"))
    page = done(town.home, "explain", town.park, str(town.best["uscc"]), "--model", version)
    assert sentence.search(flat(page))


def test_a_dated_label_needs_no_such_word(town: Ground) -> None:
    manifest = shown(town.home, town.champion).manifest
    assert (manifest.undated, manifest.caveats, manifest.horizon) == (0, (), "12 months")


def test_a_day_before_the_models_own_is_warned_of_in_the_output_and_the_run(town: Ground) -> None:
    out = town.root / "limits.parquet"
    as_of = shown(town.home, town.champion).manifest.as_of
    words = f"is before the model's own training day {as_of}"
    assert words not in flat(done(town.home, "score", town.park, "--out", out))
    assert words in flat(done(town.home, "score", town.park, "--out", out, "--as-of", "2026-01-01"))
    assert words in run_file(out).read_text(encoding="utf-8")
    assert words in flat(done(town.home, "explain", town.park, str(town.best["uscc"]), "--as-of", "2026-01-01"))
    done(town.home, "replay", str(pl.read_parquet(out)["decision_id"][0]), "--from", out)


def test_a_day_before_the_outcomes_were_known_is_warned_of(town: Ground) -> None:
    path = town.park / "loan_outcomes.parquet"
    pl.read_parquet(path).with_columns(known_on=pl.lit(date(2026, 8, 15))).write_parquet(path)
    version = done(town.home, "train", town.park, "--trials", "1").split("challenger ")[-1].strip()
    assert shown(town.home, version).manifest.labels_known_on == "2026-08-15"
    words = "is before 2026-08-15, when the last outcome that the model learned from was known"
    score = ["score", town.park, "--model", version, "--out", town.root / "limits.parquet"]
    said = flat(done(town.home, *score))
    assert words in said
    assert "before the model's own training day" not in said
    assert words in run_file(town.root / "limits.parquet").read_text(encoding="utf-8")
    assert words not in flat(done(town.home, *score, "--as-of", "2026-08-15"))


def test_a_day_that_one_mistyped_date_made_is_told_and_noted(town: Ground) -> None:
    out, words = town.root / "limits.parquet", "of 200 enterprises only a fact became known in the quarter before it"
    said = flat(done(town.home, "score", town.park, "--out", out))
    day = pl.read_parquet(out)["as_of"][0]
    assert f"200 decisions as of {day}" in said
    assert words not in said
    mistype_a_date(town)
    said = flat(done(town.home, "score", town.park, "--out", out))
    assert "decisions as of 2099-01-02" in said
    assert f"1 {words}" in said
    assert f"1 {words}" in " ".join(caveats_of(out))
    done(town.home, "replay", str(pl.read_parquet(out)["decision_id"][0]), "--from", out)
    assert f"1 {words}" in flat(done(town.home, "explain", town.park, str(town.best["uscc"])))
    assert words not in flat(done(town.home, "score", town.park, "--out", out, "--as-of", str(day)))
    assert words not in " ".join(caveats_of(out))


def test_training_from_a_day_that_one_mistyped_date_made_says_so_and_notes_it(town: Ground) -> None:
    words = "of 200 enterprises only a fact became known in the quarter before it"
    train = ["train", town.park, "--trials", "1"]
    day = str(shown(town.home, town.champion).manifest.as_of)
    mistype_a_date(town)
    said = flat(done(town.home, *train))
    assert "no fact known after 2099-01-02" in said
    assert f"1 {words}" in said
    manifest = shown(town.home, said.split("challenger ")[-1].strip()).manifest
    assert manifest.as_of == "2099-01-02"
    assert f"1 {words}" in " ".join(manifest.caveats)
    said = flat(done(town.home, *train, "--as-of", day))
    assert f"no fact known after {day}" in said
    assert words not in said
    assert words not in " ".join(shown(town.home, said.split("challenger ")[-1].strip()).manifest.caveats)


def test_a_run_written_before_there_were_caveats_still_replays(town: Ground) -> None:
    path = run_file(town.root / "limits.parquet")
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["caveats"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    done(town.home, "replay", str(town.best["decision_id"]), "--from", town.root / "limits.parquet")
