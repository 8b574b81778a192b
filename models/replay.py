"""Recompute a stored decision and compare it byte for byte.

Beside a limits file NAME.parquet lie NAME.run.json, what its decisions were made with, and features.parquet, the
feature rows of every limits file in the folder. Each feature row carries its own hash, so that a changed fact is
noticed even where it would not change the decision.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import ArtefactError, ContractError, ReplayError, UsageError
from models.artefact import load
from models.batch import LIMITS, Decided, Engine
from models.caveats import of_model
from models.outputs import is_parquet
from models.registry import models_folder
from models.sources.parquet import read_parquet
from models.sources.writing import alone_in, replacing
from models.surroundings import code_version, packages, processor
from scoring.rulebook import parse_rulebook

FEATURES = "features.parquet"
ROW_HASH = "row_sha256"
"""Column of the feature file: SHA-256 of the other values of the row."""


class Run(BaseModel):
    """What a batch of decisions was made with, besides model and facts: enough to make it again.

    Attributes:
        as_of: the day looked from.
        model_version: the artefact.
        policy_version: hash over the three texts.
        policy, ruleset, size_classes: the texts themselves; no ruleset is None.
        packages, processor, code_version: what the last bits may depend on.
        caveats: what must be said beside the figures: of the model on this day and, of a folder, of its day and facts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    as_of: date
    model_version: str
    policy_version: str
    policy: str
    ruleset: str | None
    size_classes: str
    packages: dict[str, str]
    processor: str
    code_version: str
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replayed:
    """A decision that came out the same."""

    decision_id: str
    sha256: str
    row: dict[str, Any]


def write_decisions(
    decided: Decided,
    out: Path,
    *,
    as_of: date,
    engine: Engine,
    texts: tuple[str, str | None, str],
    caveats: tuple[str, ...],
) -> None:
    """Write the limits file, and beside it first the feature rows and the run; each appears whole or not at all.

    Feature rows of other limits files in the folder are kept, also those that another process is writing.

    Args:
        decided: what `Engine.decided` gave.
        out: the limits file; `features.parquet` and `NAME.run.json` go beside it.
        as_of: the day looked from.
        engine: what decided.
        texts: of policy, ruleset and size classes.
        caveats: all that must be said beside these limits: of the model, the day and the facts.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    record = run_of(engine, as_of, texts).model_copy(update={"caveats": caveats})
    rows = decided.features.with_columns(row_hashes(decided.features))
    with alone_in(out.parent), ExitStack() as whole:
        others = _rows_of_other_limits(out, rows["decision_id"])
        # The last one entered is the first to appear: decisions are not seen before what they were made from.
        limits, run, features = (
            whole.enter_context(replacing(path)) for path in (out, run_file(out), out.parent / FEATURES)
        )
        decided.limits.write_parquet(limits, compression="zstd")
        run.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        pl.concat([rows, *others], how="diagonal").write_parquet(features, compression="zstd")


def run_file(limits: Path) -> Path:
    """Where the run of a limits file is."""
    return limits.with_suffix(".run.json")


def limits_of(run: Path, out: Path) -> list[Path]:
    """The limits files of a run, but `out`: parquet, whatever their ending; a CSV beside them is for people."""
    if not run.is_file():
        return []
    return sorted(
        path
        for path in run.parent.iterdir()
        if path.name != FEATURES and path != out and run_file(path) == run and path.is_file() and is_parquet(path)
    )


def replay(decision_id: str, limits: Path, home: Path) -> Replayed:
    """Recompute one decision from its stored features, model and policy texts.

    Raises:
        UsageError: no such file or decision.
        ContractError: a file cannot be read as what it should be.
        ArtefactError: the model is gone or changed.
        ReplayError: it comes out otherwise, or its feature row was changed; says what differs, and what is not as it
            was around it.
    """
    stored = _row(_table(limits, LIMITS), decision_id)
    run = _run(limits)
    whole = unchanged(_row(_table(limits.parent / FEATURES, ["decision_id", ROW_HASH]), decision_id))
    return compared(decision_id, row_bytes(stored), whole, run, home)


def compared(decision_id: str, before: bytes, whole: pl.DataFrame, run: Run, home: Path) -> Replayed:
    """Decide again from a feature row, and compare with the bytes of the answer that was stored.

    Args:
        decision_id: of the decision.
        before: `row_bytes` of the stored answer.
        whole: its feature row, as `Engine.recomputed` takes it.
        run: what it was made with.
        home: where the models are.

    Raises:
        ArtefactError, ReplayError: see `replay`.
    """
    around = _around(run)
    folder = models_folder(home) / run.model_version
    if not folder.is_dir():
        raise ArtefactError(
            f"the model {run.model_version} is not under {home}", ["hand the home folder it was kept in: JIFEN_HOME"]
        )
    engine = Engine(load(folder), parse_rulebook(run.policy, run.ruleset, run.size_classes))
    again = engine.recomputed(whole, run.as_of).limits
    after = row_bytes(again)
    if before != after:
        stored, now = json.loads(before), json.loads(after)
        differs = [
            f"{name}: stored {stored.get(name)}, comes out as {now[name]}"
            for name in LIMITS
            if stored.get(name) != now[name]
        ]
        raise ReplayError(f"decision {decision_id} comes out otherwise", [*differs, *around])
    return Replayed(decision_id, sha256(after).hexdigest(), again.row(0, named=True))


def run_of(engine: Engine, as_of: date, texts: tuple[str, str | None, str]) -> Run:
    """The run of decisions made here and now; `texts` are of policy, ruleset and size classes."""
    return Run(
        as_of=as_of,
        model_version=engine.model.version,
        policy_version=engine.rulebook.version,
        policy=texts[0],
        ruleset=texts[1],
        size_classes=texts[2],
        packages=packages(),
        processor=processor(),
        code_version=code_version(),
        caveats=of_model(engine.model.manifest, as_of),
    )


def row_bytes(row: pl.DataFrame) -> bytes:
    """One row of the limits file as canonical bytes: JSON in column order, floats to the last bit."""
    values = row.select(*LIMITS).row(0, named=True)
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str).encode()


def row_hashes(rows: pl.DataFrame) -> pl.Series:
    """SHA-256 of each row's names and values; a value that is not there counts like an absent column."""
    names = sorted(name for name in rows.columns if name != ROW_HASH)
    hashes = [
        sha256(
            json.dumps({name: value for name, value in row.items() if value is not None}, default=str).encode()
        ).hexdigest()
        for row in rows.select(names).iter_rows(named=True)
    ]
    return pl.Series(ROW_HASH, hashes, dtype=pl.String)


