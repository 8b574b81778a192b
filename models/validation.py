"""Develop a model: repeated nested cross-validation beside plain rivals, the sentence that says who wins, and the bag.

Every choice (ridge strength, rounds, blend, calibration) is made inside the training part of each split, so the rows
that judge a model played no part in it. All rivals see the same splits. One process and fixed seeds: the answer depends
on the data and the seed only. (Two processes were not worth it: the fits are short, and Ctrl-C then ends all at once.)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from data_contracts.errors import UsageError
from models.baselines import Comparison, fit_rival
from models.certificate import NOTHING_CHECKED, Certificate
from models.encoding import Input
from models.fitting import fit_pipeline, refitted_encoded
from models.metrics import (
    Interval,
    Metric,
    auc,
    auc_interval,
    bootstrap_interval,
    brier,
    ece,
    gini,
    ks,
    log_loss,
    pr_auc,
)
from models.pipeline import Pipeline, check_label
from models.splits import bootstrap_rows, stratified_folds
from models.verdict import COIN, FEWEST_DEFAULTS, FEWEST_REPEATS, PHRASES, Verdict, verdict_of

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps are done and how many there are."""

METRICS: Mapping[str, Metric] = {
    "auc": auc,
    "gini": gini,
    "log_loss": log_loss,
    "ks": ks,
    "pr_auc": pr_auc,
    "brier": brier,
    "ece": ece,
}
MODEL = "model"
CONFIDENCE = 0.9
_DRAWS = 1_000
_FEWEST_DISTINCT = 5


@dataclass(frozen=True)
class Spread:
    """One metric over the repeats: each computed on all rows' out-of-fold log-odds of that repeat."""

    mean: float
    sd: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """How the model or a rival did.

    Args:
        wins: repeats in which the model's log loss was lower than this rival's; 0 for the model itself.
        lead: mean over rows of this rival's log loss less the model's, with its bootstrap interval over rows at
            CONFIDENCE; above 0 the model is better. None for the model itself.
    """

    name: str
    words: str
    words_zh: str
    metrics: Mapping[str, Spread]
    wins: int
    lead: Interval | None


@dataclass(frozen=True)
class Development:
    """A trained model and all that is known of how good it is.

    Args:
        bag: pipelines refitted on bootstrap draws of the rows; they share the pipeline's encoder and tuning.
        certificate: of the pipeline and of every bag member together.
        oof_log_odds: of each row, mean over repeats of the log-odds from the pipeline that had not seen it.
        own_log_odds: of each row, from the pipeline itself, which has seen it: what later firms are compared with.
        figures: the model first, then the rivals in the order they were given.
        intervals: of the mean out-of-fold log-odds; AUC by DeLong, the rest by bootstrap over rows.
    """

    pipeline: Pipeline
    bag: tuple[Pipeline, ...]
    certificate: Certificate
    oof_log_odds: Floats
    own_log_odds: Floats
    oof_defaulted: Flags
    figures: tuple[Figures, ...]
    intervals: Mapping[str, Interval]
    verdict: Verdict
    sentence: str
    sentence_zh: str
    seeds: Mapping[str, int]


def splits_for(rows: int) -> tuple[int, int]:
    """Repeats and folds that a sample of this size is worth: the spread over splits shrinks as the sample grows.

    Never fewer repeats than a verdict needs.
    """
    return (10, 5) if rows < 500 else (5, 5) if rows < 2_000 else (5, 3)


