"""Who sees what (hall.md §11): a bank sees a limit under a consent that lives, and every look is on record."""

import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
import rfc8785

from data_contracts.uscc import made_up_code
from tests.ground import ground
from tests.hall import made
from tests.hall.callers import Client, Hall, serving

SHA = "ab" * 32


@pytest.fixture
async def hall(town_database: str) -> AsyncIterator[Hall]:
    async with serving(town_database, ground().home) as served:
        yield served


class Scene:
    """An enterprise with a quote, and two banks."""

    def __init__(self, hall: Hall, uscc: str, enterprise: Client, banks: list[Client], ids: list[str]) -> None:
        self.hall, self.uscc, self.enterprise, self.banks, self.ids = hall, uscc, enterprise, banks, ids

    async def consent(self, **other: Any) -> httpx2.Response:
        body = {
            "signer": "法定代表人",
            "method": "ca-signature",
            "evidence_sha256": SHA,
            "purpose": "financing",
            "data_sets": ["limit"],
            "recipients": [self.ids[0]],
            "to": "2027-01-01T00:00:00Z",
        }
        whole = {name: value for name, value in (body | other).items() if value is not ...}
        return await self.enterprise.post(f"/v1/enterprises/{self.uscc}/consents", whole)

    async def look(self, bank: int = 0, purpose: str = "financing") -> httpx2.Response:
        return await self.banks[bank].get(f"/v1/enterprises/{self.uscc}/limit", purpose=purpose)

    async def log(self) -> list[asyncpg.Record]:
        return await self.hall.owner.fetch("SELECT * FROM hall.access_log ORDER BY id")


@pytest.fixture
async def scene(hall: Hall) -> Scene:
    uscc = str(ground().best["uscc"])
    enterprise = await hall.client("enterprise", uscc=uscc)
    ids = [await hall.institution(name) for name in ("first", "second")]
    banks = [await hall.client("bank", institution=one) for one in ids]
    quoted = await enterprise.post("/v1/limit-quotes", {"uscc": uscc, "scheme": "torch-points"})
    assert quoted.status_code == 201, quoted.text
    return Scene(hall, uscc, enterprise, banks, ids)


def problem(answered: httpx2.Response) -> str:
    return answered.json()["type"].removeprefix("/problems/")


async def test_p5_a_limit_is_shown_under_a_consent_that_names_the_bank_and_no_other(scene: Scene) -> None:
    assert problem(await scene.look()) == "consent-missing"
    given = (await scene.consent()).json()
    shown = (await scene.look()).json()
    assert shown["consent_id"] == given["consent_id"]
    assert shown["limit"]["limit_fen"] == ground().best["limit_fen"]
    assert "conditional" not in str(shown)
    assert problem(await scene.look(bank=1)) == "consent-missing"
    assert problem(await scene.look(purpose="marketing")) == "consent-missing"
    looks = [(one["institution_id"], one["consent_id"], one["withheld"]) for one in await scene.log()]
    first, second = scene.ids
    assert looks == [
        (first, None, "consent-missing"),
        (first, given["consent_id"], None),
        (second, None, "consent-missing"),
        (first, None, "consent-missing"),
    ]
    seen = (await scene.enterprise.get(f"/v1/enterprises/{scene.uscc}/accesses")).json()["accesses"]
    assert [(one["institution"], one["withheld"]) for one in reversed(seen)] == [
        ("first", "consent-missing"),
        ("first", None),
        ("second", "consent-missing"),
        ("first", "consent-missing"),
    ]


async def test_a_consent_that_does_not_cover_the_look_shows_nothing(scene: Scene) -> None:
    uncovered: list[dict[str, Any]] = [
        {"data_sets": ["facts"]},
        {"purpose": "post-loan"},
        {"from": "2026-12-01T00:00:00Z"},
        {"recipients": ["claiming-institution"]},
    ]
    for other in uncovered:
        given = await scene.consent(**other)
        assert given.status_code == 201, given.text
        assert problem(await scene.look()) == "consent-missing"


async def test_a_consent_without_evidence_or_of_wrong_form_is_refused(scene: Scene) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"evidence_sha256": ...}, "/evidence_sha256"),
        ({"evidence_sha256": "abc"}, "/evidence_sha256"),
        ({"recipients": ["in_" + "0" * 32]}, "/recipients/0"),
        ({"to": "2026-06-01T00:00:00Z"}, "/to"),
        ({"data_sets": ["limit", "limit"]}, ""),
        ({"reason": "none"}, "/reason"),
    ]
    for other, pointer in refusals:
        refused = await scene.consent(**other)
        assert refused.status_code == 422
        assert [one["pointer"] for one in refused.json()["errors"]] == [pointer]
    assert await scene.hall.owner.fetchval("SELECT count(*) FROM hall.consent") == 0


