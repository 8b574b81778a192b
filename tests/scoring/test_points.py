from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from data_contracts.errors import PolicyError
from data_contracts.samples import park
from data_contracts.uscc import made_up_code
from scoring.points import parse_ruleset, points, stage_of
from scoring.ruleset import Ruleset

ROOT = Path(__file__).resolve().parents[2]
AS_OF = date(2026, 11, 1)
CASES: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / "tests" / "cases" / "innovation_points.yaml").read_text(encoding="utf-8")
)


def text_of(name: str) -> str:
    (path,) = (ROOT / "scoring" / "rulesets").glob(f"{name}.*.yaml")
    return path.read_text(encoding="utf-8")


RULESETS = {name: parse_ruleset(text_of(name)) for name in ("tech-sme-2017", "innovative-sme-2022", "jifen-default")}
UNITS = {
    steps.fact: steps.unit
    for ruleset in RULESETS.values()
    for indicator in ruleset.indicators
    for steps in indicator.best_of
} | {
    direct.fact: direct.unit
    for ruleset in RULESETS.values()
    for direct in (ruleset.passing.direct if ruleset.passing else ())
}

SCHEMA = {
    "uscc": pl.String,
    "known_on": pl.Date,
    "supplier": pl.String,
    "year": pl.Int64,
    "indicator_id": pl.String,
    "value": pl.Int64,
    "unit": pl.String,
    "state": pl.String,
}


def fact(name: str, value: int | None, **changes: Any) -> dict[str, Any]:
    row = {
        "uscc": made_up_code(1),
        "known_on": date(2026, 5, 1),
        "supplier": "authority",
        "year": 2025,
        "indicator_id": name,
        "value": value,
        "unit": UNITS.get(name, "count"),
        "state": "reported",
    }
    return row | changes


