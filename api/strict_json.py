"""JSON as we take it (I-JSON, RFC 7493): one meaning, no repeated names, nothing that PostgreSQL cannot keep."""

import json
import math
from typing import Any, NoReturn

from api.problems import Problem

MOST_DEPTH = 32


def strict_json(body: bytes) -> Any:  # noqa: ANN401  (whatever JSON says)
    """What the body says.

    Raises:
        Problem: malformed-json: no UTF-8 JSON, a repeated name, deeper than 32, a text or number outside I-JSON.
    """
    try:
        found = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        _refuse("the body is no UTF-8")
    except json.JSONDecodeError as error:
        _refuse(f"{error.msg} at character {error.pos}")
    except (ValueError, RecursionError):
        _refuse("a number or the nesting is out of bounds")
    _check(found, texts=b"\\u" in body)
    return found


def _check(found: object, *, texts: bool) -> None:
    """Refuse nesting, numbers and, where escapes may have brought them in, characters that have no meaning."""
    level, depth = [found], 0
    while level:
        if depth > MOST_DEPTH:
            _refuse(f"the body is nested deeper than {MOST_DEPTH}")
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
                if texts:
                    inner += one
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, float) and not math.isfinite(one):
                _refuse("a number is out of bounds")
            elif texts and isinstance(one, str) and any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in one):
                _refuse("a text holds U+0000 or half a character")
        level, depth = inner, depth + 1


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        _refuse("an object names a member twice")
    return members


def _no_constant(name: str) -> NoReturn:
    _refuse(f"{name} is no JSON")


def _refuse(detail: str) -> NoReturn:
    raise Problem("malformed-json", detail=detail)


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
