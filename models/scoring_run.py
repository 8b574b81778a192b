"""One run of the engine over a data folder: read, check, decide, write."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path

import polars as pl
import xlsxwriter
from xlsxwriter.exceptions import FileCreateError

from data_contracts.errors import ContractError, UsageError
from data_contracts.sources import Sources
from models import rulebooks
from models.artefact import Model, load
from models.batch import Engine
from models.caveats import (
    of_default_day,
    of_model,
    of_quarantine,
    quarantined_of,
    why_without_registry,
    without_registry,
)
from models.dataset import default_as_of
from models.explanation import Earned, Explained
from models.extra import read_extra
from models.metrics import psi, psi_by_chance
from models.outputs import output_problems
from models.registry import champion, models_folder, shown
from models.replay import FEATURES, limits_of, run_file, write_decisions
from models.risk import calibration_by_grade
from models.sources.folder import Folder, read_folder
from models.sources.writing import replacing
from scoring.catalogue import CATALOGUE
from scoring.conduct import current, undoubted
from scoring.points import points
from scoring.rulebook import parse_rulebook
from scoring.ruleset import Ruleset

Told = Callable[[str], None]


@dataclass(frozen=True)
class Scored:
    """The limits of a folder, and what must be said beside them.

    Attributes:
        calibration: see `risk.calibration_by_grade`, under the policy that decided.
        stability: a sentence: how far these firms are from those the model was trained on; None where it does not keep
            what it needs for that.
    """

    limits: pl.DataFrame
    caveats: tuple[str, ...]
    calibration: pl.DataFrame
    stability: str | None


def served_model(home: Path, version: str | None) -> Model:
    """The model of a version, or the champion; verified as it is loaded.

    Raises:
        UsageError: no such version, or no champion yet.
        ArtefactError: it was changed, or its certificate does not hold.
    """
    if version is not None:
        return load(models_folder(home) / shown(home, version).version)
    found = champion(home)
    if found is None:
        raise UsageError(
            "there is no champion to score with",
            [
                "train one: jifen train DIR",
                "promote it: jifen models promote VERSION --minutes TEXT",
                "or name one: --model VERSION",
            ],
        )
    return found


def names_of(found: Folder, as_of: date) -> dict[str, str]:
    """Credit code → registered name, for tables."""
    return dict(current(found.sources, "enterprises", as_of).select("uscc", "name").iter_rows())


def score_folder(
    folder: Path,
    out: Path,
    home: Path,
    *,
    csv: Path | None = None,
    xlsx: Path | None = None,
    as_of: date | None = None,
    model: str | None = None,
    policy: str,
    on_progress: Told,
) -> Scored:
    """Decide on every enterprise of a folder and write the limits; returns them.

    Raises:
        UsageError: a file to write cannot be written; said before any work is done.
        JifenError: a file, model or policy is not fit to be used; nothing is written then.
    """
    _require_writable(out, csv, xlsx)
    served = served_model(home, model)
    texts = _texts(policy)
    engine = Engine(served, parse_rulebook(*texts))
    found = read_folder(folder, on_progress=on_progress)
    day = as_of if as_of is not None else default_as_of(found.sources)
    on_progress("features")
    decided = engine.decided(
        found.sources,
        day,
        extra=read_extra(folder, _extra_columns(served)),
        on_progress=lambda done, whole: on_progress(f"{done:,} of {whole:,} enterprises"),
    )
    quarantine = of_quarantine(found, folder)
    if decided.limits.height == 0:
        if found.sources.enterprises.height == 0 and quarantine:
            raise ContractError(f"no enterprise of {folder} has a usable registry row", quarantine)
        raise UsageError(f"no enterprise of {folder} is known on {day}", ["name a later day: --as-of", *quarantine])
    on_progress("writing")
    unnamed = of_default_day(found.sources, day) if as_of is None else ()
    caveats = (*of_model(served.manifest, day), *unnamed, *quarantine)
    write_decisions(decided, out, as_of=day, engine=engine, texts=texts, caveats=caveats)
    people = decided.limits.with_columns(
        pl.col("conditions", "missing_feeds").list.join(", "),
        (pl.col("limit_fen", "conditional_limit_fen") / 100).name.suffix("_cny"),
    ).rename({"limit_fen_cny": "limit_cny", "conditional_limit_fen_cny": "conditional_limit_cny"})
    if csv is not None:
        with replacing(csv) as beside:
            people.write_csv(beside, include_bom=True)
    if xlsx is not None:
        _write_workbook(people, xlsx)
    return Scored(
        decided.limits,
        caveats,
        calibration_by_grade(served, engine.rulebook.policy),
        _stability(served, decided.features),
    )


def explain_one(
    folder: Path,
    uscc: str,
    home: Path,
    *,
    as_of: date | None = None,
    model: str | None = None,
    policy: str,
    on_progress: Told,
) -> Explained:
    """Decide on one enterprise, with all that explains the decision.

    Raises:
        ContractError: its registry rows are all in quarantine.
        UsageError: the enterprise is not in the registry of the folder.
        JifenError: a file, model or policy is not fit to be used.
    """
    served = served_model(home, model)
    engine = Engine(served, rulebooks.rulebook(policy))
    found = read_folder(folder, on_progress=on_progress)
    day = as_of if as_of is not None else default_as_of(found.sources)
    decided = engine.decided(found.sources, day, only=[uscc], extra=read_extra(folder, _extra_columns(served)))
    if decided.limits.height == 0:
        if uscc in without_registry(found):
            raise ContractError(f"no registry row of {uscc} is usable", why_without_registry(found, uscc))
        raise UsageError(f"no enterprise {uscc} is known in {folder} on {day}")
    unnamed = of_default_day(found.sources, day) if as_of is None else ()
    return Explained(
        decided.limits.row(0, named=True),
        decided.terms["terms"][0],
        decided.features.row(0, named=True),
        names_of(found, day)[uscc],
        engine.rulebook.policy,
        _earned(found.sources, uscc, day, engine.rulebook.ruleset),
        (*of_model(served.manifest, day), *unnamed, *quarantined_of(found, uscc)),
    )


def _earned(sources: Sources, uscc: str, day: date, ruleset: Ruleset | None) -> Earned | None:
    if ruleset is None:
        return None
    registry = current(sources, "enterprises", day).filter(pl.col("uscc") == uscc)
    told = undoubted(sources, "innovation_indicators", day)
    return Earned(ruleset, points(told, day, registry, ruleset).row(0, named=True))


def _stability(model: Model, features: pl.DataFrame) -> str | None:
    if model.own_log_odds is None:
        return None
    shifted = psi(model.own_log_odds, model.log_odds(features))
    chance = psi_by_chance(model.own_log_odds.size, features.height)
    return (
        f"PSI of the log-odds, {features.height:,} firms against {model.own_log_odds.size:,} training rows: "
        f"{shifted:.3f} (under 0.1 stable, over 0.25 shifted; chance alone gives about {chance:.3f})"
    )


def _write_workbook(table: pl.DataFrame, path: Path) -> None:
    with replacing(path) as beside:
        try:
            with xlsxwriter.Workbook(beside) as book:
                table.write_excel(book, worksheet="limits")
        except FileCreateError as error:
            raise OSError(*error.args[0].args, str(path)) from error


def _require_writable(out: Path, csv: Path | None, xlsx: Path | None) -> None:
    """Make the folders of files to be written, and refuse what could not or must not be written after all the work."""
    files = [out, *(path for path in (csv, xlsx) if path is not None)]
    problems = [f"{path.name} is the name of the feature rows; name another" for path in files if path.name == FEATURES]
    kinds = {out.parent / FEATURES: "features", run_file(out): "run", out: "limits"}
    kinds |= {path: kind for path, kind in ((csv, "csv"), (xlsx, "xlsx")) if path is not None}
    problems += output_problems(kinds)
    problems += [f"{run_file(out).name} belongs to {path.name}; name another" for path in limits_of(run_file(out), out)]
    problems += _named_twice(out, csv, xlsx)
    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problems.append(f"{path.parent}: {error.strerror}")
            continue
        if path.is_dir():
            problems.append(f"{path} is a folder")
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            problems.append(f"{path.parent} may not be written to")
    if problems:
        raise UsageError("the limits cannot be written there", problems)


def _named_twice(out: Path, csv: Path | None, xlsx: Path | None) -> list[str]:
    """Which two files to be written are one, however their paths are spelt: the later would destroy the earlier."""
    files = {
        "--out": out,
        "--csv": csv,
        "--xlsx": xlsx,
        f"the run record of --out, {run_file(out).name},": run_file(out),
        f"the feature rows of --out, {FEATURES},": out.parent / FEATURES,
    }
    named = [(what, os.path.realpath(path)) for what, path in files.items() if path is not None]
    return [
        f"{one} and {other} are the same file, named twice: {path}"
        for (one, path), (other, its_path) in combinations(named, 2)
        if path == its_path
    ]


def _extra_columns(model: Model) -> list[str]:
    return [one.name for one in model.inputs if one.name not in CATALOGUE]


def _texts(policy: str) -> tuple[str, str | None, str]:
    text, folder = rulebooks.policy_text(policy)
    return text, rulebooks.ruleset_text(text, folder), rulebooks.size_text()
