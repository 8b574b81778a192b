"""From checked facts to a registered challenger: dataset, leak alarms, development, artefact, registry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from data_contracts.errors import UsageError
from data_contracts.sources import Sources
from models.artefact import Facts, Parts
from models.caveats import of_default_day, undated_defaults, unpromised_columns
from models.dataset import HORIZON_MONTHS, INPUTS, LABEL, Dataset, comparisons, dataset, default_as_of
from models.encoding import Input
from models.leaks import Alarm, alarms
from models.registry import register
from models.validation import Development, Progress, develop


@dataclass(frozen=True)
class Trained:
    """A registered challenger and how it came about; no fact known after `as_of` was looked at."""

    version: str
    as_of: date
    dataset: Dataset
    development: Development
    warnings: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Extra:
    """Columns from outside the catalogue that a risk officer wants to try.

    Attributes:
        table: `uscc` and numeric columns.
        allowed: columns that may enter although they look like a leak; each is named in the manifest.
    """

    table: pl.DataFrame
    allowed: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """The columns."""
        return [name for name in self.table.columns if name != "uscc"]


def train(
    sources: Sources,
    home: Path,
    *,
    at: datetime,
    as_of: date | None = None,
    seed: int = 0,
    extra: Extra | None = None,
    repeats: int | None = None,
    on_days: Callable[[int, int], None] | None = None,
    on_progress: Progress | None = None,
) -> Trained:
    """Train, judge and register a model on the loans of checked facts.

    Args:
        sources: checked facts with loan outcomes.
        home: where models are kept.
        at: when this happens, with a zone.
        as_of: no fact known after this day is looked at; by default each loan's own day alone decides.
        seed: the same seed and facts give the same model.
        extra: columns from outside the catalogue; they enter without a promised direction.
        repeats: of cross-validation; by the number of rows where not given.
        on_days: told how many days of features are done.
        on_progress: told of each step of development.

    Raises:
        ContractError: no usable loan, or an outcome has too few rows.
        UsageError: an extra column looks like a leak and is not allowed by name.
    """
    rows = dataset(sources, as_of=as_of, on_progress=on_days)
    day = as_of if as_of is not None else default_as_of(sources)
    table, inputs, warnings = rows.table, INPUTS, _warnings(rows)
    if extra is not None:
        table = table.join(extra.table, on="uscc", how="left", maintain_order="left")
        warnings += _refuse_leaks(table.select(extra.names), rows, extra.allowed)
        inputs = (*INPUTS, *(Input(name, 0, "linear") for name in extra.names))
    development = develop(
        table,
        rows.defaulted,
        inputs,
        comparisons=comparisons(),
        seed=seed,
        repeats=repeats,
        on_progress=on_progress,
    )
    caveats = undated_defaults(rows.undated, int(rows.defaulted.sum()), HORIZON_MONTHS)
    caveats += unpromised_columns([] if extra is None else extra.names)
    caveats += of_default_day(sources, day) if as_of is None else ()
    facts = Facts(
        as_of=day,
        label=LABEL,
        horizon=horizon(rows),
        data_hash=data_hash(table, rows.defaulted),
        alarms=warnings,
        undated=rows.undated,
        labels_known_on=rows.labels_known_on,
        caveats=caveats,
    )
    version = register(home, Parts(development, references(table, INPUTS), facts), at=at)
    return Trained(version, day, rows, development, warnings, caveats)


def horizon(rows: Dataset) -> str:
    """By when a default must have come; assumed of those without a date."""
    assumed = f", assumed of {rows.undated} defaults without a date" if rows.undated else ""
    return f"{HORIZON_MONTHS} months{assumed}"


def references(table: pl.DataFrame, inputs: Sequence[Input]) -> dict[str, tuple[float, ...]]:
    """Each input's deciles in the training rows: values that were really seen, without repeats, rising."""
    found: dict[str, tuple[float, ...]] = {}
    for one in inputs:
        values = table[one.name].drop_nulls()
        # Not `quantile`, which makes floats of all: fen beyond 2^53 would come back as others.
        places = [tenth * (values.len() - 1) // 10 for tenth in range(11)] if values.len() else []
        found[one.name] = tuple(values.sort().gather(places).unique(maintain_order=True))
    return found


def data_hash(table: pl.DataFrame, defaulted: np.ndarray) -> str:
    """SHA-256 of the training rows and labels, as text, in their order."""
    whole = table.with_columns(pl.Series("defaulted", defaulted))
    return sha256(whole.write_csv().encode()).hexdigest()


def _warnings(rows: Dataset) -> tuple[str, ...]:
    found = alarms(rows.table.select(one.name for one in INPUTS), rows.defaulted)
    return tuple(alarm.sentence for alarm in found if alarm.kind in {"target", "power", "shape"})


def _refuse_leaks(columns: pl.DataFrame, rows: Dataset, allowed: frozenset[str]) -> tuple[str, ...]:
    found = alarms(columns, rows.defaulted)
    refused = [alarm for alarm in found if _blamed(alarm) - allowed]
    if refused:
        raise UsageError(
            "an extra column looks like a leak; --allow-leak NAME lets it in, and the manifest says so",
            [alarm.sentence for alarm in refused],
        )
    return tuple(f"allowed by name: {alarm.sentence}" for alarm in found)


def _blamed(alarm: Alarm) -> set[str]:
    return set(alarm.columns or (alarm.column,))
