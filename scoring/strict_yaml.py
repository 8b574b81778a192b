"""YAML as policy needs it: nothing lost in silence, nothing guessed, every problem at once.

PyYAML's own loader keeps the last of two equal keys, reads `no` as false, `010` as eight and `12:30` as 750. Here a
repeated key is a problem, only `true` and `false` are booleans, numbers are decimal (`1_500` is allowed), days are
`YYYY-MM-DD`, keys are text, and anchors, aliases and tags are refused. Sequences come back as tuples.
"""

import re
from datetime import date
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from data_contracts.errors import PolicyError

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,24})")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]{0,24})\.[0-9]{1,24}")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml reads a policy in a tenth of the time; it comes with PyYAML's wheels, not with every build of PyYAML."""
_MOST_DEPTH = 30
_MOST_CHARACTERS = 1_000_000


class Record(BaseModel):
    """A piece of a policy or ruleset: frozen, closed to unknown keys, no value turned into another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


R = TypeVar("R", bound=Record)


def record(text: str, shape: type[R], what: str) -> R:
    """Read `text` as one `shape`.

    A validator of `shape` may name several problems at once: one a line of its `ValueError`.

    Args:
        text: YAML, one document, at most 1,000,000 characters.
        shape: the record it must be.
        what: how a message names it, such as "ruleset".

    Raises:
        PolicyError: with every repeated key, unknown key, missing key and wrong value.
    """
    problems: list[str] = []
    values = _plain(_document(text, what), "", problems)
    try:
        found = shape.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            place = ".".join(str(step) for step in detail["loc"])
            sentences = detail["msg"].removeprefix("Value error, ").splitlines()
            problems.extend(f"{place}: {sentence}" if place else sentence for sentence in sentences)
    else:
        if not problems:
            return found
    raise PolicyError(f"the {what} is wrong", problems)


def _document(text: str, what: str) -> yaml.Node:
    if len(text) > _MOST_CHARACTERS:
        raise PolicyError(f"the {what} is wrong", [f"longer than {_MOST_CHARACTERS:,} characters"])
    try:
        _refuse_what_is_not_plain(text)
        node = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError) as error:
        raise PolicyError(f"the {what} is not readable YAML", [" ".join(str(error).split())]) from error
    if node is None:
        raise PolicyError(f"the {what} is wrong", ["it is empty"])
    return node


def _refuse_what_is_not_plain(text: str) -> None:
    """Walk the events, which takes no recursion, before anything recursive reads the text."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise ValueError(f"nested deeper than {_MOST_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            line = event.start_mark.line + 1
            raise ValueError(f"line {line}: anchors, aliases and tags are refused, write the value out")


def _plain(node: yaml.Node, place: str, problems: list[str]) -> object:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, place, problems)
    if isinstance(node, yaml.SequenceNode):
        return tuple(_plain(item, f"{place}.{number}".lstrip("."), problems) for number, item in enumerate(node.value))
    values: dict[str, object] = {}
    for key, value in node.value:
        name = str(key.value)
        inner = f"{place}.{name}".lstrip(".")
        if not isinstance(key, yaml.ScalarNode):
            problems.append(f"{place or 'top'}: line {key.start_mark.line + 1}: a key must be text")
            continue
        if name in values:
            problems.append(f"{inner}: line {key.start_mark.line + 1}: the key is repeated")
        values[name] = _plain(value, inner, problems)
    return values


def _scalar(node: yaml.ScalarNode, place: str, problems: list[str]) -> object:
    text: str = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _DAY.fullmatch(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            problems.append(f"{place}: line {node.start_mark.line + 1}: {text} is no day of the calendar")
    return text
