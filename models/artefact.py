"""A trained model on disk: one folder a version, boosters as LightGBM's text, all else JSON; nothing is ever unpickled.

    <as-of>-<12 hex>/
        manifest.json        what the model is, how good, how made, and the SHA-256 of every other file
        pipeline.json        all of the pipeline but its boosters;  pipeline-0.txt, …: its boosters
        bag.json             the same of every bootstrap member;    bag-07-0.txt, …: their boosters
        training.json        log-odds out of fold and of its own, labels; reference values of the inputs

The folder's name holds the hash of the manifest and the manifest the hash of each file, so one changed byte anywhere is
noticed. Python's JSON writes floats so that they come back to the bit.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from lightgbm.basic import LightGBMError
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import ArtefactError, JifenError
from models.bagging import HOW_THE_BAG_IS_MADE, bag_log_odds
from models.encoding import Input
from models.pipeline import Pipeline
from models.sources.writing import flush
from models.surroundings import code_version, packages, processor
from models.validation import Development, certificate_of
from models.verdict import Verdict

FORMAT = "jifen-model/1"
_MANIFEST = "manifest.json"
_MOST_VIOLATIONS = 20
_UNREADABLE = (OSError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError, LightGBMError, JifenError)
"""What a file of the right hash but the wrong content may raise as it is read."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Proof(BaseModel):
    """The certificate as it stood when the model was stored; it is computed anew at each load."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    holds: bool
    pipelines: int
    trees: int
    pairs: int
    coefficients: int
    violations: tuple[str, ...]


class Manifest(BaseModel):
    """What a stored model says of itself.

    `as_of` is the day the features were looked from, `labels_known_on` the day by which the last outcome was known: on
    no earlier day could there have been this model. `label` defines a default, `horizon` says by when, `undated` counts
    the defaults of which nobody knows whether they fell within it, and `caveats` must be said wherever a figure of the
    model is shown; `base_rate` is the share of defaults in training, to which the log-odds are calibrated. `metrics`
    holds figures of the model and its rivals and intervals; `bag` says what the bootstrap members do and do not repeat,
    so that nobody takes their spread for the whole uncertainty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["jifen-model/1"]
    label: str
    horizon: str
    as_of: str
    labels_known_on: str | None = None
    rows: int
    defaults: int
    undated: int = 0
    caveats: tuple[str, ...] = ()
    base_rate: float
    inputs: tuple[dict[str, Any], ...]
    metrics: dict[str, Any]
    verdict: Verdict
    sentence: str
    sentence_zh: str
    alarms: tuple[str, ...]
    certificate: Proof
    bag: str = HOW_THE_BAG_IS_MADE
    seeds: dict[str, int]
    data_hash: str
    code_version: str
    packages: dict[str, str]
    processor: str
    files: dict[str, str]

    @property
    def unpromised(self) -> tuple[str, ...]:
        """Inputs without a promised direction: the certificate says nothing of them."""
        return tuple(one["name"] for one in self.inputs if not one["direction"])


@dataclass(frozen=True)
class Facts:
    """What only the caller knows of a training: see `Manifest`. `alarms` are the sentences of leak alarms."""

    as_of: date
    label: str
    horizon: str
    data_hash: str
    alarms: tuple[str, ...] = ()
    undated: int = 0
    labels_known_on: date | None = None
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """All that is stored of a model.

    Args:
        references: for inputs of the catalogue, values of the training sample in raw units, rising.
    """

    development: Development
    references: Mapping[str, tuple[float, ...]]
    facts: Facts


