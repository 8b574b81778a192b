"""Columns from outside the catalogue: read, refused as leaks, let in by name, and carried to the decision."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from data_contracts.errors import ContractError
from models.development import references
from models.encoding import Input
from models.extra import read_extra
from models.verdict import PHRASES
from tests.api.test_exit_codes import assert_clear
from tests.damaged import panicking
from tests.ground import Ground, done, ground, run


@dataclass(frozen=True)
class Tried:
    """A model that was trained with a column that knows nothing, and what training said."""

    town: Ground
    version: str
    said: str


def test_none_named_reads_nothing(tmp_path: Path) -> None:
    assert read_extra(tmp_path, []) is None


def test_parquet_goes_before_csv_and_numbers_come_as_floats(tmp_path: Path) -> None:
    pl.DataFrame({"uscc": ["a", "b"], "x": [True, None], "y": [1, 2]}).write_parquet(tmp_path / "extra.parquet")
    (tmp_path / "extra.csv").write_text("uscc,x\na,7\n", encoding="utf-8")
    found = read_extra(tmp_path, ["y", "x"])
    assert found is not None
    assert found.to_dict(as_series=False) == {"uscc": ["a", "b"], "y": [1.0, 2.0], "x": [1.0, None]}
    (tmp_path / "extra.parquet").unlink()
    found = read_extra(tmp_path, ["x"])
    assert found is not None
    assert found["x"].to_list() == [7.0]


def test_everything_wrong_with_the_file_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "extra.csv").write_text("uscc,x\na,good\na,bad\n", encoding="utf-8")
    with pytest.raises(ContractError) as refused:
        read_extra(tmp_path, ["x", "y"])
    assert refused.value.problems == ("there is no column y", "x is not a number", "an enterprise stands twice")


def test_a_credit_code_of_digits_keeps_its_leading_zero(tmp_path: Path) -> None:
    (tmp_path / "extra.csv").write_text("uscc,x\n013502110000000094,1\n", encoding="utf-8")
    found = read_extra(tmp_path, ["x"])
    assert found is not None
    assert found["uscc"].to_list() == ["013502110000000094"]


@pytest.mark.parametrize("folder", ["p[1]", "p*", "year=2026"])
@pytest.mark.parametrize("name", ["extra.parquet", "extra.csv"])
def test_the_name_of_a_folder_is_no_pattern_and_no_column(tmp_path: Path, folder: str, name: str) -> None:
    park, twin = tmp_path / folder, tmp_path / "p1"
    table = pl.DataFrame({"uscc": ["a"], "x": [1]})
    for place, rows in ((park, table), (twin, table.with_columns(x=pl.lit(2)))):
        place.mkdir()
        rows.write_parquet(place / name) if name.endswith("parquet") else rows.write_csv(place / name)
    found = read_extra(park, ["x"])
    assert found is not None
    assert found["x"].to_list() == [1.0]
    with pytest.raises(ContractError) as refused:
        read_extra(park, ["year"])
    assert refused.value.problems == ("there is no column year",)


@pytest.mark.parametrize("uscc", [pl.Series([["a"], ["b"]]), pl.Series([b"\xff", b"a"]), pl.Series([13, 14])])
def test_credit_codes_that_are_no_text_are_refused(tmp_path: Path, uscc: pl.Series) -> None:
    pl.DataFrame({"uscc": uscc, "x": ["good", "bad"]}).write_parquet(tmp_path / "extra.parquet")
    with pytest.raises(ContractError) as refused:
        read_extra(tmp_path, ["x"])
    assert refused.value.problems == ("x is not a number", "uscc is not text")


@pytest.mark.parametrize("content", [b"", b"PAR1 torn", b'uscc,x\n"a,1\n', b"\xff\xfe\x00"])
@pytest.mark.parametrize("name", ["extra.parquet", "extra.csv"])
def test_a_torn_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ContractError):
        read_extra(tmp_path, ["x"])


def test_a_file_that_makes_the_reader_panic_is_refused(tmp_path: Path) -> None:
    panicking(tmp_path / "extra.parquet")
    with pytest.raises(ContractError, match=r"extra.parquet cannot be used"):
        read_extra(tmp_path, ["hunch"])


@pytest.mark.parametrize("name", ["uscc", "sales_12m_fen", "points_share_bp"])
def test_a_name_that_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    pl.DataFrame({"uscc": ["a"], "sales_12m_fen": [1], "points_share_bp": [1]}).write_parquet(
        tmp_path / "extra.parquet"
    )
    with pytest.raises(ContractError) as refused:
        read_extra(tmp_path, [name])
    assert "taken" in " ".join(refused.value.problems)


def test_a_column_named_twice_is_read_once(tmp_path: Path) -> None:
    pl.DataFrame({"uscc": ["a"], "x": [1]}).write_parquet(tmp_path / "extra.parquet")
    found = read_extra(tmp_path, ["x", "x"])
    assert found is not None
    assert found.columns == ["uscc", "x"]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A park with a column that knows the outcome and one that knows nothing."""
    copied = ground().copy(tmp_path_factory.mktemp("extra"))
    loans = pl.read_parquet(copied.park / "loan_outcomes.parquet").select("uscc", "defaulted").unique("uscc")
    firms = pl.read_parquet(copied.park / "enterprises.parquet").select("uscc").unique().sort("uscc")
    rng = np.random.default_rng(5)
    table = firms.join(loans, on="uscc", how="left", maintain_order="left").select(
        "uscc",
        after_the_fact=pl.col("defaulted").cast(pl.Int64) * 3,
        noise=pl.Series(rng.normal(size=firms.height)),
    )
    table.write_parquet(copied.park / "extra.parquet")
    return copied


