"""Log-odds of many pipelines that share one encoder: what they share is computed once, with the bits of each alone."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.pipeline import Pipeline, tree_columns
from models.terms import Term

Floats = NDArray[np.float64]

HOW_THE_BAG_IS_MADE = (
    "bag: bootstrap members are refitted with the encoding and the tuning chosen on all rows, and with one booster "
    "each; their spread shows the draw of the loans, not the choice of encoding or tuning"
)
"""Stands in the manifest and under the report of a training."""

ROWS_FOR_TWO_THREADS = 4_096
"""From so many rows on LightGBM walks them on two threads; each row is walked by one, so its bits stay."""


def bag_log_odds(pipelines: Sequence[Pipeline], encoded: Floats) -> Floats:
    """Calibrated log-odds, (rows, pipelines); column k equals `pipelines[k].log_odds_of(encoded)` to the bit.

    Args:
        pipelines: with the same encoder.
        encoded: rows encoded by it.
    """
    found = np.empty((encoded.shape[0], len(pipelines)), order="F")
    if not pipelines:
        return found
    features = pipelines[0].encoder.features
    seen = np.ascontiguousarray(encoded[:, tree_columns(features)])
    terms: dict[Term, Floats] = {}
    for place, pipeline in enumerate(pipelines):
        additive = np.full(encoded.shape[0], pipeline.additive.intercept)
        for term, coefficient in zip(pipeline.additive.terms, pipeline.additive.coefficients, strict=True):
            if coefficient != 0.0:
                if term not in terms:
                    terms[term] = term.values(encoded, features[term.feature])
                additive += coefficient * terms[term]
        found[:, place] = pipeline.calibration.log_odds(_blended(pipeline, additive, seen))
    return found


def _blended(pipeline: Pipeline, additive: Floats, seen: Floats) -> Floats:
    """The blend of a pipeline before calibration, given its additive part."""
    score = pipeline.weight * additive
    if not pipeline.trees or not len(seen):
        return score
    threads = 2 if len(seen) >= ROWS_FOR_TWO_THREADS else 1
    boosted = np.zeros(len(seen))
    for trees in pipeline.trees:
        boosted += np.asarray(trees.booster.predict(seen, raw_score=True, num_threads=threads), dtype=np.float64)
    return score + (1.0 - pipeline.weight) * (boosted / len(pipeline.trees))
