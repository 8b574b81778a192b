"""What training may say of a model beside a one-variable rule, and the words that a promotion must quote."""

from enum import StrEnum

SHARE_OF_REPEATS = 0.8
"""Of the repeats in which the model must have the lower log loss before it is said to beat a rule (jifen default)."""


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


def verdict_of(wins: int, repeats: int, auc_gain: float) -> Verdict:
    """The verdict on a model with the lower log loss in `wins` of `repeats` and a mean AUC larger by `auc_gain`.

    It beats the rule if it wins in at least SHARE_OF_REPEATS and its AUC is not lower; it does not beat the rule if it
    wins in no more than the rest; anything between, one cannot tell.
    """
    if repeats == 0:
        return Verdict.NOT_COMPARED
    if wins >= SHARE_OF_REPEATS * repeats and auc_gain >= 0:
        return Verdict.BEATS
    if wins <= (1 - SHARE_OF_REPEATS) * repeats + 1e-9:
        return Verdict.DOES_NOT_BEAT
    return Verdict.CANNOT_TELL