async def test_a_one_time_consent_shows_once(scene: Scene) -> None:
    await scene.consent(one_time=True)
    assert (await scene.look()).status_code == 200
    assert problem(await scene.look()) == "consent-missing"


async def test_the_receipt_can_be_computed_by_both_sides(scene: Scene) -> None:
    from hashlib import sha256

    given = (await scene.consent(one_time=False)).json()
    signed = {name: given[name] for name in ("signer", "method", "evidence_sha256", "purpose", "data_sets")}
    signed |= {"recipients": [scene.ids[0]], "from": None, "to": "2027-01-01T00:00:00Z", "one_time": False}
    assert given["receipt_sha256"] == sha256(rfc8785.dumps({**signed, "uscc": scene.uscc})).hexdigest()


async def test_a_revocation_works_at_once_and_is_told_and_acknowledged(scene: Scene) -> None:
    given = (await scene.consent()).json()
    path = f"/v1/enterprises/{scene.uscc}/consents/{given['consent_id']}"
    assert (await scene.look()).status_code == 200
    assert (await scene.banks[0].get(path)).json()["revoked_at"] is None
    assert (await scene.banks[1].get(path)).status_code == 404
    revoked = (await scene.enterprise.post(f"{path}/revoke")).json()
    assert revoked["revoked_at"] is not None
    assert revoked["acknowledgements"] == [{"institution_id": scene.ids[0], "acknowledged_at": None}]
    assert problem(await scene.look()) == "consent-revoked"
    told = await scene.hall.owner.fetch("SELECT * FROM hall.event WHERE type = 'fin.consent.revoked.v1'")
    assert [(one["institution_id"], one["uscc"]) for one in told] == [(scene.ids[0], scene.uscc)]
    assert (await scene.banks[1].post(f"{path}/acknowledge")).status_code == 404
    assert (await scene.banks[0].post(f"{path}/acknowledge")).status_code == 200
    again = (await scene.enterprise.post(f"{path}/revoke")).json()
    assert again["revoked_at"] == revoked["revoked_at"]
    assert again["acknowledgements"][0]["acknowledged_at"] is not None


async def test_a_later_quote_that_binds_nothing_does_not_hide_the_one_that_binds(scene: Scene) -> None:
    await scene.consent()
    unbound = await scene.enterprise.post("/v1/limit-quotes", {"uscc": scene.uscc, "scheme": "ordinary"})
    assert unbound.status_code == 201, unbound.text
    path = f"/v1/enterprises/{scene.uscc}/limit"

    async def seen(**query: str) -> tuple[str, bool, bool]:
        limit = (await scene.banks[0].get(path, purpose="financing", **query)).json()["limit"]
        return limit["scheme"], limit["quote_binds"], limit["is_live"]

    assert await seen() == ("torch-points", True, True)
    assert await seen(scheme="ordinary") == ("ordinary", False, True)
    lines = await scene.banks[0].post(
        "/v1/limits/query", {"usccs": [scene.uscc], "purpose": "financing", "scheme": "ordinary"}
    )
    assert lines.json()["lines"][0]["limit"]["scheme"] == "ordinary"
    await scene.hall.owner.execute(
        """
        ALTER TABLE hall.limit_quote DISABLE TRIGGER USER;
        UPDATE hall.limit_quote SET expires_at = made_at + interval '1 microsecond' WHERE scheme = 'torch-points';
        """
    )
    assert await seen() == ("ordinary", False, True)
    assert await seen(scheme="torch-points") == ("torch-points", True, False)
    for wrong in (
        await scene.banks[0].get(path, purpose="financing", scheme="nothing"),
        await scene.banks[0].post("/v1/limits/query", {"usccs": [scene.uscc], "purpose": "x", "scheme": "nothing"}),
    ):
        assert (wrong.status_code, problem(wrong)) == (422, "validation")


