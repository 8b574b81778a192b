"""Recompute a stored decision and compare it byte for byte."""

import json
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from data_contracts.errors import ArtefactError, ContractError, ReplayError, UsageError
from models.artefact import load
from models.batch import LIMITS, Decided, Engine
from models.registry import models_folder
from models.sources.writing import replacing
from models.surroundings import code_version, packages, processor
from scoring.rulebook import parse_rulebook

FEATURES = "features.parquet"


@dataclass(frozen=True)
class Run:
    """What a batch of decisions was made with, besides model and facts: enough to make it again.

    Attributes:
        as_of: the day looked from.
        model_version: the artefact.
        policy_version: hash over the three texts.
        policy, ruleset, size_classes: the texts themselves; no ruleset is None.
        packages, processor, code_version: what the last bits may depend on.
        features_sha256: of the feature file beside.
    """

    as_of: str
    model_version: str
    policy_version: str
    policy: str
    ruleset: str | None
    size_classes: str
    packages: dict[str, str]
    processor: str
    code_version: str
    features_sha256: str


@dataclass(frozen=True)
class Replayed:
    """A decision that came out the same."""

    decision_id: str
    sha256: str
    row: dict[str, Any]


def write_decisions(
    decided: Decided, out: Path, *, as_of: date, engine: Engine, texts: tuple[str, str | None, str]
) -> None:
    """Write the limits file, the feature rows and the run beside it; each appears whole or not at all.

    Args:
        decided: what `Engine.decided` gave.
        out: the limits file; `features.parquet` and `NAME.run.json` go beside it.
        as_of: the day looked from.
        engine: what decided.
        texts: of policy, ruleset and size classes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out.parent / FEATURES) as features, replacing(run_file(out)) as run, replacing(out) as limits:
        decided.features.write_parquet(features, compression="zstd")
        decided.limits.write_parquet(limits, compression="zstd")
        record = Run(
            as_of=as_of.isoformat(),
            model_version=engine.model.version,
            policy_version=engine.rulebook.version,
            policy=texts[0],
            ruleset=texts[1],
            size_classes=texts[2],
            packages=packages(),
            processor=processor(),
            code_version=code_version(),
            features_sha256=sha256(features.read_bytes()).hexdigest(),
        )
        run.write_text(json.dumps(vars(record), ensure_ascii=False, indent=1), encoding="utf-8")


def run_file(limits: Path) -> Path:
    """Where the run of a limits file is."""
    return limits.with_suffix(".run.json")


def replay(decision_id: str, limits: Path, home: Path) -> Replayed:
    """Recompute one decision from its stored features, model and policy texts.

    Raises:
        UsageError: no such file or decision.
        ContractError: a file cannot be read as what it should be.
        ArtefactError: the model is gone or changed.
        ReplayError: it comes out otherwise; says which columns differ, and what differs around it.
    """
    stored = _row(_table(limits), decision_id)
    run = _run(limits)
    features = limits.parent / FEATURES
    around = _around(run, features)
    whole = _row(_table(features), decision_id)
    folder = models_folder(home) / run.model_version
    if not folder.is_dir():
        raise ArtefactError(
            f"the model {run.model_version} is not under {home}", ["hand the home folder it was kept in: JIFEN_HOME"]
        )
    engine = Engine(load(folder), parse_rulebook(run.policy, run.ruleset, run.size_classes))
    again = engine.recomputed(whole, date.fromisoformat(run.as_of)).limits
    before, after = row_bytes(stored), row_bytes(again)
    if before != after:
        differs = [f"{name} differs" for name in LIMITS if stored[name].to_list() != again[name].to_list()]
        raise ReplayError(f"decision {decision_id} comes out otherwise", [*differs, *around])
    return Replayed(decision_id, sha256(after).hexdigest(), again.row(0, named=True))


def row_bytes(row: pl.DataFrame) -> bytes:
    """One row of the limits file as canonical bytes: JSON in column order, floats to the last bit."""
    values = row.select(*LIMITS).row(0, named=True)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def _table(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ContractError(f"{path.name} is not a readable parquet file", [str(error).splitlines()[0]]) from error


def _row(table: pl.DataFrame, decision_id: str) -> pl.DataFrame:
    if "decision_id" not in table.columns:
        raise ContractError("the file holds no decisions", ["there is no column decision_id"])
    found = table.filter(pl.col("decision_id") == decision_id)
    if found.height != 1:
        raise UsageError(f"there is no decision {decision_id} in the file")
    return found


def _run(limits: Path) -> Run:
    path = run_file(limits)
    if not path.is_file():
        raise UsageError(f"{path.name} is not beside {limits.name}; it names the model and holds the policy")
    try:
        return Run(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ContractError(f"{path.name} is not a run of jifen", [type(error).__name__]) from error


def _around(run: Run, features: Path) -> list[str]:
    """What is not as it was when the decision was made."""
    now = {**packages(), "processor": processor(), "jifen": code_version()}
    then = {**run.packages, "processor": run.processor, "jifen": run.code_version}
    differs = [
        f"{name} was {then.get(name)}, is {now.get(name)}"
        for name in sorted(now | then)
        if now.get(name) != then.get(name)
    ]
    if features.is_file() and sha256(features.read_bytes()).hexdigest() != run.features_sha256:
        differs.append(f"{features.name} is not the file that was written with the decision")
    return differs