def _rows_of_other_limits(out: Path, written: pl.Series) -> list[pl.DataFrame]:
    """The feature rows in the folder that other limits files there still need."""
    kept = out.parent / FEATURES
    others = [
        path for run in sorted(out.parent.glob("*.run.json")) if run != run_file(out) for path in limits_of(run, out)
    ]
    if not others or not kept.is_file():
        return []
    needed = pl.concat([_table(path, ["decision_id"])["decision_id"] for path in others])
    rows = _table(kept, ["decision_id", ROW_HASH])
    return [
        rows.filter(pl.col("decision_id").is_in(needed.implode()) & ~pl.col("decision_id").is_in(written.implode()))
    ]


def unchanged(row: pl.DataFrame) -> pl.DataFrame:
    """The feature row without its hash.

    Raises:
        ReplayError: it was changed after it was written.
    """
    if row_hashes(row).to_list() != row[ROW_HASH].to_list():
        raise ReplayError("the feature row of the decision was changed after it was written", ["its hash differs"])
    return row.drop(ROW_HASH)


def _table(path: Path, columns: Iterable[str]) -> pl.DataFrame:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    table = read_parquet(path)
    missing = [f"there is no column {name}" for name in columns if name not in table.columns]
    if missing:
        raise ContractError(f"{path.name} is not a file that jifen score wrote", missing)
    return table


def _row(table: pl.DataFrame, decision_id: str) -> pl.DataFrame:
    found = table.filter(pl.col("decision_id") == decision_id)
    if found.height != 1:
        raise UsageError(f"there is no decision {decision_id} in the file")
    return found


def _run(limits: Path) -> Run:
    path = run_file(limits)
    if not path.is_file():
        raise UsageError(f"{path.name} is not beside {limits.name}; it names the model and holds the policy")
    try:
        return Run.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()]
        raise ContractError(f"{path.name} is not a run of jifen", problems) from error


def _around(run: Run) -> list[str]:
    """What is not as it was when the decision was made."""
    now = {**packages(), "processor": processor(), "jifen": code_version()}
    then = {**run.packages, "processor": run.processor, "jifen": run.code_version}
    return [
        f"{name} was {then.get(name)}, is {now.get(name)}"
        for name in sorted(now | then)
        if now.get(name) != then.get(name)
    ]