def indicators(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def firm(number: int = 1, **changes: Any) -> dict[str, Any]:
    row = {
        "uscc": made_up_code(number),
        "established_on": date(2010, 1, 1),
        "employees": 30,
        "revenue_fen": 10**9,
        "total_assets_fen": 10**9,
    }
    return row | changes


FIRM_SCHEMA = {
    "uscc": pl.String,
    "established_on": pl.Date,
    "employees": pl.Int64,
    "revenue_fen": pl.Int64,
    "total_assets_fen": pl.Int64,
}


def firms(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows or [firm()], schema=FIRM_SCHEMA, orient="row")


def score(ruleset: Ruleset, *rows: dict[str, Any], as_of: date = AS_OF, **changes: Any) -> dict[str, Any]:
    return points(indicators(*rows), as_of, firms(firm(**changes)), ruleset).to_dicts()[0]


# -------------------------------------------------------------------------------------------------------- golden cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['ruleset']}-{case['why']}")
def test_an_official_scale_gives_its_points(case: dict[str, Any]) -> None:
    size = {name: case[name] for name in ("employees", "revenue_fen", "total_assets_fen") if name in case}
    found = score(RULESETS[case["ruleset"]], *(fact(name, value) for name, value in case["facts"].items()), **size)
    assert {part["indicator"]: part["points"] for part in found["points_contributions"]} == case["parts"]
    assert found["innovation_points"] == case["sum"]
    assert found["points_share_bp"] == case["sum"] * 100
    assert found["passes"] is case["passes"]


def test_a_firm_best_in_everything_gets_the_whole_scale_at_every_stage() -> None:
    for ruleset in RULESETS.values():
        ways = [steps for indicator in ruleset.indicators for steps in indicator.best_of]
        rows = [fact(steps.fact, steps.steps[0][0]) for steps in ways]
        for born in (date(2025, 1, 1), date(2019, 1, 1), date(1999, 1, 1)):
            found = score(ruleset, *rows, established_on=born)
            assert found["innovation_points"] == ruleset.scale
            assert found["points_completeness_bp"] == 10_000


# ----------------------------------------------------------------------------------------------------------- the rules

DEFAULT = RULESETS["jifen-default"]


def test_nothing_reported_earns_nothing_and_is_said_to_be_incomplete() -> None:
    found = score(DEFAULT)
    assert (found["innovation_points"], found["points_completeness_bp"]) == (0, 0)
    assert len(found["points_contributions"]) == 18


@pytest.mark.parametrize(("state", "complete"), [("missing", 0), ("not_applicable", 10_000 // 18)])
def test_missing_and_not_applicable_earn_nothing_but_only_missing_is_incomplete(state: str, complete: int) -> None:
    found = score(DEFAULT, fact("revenue", None, state=state))
    assert (found["innovation_points"], found["points_completeness_bp"]) == (0, complete)


def test_a_value_of_zero_is_not_the_same_as_no_value() -> None:
    assert score(DEFAULT, fact("revenue_growth", 0))["innovation_points"] > 0
    assert score(DEFAULT, fact("revenue_growth", -1))["innovation_points"] == 0


def test_a_fact_in_another_unit_does_not_count() -> None:
    found = score(DEFAULT, fact("rd_intensity", 10**9, unit="fen"))
    assert (found["innovation_points"], found["points_completeness_bp"]) == (0, 0)


def test_a_correction_replaces_what_was_known_before_it() -> None:
    first = fact("rd_intensity", 1_000)
    corrected = fact("rd_intensity", 0, known_on=date(2026, 6, 1))
    assert score(DEFAULT, first, corrected)["innovation_points"] == 0
    assert score(DEFAULT, corrected, first)["innovation_points"] == 0
    assert score(DEFAULT, first, corrected, as_of=date(2026, 5, 31))["innovation_points"] == 8


def test_a_fact_known_later_is_not_looked_at() -> None:
    row = fact("rd_intensity", 1_000, known_on=date(2026, 11, 2))
    assert score(DEFAULT, row)["innovation_points"] == 0
    assert score(DEFAULT, row, as_of=date(2026, 11, 2))["innovation_points"] == 8


@pytest.mark.parametrize(("year", "earned"), [(2023, 0), (2024, 8), (2025, 8), (2026, 0)])
def test_the_completed_fiscal_years_of_the_ruleset_count(year: int, earned: int) -> None:
    row = fact("rd_intensity", 1_000, year=year, known_on=AS_OF)
    assert score(DEFAULT, row)["innovation_points"] == earned


def test_withholding_a_bad_year_does_not_help() -> None:
    good, bad = fact("rd_intensity", 1_000, year=2024), fact("rd_intensity", 0, year=2025)
    assert score(DEFAULT, good, bad)["innovation_points"] == score(DEFAULT, good)["innovation_points"]


@pytest.mark.parametrize(
    ("born", "stage"),
    [
        (date(2021, 11, 2), "startup"),
        (date(2021, 11, 1), "growth"),
        (date(2016, 11, 2), "growth"),
        (date(2016, 11, 1), "stable"),
        (date(2027, 1, 1), "startup"),
    ],
)
def test_a_stage_ends_on_the_birthday(born: date, stage: str) -> None:
    frame = pl.DataFrame({"established_on": [born]})
    assert frame.select(stage_of(DEFAULT.stages, AS_OF)).item() == stage


def test_innovation_weighs_more_for_a_young_firm() -> None:
    row = fact("rd_intensity", 1_000)
    assert score(DEFAULT, row, established_on=date(2025, 1, 1))["innovation_points"] == 14
    assert score(DEFAULT, row)["innovation_points"] == 8


def test_a_place_in_the_cohort_comes_from_the_frozen_table_and_not_from_the_batch() -> None:
    cohort = DEFAULT.cohorts[0]
    alone = score(DEFAULT, fact("rd_intensity", 1_000), fact("tech_staff_share", 3_000))
    assert alone["points_cohort_position_bp"] == max(share for at, share in cohort.cuts if at <= 1_500)
    assert score(DEFAULT)["points_cohort_position_bp"] == 0
    assert score(DEFAULT, as_of=date(2026, 10, 31))["points_cohort_position_bp"] is None
    assert score(RULESETS["tech-sme-2017"])["points_cohort_position_bp"] is None


# ---------------------------------------------------------------------------------------------------------- properties

VALUES = st.one_of(st.integers(-5_000, 5_000), st.integers(0, 2 * 10**10))
ROWS = st.lists(
    st.builds(
        lambda name, value, year, day: fact(name, value, year=year, known_on=date(2026, 1, day)),
        st.sampled_from(sorted(UNITS)),
        VALUES,
        st.integers(2022, 2026),
        st.integers(1, 31),
    ),
    max_size=8,
    unique_by=lambda row: (row["indicator_id"], row["year"]),
)
NAMES = st.sampled_from(sorted(RULESETS))


def earns_more_when_higher(ruleset: Ruleset, name: str) -> bool:
    ways = [steps for indicator in ruleset.indicators for steps in indicator.best_of if steps.fact == name]
    return all(steps.better == "higher" for steps in ways)


@given(name=NAMES, rows=ROWS, more=st.integers(1, 10**10), which=st.integers(0, 7))
def test_a_better_fact_never_lowers_the_points(name: str, rows: list[dict[str, Any]], more: int, which: int) -> None:
    if not rows:
        return
    ruleset, changed = RULESETS[name], which % len(rows)
    sign = 1 if earns_more_when_higher(ruleset, rows[changed]["indicator_id"]) else -1
    better = [row | {"value": row["value"] + sign * more * (n == changed)} for n, row in enumerate(rows)]
    assert score(ruleset, *better)["innovation_points"] >= score(ruleset, *rows)["innovation_points"]


@given(name=NAMES, rows=ROWS, which=st.integers(0, 7))
def test_a_withheld_fact_never_raises_the_points(name: str, rows: list[dict[str, Any]], which: int) -> None:
    kept = [row for number, row in enumerate(rows) if number != which % max(len(rows), 1)]
    ruleset = RULESETS[name]
    assert score(ruleset, *kept)["innovation_points"] <= score(ruleset, *rows)["innovation_points"]


@given(name=NAMES, rows=ROWS)
def test_the_parts_add_up_and_stay_on_the_scale(name: str, rows: list[dict[str, Any]]) -> None:
    found = score(RULESETS[name], *rows)
    hundredths = sum(round(part["points"] * 100) for part in found["points_contributions"])
    assert hundredths == round(found["innovation_points"] * 100)
    assert 0 <= found["innovation_points"] <= found["points_scale"]
    assert found["points_share_bp"] == hundredths * 100 // found["points_scale"]


@pytest.mark.parametrize("name", sorted(RULESETS))
def test_a_batch_and_each_firm_alone_give_the_same_bits_in_any_order(name: str) -> None:
    made = park(40, 7)
    facts = made.frames["innovation_indicators"]
    registry = made.frames["enterprises"].sort("known_on").unique("uscc", keep="last", maintain_order=True)
    batch = points(facts, AS_OF, registry, RULESETS[name])
    assert batch["uscc"].to_list() == registry["uscc"].to_list()
    mixed = points(facts.reverse(), AS_OF, registry.reverse(), RULESETS[name]).reverse()
    assert_frame_equal(batch, mixed, check_exact=True)
    alone = [
        points(facts.filter(pl.col("uscc") == one["uscc"].item()), AS_OF, one, RULESETS[name])
        for one in registry.iter_slices(1)
    ]
    assert_frame_equal(batch, pl.concat(alone), check_exact=True)


def test_the_made_up_park_reports_what_the_default_ruleset_asks_for() -> None:
    facts = park(40, 7).frames["innovation_indicators"].select("indicator_id", "unit").unique()
    asked = {(steps.fact, steps.unit) for one in DEFAULT.indicators for steps in one.best_of}
    assert set(facts.rows()) == asked


# ---------------------------------------------------------------------------------------------------- a zone's own file

ZONE = """
version: deep-sea.2026-12-01
zh: 深海科创积分
en: a zone's own points
source: the zone's committee, minutes 2026-11-20
scale: 230
years: {value: 1, source: the same}
stages:
  - {id: seed, zh: 种子期, below_years: 3}
  - {id: mature, zh: 成熟期}
indicators:
  - id: rd_intensity
    zh: 研发强度
    en: R&D over revenue
    group: national
    source: the same
    weights: {seed: 130, mature: 130}
    best_of:
      - {fact: rd_intensity, unit: bp, steps: [[500, 100], [100, 50]]}
  - id: sea_trials
    zh: 海试次数
    en: sea trials
    group: marine
    source: the same
    best_of:
      - {fact: sea_trials, unit: count, steps: [[3, 100], [1, 40]]}
"""


def test_a_zone_adds_its_own_ruleset_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep-sea.2026-12-01.yaml").write_text(ZONE, encoding="utf-8")
    ruleset = parse_ruleset((tmp_path / "deep-sea.2026-12-01.yaml").read_text(encoding="utf-8"))
    found = score(ruleset, fact("sea_trials", 2), fact("rd_intensity", 450), fact("revenue", 10**10))
    assert (found["innovation_points"], found["points_scale"], found["points_share_bp"]) == (105, 230, 4_565)
    assert found["passes"] is None


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[1, 40]", "[1, 140]", "a worse value would earn more"),
        ("[1, 40]", "[5, 40]", "must stand on the worse side"),
        ("[1, 40]", "[1, -4]", "never negative"),
        ("[1, 40]", "[1.5, 40]", "valid integer"),
        ("scale: 230", "scale: 231", "add up to 230, not 231"),
        ("weights: {seed: 130, mature: 130}", "weights: {seed: 130}", "weights must name each stage once"),
        ("weights: {seed: 130, mature: 130}", "weights: {seed: 120, mature: 130}", "add up to 220, not 230 (seed)"),
        ("[[500, 100], [100, 50]]", "[[500, 90], [100, 50]]", "the best step is 100 per cent"),
        ("below_years: 3", "below_years: null", "only the last stage has no end"),
        ("id: sea_trials", "id: rd_intensity", "stands twice"),
        ("zh: 海试次数", "zh: 海试次数\n    zh: 海试", "the key is repeated"),
        ("zh: 海试次数", "zh: 海试次数\n    weight: 3", "weight: Extra inputs"),
        ("unit: count", "unit: pieces", "Input should be 'fen', 'bp' or 'count'"),
        ("version: deep-sea.2026-12-01", "version: deep sea", "version: "),
        ("{fact: sea_trials,", "{fact: rd_intensity,", "asked for in several units"),
    ],
)
def test_a_wrong_ruleset_is_refused(old: str, new: str, problem: str) -> None:
    assert old in ZONE
    with pytest.raises(PolicyError) as refused:
        parse_ruleset(ZONE.replace(old, new, 1))
    assert problem in str(refused.value)


def test_every_problem_of_a_ruleset_is_named_at_once() -> None:
    text = ZONE.replace("[1, 40]", "[5, 140]").replace("unit: bp", "unit: ratio").replace("scale: 230", "scale: x")
    with pytest.raises(PolicyError) as refused:
        parse_ruleset(text + "colour: red\nscale: 230\n")
    said = "\n".join(refused.value.problems)
    for problem in ("key is repeated", "colour", "worse side", "earn more", "unit"):
        assert problem in said
