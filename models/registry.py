"""Which model is served, since when and by whose decision: an append-only log beside the stored models.

    HOME/models/<version>/   stored models (models/artefact.py)
    HOME/registry.jsonl      one line an act, each with the hash of the line before: an edited line breaks the chain
    HOME/registry.head       number and hash of the last line: a log cut short is noticed too
    HOME/registry.lock       held while a line is added

The champion is the version of the last promotion. Nothing is ever taken back: to return to an older model, promote it.
"""

import fcntl
import json
import os
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from data_contracts.errors import ArtefactError, UsageError
from models.artefact import Manifest, Model, Parts, load, manifest_of, save
from models.sources.writing import replacing
from models.verdict import COIN, PHRASES, Verdict

_START = "0" * 64


@dataclass(frozen=True)
class Act:
    """One line of the log: a model was registered, or promoted on the strength of `minutes`."""

    number: int
    at: datetime
    act: str
    version: str
    minutes: str
    previous: str
    hash: str


@dataclass(frozen=True)
class Entry:
    """One registered model: `status` is champion, challenger, or retired (was champion)."""

    version: str
    status: str
    registered_at: datetime
    manifest: Manifest


def models_folder(home: Path) -> Path:
    """Where the stored models of a home folder are."""
    return home / "models"


def register(home: Path, parts: Parts, *, at: datetime) -> str:
    """Store a trained model and enter it as a challenger; returns its version.

    The same model registered again keeps its first entry. `at`, when this happens, has a zone.
    """
    folder = save(models_folder(home), parts)
    with _locked(home):
        if folder.name not in {act.version for act in history(home)}:
            _append(home, "register", folder.name, minutes="", at=at)
    return folder.name


def promote(home: Path, version: str, minutes: str, *, at: datetime, unpromised: Collection[str] = ()) -> Act:
    """Make a registered model the champion; `at`, when this happens, has a zone.

    `minutes` say where its approval is written down. For a model that did not beat the one-variable rule they must
    quote the words that say so (in English or Chinese): whoever signs has read them. A model whose AUC in
    cross-validation is not above that of a coin is promoted by no words. A model with inputs of which the certificate
    says nothing is promoted only if `unpromised` names each of them: the hall cannot quote with it.

    Raises:
        UsageError: no such version, no minutes, words missing from the minutes, no better than a coin, an input without
            a promised direction that is not named, or it is the champion already.
        ArtefactError: the stored model was changed, or its certificate does not hold.
    """
    _require_registered(home, version)
    manifest = load(models_folder(home) / version).manifest
    _require_better_than_a_coin(manifest)
    _require_minutes(minutes, manifest)
    _require_named(manifest, unpromised)
    with _locked(home):
        if champion_version(home) == version:
            raise UsageError(f"{version} is the champion already.")
        return _append(home, "promote", version, minutes=minutes.strip(), at=at)


def champion(home: Path) -> Model | None:
    """The model in force, verified as it is loaded; None before the first promotion."""
    version = champion_version(home)
    return None if version is None else load(models_folder(home) / version)


def champion_version(home: Path) -> str | None:
    """The version of the last promotion."""
    promoted = [act.version for act in history(home) if act.act == "promote"]
    return promoted[-1] if promoted else None


def listed(home: Path) -> tuple[Entry, ...]:
    """Every registered model, oldest first."""
    acts = history(home)
    promoted = [act.version for act in acts if act.act == "promote"]
    return tuple(_entry(home, act, promoted) for act in acts if act.act == "register")


def shown(home: Path, version: str) -> Entry:
    """One registered model.

    Raises:
        UsageError: no such version.
        ArtefactError: its manifest was changed.
    """
    _require_registered(home, version)
    acts = history(home)
    promoted = [act.version for act in acts if act.act == "promote"]
    return next(_entry(home, act, promoted) for act in acts if (act.act, act.version) == ("register", version))


def history(home: Path) -> tuple[Act, ...]:
    """Every act in order, after checking the chain.

    An act whose writing was cut off half-way was never acknowledged and does not count.

    Raises:
        ArtefactError: a line was edited, taken out or added by hand; names the first that does not fit.
    """
    # The head first: a writer adds the line and then moves the head, so a reader never sees a head that runs ahead.
    head = _read_head(home)
    acts: list[Act] = []
    previous = _START
    for number, line in enumerate(_lines(home), start=1):
        act = _act_of(line)
        if act is None or act.previous != previous or act.number != number:
            raise ArtefactError("The registry's log was changed after it was written.", [f"line {number} does not fit"])
        acts.append(act)
        previous = act.hash
    number, last = head
    if number < len(acts) - 1:
        raise ArtefactError("The registry's head was changed after it was written.", ["registry.head"])
    if number > len(acts) or (number and acts[number - 1].hash != last):
        raise ArtefactError("The registry's log was changed after it was written.", [f"it once had {number} lines"])
    return tuple(acts)


