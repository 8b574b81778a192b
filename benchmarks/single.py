"""One enterprise from its records to a decision, split by step: what an applicant waits for.

    python benchmarks/single.py                  a model trained on a small park, policy torch-points
    python benchmarks/single.py --rounds 200
    python benchmarks/single.py --home HOME      the champion of a model store

The enterprise is made up and has the 250 invoices of a usual one; the steps are those of the batch, which takes the
same path. Beside the contract check stands pandera's own validation of the same invoices with the same contract.
"""

import argparse
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from data_contracts.checking import sources_of
from data_contracts.samples import AS_OF, park
from data_contracts.sources import SOURCES
from models.artefact import Facts, Model, Parts, load, save
from models.batch import Engine
from models.dataset import HORIZON_MONTHS, INPUTS, LABEL, dataset
from models.development import data_hash, references
from models.registry import champion
from models.rulebooks import rulebook
from models.validation import develop
from scoring.decide import decide
from scoring.features import features
from scoring.input_hash import input_hashes
from scoring.rulebook import under_policy

INVOICES_WANTED = 250


def trained(enterprises: int) -> Model:
    """A model with a whole bag, developed on a small park."""
    sources, _ = sources_of(park(enterprises, 0).frames)
    rows = dataset(sources)
    development = develop(rows.table, rows.defaulted, INPUTS, comparisons={}, seed=0, repeats=1)
    facts = Facts(AS_OF, LABEL, f"{HORIZON_MONTHS} months", data_hash(rows.table, rows.defaulted))
    with TemporaryDirectory() as aside:
        return load(save(Path(aside), Parts(development, references(rows.table, INPUTS), facts)))


def records_of_one(seed: int) -> dict[str, pl.DataFrame]:
    """All records of the enterprise of a park whose number of invoices is nearest to the one wanted."""
    frames = park(200, seed).frames
    counts = frames["invoices"].group_by("uscc").len().sort((pl.col("len") - INVOICES_WANTED).abs(), "uscc")
    uscc = counts["uscc"][0]
    return {name: frame.filter(pl.col("uscc") == uscc) for name, frame in frames.items()}


def timed(run: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median and 99th percentile in milliseconds after a warm-up, and mean processor time."""
    for _ in range(3):
        run()
    found: list[float] = []
    spent = time.process_time()
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        found.append((time.perf_counter() - started) * 1e3)
    spent = (time.process_time() - spent) * 1e3 / rounds
    return statistics.median(found), statistics.quantiles(found, n=100, method="inclusive")[98], spent


def line_of(name: str, found: tuple[float, float, float], pandera: float) -> str:
    """One line of the table; the ratio is of medians."""
    middle, high, spent = found
    return f"{name:<32}{middle:>9.2f}{high:>9.2f}{spent:>9.2f}{middle / pandera:>11.2f}"


def steps_of(records: dict[str, pl.DataFrame], engine: Engine) -> dict[str, Callable[[], object]]:
    """Every step with the answers of the steps before it, and all of them in a row."""
    book = engine.rulebook
    sources, _ = sources_of(records)
    uscc = [str(sources.enterprises["uscc"][0])]
    seen = features(sources, AS_OF)
    hashed = input_hashes(sources, uscc, AS_OF)
    whole = under_policy(seen, sources, AS_OF, book).with_columns(
        hashed["input_hash"], asked_fen=pl.lit(None, pl.Int64)
    )
    risk = engine.estimator.risk(whole)
    return {
        "contract check": lambda: sources_of(records),
        "features": lambda: features(sources, AS_OF),
        "points and size class": lambda: under_policy(seen, sources, AS_OF, book),
        "input hash": lambda: input_hashes(sources, uscc, AS_OF),
        "pd and pd_hi (bag of 50)": lambda: engine.estimator.estimate(whole),
        "… and of every improvement": lambda: engine.estimator.risk(whole),
        "decide, with reasons": lambda: decide(whole, risk, book.policy),
        "records to decision": lambda: engine.decided(sources_of(records)[0], AS_OF),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print versions, p50 and p99 of each step, and ratios to pandera's validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--enterprises", type=int, default=600, help="of the park that the model is trained on")
    parser.add_argument("--policy", default="torch-points")
    parser.add_argument("--home", type=Path, default=None, help="use the champion kept here instead of training")
    chosen = parser.parse_args(arguments)
    packages = ("polars", "pandera", "lightgbm", "numpy")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))
    print(f"{os.cpu_count()} processors, polars on {pl.thread_pool_size()} threads", flush=True)
    model = champion(chosen.home) if chosen.home is not None else trained(chosen.enterprises)
    if model is None:
        raise SystemExit(f"there is no champion in {chosen.home}")
    records = records_of_one(seed=1)
    engine = Engine(model, rulebook(chosen.policy))
    contract, invoices = SOURCES["invoices"].contract, records["invoices"]
    pandera = timed(lambda: contract.validate(invoices, lazy=True), chosen.rounds)
    own = timed(lambda: sources_of({"invoices": invoices}), chosen.rounds)
    rows = sum(frame.height for frame in records.values())
    trees = sum(member.booster.num_trees() for one in (model.pipeline, *model.bag) for member in one.trees)
    print(f"one enterprise: {invoices.height} invoices, {rows:,} records")
    print(f"model of {model.pipeline.tuning.form} form, {1 + len(model.bag)} pipelines, {trees:,} trees\n")
    print(f"{'':<32}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}{'x pandera':>11}")
    print(line_of("pandera validate, invoices", pandera, pandera[0]))
    print(line_of("contract check, invoices alone", own, pandera[0]) + "\n")
    for name, run in steps_of(records, engine).items():
        print(line_of(name, timed(run, chosen.rounds), pandera[0]), flush=True)


if __name__ == "__main__":
    main()