@dataclass(frozen=True)
class Model:
    """A stored model, verified and ready to serve.

    Args:
        oof_log_odds, oof_defaulted: of each training row, for grade bounds.
        own_log_odds: of each training row, from the model itself, to see how far others are; None: stored without.
        references: for inputs of the catalogue, values of the training sample in raw units, rising.
    """

    version: str
    manifest: Manifest
    pipeline: Pipeline
    bag: tuple[Pipeline, ...]
    oof_log_odds: Floats
    own_log_odds: Floats | None
    oof_defaulted: Flags
    references: Mapping[str, tuple[float, ...]]

    @property
    def base_rate(self) -> float:
        """Share of defaults in training; the log-odds are calibrated to it."""
        return self.pipeline.base_rate

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The columns the model reads, with the direction promised of each."""
        return self.pipeline.inputs

    def log_odds(self, table: pl.DataFrame) -> Floats:
        """Calibrated log-odds of default at the training base rate, one a row."""
        return self.pipeline.log_odds(table)

    def bag_log_odds(self, table: pl.DataFrame) -> Floats:
        """The same from every bootstrap member: (rows, members)."""
        return bag_log_odds(self.bag, self.pipeline.encoder.encoded(table))


def save(home: Path, parts: Parts) -> Path:
    """Write a model under `home` and return its folder, named `version`.

    It is written aside and renamed when whole, so a killed save leaves nothing under a version's name. A model that is
    there already is left as it is.

    Raises:
        ArtefactError: a folder of this version is there, but was changed.
    """
    texts = _texts(parts)
    manifest = _manifest(parts, {name: _hash(text) for name, text in texts.items()})
    version = f"{parts.facts.as_of:%Y%m%d}-{_hash(manifest)[:12]}"
    folder = home / version
    if folder.exists():
        _raise_if(folder, _changed(folder))
        return folder
    home.mkdir(parents=True, exist_ok=True)
    aside = home / f".{version}.{secrets.token_hex(4)}.part"
    aside.mkdir()
    try:
        for name, text in {**texts, _MANIFEST: manifest}.items():
            _write(aside / name, text)
        flush(aside)
        try:
            aside.rename(folder)
        except OSError:
            # Another training of the same model was quicker.
            if not folder.is_dir():
                raise
            _raise_if(folder, _changed(folder))
        flush(home)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def load(folder: Path) -> Model:
    """Read a model back, refusing one that is not exactly what was stored or that breaks a promise.

    Raises:
        ArtefactError: names every file that is missing, changed or not its own, or every place where the certificate,
            computed anew over the pipeline and each bag member, does not hold.
    """
    _raise_if(folder, _changed(folder))
    manifest = manifest_of(folder)
    try:
        pipeline, bag = _pipelines(folder)
        training = _json(folder / "training.json")
        references = {name: tuple(values) for name, values in training["references"].items()}
        odds = np.array(training["oof_log_odds"], dtype=np.float64)
        own = np.array(training["own_log_odds"], dtype=np.float64) if "own_log_odds" in training else None
        defaulted = np.array(training["oof_defaulted"], dtype=np.bool_)
    except _UNREADABLE as error:
        raise ArtefactError(
            f"The stored model {folder.name} cannot be read.", [f"{type(error).__name__}: {error}"]
        ) from error
    _raise_if(folder, _broken_promises(manifest, pipeline, bag))
    return Model(folder.name, manifest, pipeline, bag, odds, own, defaulted, references)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a stored model, checked against the folder's name; the other files are not read.

    Raises:
        ArtefactError: it is missing, changed, or of a format that this program does not know.
    """
    _raise_if(folder, _manifest_problems(folder))
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except ValidationError as error:
        problems = [f"{_MANIFEST}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ArtefactError(
            f"The stored model {folder.name} is of a format this program cannot read.", problems
        ) from error


def _texts(parts: Parts) -> dict[str, str]:
    """Every file but the manifest."""
    development = parts.development
    texts = {
        "pipeline.json": _dumped(development.pipeline.to_json()),
        "bag.json": _dumped([member.to_json() for member in development.bag]),
        "training.json": _dumped(
            {
                "oof_log_odds": development.oof_log_odds.tolist(),
                "own_log_odds": development.own_log_odds.tolist(),
                "oof_defaulted": development.oof_defaulted.tolist(),
                "references": {name: list(values) for name, values in parts.references.items()},
            }
        ),
    }
    for number, text in enumerate(development.pipeline.booster_texts):
        texts[_booster("pipeline", number)] = text
    for place, member in enumerate(development.bag):
        texts |= {_booster(_member(place), number): text for number, text in enumerate(member.booster_texts)}
    return texts


def _member(place: int) -> str:
    return f"bag-{place:02d}"


def _booster(owner: str, number: int) -> str:
    return f"{owner}-{number}.txt"


