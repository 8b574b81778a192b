"""Changes of the API (G2): one dated file, which the list and the headers of deprecated operations are made from."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from email.utils import format_datetime
from importlib.resources import files
from itertools import pairwise
from typing import Literal

from pydantic import Field

from api.machines import Words
from data_contracts.errors import PolicyError
from scoring.strict_yaml import Record, record

LEAST_DAYS = 180
"""A deprecated operation works for so many days at least."""

LIST = "/v1/meta/changes"
_BEIJING = timezone(timedelta(hours=8))
_FILE = "file of changes"


class Change(Record):
    """One change; `sunset` is the day from which a deprecated operation may be gone."""

    on: date
    kind: Literal["added", "changed", "deprecated", "removed"]
    operations: tuple[str, ...] = Field(min_length=1)
    what: Words
    sunset: date | None = None


class Changes(Record):
    """Every change, the earliest first."""

    changes: tuple[Change, ...]

    def deprecated(self) -> Mapping[str, Change]:
        """The deprecation of each operation that has one."""
        return {name: one for one in self.changes if one.kind == "deprecated" for name in one.operations}


def shipped() -> str:
    """The text of this program's own file."""
    return (files("api") / "changes.yaml").read_text(encoding="utf-8")


def parse_changes(text: str, operations: Collection[str]) -> Changes:
    """Read a file of changes.

    Args:
        text: YAML.
        operations: that the API has.

    Raises:
        PolicyError: with every operation that there is not and every day that does not fit.
    """
    read = record(text, Changes, _FILE)
    problems = [
        f"changes.{place}: {problem}"
        for place, one in enumerate(read.changes)
        for problem in (*_misnamed(one, read, operations), *_misdated(one))
    ]
    problems += [
        f"changes.{place}: comes after {before.on}, which is later"
        for place, (before, one) in enumerate(pairwise(read.changes), start=1)
        if one.on < before.on
    ]
    if problems:
        raise PolicyError(f"the {_FILE} is wrong", problems)
    return read


def _misnamed(one: Change, read: Changes, operations: Collection[str]) -> list[str]:
    removed = {name for other in read.changes if other.kind == "removed" for name in other.operations}
    if one.kind == "removed":
        ended = read.deprecated()
        return [f"{name} is still there" for name in one.operations if name in operations] + [
            f"{name} was not deprecated with a sunset until then"
            for name in one.operations
            if name not in ended or (ended[name].sunset or date.max) > one.on
        ]
    problems = [f"no operation is named {name}" for name in one.operations if name not in removed | set(operations)]
    if one.kind == "deprecated":
        named = [name for other in read.changes if other.kind == "deprecated" for name in other.operations]
        problems += [f"{name} is deprecated twice" for name in sorted(set(one.operations)) if named.count(name) > 1]
    return problems


def _misdated(one: Change) -> list[str]:
    if one.kind != "deprecated":
        return [] if one.sunset is None else [f"a sunset is of a deprecation, not of what was {one.kind}"]
    if one.sunset is None:
        return ["a deprecation has a sunset"]
    if one.sunset < one.on + timedelta(days=LEAST_DAYS):
        return [f"the sunset {one.sunset} is less than {LEAST_DAYS} days after {one.on}"]
    return []


def headers_of(change: Change) -> list[tuple[str, str]]:
    """Headers of every answer of a deprecated operation: `Deprecation` (RFC 9745), `Sunset` (RFC 8594), `Link`."""
    assert change.sunset is not None  # parse_changes
    return [
        ("Deprecation", f"@{int(_begin(change.on).timestamp())}"),
        ("Sunset", format_datetime(_begin(change.sunset).astimezone(UTC), usegmt=True)),
        ("Link", f'<{LIST}>; rel="deprecation"; type="application/json"'),
    ]


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), _BEIJING)
