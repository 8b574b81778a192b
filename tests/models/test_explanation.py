"""What people read: whole in 100 columns, in both languages, and never taken for an offer."""

import json
import re
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from rich.cells import cell_len
from rich.console import Console

from models import views
from models.artefact import load
from models.explanation import REFERENCE_ONLY, TITLES, Earned, Explained, explanation, shown
from models.progress import console
from models.registry import models_folder
from models.risk import calibration_by_grade
from models.rulebooks import rulebook
from models.scoring_run import explain_one
from models.sources.folder import describe, quarantine_codes, read_folder
from scoring.catalogue import CATALOGUE, SEEN
from scoring.reasons import GROUPS
from tests.ground import done, ground, run
from tests.models.test_artefact import resealed


@cache
def explained(outcome: str) -> Explained:
    found = ground().limits.filter(outcome=outcome).sort("conditional_limit_fen", "uscc").row(-1, named=True)
    return explain_one(ground().park, found["uscc"], ground().home, policy="torch-points", on_progress=lambda _: None)


def printed(what: object, width: int) -> str:
    page = Console(width=width, highlight=False, record=True, file=Path("/dev/null").open("w", encoding="utf-8"))  # noqa: SIM115
    page.print(what)
    text = page.export_text()
    page.file.close()
    return text


@pytest.mark.parametrize("width", [100, 200])
@pytest.mark.parametrize("outcome", ["eligible", "refer", "ineligible"])
def test_the_bankers_page_cuts_nothing_off(outcome: str, width: int) -> None:
    limit = explained(outcome).limit
    page = printed(explanation(explained(outcome)), width)
    assert max(cell_len(line.rstrip()) for line in page.splitlines()) <= width
    assert [line for line in page.splitlines() if "…" in line.removesuffix("…")] == []
    for feature in CATALOGUE.values():
        assert feature.name in page, feature.name
        assert feature.zh in page, feature.zh
    assert limit["decision_id"] in page
    assert limit["policy_version"] in page
    assert all(sentence[:40] in page for sentence in REFERENCE_ONLY)


def test_the_rate_is_called_a_break_even_and_the_limit_a_reference() -> None:
    limit = explained("eligible").limit
    page = printed(explanation(explained("eligible")), 100)
    assert re.search(rf"参考额度 Reference limit +{limit['limit_fen'] // 100:,} CNY", page)
    assert re.search(rf"保本参考利率 Break-even rate +{limit['rate_bp'] / 100:.2f}%", page)
    assert "bank's approval is separate" in " ".join(page.replace("│", "").split())


def test_the_points_are_shown_by_indicator_with_completeness_and_place_in_the_cohort() -> None:
    one = explained("eligible")
    limit, earned = one.limit, one.earned
    assert earned is not None
    page = printed(explanation(one), 200)
    shown_points = re.findall(r"(?m)^ +(\d+\.\d\d) .* ([a-z][a-z0-9_]+) *$", page)
    indicators = {indicator.id for indicator in earned.ruleset.indicators}
    assert {indicator for _, indicator in shown_points} >= indicators
    total = sum(round(float(points) * 100) for points, indicator in shown_points if indicator in indicators)
    assert total == round(limit["innovation_points"] * 100) > 0
    row = earned.row
    assert f"indicators delivered {row['points_completeness_bp'] / 100:.0f} %" in page
    for position, words in ((6_200, "at or above 62 % of the cohort"), (None, "no cohort to compare with")):
        placed = Earned(earned.ruleset, {**row, "points_cohort_position_bp": position})
        assert words in printed(explanation(replace(one, earned=placed)), 200)


def test_a_policy_without_a_scale_shows_no_points() -> None:
    page = printed(explanation(replace(explained("eligible"), earned=None)), 200)
    assert "How the innovation points came about" not in page


def test_a_condition_is_said_in_words_with_its_reason_not_only_by_its_name() -> None:
    page = printed(explanation(explained("eligible")), 200)
    limit = explained("eligible").limit
    if "pbc_report" in limit["conditions"]:
        assert "银行核实 bank checks" in page
        assert "the bank checks the five-class grading in the PBoC report" in page
    assert "不符合 bars" not in page
    assert "不符合 bars" in printed(explanation(explained("ineligible")), 200)
    assert "转人工 to a person" in printed(explanation(explained("refer")), 200)


def test_every_group_of_facts_has_a_heading_in_both_languages() -> None:
    assert {feature.group for feature in CATALOGUE.values()} == set(TITLES)
    assert {group.name for group in GROUPS} <= set(TITLES)


@pytest.mark.parametrize(
    ("name", "facts", "words"),
    [
        ("sales_12m_fen", {"sales_12m_fen": 123_456_789}, "1,234,568 CNY"),
        ("cancelled_share_12m_bp", {"cancelled_share_12m_bp": 196}, "1.96 %"),
        ("taxpayer_rating_level", {"taxpayer_rating_level": 2}, "M"),
        ("worst_five_class", {"worst_five_class": 1}, "关注 special mention"),
        ("tech_live", {"tech_live": False}, "否 no"),
        ("age_months", {"age_months": 1_202}, "1,202 months 个月"),
        ("debts_feed", {"debts_feed": "missing"}, "缺失 missing"),
        ("tax_arrears_fen", {"tax_arrears_fen": None}, "未知 unknown"),
        (
            "overdue_days_now",
            {"overdue_days_now": None, f"overdue_days_now{SEEN}": 3},
            "未知 unknown (已交付数据 delivered: 3 days 天)",
        ),
    ],
)
def test_a_fact_is_shown_with_its_unit_and_what_is_not_known_is_not_shown_as_zero(
    name: str, facts: dict[str, object], words: str
) -> None:
    assert shown(CATALOGUE[name], facts).plain == words


