"""Institutions, outlets, officers, products and enterprises: who may add them, and who sees them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli import app
from data_contracts.uscc import made_up_code
from tests.hall import made as rows
from tests.hall.callers import Client, Hall, serving
from tests.hall.keys import new_key, public_pem

TERMS: dict[str, Any] = {
    "target_customers": "tech firms of the park",
    "eligibility": {"firm_age_months_least": 24, "districts": ["350211"], "tax_grades": ["A", "B", "M"]},
    "rate": {"basis": "LPR1Y", "from_bp": 305, "to_bp": 420, "by_grade_bp": {"A": 305}},
    "line_months": 36,
    "draw_months": 12,
    "repayments": ["interest-monthly-principal-at-end"],
    "is_revolving": True,
    "channel": "both",
    "approval_hours": 16,
    "documents": ["business licence"],
    "valid_from": "2026-11-01",
}
PRODUCT: dict[str, Any] = {
    "name": "火炬积分贷",
    "category": "innovation-points",
    "min_fen": 10_000_000,
    "max_fen": 500_000_000,
    "terms": TERMS,
}


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as served:
        yield served


async def managers(hall: Hall, name: str = "a bank") -> tuple[str, Client, Client]:
    """An institution with two clients that may propose and approve."""
    bank = await hall.institution(name)
    first, second = [await hall.client("institution-manager", institution=bank) for _ in range(2)]
    return bank, first, second


async def test_an_administrator_adds_institutions_outlets_and_officers_with_the_halls_caps(hall: Hall) -> None:
    admin = await hall.client("admin")
    bank = (await admin.post("/v1/institutions", {"name": "A", "size_class": "city"})).json()
    setting = dict(await hall.owner.fetch("SELECT name, value FROM hall.setting"))
    assert (bank["hold_cap"], bank["daily_claim_cap"]) == (setting["hold_cap_institution"], setting["daily_claim_cap"])
    at = f"/v1/institutions/{bank['id']}/outlets"
    outlet = (await admin.post(at, {"name": "O", "district": "350211", "hold_cap": 2})).json()
    assert outlet["hold_cap"] == 2
    assert (await admin.post(at, {"name": "O", "district": "350211"})).json()["type"] == "/problems/already-exists"
    officer = (await admin.post(f"{at}/{outlet['id']}/officers", {"name": "Li"})).json()
    assert officer["hold_cap"] == setting["hold_cap_officer"]
    assert (await admin.get(at)).json()["items"] == [outlet]
    assert (await admin.get(f"{at}/{outlet['id']}/officers")).json()["items"] == [officer]


async def test_api1_another_institutions_outlets_and_officers_are_not_found(hall: Hall) -> None:
    admin = await hall.client("admin")
    mine, other = await hall.institution("mine"), await hall.institution("other")
    outlet = (await admin.post(f"/v1/institutions/{other}/outlets", {"name": "O", "district": "350211"})).json()["id"]
    bank = await hall.client("bank", institution=mine)
    assert [one["id"] for one in (await bank.get("/v1/institutions")).json()["items"]] == [mine]
    assert (await bank.get(f"/v1/institutions/{mine}/outlets")).status_code == 200
    for path in (f"{other}/outlets", f"{other}/outlets/{outlet}/officers", f"{mine}/outlets/{outlet}/officers"):
        assert (await bank.get(f"/v1/institutions/{path}")).status_code == 404, path
    swapped = await admin.post(f"/v1/institutions/{mine}/outlets/{outlet}/officers", {"name": "Li"})
    assert swapped.status_code == 404
    manager = await hall.client("institution-manager", institution=mine)
    assert (await manager.get(f"/v1/institutions/{other}/products")).status_code == 404


async def test_a_product_is_offered_once_a_second_client_of_the_institution_approves(hall: Hall) -> None:
    _, first, second = await managers(hall)
    _, stranger, _ = await managers(hall, "another bank")
    product = (await first.post("/v1/products", PRODUCT)).json()
    assert (product["version"], product["status"], product["terms"]["rate"]) == (1, "proposed", TERMS["rate"])
    at = f"/v1/products/{product['id']}"
    approve = f"{at}/versions/1/approve"
    assert (await hall.http.get(at)).status_code == 404, "a proposal is nobody's to see"
    assert (await first.post(approve)).json()["type"] == "/problems/four-eyes-required"
    assert (await stranger.post(approve)).status_code == 404
    assert (await second.post(approve)).json()["status"] == "offered"
    assert (await second.post(approve)).json()["type"] == "/problems/illegal-transition"
    shown = (await hall.http.get(at)).json()
    assert (shown["status"], shown["institution"], shown["terms"]["eligibility"]["tax_grades"]) == (
        "offered", "a bank", ["A", "B", "M"],
    )  # fmt: skip
    assert "proposed_by" not in shown


async def test_old_versions_stay_readable_and_the_catalogue_shows_the_one_in_force(hall: Hall) -> None:
    bank, first, second = await managers(hall)
    product = (await first.post("/v1/products", PRODUCT)).json()["id"]
    at = f"/v1/products/{product}"
    await second.post(f"{at}/versions/1/approve")
    changed = await first.post("/v1/products", PRODUCT | {"product_id": product, "name": "new name"})
    assert (changed.status_code, changed.json()["version"]) == (201, 2)
    catalogue = (await hall.http.get("/v1/products", params={"category": "innovation-points"})).json()["items"]
    assert [(one["version"], one["name"]) for one in catalogue] == [(1, PRODUCT["name"])]
    await second.post(f"{at}/versions/2/approve")
    catalogue = (await hall.http.get("/v1/products", params={"institution_id": bank})).json()["items"]
    assert [(one["version"], one["name"]) for one in catalogue] == [(2, "new name")]
    old = (await hall.http.get(at, params={"version": 1})).json()
    assert (old["status"], old["name"]) == ("withdrawn", PRODUCT["name"])
    assert (await first.post(f"{at}/versions/2/withdraw")).json()["status"] == "withdrawn"
    assert (await hall.http.get("/v1/products")).json()["items"] == []
    own = (await first.get(f"/v1/institutions/{bank}/products")).json()["items"]
    assert [(one["version"], one["status"]) for one in own] == [(1, "withdrawn"), (2, "withdrawn")]
    assert (await hall.http.get("/v1/products", params={"category": "mortgage"})).json()["items"] == []


async def test_versions_proposed_at_once_follow_each_other(hall: Hall) -> None:
    _, first, second = await managers(hall)
    product = (await first.post("/v1/products", PRODUCT)).json()["id"]
    more = PRODUCT | {"product_id": product}
    answers = await asyncio.gather(*(one.post("/v1/products", more) for one in (first, second) * 4))
    assert sorted(one.json()["version"] for one in answers) == list(range(2, 10))


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"max_fen": 1}, ""),
    ({"max_fen": 10**16}, "/max_fen"),
    ({"min_fen": 1.5}, "/min_fen"),
    ({"category": "x"}, "/category"),
    ({"terms": TERMS | {"draw_months": 99}}, "/terms"),
    ({"terms": TERMS | {"extra": 1}}, "/terms/extra"),
    ({"terms": TERMS | {"rate": {"basis": "LPR1Y", "from_bp": 500, "to_bp": 400}}}, "/terms/rate"),
    ({"terms": TERMS | {"rate": TERMS["rate"] | {"by_grade_bp": {"A": 304}}}}, "/terms/rate"),
    ({"terms": TERMS | {"valid_to": "2026-10-01"}}, "/terms"),
    ({"name": "a\nb"}, "/name"),
]


async def test_terms_that_do_not_fit_are_refused(hall: Hall) -> None:
    _, first, _ = await managers(hall)
    for changed, pointer in UNFIT:
        answer = await first.post("/v1/products", PRODUCT | changed)
        assert answer.status_code == 422
        assert pointer in {one["pointer"] for one in answer.json()["errors"]}, changed


FIRM = {
    "name": "Firm",
    "contact_name": "Li",
    "contact_phone": "+86 592 1234567",
    "industry_section": "C",
    "district": "350211",
}


async def test_whoever_speaks_for_an_enterprise_registers_it_and_nobody_else_sees_it(hall: Hall) -> None:
    firm = FIRM | {"uscc": made_up_code(1)}
    at = f"/v1/enterprises/{firm['uscc']}"
    portal, rival, clerk = [await hall.client(role) for role in ("portal", "portal", "clerk")]
    made = await portal.post("/v1/enterprises", firm)
    assert (made.status_code, made.json()["contact_name"]) == (201, "Li")
    assert (await portal.get(at)).json() == made.json()
    for stranger in (rival, clerk):
        assert (await stranger.get(at)).status_code == 404
        refused = await stranger.post("/v1/enterprises", firm)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/already-exists")
    bank = await hall.client("bank", institution=await hall.institution("a bank"))
    assert (await bank.get(at)).status_code == 403
    own = await hall.client("enterprise", uscc=firm["uscc"])
    changed = await own.post("/v1/enterprises", firm | {"contact_name": "Wang"})
    assert (changed.status_code, changed.json()["contact_name"]) == (200, "Wang")
    assert (await portal.get(at)).json()["contact_name"] == "Wang"
    assert (await own.post("/v1/enterprises", firm | {"uscc": made_up_code(2)})).status_code == 404


async def test_a_portal_takes_up_a_firm_that_came_with_the_facts(hall: Hall) -> None:
    code = made_up_code(3)
    await hall.owner.execute("INSERT INTO hall.enterprise (uscc, name) VALUES ($1, 'Firm')", code)
    portal, rival = await hall.client("portal"), await hall.client("portal")
    assert (await portal.post("/v1/enterprises", FIRM | {"uscc": code})).status_code == 200
    assert (await rival.post("/v1/enterprises", FIRM | {"uscc": code})).status_code == 409


async def test_a_clerk_writes_a_firm_down_until_it_speaks_for_itself_and_keeps_it_from_no_portal(hall: Hall) -> None:
    firm = FIRM | {"uscc": made_up_code(4)}
    at = f"/v1/enterprises/{firm['uscc']}"
    clerk, other, portal, rival = [await hall.client(role) for role in ("clerk", "clerk", "portal", "portal")]
    assert (await clerk.post("/v1/enterprises", firm)).status_code == 201
    assert (await clerk.post("/v1/enterprises", firm | {"contact_name": "Wu"})).json()["contact_name"] == "Wu"
    assert (await other.post("/v1/enterprises", firm)).status_code == 409
    assert (await portal.post("/v1/enterprises", firm | {"contact_name": "Zhao"})).status_code == 200
    assert (await rival.post("/v1/enterprises", firm)).status_code == 409
    assert (await clerk.post("/v1/enterprises", firm | {"contact_name": "Qian"})).status_code == 409
    assert (await clerk.get(at)).status_code == 404
    assert (await portal.get(at)).json()["contact_name"] == "Zhao"


async def test_a_clerk_changes_no_contact_once_a_need_of_the_firm_is_submitted(hall: Hall) -> None:
    firm = FIRM | {"uscc": made_up_code(5)}
    clerk = await hall.client("clerk")
    assert (await clerk.post("/v1/enterprises", firm)).status_code == 201
    await rows.request(hall.owner, firm["uscc"], "quoted")
    assert (await clerk.post("/v1/enterprises", firm | {"contact_phone": "13800000000"})).status_code == 409


async def test_a_code_whose_check_character_does_not_fit_is_refused(hall: Hall) -> None:
    """Confusable characters are not repaired (reliability.md, injection row)."""
    portal = await hall.client("portal")
    for code in ("", "91350211000000001", "9135021100000000AA", "９１350211M000000001", "91350211MA0000000O"):
        answer = await portal.post("/v1/enterprises", FIRM | {"uscc": code})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/uscc")
        assert code == "" or code not in answer.text


def test_the_operator_adds_lists_and_revokes_clients(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIFEN_DATABASE_URL", database)

    def said(*words: str, exits: int = 0) -> str:
        result = CliRunner().invoke(app, ["clients", *words])
        assert result.exit_code == exits, result.output
        return result.output

    made = said("add", "ops", "--role", "operator", "--new-key", str(tmp_path / "ops.pem"))
    client, kid = re.findall(r"^(?:client|kid) (\S+)$", made, re.MULTILINE)
    assert (tmp_path / "ops.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "next.pem").write_bytes(public_pem(new_key("ES256")))
    second = said("add-key", client, "--key", str(tmp_path / "next.pem")).split()[1]
    assert said("list").split("\t")[-1].split() == ["keys", kid, second]
    said("revoke", client, "--kid", kid)
    assert said("list").split("\t")[-1].split() == ["keys", second]
    said("revoke", client)
    assert "revoked 20" in said("list")
    assert "needs --institution" in said("add", "b", "--role", "bank", "--key", str(tmp_path / "next.pem"), exits=2)
    king = said("add", "b", "--role", "king", "--scope", "x", "--key", str(tmp_path / "next.pem"), exits=2)
    assert "role king" in king
    assert "scope x" in king, "every broken rule at once"
    said("add", "b", "--role", "operator", exits=2)
    said("add", "b", "--role", "operator", "--new-key", str(tmp_path / "ops.pem"), exits=2)
    enterprise = ("add", "firm", "--role", "enterprise", "--uscc", made_up_code(5), "--key", str(tmp_path / "next.pem"))
    assert "client cn_" in said(*enterprise)


def test_a_client_that_is_refused_leaves_neither_a_key_nor_an_enterprise(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIFEN_DATABASE_URL", database)
    key = tmp_path / "firm.pem"

    def said(*words: str, exits: int = 0) -> str:
        result = CliRunner().invoke(app, ["clients", *words, "--new-key", str(key)])
        assert result.exit_code == exits, result.output
        return result.output

    firm = ("add", "firm", "--role", "enterprise", "--uscc")
    for code in ("A" * 18, "91350211000000001", "9135021100000000AA", made_up_code(5).lower()):
        assert "--uscc is no credit code" in said(*firm, code, exits=2)
        assert not key.exists()
    assert "needs --institution" in said("add", "b", "--role", "bank", exits=2)
    assert "no client" in said("add-key", "cn_none", exits=2)
    assert not key.exists()
    assert "client cn_" in said(*firm, made_up_code(5))
    kept = key.read_bytes()
    said(*firm, made_up_code(6), exits=2)
    assert key.read_bytes() == kept, "a key that was there is not the command's to remove"
