"""Batch limits: checked facts to decisions, the same path for a whole park and for one enterprise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256

import polars as pl

from data_contracts.errors import ArtefactError
from data_contracts.sources import Sources
from models.artefact import Model
from models.risk import Estimator
from scoring.catalogue import CATALOGUE, MODEL_INPUTS
from scoring.conduct import current
from scoring.decide import decide
from scoring.features import features, narrowed
from scoring.input_hash import input_hashes
from scoring.rulebook import Rulebook, under_policy

LIMITS: dict[str, pl.DataType] = {
    "decision_id": pl.String(),
    "uscc": pl.String(),
    "as_of": pl.Date(),
    "valid_until": pl.Date(),
    "outcome": pl.String(),
    "limit_fen": pl.Int64(),
    "conditional_limit_fen": pl.Int64(),
    "conditions": pl.List(pl.String()),
    "rate_bp": pl.Int32(),
    "pd_12m": pl.Float64(),
    "pd_hi": pl.Float64(),
    "score": pl.Int32(),
    "grade": pl.String(),
    "innovation_points": pl.Float64(),
    "binding": pl.String(),
    "reasons": pl.String(),
    "missing_feeds": pl.List(pl.String()),
    "model_version": pl.String(),
    "policy_version": pl.String(),
    "input_hash": pl.String(),
}
"""The columns of the limits file, in order."""

CHUNK = 2_000
"""Enterprises a step: bounds memory and gives progress; the bits do not depend on it."""


@dataclass(frozen=True)
class Decided:
    """Decisions and what they were made from, row by row.

    Attributes:
        limits: the columns of `LIMITS`.
        features: `decision_id`, `asked_fen`, `input_hash` and the whole feature frame: enough to recompute `limits`.
        terms: `decision_id` and the struct of every term of the limit.
    """

    limits: pl.DataFrame
    features: pl.DataFrame
    terms: pl.DataFrame


class Engine:
    """A model and a rulebook, ready to decide; building it once saves the grade bounds of every further decision."""

    def __init__(self, model: Model, rulebook: Rulebook) -> None:
        """Make ready.

        Raises:
            ArtefactError: the model promises other directions than the catalogue, or promises one outside it.
        """
        _require_catalogue(model)
        self.model = model
        self.rulebook = rulebook
        self.estimator = Estimator(model, rulebook.policy)

    def decided(
        self,
        sources: Sources,
        as_of: date,
        *,
        only: Sequence[str] | None = None,
        asked: pl.DataFrame | None = None,
        extra: pl.DataFrame | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Decided:
        """Decide on every enterprise known by `as_of`, ordered by credit code.

        Args:
            sources: checked facts.
            as_of: the day looked from.
            only: decide on these enterprises only.
            asked: `uscc` and `asked_fen`, the amounts asked; others asked for none.
            extra: `uscc` and the columns outside the catalogue that the model was trained with.
            on_progress: called with enterprises done and in all.
        """
        known = current(sources, "enterprises", as_of)["uscc"].sort()
        chosen = known if only is None else known.filter(known.is_in(list(only)))
        parts: list[Decided] = []
        for start in range(0, max(chosen.len(), 1), CHUNK):
            usccs = chosen.slice(start, CHUNK).to_list()
            parts.append(self._chunk(narrowed(sources, usccs), as_of, usccs, asked, extra))
            if on_progress is not None:
                on_progress(min(start + CHUNK, chosen.len()), chosen.len())
        return Decided(
            pl.concat([part.limits for part in parts]),
            pl.concat([part.features for part in parts]),
            pl.concat([part.terms for part in parts]),
        )

    def _chunk(
        self,
        sources: Sources,
        as_of: date,
        usccs: Sequence[str],
        asked: pl.DataFrame | None,
        extra: pl.DataFrame | None,
    ) -> Decided:
        frame = under_policy(features(sources, as_of, only=usccs), sources, as_of, self.rulebook)
        hashes = input_hashes(sources, frame["uscc"].to_list(), as_of, extra=extra)
        amounts = pl.DataFrame(schema={"uscc": pl.String, "asked_fen": pl.Int64}) if asked is None else asked
        whole = frame.join(amounts, on="uscc", how="left", maintain_order="left").with_columns(hashes["input_hash"])
        if extra is not None:
            whole = whole.join(extra, on="uscc", how="left", maintain_order="left")
        return self.recomputed(whole, as_of)

    def recomputed(self, whole: pl.DataFrame, as_of: date) -> Decided:
        """Decide from feature rows with `asked_fen` and `input_hash`; replay enters here, batch passes through."""
        answers = decide(whole, self.estimator.risk(whole), self.rulebook.policy, asked=whole["asked_fen"])
        versions = (self.model.version, self.rulebook.version)
        ids = [
            decision_id(str(uscc), as_of, *versions, str(input_hash), asked)
            for uscc, input_hash, asked in whole.select("uscc", "input_hash", "asked_fen").iter_rows()
        ]
        stamped = answers.with_columns(
            pl.Series("decision_id", ids, dtype=pl.String),
            whole["input_hash"],
            as_of=pl.lit(as_of),
            valid_until=pl.lit(as_of + timedelta(days=self.rulebook.policy.quote_valid.value)),
            model_version=pl.lit(versions[0]),
            policy_version=pl.lit(versions[1]),
        )
        limits = stamped.select(pl.col(name).cast(dtype) for name, dtype in LIMITS.items())
        kept = whole.drop("decision_id", strict=False)
        return Decided(limits, kept.insert_column(0, limits["decision_id"]), stamped.select("decision_id", "terms"))


def _require_catalogue(model: Model) -> None:
    """The certificate proves what the model promises; here it must be what the catalogue says."""
    promised = {one.name: one.direction for one in model.inputs}
    catalogue = {feature.name: feature.direction for feature in MODEL_INPUTS}
    problems = [
        f"{name} is no model input, but a direction is promised"
        for name, way in promised.items()
        if way and name not in catalogue
    ]
    problems += [
        f"{name} does not run as the catalogue says"
        for name, way in promised.items()
        if catalogue.get(name, way) != way
    ]
    problems += [
        f"{name} is shown only and must not enter a model"
        for name in promised
        if name in CATALOGUE and name not in catalogue
    ]
    if problems:
        raise ArtefactError(f"the model {model.version} does not fit the catalogue", problems)


def decision_id(uscc: str, as_of: date, model: str, policy: str, input_hash: str, asked: int | None) -> str:
    """The same facts under the same model and policy on the same day are the same decision."""
    text = "\x1f".join([uscc, as_of.isoformat(), model, policy, input_hash, "" if asked is None else str(asked)])
    return "d" + sha256(text.encode()).hexdigest()[:24]