@pytest.fixture(scope="module")
def tried(town: Ground) -> Tried:
    said = done(town.home, "train", town.park, "--trials", "1", "--extra-column", "noise")
    return Tried(town, said.split("challenger ")[-1].strip(), said)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_column_that_knows_the_outcome_is_refused_by_name(town: Ground) -> None:
    ended = run(town.home, "train", town.park, "--extra-column", "after_the_fact", "--extra-column", "noise")
    assert ended.exit_code == 2
    assert "looks like a leak" in ended.stderr
    assert "after_the_fact" in ended.stderr
    assert "noise" not in ended.stderr


def test_a_leak_let_in_by_name_is_named_in_the_manifest_and_serves_to_the_end(town: Ground, tmp_path: Path) -> None:
    said = done(
        town.home,
        "train",
        town.park,
        "--trials",
        "1",
        "--extra-column",
        "after_the_fact",
        "--allow-leak",
        "after_the_fact",
    )
    version = said.split("challenger ")[-1].strip()
    assert "allowed by name: " in said
    manifest = json.loads(done(town.home, "models", "show", version))
    assert any("after_the_fact" in alarm and "allowed by name" in alarm for alarm in manifest["alarms"])
    assert {"name": "after_the_fact", "direction": 0, "scale": "linear"} in manifest["inputs"]
    out = tmp_path / "limits.parquet"
    done(town.home, "score", town.park, "--out", out, "--model", version)
    limits, features = pl.read_parquet(out), pl.read_parquet(tmp_path / "features.parquet")
    assert "after_the_fact" in features.columns
    one = limits.sort("limit_fen").row(-1, named=True)
    assert one["uscc"] in done(town.home, "explain", town.park, one["uscc"], "--model", version)
    done(town.home, "replay", one["decision_id"], "--from", out)
    (town.park / "extra.parquet").rename(tmp_path / "extra.parquet")
    ended = run(town.home, "score", town.park, "--out", out, "--model", version)
    (tmp_path / "extra.parquet").rename(town.park / "extra.parquet")
    assert ended.exit_code == 3
    assert "needed for after_the_fact" in ended.stderr


