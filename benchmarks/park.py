"""Does the engine find a risk that is known? A software test on made-up firms; it says nothing about real ones.

    python benchmarks/park.py                       2,000 enterprises
    python benchmarks/park.py --enterprises 20000   the long form

A made-up park draws each loan's default from a true PD. A model is developed on the loans of one park, with the whole
path from checked facts on, and set beside the truth: out-of-fold on that park, and on a second park with another seed,
which it never saw. PDs are at the training base rate: there the park's truth is on the same scale as the model. The
last part is under the policy's central tendency, with every true PD moved by the same log-odds as the model's.
"""

import argparse
import importlib.metadata
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

from data_contracts.checking import sources_of
from data_contracts.samples import AS_OF, park
from models.artefact import Facts, Model, Parts, load, save
from models.dataset import HORIZON_MONTHS, INPUTS, LABEL, Dataset, dataset
from models.development import data_hash, references
from models.metrics import auc, auc_interval, ece, log_loss
from models.progress import steps
from models.risk import CONFIDENCE, Estimator, grade_bounds, shift
from models.rulebooks import rulebook
from models.validation import Development, develop
from scoring.policy import BP, Policy
from scoring.score import PPB, grade

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
REDRAWS = 1_000


@dataclass(frozen=True)
class Known:
    """Rows of a park whose true PD is known."""

    rows: Dataset
    true_log_odds: Floats


@dataclass(frozen=True)
class Judged:
    """One set of rows as a model sees it, at the training base rate."""

    words: str
    log_odds: Floats
    defaulted: Flags
    true_log_odds: Floats


def known_of(enterprises: int, seed: int) -> Known:
    """Make a park, check it, and take the features of its loans; the truth goes round the engine, never through it."""
    made = park(enterprises, seed)
    sources, _ = sources_of(made.frames)
    with steps() as (on_days, _):
        rows = dataset(sources, on_progress=on_days)
    true = rows.table.select("uscc", "loan_id").join(made.truth, on=["uscc", "loan_id"], maintain_order="left")
    if not np.array_equal(true["defaulted"].to_numpy(), rows.defaulted):
        raise SystemExit("the labels of the loans are not those of the truth")
    return Known(rows, logit(true["true_pd"].to_numpy()))


def trained(rows: Dataset, seed: int, home: Path) -> tuple[Development, Model]:
    """Develop without rivals, store, and load as a server would."""
    with steps() as (_, on_progress):
        development = develop(
            rows.table, rows.defaulted, INPUTS, comparisons={}, seed=seed, repeats=1, on_progress=on_progress
        )
    facts = Facts(AS_OF, LABEL, f"{HORIZON_MONTHS} months", data_hash(rows.table, rows.defaulted))
    return development, load(save(home, Parts(development, references(rows.table, INPUTS), facts)))


def at_base_rate(policy: Policy, base_rate: float) -> Policy:
    """The policy with the training base rate, to a basis point, as its central tendency."""
    moved = policy.central_tendency.model_copy(update={"value": round(base_rate * BP)})
    return policy.model_copy(update={"central_tendency": moved})


def grades_of(log_odds: Floats, policy: Policy) -> pl.Series:
    """The grade of each row at these log-odds."""
    parts = pl.DataFrame({"ppb": np.rint(expit(log_odds) * PPB).astype(np.int64).clip(1, PPB - 1)})
    return parts.select(grade(pl.col("ppb"), policy.grades).alias("grade")).to_series()


def discrimination(judged: Judged) -> str:
    """One line: the model's AUC beside the one that the true PD itself has on the same draws."""
    mine, best = (auc(judged.defaulted, of) for of in (judged.log_odds, judged.true_log_odds))
    interval = auc_interval(judged.defaulted, judged.log_odds, CONFIDENCE)
    losses = [log_loss(judged.defaulted, of) for of in (judged.log_odds, judged.true_log_odds)]
    return (
        f"{judged.words:<26}{len(judged.defaulted):>8,}{int(judged.defaulted.sum()):>9,}{mine:>9.4f}"
        f" ({interval.low:.3f}-{interval.high:.3f}){best:>10.4f}{(mine - 0.5) / (best - 0.5):>9.1%}"
        f"{losses[0]:>10.4f}{losses[1]:>10.4f}{ece(judged.defaulted, judged.log_odds):>8.4f}"
    )


def by_grade(judged: Judged, moved: float, bounds: Sequence[float], policy: Policy) -> pl.DataFrame:
    """Per grade: rows, mean predicted, observed and mean true PD, the upper PD, and whether it covers the true mean.

    Args:
        judged: log-odds at the training base rate.
        moved: what is added to the log-odds of model and truth alike; the observed rate is null unless it is 0, for
            nobody has observed defaults at another base rate.
        bounds: upper PD of each grade, best first.
        policy: its grades.
    """
    table = pl.DataFrame(
        {
            "grade": grades_of(judged.log_odds + moved, policy),
            "predicted": expit(judged.log_odds + moved),
            "observed": judged.defaulted.astype(np.float64),
            "true": expit(judged.true_log_odds + moved),
        }
    )
    means = table.group_by("grade").agg(pl.len().alias("firms"), pl.all().exclude("grade").mean())
    upper = pl.DataFrame({"grade": [band.grade for band in policy.grades.bands], "upper": list(bounds)})
    found = upper.join(means, on="grade", how="left", maintain_order="left")
    return found.select(
        "grade",
        pl.col("firms").fill_null(0),
        "predicted",
        pl.col("observed") if moved == 0.0 else pl.lit(None, pl.Float64).alias("observed"),
        "true",
        "upper",
        covers=pl.col("upper") >= pl.col("true"),
    )


