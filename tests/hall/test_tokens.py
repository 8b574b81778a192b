"""Tokens: who gets one, what it may do, how long it works, and how fast it stops (hall.md §10, reliability.md API2)."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path

import httpx2
import jwt
import pytest

from api import tokens
from api.clients import public_jwk, revoke
from api.scopes import ROLES
from api.tokens import CACHE_SECONDS, TOKEN_SECONDS, Tokens
from data_contracts.errors import UsageError
from tests.hall.callers import Hall, serving
from tests.hall.keys import Signer, new_key, pem, public_pem, second_key, signer


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def caller(hall: Hall, **other: str) -> Signer:
    return await signer(hall.owner, hall.service.issuer, **other)


async def status(hall: Hall, token: str) -> int:
    """Of a call with the token whose scope it lacks: 403 when it is good, 401 when it is not."""
    return (await hall.http.get("/v1/institutions", headers={"Authorization": f"Bearer {token}"})).status_code


@pytest.mark.parametrize("kind", ["ES256", "EdDSA"])
async def test_a1_a_signed_assertion_gets_a_token_for_ten_minutes(hall: Hall, kind: str) -> None:
    mine = await caller(hall, kind=kind)
    answer = await mine.asked(hall.http)
    body = answer.json()
    assert (answer.status_code, body["token_type"], body["expires_in"]) == (200, "Bearer", TOKEN_SECONDS)
    assert body["scope"].split() == sorted(ROLES["operator"])
    assert answer.headers["cache-control"] == "no-store"
    assert await status(hall, body["access_token"]) == 403
    row = await hall.owner.fetchrow("SELECT *, expires_at - issued_at AS lives FROM hall.access_token")
    assert row is not None
    assert abs(row["lives"].total_seconds() - TOKEN_SECONDS) < 0.01, "the clock is read for each of the two"
    assert row["token_sha256"] == sha256(body["access_token"].encode()).digest()
    assert len(base64.urlsafe_b64decode(body["access_token"] + "==")) * 8 == 256


def unsigned(mine: Signer) -> str:
    return jwt.encode(mine.claims(), "", "none", headers={"kid": mine.kid})


def signed_with_the_public_key(mine: Signer) -> str:
    """HS256 whose secret is what everybody knows; by hand, since the library refuses to do it."""
    import hmac

    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    head = part({"alg": "HS256", "typ": "JWT", "kid": mine.kid}) + b"." + part(mine.claims())
    mac = hmac.digest(public_pem(mine.key), head, "sha256")
    return (head + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def nested(mine: Signer) -> str:
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    return f"{deep}.{deep[:100]}.x"


NOW = time.time
BAD: dict[str, Callable[[Signer], str]] = {
    "alg none": unsigned,
    "HS256 with the public key": signed_with_the_public_key,
    "another key": lambda mine: Signer(mine.client_id, mine.kid, new_key(), mine.issuer).assertion(),
    "another algorithm's key": lambda mine: Signer(mine.client_id, mine.kid, new_key("ES256"), mine.issuer).assertion(),
    "altered": lambda mine: mine.assertion()[:-6] + "AAAAAA",
    "no JWT": lambda _: "x",
    "two parts": lambda mine: mine.assertion().rsplit(".", 1)[0],
    "nested": nested,
    "long": lambda mine: mine.assertion(extra="x" * 9000),
    "aud of another": lambda mine: mine.assertion(aud="https://other.example"),
    "aud as a list": lambda mine: mine.assertion(aud=[mine.issuer]),
    "aud missing": lambda mine: mine.assertion(aud=None),
    "sub of another": lambda mine: mine.assertion(sub="cn_other"),
    "iss unknown": lambda mine: mine.assertion(iss="cn_other", sub="cn_other"),
    "iss with U+0000": lambda mine: mine.assertion(iss="a\x00", sub="a\x00"),
    "iss a number": lambda mine: jwt.PyJWS().encode(
        json.dumps(mine.claims() | {"iss": 7}).encode(), pem(mine.key), "EdDSA", {"kid": mine.kid}
    ),
    "kid unknown": lambda mine: mine.signed(mine.claims(), kid="other"),
    "exp passed": lambda mine: mine.assertion(iat=None, exp=int(NOW()) - 1),
    "exp missing": lambda mine: mine.assertion(exp=None),
    "exp a text": lambda mine: mine.assertion(exp=str(int(NOW()) + 60)),
    "exp true": lambda mine: mine.assertion(exp=True),
    "exp after six minutes": lambda mine: mine.assertion(iat=None, exp=int(NOW()) + 361),
    "longer than five minutes": lambda mine: mine.assertion(exp=int(NOW()) + 310),
    "iat 61 s ahead": lambda mine: mine.assertion(iat=int(NOW()) + 61),
    "nbf 61 s ahead": lambda mine: mine.assertion(nbf=int(NOW()) + 61),
    "jti missing": lambda mine: mine.assertion(jti=None),
    "jti empty": lambda mine: mine.assertion(jti=""),
    "jti with U+0000": lambda mine: mine.assertion(jti="a\x00"),
    "jti with half a surrogate pair": lambda mine: mine.assertion(jti="a\ud800"),
}


async def test_a2_a_bad_assertion_is_401_and_makes_no_token(hall: Hall) -> None:
    mine = await caller(hall)
    for name, bad in BAD.items():
        answer = await mine.asked(hall.http, bad(mine))
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/client-assertion-invalid"), name
        assert answer.headers["content-type"] == "application/problem+json"
        assert "invalid_client" in answer.headers["www-authenticate"]
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.access_token") == 0
    assert (await mine.asked(hall.http)).status_code == 200


@pytest.mark.parametrize("ahead", [-9, 9])
async def test_a2_a_clock_nine_seconds_off_is_accepted(hall: Hall, ahead: int) -> None:
    mine = await caller(hall)
    now = int(time.time()) + ahead
    assert (await mine.asked(hall.http, mine.assertion(iat=now, nbf=now, exp=now + 300))).status_code == 200


async def test_a2_a_jti_counts_once_also_when_sent_twenty_times_at_once(hall: Hall) -> None:
    mine = await caller(hall)
    same = mine.assertion()
    answers = await asyncio.gather(*(mine.asked(hall.http, same) for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [200] + 19 * [401]
    other = await caller(hall)
    jti = jwt.decode(same, options={"verify_signature": False})["jti"]
    assert (await other.asked(hall.http, other.assertion(jti=jti))).status_code == 200, "a jti is its client's own"


async def test_a3_keys_rotate_without_a_break_and_a_revoked_one_stops_within_a_minute(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CACHE_SECONDS <= 60
    monkeypatch.setattr(tokens, "CACHE_SECONDS", 0.3)
    old = await caller(hall)
    new = await second_key(hall.owner, old)
    by_old, by_new = await old.token(hall.http), await new.token(hall.http)
    assert [await status(hall, one) for one in (by_old, by_new)] == [403, 403]
    await revoke(hall.owner, old.client_id, old.kid)
    assert (await old.asked(hall.http)).status_code == 401
    assert (await new.asked(hall.http)).status_code == 200
    hall.service.tokens, here = Tokens(), hall.service.tokens
    assert await status(hall, by_old) == 401, "another process hears of it at once"
    hall.service.tokens = here
    await asyncio.sleep(0.4)
    assert [await status(hall, one) for one in (by_old, by_new)] == [401, 403]
    await revoke(hall.owner, old.client_id)
    await asyncio.sleep(0.4)
    assert await status(hall, by_new) == 401
    with pytest.raises(UsageError):
        await revoke(hall.owner, old.client_id)


async def test_a_token_that_is_missing_unknown_or_expired_says_which(hall: Hall) -> None:
    async def refusal(header: dict[str, str]) -> tuple[int, str, str]:
        answer = await hall.http.get("/v1/institutions", headers=header)
        return answer.status_code, answer.json()["type"], answer.headers["www-authenticate"]

    missing = (401, "/problems/token-missing", 'Bearer realm="hall"')
    assert await refusal({}) == missing
    assert await refusal({"Authorization": "Basic eDp5"}) == missing
    assert await refusal({"Authorization": "Bearer"}) == missing
    invalid = 'Bearer realm="hall", error="invalid_token"'
    assert await refusal({"Authorization": "Bearer x"}) == (401, "/problems/token-invalid", invalid)
    mine = await caller(hall)
    token = await mine.token(hall.http)
    await hall.owner.execute("UPDATE hall.access_token SET expires_at = clock_timestamp()")
    assert await refusal({"Authorization": f"Bearer {token}"}) == (401, "/problems/token-expired", invalid)


async def test_a_token_lives_by_true_time_and_not_by_a_rehearsals_clock(hall: Hall) -> None:
    await hall.owner.execute("INSERT INTO hall.clock_offset VALUES ('default', '30 days')")
    mine = await caller(hall)
    assert await status(hall, await mine.token(hall.http)) == 403


async def test_a_client_may_ask_for_fewer_scopes_and_for_no_others(hall: Hall) -> None:
    mine = await caller(hall)
    assert (await mine.asked(hall.http, scope="stats:read")).json()["scope"] == "stats:read"
    more = await mine.asked(hall.http, scope="stats:read admin:write")
    assert (more.status_code, more.json()["type"], more.json()["scopes"]) == (
        403,
        "/problems/scope-missing",
        ["admin:write"],
    )


async def test_the_form_is_closed_and_every_broken_rule_is_named(hall: Hall) -> None:
    async def rules(**form: str) -> set[str]:
        answer = await hall.http.post("/oauth/token", data=form)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/validation")
        return {one["pointer"] for one in answer.json()["errors"]}

    assert await rules(grant_type="password", username="x") == {
        "/grant_type", "/username", "/client_assertion_type", "/client_assertion",
    }  # fmt: skip
    as_json = await hall.http.post("/oauth/token", json={"grant_type": "client_credentials"})
    assert as_json.status_code == 415
    twice = await hall.http.post(
        "/oauth/token",
        content="grant_type=client_credentials&grant_type=client_credentials",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert {"pointer": "/grant_type", "rule": "repeated"} in twice.json()["errors"]


@pytest.mark.parametrize("kind", ["ES256", "EdDSA"])
def test_a_key_is_read_from_pem_and_jwk_public_and_private_to_the_same_public_half(kind: str) -> None:
    key = new_key(kind)
    jwk = public_jwk(pem(key))
    assert public_jwk(public_pem(key)) == jwk
    assert public_jwk(json.dumps(jwk).encode()) == jwk
    assert "d" not in jwk


@pytest.mark.parametrize("text", [b"", b"{}", b'{"kty": "RSA", "n": "AQ", "e": "AQAB"}', b"-----BEGIN PUBLIC KEY-----"])
def test_another_kind_of_key_is_refused(text: bytes) -> None:
    with pytest.raises(UsageError):
        public_jwk(text)


async def test_a_token_is_asked_for_at_a_pace(database: str, tmp_path: Path) -> None:
    """G3."""
    async with serving(database, tmp_path, rate_limits=True) as hall:
        mine = await signer(hall.owner, hall.service.issuer)
        answers: list[httpx2.Response] = await asyncio.gather(*(mine.asked(hall.http) for _ in range(25)))
        refused = [one for one in answers if one.status_code == 429]
        assert len([one for one in answers if one.status_code == 200]) in range(20, 25)
        assert all(one.json()["type"] == "/problems/rate-limited" for one in refused)
        other = await signer(hall.owner, hall.service.issuer)
        assert (await other.asked(hall.http)).status_code == 200, "one client's haste is not another's"