def develop(
    table: pl.DataFrame,
    defaulted: Flags,
    inputs: Sequence[Input],
    *,
    comparisons: Mapping[str, Comparison],
    seed: int,
    repeats: int | None = None,
    folds: int | None = None,
    bag: int = 50,
    on_progress: Progress | None = None,
) -> Development:
    """Train on all rows, after judging the way of training by repeated nested cross-validation.

    Args:
        table: the inputs' columns, one row a loan.
        defaulted: one label a row.
        inputs: what the model may use and what is promised of it.
        comparisons: rivals by name; the first of kind `one_variable` is the rule that the verdict is about.
        seed: the same seed and rows give the same answer.
        repeats: of cross-validation; `splits_for` the number of rows where not given.
        folds: of each repeat; likewise, and no more than there are rows of the rarer outcome.
        bag: bootstrap members.
        on_progress: called before each step.

    Raises:
        ContractError: a column is missing or not a number, or an outcome has fewer than two rows.
        UsageError: a comparison's table has another number of rows, or it has no inputs.
    """
    check_label(defaulted, table.height)
    _require_comparable(comparisons, table.height)
    usual = splits_for(table.height)
    most = min(int(defaulted.sum()), int((~defaulted).sum()))
    splits = (usual[0] if repeats is None else repeats, min(usual[1] if folds is None else folds, most))
    trial = _Trial(table, defaulted, inputs, seed, *splits)
    seeds = {"seed": seed, "splits": seed, "pipeline": seed, "bag": seed + 1_000_000, "intervals": seed}
    steps = _Steps(on_progress, (len(comparisons) + 1) * splits[0] * splits[1] + 1 + bag)
    log_odds = {
        name: _out_of_fold(name, comparison, trial, steps) for name, comparison in [(MODEL, None), *comparisons.items()]
    }
    steps.next("fitting on all rows")
    pipeline = fit_pipeline(table, defaulted, inputs, seed=seed)
    members = tuple(_members(pipeline, table, defaulted, bag, seeds["bag"], steps))
    figures = tuple(_figures(name, comparisons.get(name), log_odds, defaulted, seeds["intervals"]) for name in log_odds)
    mean = log_odds[MODEL].mean(axis=0)
    rule = next((name for name, one in comparisons.items() if one.kind == "one_variable"), None)
    verdict = _verdict(figures, rule)
    return Development(
        pipeline,
        members,
        certificate_of([pipeline, *members]),
        mean,
        pipeline.log_odds(table),
        defaulted,
        figures,
        _intervals(defaulted, mean, seeds["intervals"]),
        verdict,
        _sentence(figures, rule, verdict, splits, defaulted),
        _sentence_zh(figures, rule, verdict, splits, defaulted),
        seeds,
    )


def certificate_of(pipelines: Sequence[Pipeline]) -> Certificate:
    """One certificate over many pipelines; each violation says which member it is in (0 is the pipeline itself)."""
    total = NOTHING_CHECKED
    for number, pipeline in enumerate(pipelines):
        one = pipeline.certificate()
        where = "pipeline" if number == 0 else f"bag member {number}"
        named = tuple(replace(broken, part=f"{where}: {broken.part}") for broken in one.violations)
        total = total.joined(replace(one, violations=named))
    return total


