"""The OpenAPI 3.1 file: made from the routes, with every problem that an operation may answer (P7)."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import CODES, MEDIA_TYPE, problems
from api.settings import Settings

WITHOUT_KEY = frozenset({"get_token", "query_limits", "poll_events"})
"""Operations by POST that create nothing, or for which repeating is no harm: they need no Idempotency-Key (I1)."""

_ALWAYS = ("not-found", "bad-filter", "internal", "overloaded")
_WITH_TOKEN = ("token-missing", "token-invalid", "token-expired", "scope-missing", "rate-limited")
_WITH_BODY = ("malformed-json", "body-too-large", "media-type")
_WITH_KEY = ("idempotency-key-missing", "idempotency-in-flight", "idempotency-key-reused", "maintenance")
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. Clients branch on `type` and ignore members they do not know.",
    "required": ["type", "title", "status", "trace_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
        "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "errors": {
            "type": "array",
            "description": "of `validation`: every broken rule",
            "items": {
                "type": "object",
                "required": ["rule"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer into the body (RFC 6901)"},
                    "in": {"enum": ["query", "path", "header", "cookie"]},
                    "parameter": {"type": "string"},
                    "rule": {"type": "string", "description": "what must hold"},
                    "kind": {"type": "string"},
                },
            },
        },
        "errors_left_out": {"type": "integer", "description": "of `validation`: how many more rules are broken"},
    },
    "additionalProperties": True,
}
_KEY: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "made by the client for this act, the same at every repetition; kept for 7 days",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The file's content; kept by the application once made."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = _PROBLEM
        for method, operation in operations(made):
            _complete(method, operation)
        app.openapi_schema = made
    return app.openapi_schema


def printed() -> str:
    """The file docs/openapi.json."""
    from api.app import create_app

    return orjson.dumps(
        document(create_app(Settings())), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    ).decode()


def operations(made: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each operation with its method in capitals."""
    for path in made["paths"].values():
        for method, operation in path.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                yield method.upper(), operation


def needs_key(method: str, operation: Mapping[str, Any]) -> bool:
    """Whether the operation wants an Idempotency-Key."""
    return method == "POST" and operation["operationId"] not in WITHOUT_KEY


def _complete(method: str, operation: dict[str, Any]) -> None:
    codes = {*_ALWAYS}
    if operation.get("security"):
        codes |= {*_WITH_TOKEN}
        # One demand a scope: any of them will do, while the scopes of one demand would all be wanted.
        demands = [(scheme, scope) for one in operation["security"] for scheme in one for scope in one[scheme]]
        operation["security"] = [{scheme: [scope]} for scheme, scope in demands]
    if operation.get("requestBody"):
        codes |= {*_WITH_BODY}
    if operation.get("requestBody") or operation.get("parameters"):
        codes |= {"validation"}
    if needs_key(method, operation):
        codes |= {*_WITH_KEY}
        operation.setdefault("parameters", []).append(dict(_KEY))
    responses = operation["responses"]
    # The framework's own 422 names a form of errors that we do not have.
    for status in [one for one in responses if CODES in responses[one] or one == "422"]:
        codes |= set(responses.pop(status).get(CODES, ()))
    for status, response in problems(*codes).items():
        if str(status) in responses:
            continue
        types = [f"/problems/{code}" for code in response[CODES]]
        responses[str(status)] = {
            "description": response["description"],
            "content": {
                MEDIA_TYPE: {
                    "schema": {
                        "allOf": [{"$ref": "#/components/schemas/Problem"}],
                        "properties": {"type": {"enum": types}},
                    }
                }
            },
        }
    operation["responses"] = dict(sorted(responses.items()))