def test_every_table_cuts_nothing_off_in_100_columns() -> None:
    limits = ground().limits
    names = {uscc: f"示例企业{number}有限责任公司" for number, uscc in enumerate(limits["uscc"])}
    found = read_folder(ground().park)
    book = rulebook("torch-points")
    calibration = calibration_by_grade(load(models_folder(ground().home) / ground().champion), book.policy)
    for table in (
        views.check_table(found),
        views.contract_table(describe()),
        views.codes_table(quarantine_codes()),
        views.feature_table(),
        views.limits_table(limits, names),
        views.summary_table(limits),
        views.calibration_table(calibration),
        views.why_zero_table(limits),
        views.policy_view(book.policy, book.version),
    ):
        page = printed(table, 100)
        assert page.count("…") == printed(table, 1_000).count("…"), "the text's own dots alone"
        assert max(cell_len(line.rstrip()) for line in page.splitlines()) <= 100


def test_the_catalogue_is_printed_with_the_fact_edits_that_each_input_of_the_model_answers_to() -> None:
    page = printed(views.feature_table(), 1_000)
    told = [feature.edits for feature in CATALOGUE.values() if feature.use == "model"]
    assert all(told)
    for edits in {*told}:
        assert page.count(f"edits: {edits} ") == sum(one.edits == edits for one in CATALOGUE.values())


def test_the_calibration_table_names_the_bound_of_the_grade_for_what_it_is() -> None:
    model, policy = load(models_folder(ground().home) / ground().champion), rulebook("torch-points").policy
    page = printed(views.calibration_table(calibration_by_grade(model, policy)), 1_000)
    assert page.count("grade bound 等级上界") == 2, "in the title and over the column"
    assert "PD high" not in page


def test_the_firms_without_a_limit_are_counted_each_once() -> None:
    limits = ground().limits
    page = printed(views.why_zero_table(limits), 200)
    counts = [int(number) for number in re.findall(r"(?m)^ +(\d+)  \S", page)]
    assert sum(counts) == limits.filter(pl.col("limit_fen") == 0).height
    assert f"({sum(counts):,} firms)" in page


def test_score_says_how_the_model_was_calibrated_and_how_far_these_firms_are_from_its_own(tmp_path: Path) -> None:
    said = done(ground().home, "score", ground().park, "--out", tmp_path / "limits.parquet")
    manifest = json.loads(done(ground().home, "models", "show", ground().champion))
    rows = re.findall(
        r"(?m)^ ([A-D][12]?) +([\d,]+) +([\d,]+) +[\d,.]+ +(?:-|[\d.]+%) +(?:-|[\d.]+%) +[\d.]+% *$", said
    )
    assert [grade for grade, _, _ in rows] == ["A1", "A2", "B1", "B2", "C1", "C2", "D"]
    assert sum(int(count.replace(",", "")) for _, count, _ in rows) == manifest["rows"]
    assert sum(int(count.replace(",", "")) for _, _, count in rows) == manifest["defaults"]
    words = f"PSI of the log-odds, 200 firms against {manifest['rows']:,} training rows: "
    found = re.search(rf"{words}(\S+) ", said)
    assert found
    assert 0 < float(found[1]) < 1


def test_a_model_stored_without_its_own_log_odds_scores_without_a_word_on_stability(tmp_path: Path) -> None:
    town = ground().copy(tmp_path / "town")
    folder = models_folder(town.home) / town.champion
    training = json.loads((folder / "training.json").read_bytes())
    del training["own_log_odds"]
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
    renamed(town.home, town.champion, resealed(folder).name)
    out = tmp_path / "limits.parquet"
    said = done(town.home, "score", town.park, "--out", out)
    assert "PSI" not in said
    assert "None" not in said
    assert "200 decisions" in said
    assert pl.read_parquet(out)["limit_fen"].to_list() == ground().limits["limit_fen"].to_list()
    done(town.home, "replay", str(pl.read_parquet(out)["decision_id"][0]), "--from", out)


def renamed(home: Path, before: str, after: str) -> None:
    """Name a model otherwise in the log of the registry, with a chain that fits."""
    log, previous, lines = home / "registry.jsonl", "0" * 64, list[str]()
    for line in log.read_text(encoding="utf-8").splitlines():
        act = json.loads(line.replace(before, after)) | {"previous": previous}
        del act["hash"]
        previous = sha256(json.dumps(act, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
        lines.append(json.dumps({**act, "hash": previous}, ensure_ascii=False, sort_keys=True))
    log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (home / "registry.head").write_text(f"{len(lines)} {previous}\n", encoding="utf-8")


def test_score_says_that_limits_are_references(tmp_path: Path) -> None:
    said = done(ground().home, "score", ground().park, "--out", tmp_path / "limits.parquet")
    assert all(sentence in said for sentence in REFERENCE_ONLY)


def test_the_tables_for_people_have_amounts_in_cny(tmp_path: Path) -> None:
    csv = tmp_path / "limits.csv"
    done(ground().home, "score", ground().park, "--out", tmp_path / "limits.parquet", "--csv", csv)
    assert csv.read_bytes().startswith(b"\xef\xbb\xbf"), "spreadsheets need the mark to read Chinese"
    table = pl.read_csv(csv)
    assert (table["limit_cny"] * 100 == table["limit_fen"]).all()
    assert "conditions" in table.columns


def test_a_file_gets_120_columns_and_a_terminal_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 120
    monkeypatch.setenv("COLUMNS", "90")
    assert console().width == 90


def test_an_enterprise_of_another_day_is_not_known_yet() -> None:
    ended = run(ground().home, "explain", ground().park, str(ground().best["uscc"]), "--as-of", "1995-01-01")
    assert ended.exit_code == 2
    assert "is known in" in ended.stderr
