"""A trained model: encoder, additive part, boosted trees, their blend, and the calibration, as one frozen value.

log-odds = intercept + slope · (w · additive + (1 - w) · mean of boosters)

A row gives the same bits alone, in any batch and in any order: every step works value by value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import ContractError
from models.boosting import Shape, Trees
from models.calibration import Calibration
from models.certificate import NOTHING_CHECKED, Certificate, Violation, certify_booster
from models.encoding import Encoder, Feature, Floats, Input, NumberColumn
from models.logistic import Additive

Form = Literal["small", "large"]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What cross-validation chose; a refit on other rows of the same kind reuses it.

    Args:
        pieces: into how many ramps a feature's line is cut.
        strength: ridge of the additive part.
        shapes, rounds: of the boosters, one entry a shape.
        boosters: seeds a shape, where it samples.
    """

    form: Form
    constrained: bool
    pieces: int
    strength: float
    shapes: tuple[Shape, ...]
    rounds: tuple[int, ...]
    boosters: int

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The choice that `asdict` wrote."""
        shapes = tuple(Shape(**one) for one in plain["shapes"])
        return cls(**{**plain, "shapes": shapes, "rounds": tuple(plain["rounds"])})


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A trained model.

    Args:
        inputs: the columns it reads, with the direction promised of each; text columns are in `encoder` only.
        weight: w, the share of the additive part.
        base_rate: share of defaults among the training rows; `log_odds` is calibrated to it.
        out_of_fold: log loss of the calibrated blend on rows it had not seen.
    """

    inputs: tuple[Input, ...]
    encoder: Encoder
    additive: Additive
    trees: tuple[Trees, ...]
    weight: float
    calibration: Calibration
    base_rate: float
    out_of_fold: float
    tuning: Tuning

    def log_odds(self, table: pl.DataFrame) -> Floats:
        """Calibrated log-odds of default at the training base rate, one a row.

        Raises:
            ContractError: names every column that is missing or cannot be read.
        """
        return self.log_odds_of(self.encoder.encoded(table))

    def log_odds_of(self, encoded: Floats) -> Floats:
        """The same from encoded features, for pipelines that share an encoder."""
        return self.calibration.log_odds(self.score_of(encoded))

    def score_of(self, encoded: Floats) -> Floats:
        """The blend before calibration."""
        score = self.weight * self.additive.log_odds(encoded, self.encoder.features)
        if not self.trees:
            return score
        columns = tree_columns(self.encoder.features)
        seen = np.ascontiguousarray(encoded[:, columns])
        boosted = np.zeros(encoded.shape[0])
        for trees in self.trees:
            boosted += trees.log_odds(seen)
        return score + (1.0 - self.weight) * (boosted / len(self.trees))

    def certificate(self) -> Certificate:
        """Proof that a worse value of a directed input, or none at all, never lowers the log-odds; or where it does."""
        return certify_pipeline(self)

    @property
    def booster_texts(self) -> tuple[str, ...]:
        """The boosters, each in LightGBM's text form."""
        return tuple(trees.text for trees in self.trees)

    def to_json(self) -> dict[str, Any]:
        """All but the boosters as plain values; Python's JSON keeps every bit of a float."""
        return {
            "inputs": [asdict(one) for one in self.inputs],
            "encoder": self.encoder.to_json(),
            "additive": self.additive.to_json(),
            "boosters": len(self.trees),
            "weight": self.weight,
            "calibration": self.calibration.to_json(),
            "base_rate": self.base_rate,
            "out_of_fold": self.out_of_fold,
            "tuning": asdict(self.tuning),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], booster_texts: Sequence[str]) -> Self:
        """The pipeline that `to_json` and `booster_texts` wrote."""
        if plain["boosters"] != len(booster_texts):
            raise ContractError(f"the pipeline has {plain['boosters']} boosters, {len(booster_texts)} were given")
        return cls(
            tuple(Input(**one) for one in plain["inputs"]),
            Encoder.from_json(plain["encoder"]),
            Additive.from_json(plain["additive"]),
            tuple(Trees.from_text(text) for text in booster_texts),
            plain["weight"],
            Calibration.from_json(plain["calibration"]),
            plain["base_rate"],
            plain["out_of_fold"],
            Tuning.from_json(plain["tuning"]),
        )


def tree_columns(features: Sequence[Feature]) -> list[int]:
    """Which encoded features the boosters see: all but the bare index of a level."""
    return [index for index, feature in enumerate(features) if feature.kind != "level"]


def tree_directions(features: Sequence[Feature]) -> list[int]:
    """Their directions; the encoder has turned every directed one so that more means riskier."""
    return [features[index].direction for index in tree_columns(features)]


def certify_pipeline(pipeline: Pipeline) -> Certificate:
    """Check every part of a pipeline: encoding, additive part, each booster, blend and calibration."""
    features = pipeline.encoder.features
    names = [features[index].name for index in tree_columns(features)]
    total = NOTHING_CHECKED.joined(_certify_encoding(pipeline)).joined(_certify_additive(pipeline))
    for index, trees in enumerate(pipeline.trees):
        found = certify_booster(trees.text, tree_directions(features), part=f"booster {index}", names=names)
        total = total.joined(found)
    violations: list[Violation] = []
    if not 0.0 <= pipeline.weight <= 1.0:
        violations.append(Violation("blend", f"the weight {pipeline.weight} is not in [0, 1]"))
    if not (np.isfinite(pipeline.calibration.slope) and pipeline.calibration.slope > 0.0):
        violations.append(Violation("calibration", f"the slope {pipeline.calibration.slope} is not above 0"))
    return total.joined(Certificate(0, 0, 2, tuple(violations)))


def _certify_encoding(pipeline: Pipeline) -> Certificate:
    """Each directed input is turned as promised, and missing lies above the worst value."""
    promised = {one.name: one.direction for one in pipeline.inputs if one.direction}
    columns = {one.name: one for one in pipeline.encoder.columns if isinstance(one, NumberColumn)}
    found: list[Violation] = []
    for name, direction in promised.items():
        column = columns.get(name)
        if column is None or column.direction != direction:
            found.append(Violation("encoding", "the input is not turned as promised", name))
        elif not column.constant and not (np.isfinite(column.missing) and column.missing > column.high >= column.low):
            found.append(Violation("encoding", "missing is not worse than the worst value", name))
    return Certificate(0, 0, len(promised), tuple(found))


def _certify_additive(pipeline: Pipeline) -> Certificate:
    """No directed input has a falling term."""
    found: list[Violation] = []
    features = pipeline.encoder.features
    for term, coefficient in zip(pipeline.additive.terms, pipeline.additive.coefficients, strict=True):
        feature = features[term.feature]
        if not feature.direction:
            continue
        if not (coefficient >= 0.0 and np.isfinite(coefficient)):
            found.append(Violation("additive", f"the coefficient {coefficient} is negative", feature.name))
        if term.kind == "level" or (term.kind == "ramp" and not term.low < term.high):
            found.append(Violation("additive", f"the term {term.kind} does not rise", feature.name))
    return Certificate(0, 0, len(pipeline.additive.terms), tuple(found))


def check_label(defaulted: NDArray[np.bool_], rows: int) -> None:
    """Raise a ContractError unless there is one label a row, and both classes."""
    if defaulted.shape != (rows,):
        raise ContractError(f"{rows} rows but {defaulted.size} labels")
    defaults = int(defaulted.sum())
    if min(defaults, rows - defaults) < 2:
        raise ContractError(
            f"a model needs at least two defaults and two non-defaults; there are {defaults} defaults in {rows} rows"
        )