async def test_the_consents_of_an_enterprise_come_in_pages_without_a_gap(scene: Scene) -> None:
    """205 rows, many of one instant: more than one answer holds."""
    now = datetime.now(UTC)
    for number in range(205):
        await made.consent(scene.hall.owner, scene.uscc, given_at=now - timedelta(seconds=number // 50))
    path, seen, pages = f"/v1/enterprises/{scene.uscc}/consents", list[str](), list[int]()
    answered = await scene.enterprise.get(path, limit=100)
    while True:
        assert answered.status_code == 200, answered.text
        pages.append(len(answered.json()["items"]))
        seen += [one["consent_id"] for one in answered.json()["items"]]
        if "next" not in answered.links or len(pages) > 3:
            break
        answered = await scene.hall.http.get(answered.links["next"]["url"], headers=scene.enterprise.headers)
    stored = await scene.hall.owner.fetch(
        "SELECT id FROM hall.consent WHERE uscc = $1 ORDER BY given_at DESC, id", scene.uscc
    )
    assert pages == [100, 100, 5]
    assert seen == [row["id"] for row in stored]
    portal = await scene.hall.client("portal")
    await scene.hall.owner.execute("UPDATE hall.enterprise SET portal = $1", portal.client_id)
    further = (await portal.get(path, limit=1)).links["next"]["url"]
    assert (await scene.hall.http.get(further, headers=portal.headers)).status_code == 200
    other = ground().limits["uscc"].filter(ground().limits["uscc"] != scene.uscc)[0]
    for client, uscc in ((portal, other), (scene.enterprise, scene.uscc)):
        answered = await scene.hall.http.get(further.replace(scene.uscc, uscc), headers=client.headers)
        assert problem(answered) == "bad-cursor"
    assert (await scene.enterprise.get(path, limit=201)).status_code == 422


async def test_nobody_gives_or_revokes_a_consent_of_another(scene: Scene) -> None:
    given = (await scene.consent()).json()
    other = str(ground().limits["uscc"].filter(ground().limits["uscc"] != scene.uscc)[0])
    stranger = await scene.hall.client("enterprise", uscc=other)
    path = f"/v1/enterprises/{scene.uscc}/consents"
    body = {name: given[name] for name in ("signer", "method", "evidence_sha256", "purpose", "data_sets", "recipients")}
    assert (await stranger.post(path, body | {"to": given["to"]})).status_code == 404
    assert (await stranger.post(f"{path}/{given['consent_id']}/revoke")).status_code == 404
    assert (await stranger.get(path)).status_code == 404
    assert (await stranger.get(f"/v1/enterprises/{scene.uscc}/accesses")).status_code == 404
    assert problem(await scene.banks[0].post(path, body)) == "scope-missing"


async def test_many_limits_at_once_are_each_judged_alone(scene: Scene) -> None:
    await scene.consent()
    nobody = made_up_code(88_888_888)
    asked = [nobody, scene.uscc, *ground().limits["uscc"].head(5).to_list()]
    answered = await scene.banks[0].post("/v1/limits/query", {"usccs": asked, "purpose": "financing"})
    assert answered.status_code == 200, answered.text
    lines = answered.json()["lines"]
    assert [one["uscc"] for one in lines] == asked
    for line in lines:
        if line["uscc"] == scene.uscc:
            assert line["limit"]["limit_fen"] == ground().best["limit_fen"]
        else:
            assert line["withheld"] == "consent-missing"
            assert "limit" not in line
    assert len(await scene.log()) == len(asked)
    many = [made_up_code(number) for number in range(1_000, 0, -1)]
    answered = await scene.banks[0].post("/v1/limits/query", {"usccs": many, "purpose": "x-y"})
    assert [one["uscc"] for one in answered.json()["lines"]] == many
    transactions = "SELECT count(*) FROM hall.access_log WHERE purpose = 'x-y' GROUP BY xmin::text"
    looks = [row["count"] for row in await scene.hall.owner.fetch(transactions)]
    assert looks == [100] * 10, "no look keeps its locks for the 999 others"
    over = await scene.banks[0].post("/v1/limits/query", {"usccs": [*many, nobody], "purpose": "x-y"})
    assert over.status_code == 422


async def test_consents_and_looks_are_appended(scene: Scene) -> None:
    await scene.consent()
    await scene.look()
    for statement in ("UPDATE hall.consent SET purpose = 'x'", "DELETE FROM hall.access_log"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await scene.hall.owner.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await scene.hall.service.pool.execute(
            "INSERT INTO hall.consent_revocation VALUES ($1, 'x', now(), now())", secrets.token_hex(4)
        )
