"""The programs that call: added, listed and revoked by the operator, and what of theirs is forgotten in time."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson
import rfc8785
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.exceptions import PyJWTError
from jwt.utils import base64url_encode

from api.database import Connection
from api.scopes import ROLES
from data_contracts.errors import UsageError
from data_contracts.uscc import CodeState, code_state

if TYPE_CHECKING:
    from api.service import Service

FORGET_SECONDS = 600
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True)
class NewClient:
    """A client to be added; `scopes` None: all that its role may have."""

    name: str
    role: str
    institution_id: str | None = None
    outlet_id: str | None = None
    uscc: str | None = None
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ClientRow:
    """A client as `jifen clients list` shows it; `keys` are those that still work."""

    id: str
    name: str
    role: str
    institution_id: str | None
    keys: tuple[str, ...]
    revoked_at: datetime | None


# ---------------------------------------------------------------------------------------------------------------- keys


def public_jwk(text: bytes) -> dict[str, str]:
    """The public half of a key as a JWK with its `kid`: the one it brings, else its thumbprint (RFC 7638).

    Args:
        text: a JWK or a PEM, public or private; P-256 or Ed25519.

    Raises:
        UsageError: it is neither, or of another kind.
    """
    try:
        named = orjson.loads(text) if text.lstrip().startswith(b"{") else {}
        key = _of_jwk(named) if named else _of_pem(text)
    except (ValueError, TypeError, KeyError, PyJWTError, UnsupportedAlgorithm) as error:
        raise UsageError("The key cannot be read: a JWK or PEM of P-256 or Ed25519 is needed.") from error
    members = _members(key)
    kid = named.get("kid") or base64url_encode(sha256(rfc8785.dumps(members)).digest()).decode()
    if not isinstance(kid, str) or not 0 < len(kid) <= 255 or not kid.isprintable():
        raise UsageError("The key's kid is no text of 1 to 255 characters.")
    return {**members, "kid": kid}


def _of_jwk(jwk: Mapping[str, Any]) -> object:
    text = orjson.dumps(jwk).decode()
    return ECAlgorithm.from_jwk(text) if jwk["kty"] == "EC" else OKPAlgorithm.from_jwk(text)


def _of_pem(text: bytes) -> object:
    if b"PRIVATE KEY" in text:
        return serialization.load_pem_private_key(text, password=None)
    return serialization.load_pem_public_key(text)


def _members(key: object) -> dict[str, str]:
    """The members of the thumbprint of a key's public half."""
    if isinstance(key, EllipticCurvePrivateKey | Ed25519PrivateKey):
        key = key.public_key()
    if isinstance(key, Ed25519PublicKey):
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"crv": "Ed25519", "kty": "OKP", "x": base64url_encode(raw).decode()}
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        numbers = key.public_numbers()
        x, y = (base64url_encode(one.to_bytes(32, "big")).decode() for one in (numbers.x, numbers.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    raise UsageError("The key is of another kind: P-256 or Ed25519 is needed.")


def new_key(path: Path) -> bytes:
    """Make an Ed25519 key, keep its private half in a new file that its owner alone can read, return its PEM.

    Raises:
        FileExistsError: there is such a file.
    """
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(pem)
    return pem


# ------------------------------------------------------------------------------------------------------------- clients


async def add_client(connection: Connection, new: NewClient, jwk: Mapping[str, str]) -> str:
    """Add a client with its first key, as the owner of the database.

    A client for an enterprise that the hall does not know yet registers it under the client's name.

    Returns:
        Its id, the `iss` and `sub` of its assertions.

    Raises:
        UsageError: the role, a scope, the institution or the code does not fit.
    """
    wrong = [] if new.role in ROLES else [f"role {new.role}: one of {', '.join(ROLES)}"]
    least = ROLES.get(new.role, ())
    wrong += [f"scope {one}: a {new.role} cannot have it" for one in new.scopes or () if one not in least]
    if new.uscc is not None and code_state(new.uscc) is CodeState.INVALID:
        wrong.append("--uscc is no credit code: 18 characters, of which the last proves the others")
    if wrong:
        raise UsageError("The client cannot be added.", wrong)
    try:
        async with connection.transaction():
            if new.uscc is not None:
                await connection.execute(
                    "INSERT INTO hall.enterprise (uscc, name) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    new.uscc,
                    new.name,
                )
            client_id = await connection.fetchval(
                """
                INSERT INTO hall.client (id, name, role, scopes, institution_id, outlet_id, uscc)
                VALUES (hall.new_id('cn'), $1, $2, $3, $4, $5, $6)
                RETURNING id
                """,
                new.name,
                new.role,
                list(least if new.scopes is None else new.scopes),
                new.institution_id,
                new.outlet_id,
                new.uscc,
            )
            await add_key(connection, str(client_id), jwk)
    except asyncpg.IntegrityConstraintViolationError as error:
        raise UsageError("The client cannot be added.", [_meaning(error)]) from error
    return str(client_id)


def _meaning(error: asyncpg.IntegrityConstraintViolationError) -> str:
    match getattr(error, "constraint_name", None):
        case "bank_has_institution":
            return "a bank or institution-manager needs --institution, and nobody else has one"
        case "enterprise_has_code":
            return "an enterprise needs --uscc, and nobody else has one"
        case str(name) if name.startswith("client_institution_id"):
            return "there is no such institution, or the outlet is not its own"
        case name:
            return f"it breaks {name}"


async def add_key(connection: Connection, client_id: str, jwk: Mapping[str, str]) -> None:
    """Add a further key, so that the former can be revoked without a break (A3).

    Raises:
        UsageError: there is no such client, or it has a key of this kid, perhaps a revoked one.
    """
    try:
        await connection.execute(
            "INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ($1, $2, $3::text::jsonb)",
            client_id,
            jwk["kid"],
            orjson.dumps(dict(jwk)).decode(),
        )
    except asyncpg.UniqueViolationError as error:
        raise UsageError(f"The client has a key {jwk['kid']} already; a revoked one does not come back.") from error
    except asyncpg.ForeignKeyViolationError as error:
        raise UsageError(f"There is no client {client_id}.") from error


async def revoke(connection: Connection, client_id: str, kid: str | None = None) -> None:
    """Revoke a client, or one key of it: no new token from now on, no call with an old one after 30 seconds.

    Raises:
        UsageError: there is none, or it is revoked already.
    """
    if kid is None:
        done = await connection.fetchval(
            "UPDATE hall.client SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL RETURNING true",
            client_id,
        )
    else:
        done = await connection.fetchval(
            """
            UPDATE hall.client_key SET revoked_at = clock_timestamp()
            WHERE client_id = $1 AND kid = $2 AND revoked_at IS NULL
            RETURNING true
            """,
            client_id,
            kid,
        )
    if not done:
        raise UsageError("There is nothing to revoke: no such client or key, or it is revoked already.")


async def all_clients(connection: Connection) -> list[ClientRow]:
    """Every client, the newest last."""
    rows = await connection.fetch(
        """
        SELECT id, name, role, institution_id, revoked_at, ARRAY(
            SELECT kid FROM hall.client_key WHERE client_id = c.id AND revoked_at IS NULL ORDER BY added_at
        ) AS keys
        FROM hall.client AS c
        ORDER BY created_at, id
        """
    )
    return [ClientRow(**{**row, "keys": tuple(row["keys"])}) for row in map(dict, rows)]


async def forget_expired(service: "Service") -> None:
    """Every ten minutes forget dead tokens and assertions, and answers that were kept for seven days (I6)."""
    while True:
        await service.pool.execute("SELECT hall.forget_expired()")
        await asyncio.sleep(FORGET_SECONDS)