@pytest.mark.parametrize("name", ["extra.parquet", "extra.csv"])
def test_what_is_no_value_is_refused_with_its_rows(tmp_path: Path, name: str) -> None:
    nan, inf = float("nan"), float("inf")
    table = pl.DataFrame({"uscc": ["a", "b", "c", "d"], "x": [1.5, nan, None, -inf], "y": [inf, 2.0, 3.0, 4.0]})
    table.write_parquet(tmp_path / name) if name.endswith("parquet") else table.write_csv(tmp_path / name)
    with pytest.raises(ContractError) as refused:
        read_extra(tmp_path, ["x", "y"])
    assert refused.value.problems == (
        "x is NaN or infinite in row 2, 4; leave unknown cells empty",
        "y is NaN or infinite in row 1; leave unknown cells empty",
    )


def test_a_value_from_outside_the_catalogue_is_part_of_the_decision(tried: Tried, tmp_path: Path) -> None:
    town, version = tried.town, tried.version
    score = ["score", town.park, "--model", version, "--out"]
    done(town.home, *score, tmp_path / "before.parquet")
    path = town.park / "extra.parquet"
    table = pl.read_parquet(path)
    table.with_columns(pl.col("noise") + 1.0).write_parquet(path)
    done(town.home, *score, tmp_path / "after.parquet")
    table.write_parquet(path)
    before, after = (pl.read_parquet(tmp_path / f"{one}.parquet") for one in ("before", "after"))
    assert set(before["decision_id"]).isdisjoint(after["decision_id"])
    assert set(before["input_hash"]).isdisjoint(after["input_hash"])
    for limits, file in ((before, "before"), (after, "after")):
        done(town.home, "replay", str(limits["decision_id"][0]), "--from", tmp_path / f"{file}.parquet")
    done(town.home, *score, tmp_path / "again.parquet")
    assert pl.read_parquet(tmp_path / "again.parquet").equals(before)


def test_what_no_certificate_covers_is_said_by_every_command(tried: Tried, tmp_path: Path) -> None:
    town, version = tried.town, tried.version
    words = "noise: from outside the catalogue, without the day on which it was known"
    assert words in flat(tried.said)
    assert "says nothing of noise" in flat(tried.said)
    assert words in " ".join(json.loads(done(town.home, "models", "show", version))["caveats"])
    scored = done(town.home, "score", town.park, "--model", version, "--out", tmp_path / "limits.parquet")
    assert words in flat(scored)
    one = str(pl.read_parquet(tmp_path / "limits.parquet")["uscc"][0])
    assert words in flat(done(town.home, "explain", town.park, one, "--model", version))


def test_a_model_that_the_hall_cannot_quote_with_is_promoted_by_name_only(tried: Tried, tmp_path: Path) -> None:
    town, version = tried.town.copy(tmp_path), tried.version
    minutes = " / ".join(phrases[0] for phrases in PHRASES.values())
    promote = ["models", "promote", version, "--minutes", minutes]
    for words in (promote, [*promote, "--allow-unpromised", "sales_12m_fen"]):
        assert_clear(run(town.home, *words), 2, ["noise", "--allow-unpromised", "limit quote"])
    said = done(town.home, *promote, "--allow-unpromised", "noise")
    assert f"champion {version}" in said
    assert "refuses every limit quote" in said
    assert "refuses" not in done(town.home, "models", "promote", town.champion, "--minutes", minutes)


def test_references_are_values_that_were_seen() -> None:
    large = 2**53 + 1
    table = pl.DataFrame(
        {"share": [0.25, 0.5, 0.25, None], "fen": [large, large + 2, large, large], "gone": [None] * 4}
    )
    found = references(table, [Input("share"), Input("fen"), Input("gone")])
    assert found == {"share": (0.25, 0.5), "fen": (large, large + 2), "gone": ()}