def lines_of(table: pl.DataFrame) -> list[str]:
    """A table by grade as text, and the share of its grades that are covered."""
    lines = [f"  {'grade':<7}{'firms':>8}{'predicted':>11}{'observed':>10}{'true':>9}{'upper':>9}  covers"]
    for name, firms, *rates, covers in table.iter_rows():
        shown = "".join(
            f"{'-' if rate is None else f'{rate:.2%}':>{width}}"
            for rate, width in zip(rates, (11, 10, 9, 9), strict=True)
        )
        lines.append(f"  {name:<7}{firms:>8,}{shown}  {'-' if covers is None else 'yes' if covers else 'NO'}")
    filled = table["covers"].drop_nulls()
    return [*lines, f"  {int(filled.sum())} of {filled.len()} grades with firms are covered (stated: {CONFIDENCE:.0%})"]


def redrawn(judged: Judged, base_rate: float, policy: Policy, seed: int) -> list[str]:
    """How often the grade bound covers the true mean PD when all defaults are drawn anew from the true PDs.

    Seven grades of one park cannot tell 90 % from 70 %; many draws can. The firms' grades are held as they are.

    Args:
        judged: log-odds at the training base rate.
        base_rate: that rate.
        policy: its grades and central tendency; bounds and truth are both moved to it.
        seed: of the draws.
    """
    stream, true = np.random.default_rng(seed), expit(judged.true_log_odds)
    moved = shift(base_rate, policy)
    names = [band.grade for band in policy.grades.bands]
    grades = grades_of(judged.log_odds + moved, policy).to_numpy()
    members = {name: np.flatnonzero(grades == name) for name in names if (grades == name).any()}
    means = {name: expit(judged.true_log_odds[rows] + moved).mean() for name, rows in members.items()}
    covered = dict.fromkeys(members, 0)
    for _ in range(REDRAWS):
        bounds = grade_bounds(judged.log_odds, stream.random(len(true)) < true, base_rate, policy)
        for name, mean in means.items():
            covered[name] += bounds[names.index(name)] >= mean
    shares = {name: count / REDRAWS for name, count in covered.items()}
    each = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    mean = f"{np.mean(list(shares.values())):.1%} (stated: {CONFIDENCE:.0%})"
    return [f"  {REDRAWS:,} redraws of all defaults: the bound covers the grade's true mean PD in {mean}: {each}"]


def firms_line(table: pl.DataFrame, model: Model, policy: Policy, true_log_odds: Floats) -> str:
    """What `pd_hi`, with the bag, is to single firms of the second park: not a promise, but worth knowing."""
    found = Estimator(model, policy).estimate(table)
    true = expit(true_log_odds + shift(model.base_rate, policy))
    above = float((found.pd_hi.to_numpy() >= true).mean())
    return (
        f"  second park: pd_hi lies above the true PD of {above:.1%} of single firms"
        f" (mean pd {found.pd.mean():.2%}, pd_hi {found.pd_hi.mean():.2%}, true {true.mean():.2%})"
    )


def report(own: Known, other: Known, development: Development, model: Model, policy: Policy, seed: int) -> list[str]:
    """Every table."""
    sets = [
        Judged("out of fold", development.oof_log_odds, own.rows.defaulted, own.true_log_odds),
        Judged("second park, never seen", model.log_odds(other.rows.table), other.rows.defaulted, other.true_log_odds),
    ]
    level = at_base_rate(policy, model.base_rate)
    bounds = grade_bounds(sets[0].log_odds, sets[0].defaulted, level.central_tendency.value / BP, level)
    heads = f"{'loans':>8}{'defaults':>9}{'AUC':>9}{'':>14}{'true AUC':>10}{'of it':>9}"
    lines = [f"\n{'':<26}{heads}{'log loss':>10}{'true':>10}{'ECE':>8}"]
    lines += [discrimination(judged) for judged in sets]
    lines.append(f"\nat the training base rate of {model.base_rate:.2%}")
    for judged in sets:
        lines += [f" {judged.words}", *lines_of(by_grade(judged, 0.0, bounds, level))]
    lines += redrawn(sets[0], level.central_tendency.value / BP, level, seed)
    moved, served = shift(model.base_rate, policy), Estimator(model, policy).grade_bounds
    lines.append(
        f"\nat the policy's central tendency of {policy.central_tendency.value / BP:.2%}, the truth moved alike"
    )
    for judged in sets:
        lines += [f" {judged.words}", *lines_of(by_grade(judged, moved, served, policy))]
    lines += redrawn(sets[0], model.base_rate, policy, seed)
    return [*lines, firms_line(other.rows.table, model, policy, other.true_log_odds)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make, train, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enterprises", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0, help="of the park; the second park has the next one")
    parser.add_argument("--policy", default="torch-points")
    parser.add_argument("--home", type=Path, default=None, help="keep the trained model under this folder")
    chosen = parser.parse_args(arguments)
    print("A software test on made-up firms: these figures say nothing about real ones.")
    packages = ("polars", "numpy", "scipy", "lightgbm")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages), flush=True)
    started = time.monotonic()
    own, other = known_of(chosen.enterprises, chosen.seed), known_of(chosen.enterprises, chosen.seed + 1)
    print(
        f"two parks of {chosen.enterprises:,} enterprises made, checked and read: {time.monotonic() - started:.0f} s",
        flush=True,
    )
    started = time.monotonic()
    with TemporaryDirectory() as aside:
        development, model = trained(own.rows, chosen.seed, chosen.home or Path(aside))
    print(f"trained: {time.monotonic() - started:.0f} s, {model.pipeline.tuning.form} form", flush=True)
    print("\n".join(report(own, other, development, model, rulebook(chosen.policy).policy, chosen.seed)))


if __name__ == "__main__":
    main()
