"""Clients with real keys, and assertions as a bank's program signs them."""

import time
import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from api.clients import NewClient, add_client, add_key, public_jwk
from api.tokens import ASSERTION_TYPE

Key = EllipticCurvePrivateKey | Ed25519PrivateKey


def new_key(kind: str = "EdDSA") -> Key:
    return generate_private_key(SECP256R1()) if kind == "ES256" else Ed25519PrivateKey.generate()


def pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Signer:
    """A client that proves itself by a key."""

    client_id: str
    kid: str
    key: Key
    issuer: str

    def claims(self, **other: Any) -> dict[str, Any]:
        """A valid assertion's claims but for `other`; a claim named None is left out."""
        now = int(time.time())
        usual = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": str(uuid.uuid4()),
            "iat": now,
            "exp": now + 120,
        }
        return {name: value for name, value in (usual | other).items() if value is not None}

    def assertion(self, **other: Any) -> str:
        return self.signed(self.claims(**other))

    def signed(self, claims: dict[str, Any], **header: Any) -> str:
        algorithm = "ES256" if isinstance(self.key, EllipticCurvePrivateKey) else "EdDSA"
        return jwt.encode(claims, self.key, algorithm, headers={"kid": self.kid} | header)

    async def asked(self, http: httpx2.AsyncClient, assertion: str | None = None, **form: str) -> httpx2.Response:
        """The token endpoint's answer."""
        usual = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion() if assertion is None else assertion,
        }
        return await http.post("/oauth/token", data=usual | form)

    async def token(self, http: httpx2.AsyncClient) -> str:
        return (await self.asked(http)).raise_for_status().json()["access_token"]


async def signer(owner: asyncpg.Connection, issuer: str, *, kind: str = "EdDSA", role: str = "operator") -> Signer:
    """A new client with a key of its own."""
    key = new_key(kind)
    jwk = public_jwk(public_pem(key))
    return Signer(await add_client(owner, NewClient("a client", role), jwk), jwk["kid"], key, issuer)


async def second_key(owner: asyncpg.Connection, of: Signer) -> Signer:
    """The same client with a further key."""
    key = new_key()
    jwk = public_jwk(pem(key))
    await add_key(owner, of.client_id, jwk)
    return Signer(of.client_id, jwk["kid"], key, of.issuer)
