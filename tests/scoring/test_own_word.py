"""Certificates and points on an applicant's own word: never against an authority's, and never untold to the bank."""

from datetime import date
from typing import Any

import polars as pl
import pytest

from data_contracts.checking import sources_of
from data_contracts.errors import PolicyError
from data_contracts.sources import Sources
from models.rulebooks import policy_text, rulebook
from scoring.eligibility import verdicts
from scoring.features import features
from scoring.policy import parse_policy
from scoring.rulebook import under_policy
from tests import make

AS_OF = date(2025, 1, 20)
LATER = date(2025, 1, 2)
TORCH = rulebook("torch-points")
STRONG = {"rd_intensity": 9_000, "tech_staff_share": 9_000, "revenue_growth": 9_000, "rd_expense_growth": 9_000}
"""Indicators in bp with which a young firm passes steps of the points branch."""


def looked_at(sources: Sources) -> pl.DataFrame:
    return under_policy(features(sources, AS_OF), sources, AS_OF, TORCH)


def row(sources: Sources) -> dict[str, Any]:
    return looked_at(sources).row(0, named=True)


def conditions(sources: Sources) -> set[str]:
    return set(verdicts(looked_at(sources), TORCH.policy).conditions[0])


def reported(supplier: str, **changes: Any) -> list[make.Record]:
    return [
        make.innovation_indicator(indicator_id=name, value=value, unit="bp", supplier=supplier, **changes)
        for name, value in STRONG.items()
    ]


def frames_of(sources: Sources) -> dict[str, pl.DataFrame]:
    return {name: frame for name, frame in vars(sources).items() if name != "doubts"}


@pytest.mark.parametrize("known_on", [date(2024, 3, 31), LATER])
def test_an_applicant_neither_contradicts_nor_corrects_an_authoritys_indicator(known_on: date) -> None:
    told = [one | {"value": 0} for one in reported("authority")]
    low, high = make.complete(innovation_indicators=told), make.complete(innovation_indicators=reported("authority"))
    both = make.complete(innovation_indicators=[*reported("applicant", known_on=known_on), *told])
    assert row(low)["innovation_points"] < row(high)["innovation_points"]
    assert row(both) == row(low)


def test_no_points_rest_on_indicators_of_which_one_is_in_quarantine() -> None:
    first = reported("authority")
    unreadable = [one | {"known_on": LATER, "unit": "per cent", "value": 0} for one in first[:1]]
    whole = make.complete(innovation_indicators=first)
    found, reports = sources_of({**frames_of(whole), "innovation_indicators": indicators([*first, *unreadable])})
    assert reports["innovation_indicators"].quarantined.height == 1
    assert row(whole)["innovation_points"] > 0
    assert row(found)["innovation_points"] == 0


def indicators(records: list[make.Record]) -> pl.DataFrame:
    return make.frame("innovation_indicators", records)


@pytest.mark.parametrize(
    ("suppliers", "own"),
    [(["authority"], False), (["bank"], False), (["applicant"], True), (["applicant", "authority"], False)],
)
@pytest.mark.parametrize("tag", ["srdi", "hightech"])
def test_a_certificate_that_only_the_applicant_reports_is_verified_by_the_bank(
    tag: str, suppliers: list[str], own: bool
) -> None:
    held = [make.qualification(tag=tag, supplier=supplier) for supplier in suppliers]
    whole = make.complete(qualifications=held)
    found = row(whole)
    assert found["tech_live"]
    assert found["tech_own_word"] is own
    assert found["srdi_live"] is (tag == "srdi")
    assert found["srdi_own_word"] is (own and tag == "srdi")
    assert ("verify_certificate" in conditions(whole)) is own


def test_a_second_certificate_of_an_authority_carries_the_status_but_not_the_cap() -> None:
    held = [make.qualification(tag="srdi", supplier="applicant"), make.qualification(tag="hightech")]
    found = row(make.complete(qualifications=held))
    assert (found["srdi_own_word"], found["tech_own_word"]) == (True, False)


def test_a_step_of_points_that_only_the_applicant_vouches_for_is_verified_by_the_bank() -> None:
    own = make.complete(innovation_indicators=reported("applicant"))
    share = row(own)["points_share_bp"]
    assert share >= min(TORCH.policy.points_steps)
    assert row(own)["points_own_word_bp"] == share
    assert "verify_indicators" in conditions(own)
    for supplier in ("authority", "bank"):
        told = make.complete(innovation_indicators=reported(supplier))
        assert row(told)["points_own_word_bp"] == 0
        assert "verify_indicators" not in conditions(told)


def test_points_of_the_applicant_that_reach_no_further_step_need_no_check() -> None:
    more = make.innovation_indicator(indicator_id="rd_expense", value=1, supplier="applicant")
    told = make.complete(innovation_indicators=[*reported("authority"), more])
    little = make.complete(innovation_indicators=[one | {"value": 1} for one in reported("applicant")])
    assert row(told)["points_own_word_bp"] == row(little)["points_own_word_bp"] == 0


@pytest.mark.parametrize(
    ("code", "column"),
    [("CERTIFICATES_EVIDENCED", "srdi_own_word"), ("POINTS_EVIDENCED", "points_own_word_bp")],
)
def test_a_policy_that_counts_an_applicants_word_without_telling_the_bank_is_refused(code: str, column: str) -> None:
    text, _ = policy_text("torch-points")
    start = text.index(f"  - code: {code}\n")
    end = text.index("  - code: ", start + 5)
    with pytest.raises(PolicyError, match=f"no rule looks at {column}"):
        parse_policy(text[:start] + text[end:])