class _Steps:
    """Counts steps for a progress bar."""

    def __init__(self, told: Progress | None, total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def next(self, what: str) -> None:
        if self._told is not None:
            self._told(what, self._done, self._total)
        self._done += 1


def _require_comparable(comparisons: Mapping[str, Comparison], rows: int) -> None:
    problems = [
        f"{name}: {one.table.height} rows beside {rows}"
        for name, one in comparisons.items()
        if one.table is not None and one.table.height != rows
    ]
    problems += [f"{name}: no inputs" for name, one in comparisons.items() if not one.inputs and one.kind != "unsigned"]
    problems += [f"{name}: the name is the model's" for name in comparisons if name == MODEL]
    if problems:
        raise UsageError("These comparisons cannot be made on the same rows.", problems)


@dataclass(frozen=True)
class _Trial:
    """What is cross-validated, and how."""

    table: pl.DataFrame
    defaulted: Flags
    inputs: Sequence[Input]
    seed: int
    repeats: int
    folds: int


def _out_of_fold(name: str, comparison: Comparison | None, trial: _Trial, steps: _Steps) -> Floats:
    """Log-odds (repeats, rows) of each row from a fit that had not seen it; None is the model itself."""
    rows = trial.table if comparison is None or comparison.table is None else comparison.table
    log_odds = np.empty((trial.repeats, rows.height))
    for repeat in range(trial.repeats):
        fold_of = stratified_folds(trial.defaulted, trial.folds, trial.seed + repeat)
        for fold in range(trial.folds):
            steps.next(f"cross-validating {name}, repeat {repeat + 1} of {trial.repeats}")
            out = fold_of == fold
            seen, label, unseen = rows.filter(~out), trial.defaulted[~out], rows.filter(out)
            seed = trial.seed + 1_000 * (repeat * trial.folds + fold + 1)
            if comparison is None or comparison.kind == "unsigned":
                fitted = fit_pipeline(seen, label, trial.inputs, seed=seed, constrained=comparison is None)
                log_odds[repeat, out] = fitted.log_odds(unseen)
            else:
                log_odds[repeat, out] = fit_rival(comparison, seen, label, seed=seed)(unseen)
    return log_odds


def _members(
    pipeline: Pipeline, table: pl.DataFrame, defaulted: Flags, bag: int, seed: int, steps: _Steps
) -> Iterator[Pipeline]:
    """Pipelines refitted on bootstrap draws, with the encoding and tuning chosen on all rows.

    A member has one booster where the pipeline has several: on CUMCM the other boosters' seeds moved the members' 90 %
    quantile by 0.0017 and another set of draws by 0.016, and each booster is paid for at every decision.
    """
    encoded = pipeline.encoder.encoded(table)
    single = replace(pipeline, tuning=replace(pipeline.tuning, boosters=1))
    for member in range(bag):
        steps.next(f"bootstrap member {member + 1} of {bag}")
        rows = bootstrap_rows(defaulted, seed + member, _FEWEST_DISTINCT)
        yield refitted_encoded(single, encoded[rows], defaulted[rows], seed=seed + member)


def _figures(
    name: str, comparison: Comparison | None, log_odds: Mapping[str, Floats], defaulted: Flags, seed: int
) -> Figures:
    values = {metric: [of(defaulted, one) for one in log_odds[name]] for metric, of in METRICS.items()}
    spreads = {metric: _spread(figures) for metric, figures in values.items()}
    if comparison is None:
        return Figures(name, "the model", "本模型", spreads, 0, None)
    own = [log_loss(defaulted, one) for one in log_odds[MODEL]]
    wins = sum(model < rival for model, rival in zip(own, values["log_loss"], strict=True))
    lead = _mean_interval(_losses(log_odds[name], defaulted) - _losses(log_odds[MODEL], defaulted), seed)
    return Figures(name, comparison.words, comparison.words_zh, spreads, wins, lead)


def _spread(values: Sequence[float]) -> Spread:
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(float(np.mean(values)), sd, tuple(values))


def _losses(log_odds: Floats, defaulted: Flags) -> Floats:
    """Log loss of each row, mean over repeats."""
    return np.logaddexp(0.0, np.where(defaulted, -log_odds, log_odds)).mean(axis=0)


def _mean_interval(values: Floats, seed: int) -> Interval:
    """Mean of one number a row, with its bootstrap interval over rows."""
    stream = np.random.default_rng(seed)
    means = [values[stream.integers(0, len(values), len(values))].mean() for _ in range(_DRAWS)]
    low, high = np.quantile(means, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(float(values.mean()), float(low), float(high))


def _intervals(defaulted: Flags, log_odds: Floats, seed: int) -> dict[str, Interval]:
    rest = {
        name: bootstrap_interval(of, defaulted, log_odds, seed=seed, draws=200, confidence=CONFIDENCE)
        for name, of in METRICS.items()
        if name not in {"auc", "gini"}
    }
    area = auc_interval(defaulted, log_odds, CONFIDENCE)
    twice = Interval(*(2 * value - 1 for value in (area.value, area.low, area.high)))
    return {"auc": area, "gini": twice, **rest}


def _verdict(figures: Sequence[Figures], rule: str | None) -> Verdict:
    model, other = figures[0], _named(figures, rule)
    if other is None or other.lead is None:
        return Verdict.NOT_COMPARED
    gain = model.metrics["auc"].mean - other.metrics["auc"].mean
    return verdict_of(other.wins, len(model.metrics["log_loss"].values), gain, other.lead.low)


def _named(figures: Sequence[Figures], name: str | None) -> Figures | None:
    return next((one for one in figures if one.name == name), None)


def _best(figures: Sequence[Figures]) -> Figures:
    return min(figures, key=lambda one: one.metrics["log_loss"].mean)


def _said(figures: Figures) -> str:
    auc, loss = figures.metrics["auc"], figures.metrics["log_loss"]
    if len(auc.values) == 1:
        return f"AUC {auc.mean:.3f}, log loss {loss.mean:.3f}"
    return f"AUC {auc.mean:.3f} ± {auc.sd:.3f}, log loss {loss.mean:.3f} ± {loss.sd:.3f}"


def _sentence(
    figures: Sequence[Figures], rule: str | None, verdict: Verdict, splits: tuple[int, int], defaulted: Flags
) -> str:
    """What training says of the model, in English; the words a promotion must quote stand in it."""
    model, other, best = figures[0], _named(figures, rule), _best(figures)
    start = (
        f"In {splits[0]} x {splits[1]}-fold nested cross-validation on {len(defaulted)} rows with"
        f" {int(defaulted.sum())} defaults the model has {_said(model)}.{_warned(model, splits, defaulted)}"
    )
    phrase = PHRASES[verdict][0]
    if other is None or other.lead is None:
        return f"{start} It was {phrase} with a one-variable rule."
    against = f"{other.words} ({_said(other)})"
    told = {
        Verdict.BEATS: f"It {phrase} {against}",
        Verdict.DOES_NOT_BEAT: f"It {phrase} {against}",
        Verdict.CANNOT_TELL: f"One {phrase} whether it beats {against}",
    }[verdict]
    lead = (
        f"its log loss was the lower in {other.wins} of {splits[0]} repeats; rule less model {other.lead.value:+.3f}"
        f" ({CONFIDENCE:.0%} interval over rows {other.lead.low:+.3f} to {other.lead.high:+.3f})"
    )
    return f"{start} {told}: {lead}. The lowest log loss has {best.words} ({_said(best)})."


def _warned(model: Figures, splits: tuple[int, int], defaulted: Flags) -> str:
    """What makes little or nothing of the figures, each a sentence with a blank before it."""
    said = ""
    if defaulted.sum() < FEWEST_DEFAULTS:
        said += f" Warning: with fewer than {FEWEST_DEFAULTS} defaults every figure here is rough."
    if splits[0] < FEWEST_REPEATS:
        said += f" A verdict that it beats a rule needs {FEWEST_REPEATS} repeats."
    if model.metrics["auc"].mean <= COIN:
        said += f" Warning: its AUC is not above {COIN}, no better than a coin; it may not be promoted."
    return said


def _warned_zh(model: Figures, splits: tuple[int, int], defaulted: Flags) -> str:
    """The same in Chinese."""
    said = ""
    if defaulted.sum() < FEWEST_DEFAULTS:
        said += f"注意:违约少于{FEWEST_DEFAULTS}笔,各项指标均不精确。"
    if splits[0] < FEWEST_REPEATS:
        said += f"判定优于规则至少需{FEWEST_REPEATS}次重复。"
    if model.metrics["auc"].mean <= COIN:
        said += f"注意:AUC不高于{COIN},与抛硬币无异,不得上线。"
    return said


def _sentence_zh(
    figures: Sequence[Figures], rule: str | None, verdict: Verdict, splits: tuple[int, int], defaulted: Flags
) -> str:
    """The same in Chinese."""
    model, other, best = figures[0], _named(figures, rule), _best(figures)
    start = (
        f"在{len(defaulted)}行(其中{int(defaulted.sum())}行违约)上做{splits[0]}×{splits[1]}折嵌套交叉验证,"
        f"本模型{_said(model)}。{_warned_zh(model, splits, defaulted)}"
    )
    phrase = PHRASES[verdict][1]
    if other is None or other.lead is None:
        return f"{start}与单变量规则{phrase}。"
    against = f"{other.words_zh}({_said(other)})"
    told = f"{phrase}是否优于{against}" if verdict is Verdict.CANNOT_TELL else f"{phrase}{against}"
    lead = (
        f"{splits[0]}次重复中有{other.wins}次对数损失更低;规则减本模型{other.lead.value:+.3f}"
        f"(按行自助法{CONFIDENCE:.0%}区间{other.lead.low:+.3f}至{other.lead.high:+.3f})"
    )
    return f"{start}{told}:{lead}。对数损失最低的是{best.words_zh}({_said(best)})。"
