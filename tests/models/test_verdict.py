import pytest

from models.verdict import PHRASES, Verdict, verdict_of


@pytest.mark.parametrize(
    ("wins", "repeats", "auc_gain", "least_lead", "verdict"),
    [
        (8, 10, 0.0, 0.001, Verdict.BEATS),
        (10, 10, 0.02, 0.001, Verdict.BEATS),
        (10, 10, 0.02, 0.0, Verdict.CANNOT_TELL),
        (10, 10, 0.02, -0.004, Verdict.CANNOT_TELL),
        (10, 10, -0.001, 0.001, Verdict.CANNOT_TELL),
        (7, 10, 0.02, 0.001, Verdict.CANNOT_TELL),
        (3, 10, 0.02, 0.001, Verdict.CANNOT_TELL),
        (2, 10, 0.02, 0.001, Verdict.DOES_NOT_BEAT),
        (0, 10, 0.02, -0.004, Verdict.DOES_NOT_BEAT),
        (4, 5, 0.0, 0.001, Verdict.BEATS),
        (4, 4, 0.1, 0.1, Verdict.CANNOT_TELL),
        (1, 1, 0.1, 0.1, Verdict.CANNOT_TELL),
        (1, 5, 0.0, 0.001, Verdict.DOES_NOT_BEAT),
        (1, 2, 0.1, 0.001, Verdict.CANNOT_TELL),
    ],
)
def test_a_model_beats_a_rule_only_by_most_of_enough_repeats_no_worse_auc_and_a_lead_over_rows(
    wins: int, repeats: int, auc_gain: float, least_lead: float, verdict: Verdict
) -> None:
    assert verdict_of(wins, repeats, auc_gain, least_lead) is verdict


def test_the_words_of_a_lesser_verdict_cannot_be_taken_for_those_of_another() -> None:
    lesser = [phrase for verdict, phrases in PHRASES.items() if verdict is not Verdict.BEATS for phrase in phrases]
    assert not [(one, other) for one in lesser for other in lesser if one != other and one in other]