def _manifest(parts: Parts, files: Mapping[str, str]) -> str:
    development, facts = parts.development, parts.facts
    certificate = development.certificate
    broken = [f"{one.part} {one.feature}: {one.reason}" for one in certificate.violations]
    return _dumped(
        {
            "format": FORMAT,
            "label": facts.label,
            "horizon": facts.horizon,
            "as_of": facts.as_of.isoformat(),
            "labels_known_on": None if facts.labels_known_on is None else facts.labels_known_on.isoformat(),
            "rows": len(development.oof_defaulted),
            "defaults": int(development.oof_defaulted.sum()),
            "undated": facts.undated,
            "caveats": list(facts.caveats),
            "base_rate": development.pipeline.base_rate,
            "inputs": [asdict(one) for one in development.pipeline.inputs],
            "metrics": {
                "figures": [asdict(one) for one in development.figures],
                "intervals": {name: asdict(one) for name, one in development.intervals.items()},
            },
            "verdict": development.verdict.value,
            "sentence": development.sentence,
            "sentence_zh": development.sentence_zh,
            "alarms": list(facts.alarms),
            "bag": HOW_THE_BAG_IS_MADE,
            "certificate": {
                "holds": certificate.holds,
                "pipelines": 1 + len(development.bag),
                "trees": certificate.trees,
                "pairs": certificate.pairs,
                "coefficients": certificate.coefficients,
                "violations": broken[:_MOST_VIOLATIONS],
            },
            "seeds": dict(development.seeds),
            "data_hash": facts.data_hash,
            "code_version": code_version(),
            "packages": packages(),
            "processor": processor(),
            "files": dict(files),
        }
    )


def _pipelines(folder: Path) -> tuple[Pipeline, tuple[Pipeline, ...]]:
    def read(owner: str, plain: Mapping[str, Any]) -> Pipeline:
        names = [_booster(owner, number) for number in range(plain["boosters"])]
        return Pipeline.from_json(plain, [_read(folder / name) for name in names])

    pipeline = read("pipeline", _json(folder / "pipeline.json"))
    members = enumerate(_json(folder / "bag.json"))
    return pipeline, tuple(read(_member(place), plain) for place, plain in members)


def _broken_promises(manifest: Manifest, pipeline: Pipeline, bag: Sequence[Pipeline]) -> list[str]:
    """What the certificate, computed anew, finds; and members that read or promise something else than the pipeline."""
    promised = [asdict(one) for one in pipeline.inputs]
    problems = [] if promised == list(manifest.inputs) else ["the pipeline promises other directions than the manifest"]
    problems += [
        f"bag member {place}: it has other inputs, directions or encoding than the pipeline"
        for place, member in enumerate(bag, start=1)
        if member.inputs != pipeline.inputs or member.encoder != pipeline.encoder
    ]
    violations = certificate_of([pipeline, *bag]).violations
    problems += [f"{one.part} {one.feature}: {one.reason}" for one in violations[:_MOST_VIOLATIONS]]
    if len(violations) > _MOST_VIOLATIONS:
        problems.append(f"and {len(violations) - _MOST_VIOLATIONS} more places")
    return problems


def _manifest_problems(folder: Path) -> list[str]:
    try:
        content = (folder / _MANIFEST).read_bytes()
    except OSError:
        return [f"{_MANIFEST} is missing"]
    if not folder.name.endswith(f"-{sha256(content).hexdigest()[:12]}"):
        return [f"{_MANIFEST} was changed, or the folder was renamed"]
    return []


def _changed(folder: Path) -> list[str]:
    """Every file that is missing, changed, or not part of the model."""
    problems = _manifest_problems(folder)
    if problems:
        return problems
    expected = manifest_of(folder).files
    present = {path.name for path in folder.iterdir()} - {_MANIFEST}
    for name, stored in expected.items():
        try:
            content = (folder / name).read_bytes()
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if sha256(content).hexdigest() != stored:
            problems.append(f"{name} was changed")
    return problems + [f"{name} does not belong to the model" for name in sorted(present - set(expected))]


def _raise_if(folder: Path, problems: Sequence[str]) -> None:
    if problems:
        raise ArtefactError(f"The stored model {folder.name} is not fit to be served.", problems)


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, indent=1) + "\n"


def _json(path: Path) -> Any:  # noqa: ANN401  (what a JSON file holds)
    return json.loads(_read(path))


def _read(path: Path) -> str:
    return path.read_bytes().decode()


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    with path.open("wb") as handle:
        handle.write(text.encode())
        handle.flush()
        os.fsync(handle.fileno())
