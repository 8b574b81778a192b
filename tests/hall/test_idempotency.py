"""Idempotency (hall.md §6): whatever becomes of an answer, repeating with the same key is safe."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from api.database import Pool
from tests.hall.callers import Client, Hall, serving

NAMES = "/v1/institutions"


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


@pytest.fixture
async def admin(hall: Hall) -> Client:
    return await hall.client("admin")


async def kept(hall: Hall) -> tuple[int, int]:
    """How many keys and how many institutions there are."""
    row = await hall.owner.fetchrow(
        "SELECT (SELECT count(*) FROM hall.idempotency) AS keys, (SELECT count(*) FROM hall.institution) AS made"
    )
    assert row is not None
    return row["keys"], row["made"]


async def test_i1_an_act_without_a_proper_key_is_400_and_has_no_effect(hall: Hall, admin: Client) -> None:
    for key in (None, b"", b"x" * 256, b"a b", b"\x80"):
        headers = {name.encode(): value.encode() for name, value in admin.headers.items()}
        answer = await hall.http.post(
            NAMES, json={"name": "A"}, headers=headers | ({} if key is None else {b"Idempotency-Key": key})
        )
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/idempotency-key-missing"), key
    assert await kept(hall) == (0, 0)


async def test_i1_two_keys_are_none(hall: Hall, admin: Client) -> None:
    twice = [*admin.headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await hall.http.post(NAMES, json={"name": "A"}, headers=twice)).status_code == 400


async def test_i2_the_same_body_written_otherwise_is_the_same(hall: Hall, admin: Client) -> None:
    async def sent(body: str) -> httpx2.Response:
        headers = admin.headers | {"Idempotency-Key": "k", "Content-Type": "application/json"}
        return await hall.http.post(NAMES, content=body.encode(), headers=headers)

    first = await sent('{"name": "A\u00e4", "size_class": "city", "hold_cap": 10}')
    again = await sent('{ "hold_cap":1.0e1 , "size_class":"city","name":"A\\u00e4" }')
    assert first.status_code == 201
    # 1.0e1 is the same number, but an amount is an integer: the door refuses it before the key is looked at.
    assert again.status_code == 422
    again = await sent('{ "hold_cap":10 , "size_class":"city","name":"A\\u00e4" }')
    assert (again.status_code, again.content) == (201, first.content)


async def test_i2_a_key_is_its_clients_and_operations_own(hall: Hall, admin: Client) -> None:
    other = await hall.client("admin")
    one = (await admin.post(NAMES, {"name": "A"}, key="k")).json()["id"]
    two = (await other.post(NAMES, {"name": "B"}, key="k")).json()["id"]
    outlet = {"name": "O", "district": "350211"}
    assert (await admin.post(f"{NAMES}/{one}/outlets", outlet, key="k")).status_code == 201
    moved = await admin.post(f"{NAMES}/{two}/outlets", outlet, key="k")
    assert (moved.status_code, moved.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await kept(hall) == (3, 2)


async def test_i3_a_repetition_gets_the_same_bytes_and_says_so(hall: Hall, admin: Client) -> None:
    first = await admin.post(NAMES, {"name": "A"}, key="k")
    again = await admin.post(NAMES, {"name": "A"}, key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    other = await admin.post(NAMES, {"name": "B"}, key="k")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await kept(hall) == (1, 1)


async def test_i3_a_key_in_flight_is_409_until_it_is_done(hall: Hall, admin: Client) -> None:
    async with hall.owner.transaction():
        await hall.owner.execute("LOCK TABLE hall.institution IN EXCLUSIVE MODE")
        first = asyncio.create_task(admin.post(NAMES, {"name": "A"}, key="k"))
        await in_the_database(hall)
        second = await admin.post(NAMES, {"name": "A"}, key="k")
        assert (second.status_code, second.json()["type"]) == (409, "/problems/idempotency-in-flight")
        assert second.headers["retry-after"] == "1"
    assert (await first).status_code == 201
    assert (await admin.post(NAMES, {"name": "A"}, key="k")).content == (await first).content


async def in_the_database(hall: Hall) -> int:
    """The backend that waits for a lock, once there is one."""
    while True:
        await hall.owner.execute("SELECT pg_stat_clear_snapshot()")  # a transaction's own list of sessions grows old
        waiting = await hall.owner.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if waiting is not None:
            return int(waiting)
        await asyncio.sleep(0.01)


async def test_i3_fifty_at_once_with_one_key_have_one_effect(hall: Hall, admin: Client) -> None:
    answers = await asyncio.gather(*(admin.post(NAMES, {"name": "A"}, key="k") for _ in range(50)))
    assert {one.status_code for one in answers} <= {201, 409}
    assert len({one.content for one in answers if one.status_code == 201}) == 1
    assert all(one.json()["type"] == "/problems/idempotency-in-flight" for one in answers if one.status_code == 409)
    assert await kept(hall) == (1, 1)


async def test_i4_a_connection_that_breaks_in_the_act_leaves_nothing_and_the_act_is_done_over_another(
    hall: Hall, admin: Client
) -> None:
    async with hall.owner.transaction():
        await hall.owner.execute("LOCK TABLE hall.institution IN EXCLUSIVE MODE")
        first = asyncio.create_task(admin.post(NAMES, {"name": "A"}, key="k"))
        await hall.owner.fetchval("SELECT pg_terminate_backend($1)", await in_the_database(hall))
        assert await kept(hall) == (0, 0)
    assert (await first).status_code == 201
    assert await kept(hall) == (1, 1)


async def test_i4_a_fault_in_the_act_leaves_neither_key_nor_effect(hall: Hall, admin: Client) -> None:
    await hall.owner.execute(
        "CREATE FUNCTION hall.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'secret'; END $$;"
        "CREATE TRIGGER fail AFTER INSERT ON hall.institution EXECUTE FUNCTION hall.fail()"
    )
    answer = await admin.post(NAMES, {"name": "A"}, key="k")
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/internal")
    assert "secret" not in answer.text
    assert await kept(hall) == (0, 0)
    await hall.owner.execute("DROP TRIGGER fail ON hall.institution")
    assert (await admin.post(NAMES, {"name": "A"}, key="k")).status_code == 201


async def test_i5_a_refusal_that_is_not_final_is_not_kept(hall: Hall, admin: Client) -> None:
    wrong = await admin.post(NAMES, {"name": ""}, key="k")
    assert wrong.status_code == 422
    assert (await admin.post(NAMES, {"name": "A"}, key="k")).status_code == 201
    taken = await admin.post(NAMES, {"name": "A"}, key="k2")
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/already-exists")
    assert await kept(hall) == (1, 1)


async def test_i5_a_final_refusal_is_kept_and_repeated_byte_for_byte(hall: Hall, pool: Pool) -> None:
    await hall.owner.execute(
        "CREATE FUNCTION hall.act_lose(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql AS "
        """$$ SELECT '{"refused": "grab-lost", "members": {"round": 1}}'::jsonb $$"""
    )

    async def once(language: str, trace: str) -> asyncpg.Record:
        arguments: list[Any] = ["c", "POST", "/x", "k", b"f" * 32, "lose", {}, {}, language, trace]
        row = await pool.fetchrow("SELECT * FROM hall.once($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", *arguments)
        assert row is not None
        return row

    first, again = await once("zh", "t1"), await once("en", "t2")
    assert json.loads(first["body"])["type"] == "/problems/grab-lost"
    assert (first["status"], first["replayed"], again["replayed"]) == (409, False, True)
    assert first["body"] == again["body"]


async def test_i6_an_answer_is_kept_for_seven_days(hall: Hall, admin: Client) -> None:
    first = await admin.post(NAMES, {"name": "A"}, key="k")
    await hall.owner.execute("INSERT INTO hall.clock_offset VALUES ('default', '6 days 23 hours')")
    await hall.service.pool.execute("SELECT hall.forget_expired()")
    assert (await admin.post(NAMES, {"name": "A"}, key="k")).content == first.content
    await hall.owner.execute("UPDATE hall.clock_offset SET \"offset\" = '7 days 1 hour'")
    await hall.service.pool.execute("SELECT hall.forget_expired()")
    assert await kept(hall) == (0, 1)


async def test_i7_reading_needs_no_key(admin: Client) -> None:
    assert (await admin.get(NAMES)).status_code == 200


async def test_the_service_cannot_change_what_is_kept(pool: Pool) -> None:
    for statement in (
        "UPDATE hall.idempotency SET status = 200",
        "DELETE FROM hall.access_token",
        "UPDATE hall.client SET revoked_at = NULL",
        "INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ('a', 'b', '{}')",
        "UPDATE hall.secret SET value = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(statement)