def _entry(home: Path, registered: Act, promoted: list[str]) -> Entry:
    version = registered.version
    status = "challenger" if version not in promoted else "champion" if promoted[-1] == version else "retired"
    return Entry(version, status, registered.at, manifest_of(models_folder(home) / version))


def _require_named(manifest: Manifest, unpromised: Collection[str]) -> None:
    if missing := [name for name in manifest.unpromised if name not in unpromised]:
        raise UsageError(
            "The certificate says nothing of columns from outside the catalogue, and no contract delivers them: with "
            "this model as champion every limit quote of the hall is refused. --allow-unpromised NAME lets one in.",
            missing,
        )


def _require_registered(home: Path, version: str) -> None:
    known = [act.version for act in history(home) if act.act == "register"]
    if version not in known:
        raise UsageError(f"There is no model {version}.", [f"registered: {name}" for name in known])


def _require_minutes(minutes: str, manifest: Manifest) -> None:
    if not minutes.strip():
        raise UsageError("A promotion needs the minutes of its approval: say where it is written down.")
    verdict = Verdict(manifest.verdict)
    said = " ".join(minutes.split()).casefold()
    if verdict is Verdict.BEATS or any(phrase.casefold() in said for phrase in PHRASES[verdict]):
        return
    english, chinese = PHRASES[verdict]
    raise UsageError(
        f'The minutes must quote the words "{english}" (or "{chinese}"), since of this model training said: '
        f"{manifest.sentence}"
    )


def _require_better_than_a_coin(manifest: Manifest) -> None:
    own = manifest.metrics["figures"][0]
    area = own["metrics"]["auc"]["mean"]
    if area <= COIN:
        raise UsageError(
            f"The model is not promoted: its AUC in cross-validation is {area:.3f}, no better than a coin.",
            [manifest.sentence],
        )


@contextmanager
def _locked(home: Path) -> Generator[None]:
    """Only one writer at a time; the lock goes with the process, however it ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "registry.lock").open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _append(home: Path, act: str, version: str, *, minutes: str, at: datetime) -> Act:
    """Add one line; the caller holds the lock. The line is on the disk before this returns."""
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    acts = history(home)
    body = {
        "number": len(acts) + 1,
        "at": at.isoformat(),
        "act": act,
        "version": version,
        "minutes": minutes,
        "previous": acts[-1].hash if acts else _START,
    }
    line = _line({**body, "hash": _hash(body)})
    with (home / "registry.jsonl").open("ab") as log:
        whole = sum(len(one) + 1 for one in _lines(home))
        log.truncate(whole)  # a half-written line, never acknowledged
        log.write(line + b"\n")
        log.flush()
        os.fsync(log.fileno())
    with replacing(home / "registry.head") as path:
        path.write_text(f"{body['number']} {_hash(body)}\n", encoding="utf-8")
    written = _act_of(line)
    assert written is not None
    return written


def _lines(home: Path) -> list[bytes]:
    """The whole lines of the log, without their ends."""
    try:
        text = (home / "registry.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    return text.split(b"\n")[:-1]


def _read_head(home: Path) -> tuple[int, str]:
    try:
        number, last = (home / "registry.head").read_text(encoding="utf-8").split()
        return int(number), last
    except FileNotFoundError:
        return 0, _START
    except ValueError as error:
        raise ArtefactError("The registry's head was changed after it was written.", ["registry.head"]) from error


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()


def _hash(body: dict[str, Any]) -> str:
    return sha256(_line(body)).hexdigest()


def _act_of(line: bytes) -> Act | None:
    """The act of a line, or None if the line is not exactly as it was written."""
    try:
        fields: dict[str, Any] = json.loads(line)
        act = Act(**{**fields, "at": datetime.fromisoformat(fields["at"])})
    except (ValueError, TypeError, KeyError):
        return None
    body = {name: value for name, value in fields.items() if name != "hash"}
    return act if act.hash == _hash(body) and _line(fields) == line else None
