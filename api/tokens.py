"""Tokens: a client proves itself by a signed assertion (RFC 7523) and gets 256 random bits that work for ten minutes.

Only the hash of a token is kept, so no process needs a signing key, and revoking a client or a key is one update that
every process sees within 30 seconds. Times are the database's true time: a rehearsal's clock moves no token.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NoReturn

import jwt
import orjson
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.types import Options

from api.calls import Caller
from api.database import Pool
from api.problems import Problem

TOKEN_SECONDS = 600
CACHE_SECONDS = 30.0
MOST_CACHED = 10_000
AHEAD_SECONDS = 60
"""`iat` and `nbf` of an assertion lie less than this in our future: FAPI 2.0 accepts 10 seconds and refuses 60."""
LONGEST_SECONDS = 300
MOST_CHARACTERS = 8_000
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


_ONLY_SIGNATURE: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


@dataclass(frozen=True)
class Grant:
    """A token just made; the only time that it is seen."""

    token: str
    scopes: tuple[str, ...]


class Tokens:
    """Looks tokens up, and remembers each for half a minute."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def caller(self, pool: Pool, authorization: str | None) -> Caller:
        """The client behind the header Authorization.

        Raises:
            Problem: token-missing; token-invalid: unknown or revoked; token-expired.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem("token-missing")
        return await self.caller_by_hash(pool, sha256(token.strip().encode()).digest())

    async def caller_by_hash(self, pool: Pool, token_sha256: bytes) -> Caller:
        """The same by the token's hash; a long stream asks again while it lives.

        Raises:
            Problem: token-invalid, token-expired.
        """
        clock = asyncio.get_running_loop().time
        known = self._known.get(token_sha256)
        if known is not None and clock() < known[0]:
            return known[1]
        self._known.pop(token_sha256, None)
        caller, seconds = await _caller_in_database(pool, token_sha256)
        self._known[token_sha256] = (clock() + min(CACHE_SECONDS, seconds), caller)
        while len(self._known) > MOST_CACHED:
            self._known.popitem(last=False)
        return caller


async def _caller_in_database(pool: Pool, token_sha256: bytes) -> tuple[Caller, float]:
    """The caller and the seconds that its token still has."""
    row = await pool.fetchrow(
        """
        SELECT c.id, c.tenant, c.role, t.scopes, c.institution_id, c.outlet_id, c.uscc, t.expires_at,
            c.revoked_at IS NOT NULL OR k.revoked_at IS NOT NULL AS is_revoked,
            extract(epoch FROM t.expires_at - clock_timestamp())::float8 AS seconds
        FROM hall.access_token AS t
        JOIN hall.client AS c ON c.id = t.client_id
        JOIN hall.client_key AS k ON (k.client_id, k.kid) = (t.client_id, t.kid)
        WHERE t.token_sha256 = $1
        """,
        token_sha256,
    )
    if row is None or row["is_revoked"]:
        _refuse_token("token-invalid")
    if row["seconds"] <= 0:
        _refuse_token("token-expired")
    caller = Caller(
        client_id=row["id"],
        tenant=row["tenant"],
        role=row["role"],
        scopes=frozenset(row["scopes"]),
        institution_id=row["institution_id"],
        outlet_id=row["outlet_id"],
        uscc=row["uscc"],
        token_sha256=token_sha256,
        expires_at=row["expires_at"],
    )
    return caller, row["seconds"]


def _refuse_token(code: str) -> NoReturn:
    raise Problem(code, headers={"WWW-Authenticate": 'Bearer realm="hall", error="invalid_token"'})


# --------------------------------------------------------------------------------------------------------- assertions


async def granted(pool: Pool, issuer: str, assertion: str, asked: frozenset[str] | None) -> Grant:
    """A token for the client that signed the assertion.

    Args:
        pool: of the database that knows the clients' keys.
        issuer: our own name, which `aud` must be as a single string.
        assertion: a JWT by ES256 or EdDSA.
        asked: the scopes wanted; None: all that the client has.

    Raises:
        Problem: client-assertion-invalid, with what is wrong of its form; an unknown client or key and a wrong
            signature are one; scope-missing.
    """
    client_id, kid = _named(assertion)
    row = await pool.fetchrow(
        """
        SELECT k.jwk, c.scopes, clock_timestamp() AS now
        FROM hall.client AS c
        JOIN hall.client_key AS k ON k.client_id = c.id
        WHERE c.id = $1 AND k.kid = $2 AND c.revoked_at IS NULL AND k.revoked_at IS NULL
        """,
        client_id,
        kid,
    )
    if row is None:
        _refuse("the key is not known, or the signature is not its own")
    claims = _verified(assertion, row["jwk"])
    expires_at = _checked(claims, client_id, issuer, row["now"])
    scopes = frozenset(row["scopes"])
    if asked is not None:
        if not asked <= scopes:
            raise Problem("scope-missing", scopes=sorted(asked - scopes))
        scopes = asked
    token = secrets.token_urlsafe(32)
    made = await pool.fetchval(
        """
        WITH seen AS (
            INSERT INTO hall.assertion_seen (client_id, jti, expires_at) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING
            RETURNING client_id
        )
        INSERT INTO hall.access_token (token_sha256, client_id, kid, scopes, issued_at, expires_at)
        SELECT $4, client_id, $5, $6, clock_timestamp(), clock_timestamp() + make_interval(secs => $7) FROM seen
        RETURNING true
        """,
        client_id,
        claims["jti"],
        expires_at,
        sha256(token.encode()).digest(),
        kid,
        sorted(scopes),
        TOKEN_SECONDS,
    )
    if not made:
        _refuse("jti was used before")
    return Grant(token, tuple(sorted(scopes)))


def client_named(assertion: str) -> str:
    """The client that an assertion names; nothing is proved, it is for counting.

    Raises:
        Problem: client-assertion-invalid: it is no JWT.
    """
    return _named(assertion)[0]


def _named(assertion: str) -> tuple[str, str]:
    """The client and the key that an assertion names; nothing of it is proved yet."""
    if len(assertion) > MOST_CHARACTERS:
        _refuse("it is no JWT")
    try:
        header = jwt.get_unverified_header(assertion)
        claims = jwt.decode(assertion, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        _refuse("it is no JWT")
    named = (claims.get("iss"), header.get("kid"))
    if not all(isinstance(one, str) and 0 < len(one) <= 255 and one.isprintable() for one in named):
        _refuse("iss or kid is missing")
    return str(named[0]), str(named[1])


def _verified(assertion: str, jwk: Mapping[str, str]) -> dict[str, Any]:
    """The claims of an assertion signed by the key; the key alone says by which algorithm."""
    text = orjson.dumps(dict(jwk)).decode()
    algorithm, key = (
        ("ES256", ECAlgorithm.from_jwk(text)) if jwk["kty"] == "EC" else ("EdDSA", OKPAlgorithm.from_jwk(text))
    )
    try:
        # Times and audience are checked by the database's clock and stricter rules than the library's.
        return jwt.decode(
            assertion,
            key,  # pyright: ignore[reportArgumentType]  (a public key: stored ones are)
            algorithms=[algorithm],
            options=_ONLY_SIGNATURE,
        )
    except (jwt.PyJWTError, ValueError, RecursionError):
        _refuse("the key is not known, or the signature is not its own")


def _checked(claims: Mapping[str, Any], client_id: str, issuer: str, now: datetime) -> datetime:
    """When the assertion ends; its claims are as A2 wants them."""
    seconds = now.timestamp()
    if claims.get("sub") != client_id:
        _refuse("sub is not iss")
    if claims.get("aud") != issuer:
        _refuse("aud is not our issuer as a single string")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= 255 or not jti.isprintable():
        _refuse("jti is missing")
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    if "exp" not in times or not all(_is_time(one) for one in times.values()):
        _refuse("exp is missing, or a time is no number")
    if times["exp"] <= seconds:
        _refuse("exp has passed")
    if times["exp"] >= seconds + LONGEST_SECONDS + AHEAD_SECONDS or (
        "iat" in times and times["exp"] > times["iat"] + LONGEST_SECONDS
    ):
        _refuse("exp is more than five minutes away")
    if any(times[name] >= seconds + AHEAD_SECONDS for name in ("iat", "nbf") if name in times):
        _refuse("iat or nbf lies in the future")
    return datetime.fromtimestamp(times["exp"], UTC)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40


def _refuse(rule: str) -> NoReturn:
    raise Problem(
        "client-assertion-invalid",
        rule=rule,
        headers={"WWW-Authenticate": 'Bearer realm="hall", error="invalid_client"'},
    )
