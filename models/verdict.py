"""What training may say of a model beside a one-variable rule, and the words that a promotion must quote."""

from enum import StrEnum

SHARE_OF_REPEATS = 0.8
"""Of the repeats in which the model must have the lower log loss before it is said to beat a rule (jifen default)."""
FEWEST_REPEATS = 5
"""Of cross-validation, below which no model is said to beat a rule: one lucky split shows nothing (jifen default)."""
FEWEST_DEFAULTS = 30
"""Below which the sentence warns that every figure rests on few defaults (jifen default)."""
COIN = 0.5
"""The AUC of guessing; a model that is not above it is not promoted."""


class Verdict(StrEnum):
    """How a model stands against the one-variable rule."""

    BEATS = "beats"
    DOES_NOT_BEAT = "does_not_beat"
    CANNOT_TELL = "cannot_tell"
    NOT_COMPARED = "not_compared"


PHRASES: dict[Verdict, tuple[str, str]] = {
    Verdict.BEATS: ("beats", "优于"),
    Verdict.DOES_NOT_BEAT: ("does not beat", "未优于"),
    Verdict.CANNOT_TELL: ("cannot tell", "无法判定"),
    Verdict.NOT_COMPARED: ("not compared", "未作比较"),
}
"""The words of each verdict in English and Chinese; they stand in the sentence and must stand in the minutes."""


def verdict_of(wins: int, repeats: int, auc_gain: float, least_lead: float) -> Verdict:
    """The verdict on a model with the lower log loss in `wins` of `repeats` and a mean AUC larger by `auc_gain`.

    Repeats split the same rows anew, so winning many says how stable the lead is, not how large it would be on other
    rows: that is what the interval over rows is for. The model beats the rule only if both speak for it: at least
    FEWEST_REPEATS, of which it wins at least SHARE_OF_REPEATS, an AUC that is not lower, and a lead whose interval over
    rows is above 0 (`least_lead` is its lower end). It does not beat the rule if it wins in no more than the rest;
    anything between, one cannot tell.
    """
    if repeats == 0:
        return Verdict.NOT_COMPARED
    if wins <= (1 - SHARE_OF_REPEATS) * repeats + 1e-9:
        return Verdict.DOES_NOT_BEAT
    if repeats >= FEWEST_REPEATS and wins >= SHARE_OF_REPEATS * repeats and auc_gain >= 0 and least_lead > 0:
        return Verdict.BEATS
    return Verdict.CANNOT_TELL
