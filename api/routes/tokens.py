"""The token endpoint (RFC 6749, RFC 7523)."""

from typing import Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.calls import answer
from api.limits import ADDRESSES, TOKENS
from api.problems import Problem, problems
from api.scopes import SCOPES
from api.tokens import ASSERTION_TYPE, TOKEN_SECONDS, client_named, granted

router = APIRouter(tags=["tokens"])

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "client_assertion_type", "client_assertion"],
                    "additionalProperties": False,
                    "properties": {
                        "grant_type": {"const": "client_credentials"},
                        "client_assertion_type": {"const": ASSERTION_TYPE},
                        "client_assertion": {
                            "type": "string",
                            "description": "JWT by ES256 or EdDSA, `kid` in its header",
                        },
                        "scope": {"type": "string", "description": "with blanks between; absent: all of the client's"},
                    },
                }
            }
        },
    }
}
_KNOWN = ("grant_type", "client_assertion_type", "client_assertion", "scope")


class Token(BaseModel):
    """An access token. It is shown once."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int
    scope: str


@router.post(
    "/oauth/token",
    response_model=Token,
    responses=problems("client-assertion-invalid", "scope-missing", "rate-limited", "validation"),
    openapi_extra=_FORM,
)
async def get_token(request: Request) -> Response:
    """Get a token for ten minutes by a signed assertion."""
    service = request.app.state.service
    address = request.client.host if request.client else ""
    service.limits.count(request, ADDRESSES, address)
    form = _form(request.scope["state"]["body"] or b"")
    service.limits.count(request, TOKENS, f"{client_named(form['client_assertion'])} {address}")
    asked = form.get("scope")
    grant = await granted(
        service.pool, service.issuer, form["client_assertion"], None if asked is None else frozenset(asked.split())
    )
    return answer(
        {
            "access_token": grant.token,
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "scope": " ".join(grant.scopes),
        },
        headers={"Cache-Control": "no-store", "Pragma": "no-cache"},
    )


def _form(body: bytes) -> dict[str, str]:
    """The form's parameters.

    Raises:
        Problem: validation, with every parameter that is unknown, missing, repeated or of another value.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        pairs = []
    form = dict(pairs)
    wrong = [("unknown", name) for name in form if name not in _KNOWN]
    wrong += [("repeated", name) for name in _KNOWN if [one for one, _ in pairs].count(name) > 1]
    wrong += [("missing", name) for name in _KNOWN[:3] if not form.get(name)]
    wanted = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
    wrong += [(f"is {value}", name) for name, value in wanted.items() if form.get(name, value) != value]
    if not set(form.get("scope", "").split()) <= set(SCOPES):
        wrong.append(("names scopes of the hall", "scope"))
    if wrong:
        raise Problem(
            "validation",
            errors=[{"pointer": f"/{_shown(name)}", "rule": rule} for rule, name in wrong],
        )
    return form


def _shown(name: str) -> str:
    return name[:64].replace("~", "~0").replace("/", "~1")
