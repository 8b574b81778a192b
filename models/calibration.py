"""From a score to a probability at the training base rate, without changing anyone's place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from models.encoding import Floats
from models.logistic import rounded

# How strongly the slope is held to 1: as if this many units of information said so (jifen default). A sample with
# 27 defaults moves it little, one with thousands freely.
PRIOR_INFORMATION = 25.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """log-odds = intercept + slope · z, slope > 0: strictly rising, so order, ties and AUC stay as they were."""

    intercept: float
    slope: float

    def log_odds(self, score: Floats) -> Floats:
        """Calibrated log-odds of raw scores."""
        return self.intercept + self.slope * score

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The calibration that `to_json` wrote."""
        return cls(plain["intercept"], plain["slope"])


def calibrate(score: Floats, defaulted: NDArray[np.bool_]) -> Calibration:
    """Fit intercept and slope on out-of-fold scores.

    minimise Σ log loss + PRIOR_INFORMATION/2 · (ln slope)²: the prior sits at slope 1, and the slope cannot reach 0.
    """
    label = defaulted.astype(np.float64)
    beta = np.zeros(2)  # intercept, ln slope
    for _ in range(100):
        slope = np.exp(beta[1])
        mean = expit(beta[0] + slope * score)
        by_slope = slope * score
        error = mean - label
        curve = mean * (1 - mean)
        gradient = np.array([error.sum(), (error * by_slope).sum() + PRIOR_INFORMATION * beta[1]])
        cross = (curve * by_slope).sum()
        hessian = np.array([[curve.sum() + 1e-9, cross], [cross, (curve * by_slope**2).sum() + PRIOR_INFORMATION]])
        step = np.clip(np.linalg.solve(hessian, gradient), -1.0, 1.0)
        beta -= step
        if float(np.abs(step).max()) < 1e-10:
            break
    return Calibration(rounded(float(beta[0])), rounded(float(np.exp(beta[1]))))


def calibrated_loss(score: Floats, defaulted: NDArray[np.bool_]) -> float:
    """Log loss of scores after their own calibration."""
    fitted = calibrate(score, defaulted)
    return float(np.logaddexp(0.0, np.where(defaulted, -1.0, 1.0) * fitted.log_odds(score)).mean())


def blend_weight(additive: Floats, boosted: Floats, defaulted: NDArray[np.bool_]) -> float:
    """The weight w in [0, 1] of the additive part with the least calibrated log loss of w·additive + (1 - w)·boosted.

    Twentieths are tried between the two parts brought to one scale by their own calibrations: trees grown long are too
    sure of themselves, and on the raw scale nearly all of w would lie between two of its grid's points.
    """
    sure = calibrate(boosted, defaulted).slope / calibrate(additive, defaulted).slope
    shares = np.linspace(0.0, 1.0, 21)
    weights = shares / (shares + (1.0 - shares) * sure)
    losses = [calibrated_loss(w * additive + (1.0 - w) * boosted, defaulted) for w in weights]
    return rounded(float(weights[int(np.argmin(losses))]))
