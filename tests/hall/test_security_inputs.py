"""Input that means harm (reliability.md §6, API3, API4, API10): refused at the door, or kept inert, and no effect."""

import asyncio
import secrets
import unicodedata
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import polars as pl
import psutil
import pytest

from api.door import MOST_BYTES
from api.outcomes import export_outcomes
from tests.hall import made
from tests.hall.callers import Client, serving
from tests.hall.conftest import _database
from tests.hall.residents import TERMS, Town, town

GOODS: dict[str, Any] = {"name": "a loan", "category": "credit", "min_fen": 1_000_000, "max_fen": 50_000_000,
                         "terms": TERMS}  # fmt: skip


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests here: what a test changes it makes itself."""
    yield from _database(server, template)


@pytest.fixture(scope="module")
async def here(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with serving(database, tmp_path_factory.mktemp("home")) as hall:
        yield await town(hall)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("/problems/")


async def posted(client: Client, path: str, body: Any) -> httpx2.Response:
    """A POST with every header that an act may want."""
    headers = client.headers | {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": "1"}
    return await client.http.post(path, json=body, headers=headers)


# ----------------------------------------------------------------------------------------------- API3: properties


async def test_api3_nobody_sets_what_the_hall_alone_decides(here: Town) -> None:
    """A member that nobody reads is refused by name, in every body that there is, and nothing happens."""
    there = here.things
    fr, claim, facility = there["fr_id"], there["claim_id"], there["facility_id"]
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        ("enterprise", "/v1/financing-requests"): {
            "uscc": here.firm, "scheme": "ordinary", "amount_fen": 5, "term_months": 1, "purpose": "other",
            "channel": "portal", "channel_ref": "1"},
        ("enterprise", f"/v1/financing-requests/{there['quoted']}/broadcast"): {"version": 4, "amount_fen": 100},
        ("enterprise", f"/v1/financing-requests/{there['quoted']}/withdraw"): {"version": 4},
        ("enterprise", f"/v1/offers/{there['offer_id']}/accept"): {"version": 7, "sha256": made.HASH},
        ("other bank", f"/v1/financing-requests/{fr}/claims"): {
            "round": 1, "outlet_id": here.other.outlet, "product_id": f"{here.other.product}@1", "card_version": 5},
        ("bank", f"/v1/claims/{claim}/contact"): {"method": "call", "proof_sha256": made.HASH},
        ("bank", f"/v1/facilities/{facility}/repayments"): {
            "amount_fen": 5, "bank_ref": "a", "repaid_on": there["today"]},
        ("enterprise", f"/v1/facilities/{facility}/drawdowns"): {"amount_fen": 5},
        ("enterprise", "/v1/enterprises"): {"uscc": here.firm, "name": "A", "district": "350211",
            "industry_section": "I"},
        ("admin", "/v1/institutions"): {"name": "A"},
        ("admin", f"/v1/institutions/{here.mine.institution}/orders"): {
            "kind": "suspend", "order_no": "1", "note": "n"},
        ("institution-manager", f"/v1/institutions/{here.mine.institution}/outlets/{here.sister}/close"): {
            "note": "n"},
        ("institution-manager", "/v1/products"): GOODS,
        ("bank", f"/v1/claims/{claim}/offers"): {
            "amount_fen": 1_000_000, "rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 65, "line_months": 12,
            "draw_months": 12, "repayment": "bullet", "revolving": True, "fees": [], "cleared": [], "conditions": []},
    }  # fmt: skip
    forged = {
        "status": "accepted", "state": "active", "limit_fen": 10**15, "quote_fen": 10**15,
        "winner": here.other.institution,
        "fence": 99, "tenant": "other", "institution_id": here.other.institution, "role": "admin",
        "scopes": ["admin:write"], "registered_by": "me", "opens_at": "2020-01-01T00:00:00Z", "hold_caps": 999,
        "annual_cost_bp": 0, "__proto__": {}, "version_": 1, "is_suspended": False,
    }  # fmt: skip
    before = await counts(here)
    for (who, path), body in bodies.items():
        answer = await posted(here[who], path, body | forged)
        assert problem(answer) == (422, "validation"), path
        refused = {one["pointer"].rsplit("/", 1)[-1] for one in answer.json()["errors"]}
        assert set(forged) <= refused, path
    assert await counts(here) == before


async def counts(here: Town) -> list[Any]:
    owner = here.hall.owner
    tables = [row[0] for row in await owner.fetch(
        "SELECT format('hall.%I', relname) FROM pg_class WHERE relnamespace = 'hall'::regnamespace AND relkind = 'r' "
        "AND relname !~ '^(read_position|feed_state|feed|access_token)$' ORDER BY 1")]  # fmt: skip
    return [(name, await owner.fetchval(f"SELECT count(*) FROM {name}")) for name in tables]


# ------------------------------------------------------------------------------------------------ API4: resources


def megabytes() -> float:
    return psutil.Process().memory_info().rss / 2**20


async def test_api4_what_is_too_much_is_refused_and_leaves_no_memory_behind(here: Town) -> None:
    """10 MB, 100,000 nested arrays, 100,000 members, a limit of 10^9, a huge filter, a long key, a thousand scopes."""
    bank, admin = here["bank"], here["admin"]
    headers = admin.headers | {"Idempotency-Key": "k", "Content-Type": "application/json"}
    before = megabytes()
    bodies = {
        "10 MB": (b'{"name": "' + b"a" * 10 * MOST_BYTES + b'"}', (413, "body-too-large")),
        "nested": (b"[" * 100_000 + b"]" * 100_000, (400, "malformed-json")),
        "nested objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, (400, "malformed-json")),
        "members": (b"{" + b",".join(b'"m%d":1' % n for n in range(80_000)) + b"}", (422, "validation")),
        "a long number": (b'{"name": ' + b"1" * 900_000 + b"}", (400, "malformed-json")),
    }
    for _ in range(2):
        for name, (body, expected) in bodies.items():
            answer = await admin.http.post("/v1/institutions", content=body, headers=headers)
            assert problem(answer) == expected, name
            assert len(answer.content) < MOST_BYTES, name
    queries = [
        ("/v1/hall", {"limit": "1000000000"}), ("/v1/hall", {"limit": "-1"}), ("/v1/hall", {"limit": "1" * 5000}),
        ("/v1/hall", {"cursor": "A" * 5000}), ("/v1/hall", {"outlet_id": "A" * 30_000}),
        ("/v1/products", {"limit": "0"}), ("/v1/hall", {"$where": "sleep(10)"}),
        ("/v1/hall/stream", {"after": "9" * 500}),
    ]  # fmt: skip
    for path, query in queries:
        assert problem(await bank.get(path, **query))[0] in (400, 422), (path, query)
    many = {"usccs": [here.firm] * 1001, "purpose": "financing"}
    assert problem(await bank.post("/v1/limits/query", many)) == (422, "validation")
    assert problem(await bank.post("/v1/limits/query", many, key="k" * 256))[0] == 422
    wanted = {"districts": ["350211"] * 100_000}
    put = await bank.http.put(f"/v1/hall/subscriptions/{here.mine.outlet}", json=wanted,
        headers=bank.headers | {"If-None-Match": "*"})  # fmt: skip
    assert problem(put) == (422, "validation")
    long = await here["bank"].post(f"/v1/financing-requests/{here.things['fr_id']}/claims", {}, key="k" * 256)
    assert problem(long) in ((400, "idempotency-key-missing"), (422, "validation"))
    assert megabytes() - before < 150


async def test_api4_a_pattern_is_matched_in_time_that_grows_with_the_text_alone(here: Town) -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    hostile = ["a" * 60_000 + "!", "0" * 60_000, " " * 60_000, "+" + "0 -" * 20_000, "(" * 60_000]
    for text in hostile:
        body = {"uscc": text, "name": text, "district": text, "industry_section": text, "contact_phone": text}
        assert problem(await here["portal"].post("/v1/enterprises", body)) == (422, "validation")
        assert problem(await posted(here["bank"], "/v1/facilities", {"contract_no": text})) == (422, "validation")
    assert clock() - began < 10


async def test_api4_a_body_that_comes_drop_by_drop_is_not_waited_for(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.door.BODY_SECONDS", 0.3)
    address = here.hall.http.base_url
    head = (
        f"POST /v1/institutions HTTP/1.1\r\nHost: hall\r\nAuthorization: {here['admin'].headers['Authorization']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\nIdempotency-Key: k\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(head.encode() + b'{"name"')
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n")
    assert b" 400 " in answer
    writer.close()


# ---------------------------------------------------------------------------------------- API10: what others send


async def test_api10_a_number_that_is_no_amount_is_refused(here: Town) -> None:
    """Negative, 10^18, beyond 2^53, a fraction, a text, a truth value, a float that is whole, none at all."""
    path = f"/v1/facilities/{here.things['facility_id']}/repayments"
    for amount in (-1, 0, 10**18, 2**53 + 1, 2**63, 10**30, 0.5, 5.0, 1e3, "5", True, None, [5], {"fen": 5}):
        body = {"amount_fen": amount, "bank_ref": secrets.token_hex(6), "repaid_on": here.things["today"]}
        answer = await here["bank"].post(path, body)
        assert problem(answer) == (422, "validation"), amount
        assert [one["pointer"] for one in answer.json()["errors"]] == ["/amount_fen"], amount
    assert await here.hall.owner.fetchval("SELECT count(*) FROM hall.repayment") == 0


NO_AMOUNT: list[Any] = [-1, 10**18, 2**53 + 1, 2**63, 0.5, 5.0, 1e3, "5", True, [5], {"fen": 5}]


def put(thing: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    """The same with another value at a place."""
    name, _, rest = pointer.removeprefix("/").partition("/")
    return thing | {name: put(thing.get(name, {}), rest, value) if rest else value}


async def test_api10_a_product_with_a_number_that_cannot_be_is_refused_at_its_place(here: Town) -> None:
    manager = here["institution-manager"]
    before = await counts(here)
    eligible = ("/terms/eligibility/tax_12m_fen_least", "/terms/eligibility/invoice_sales_12m_fen_least")
    rates = ("/terms/rate/from_bp", "/terms/rate/to_bp", "/terms/prepayment_fee_bp")
    wrong: dict[str, list[Any]] = {one: [*NO_AMOUNT, None] for one in ("/min_fen", "/max_fen")}
    wrong |= {one: [10_001, *NO_AMOUNT] for one in rates}
    wrong |= {one: [10**15 + 1, *NO_AMOUNT] for one in eligible}
    wrong |= {one: [0, 361, *NO_AMOUNT] for one in ("/terms/line_months", "/terms/draw_months")}
    for pointer, values in wrong.items():
        for value in values:
            answer = await manager.post("/v1/products", put(GOODS, pointer, value))
            assert problem(answer) == (422, "validation"), (pointer, value)
            assert {one["pointer"] for one in answer.json()["errors"]} == {pointer}, (pointer, value)
    assert problem(await manager.post("/v1/products", GOODS | {"min_fen": 10**30})) == (422, "validation")
    assert await counts(here) == before


async def test_api10_an_institution_or_offer_with_a_number_that_cannot_be_is_refused_at_its_place(here: Town) -> None:
    before = await counts(here)
    outlets = f"/v1/institutions/{here.mine.institution}/outlets"
    offer = {"amount_fen": 1_000_000, "rate_basis": "LPR1Y", "basis_bp": 300, "spread_bp": 65, "line_months": 12,
             "draw_months": 12, "repayment": "bullet", "revolving": True, "fees": [{"name": "a", "amount_fen": 1}],
             "cleared": [], "conditions": []}  # fmt: skip
    bodies: list[tuple[str, str, dict[str, Any], list[str]]] = [
        ("admin", "/v1/institutions", {"name": "A"}, ["/hold_cap", "/daily_claim_cap"]),
        ("admin", outlets, {"name": "A", "district": "350211"}, ["/hold_cap"]),
        ("admin", f"{outlets}/{here.mine.outlet}/officers", {"name": "A"}, ["/hold_cap"]),
        ("bank", f"/v1/claims/{here.things['claim_id']}/offers", offer,
            ["/amount_fen", "/basis_bp", "/prepayment_fee_bp", "/line_months"]),
    ]  # fmt: skip
    for who, path, body, pointers in bodies:
        for pointer in pointers:
            for value in NO_AMOUNT:
                answer = await posted(here[who], path, put(body, pointer, value))
                assert problem(answer) == (422, "validation"), (path, pointer, value)
                assert {one["pointer"] for one in answer.json()["errors"]} == {pointer}, (path, pointer, value)
    for fee in NO_AMOUNT:
        path = f"/v1/claims/{here.things['claim_id']}/offers"
        answer = await posted(here["bank"], path, offer | {"fees": [{"name": "a", "amount_fen": fee}]})
        assert problem(answer) == (422, "validation"), fee
        assert {one["pointer"] for one in answer.json()["errors"]} == {"/fees/0/amount_fen"}, fee
    assert await counts(here) == before


@pytest.mark.parametrize("number", [2**31, 2**53, 2**53 + 1, 2**63, 10**30])
async def test_api10_a_version_that_no_row_can_have_is_refused(here: Town, number: int) -> None:
    fr = here.things["quoted"]
    answer = await here["enterprise"].post(f"/v1/financing-requests/{fr}/withdraw", {"version": number})
    assert problem(answer) == (422, "validation")


async def test_api10_a_whole_number_that_json_cannot_carry_is_malformed_where_no_rule_bounds_it(here: Town) -> None:
    """The fingerprint of a body is that of its canonical JSON, which has no numbers beyond 2^53 (RFC 8785)."""
    rows = {"enterprises": [{"employees": 2**60}]}
    answer = await here["enterprise"].post(f"/v1/enterprises/{here.firm}/facts", rows)
    assert answer.status_code in (400, 422), answer.text


async def test_api10_a_day_that_cannot_be_is_refused(here: Town) -> None:
    path = f"/v1/facilities/{here.things['facility_id']}/repayments"
    for day in ("9999-12-31", "0001-01-01", "2026-02-30", "2026-13-01", "today", 0, 20_000, "2026-11-24T00:00:00Z+08"):
        body = {"amount_fen": 5, "bank_ref": secrets.token_hex(6), "repaid_on": day}
        assert problem(await here["bank"].post(path, body)) == (422, "validation"), day


NO_DAY = [
    "2026-02-30", "2026-13-01", "today", "", 0, 20_781, 1_795_478_400, "20781", "2026-11-24T00:00:00", "24.11.2026",
    "\uff12026-11-24", True, [2026, 11, 24],
]  # fmt: skip


async def test_api10_a_day_is_written_as_one_and_a_number_is_none(here: Town) -> None:
    """20,781 would be 2026-11-24 to who counts days, and a moment of 1970 to who counts seconds."""
    facility, today = here.things["facility_id"], here.things["today"]
    before = await counts(here)
    for day in NO_DAY:
        for name in ("valid_from", "valid_to"):
            answer = await here["institution-manager"].post("/v1/products", put(GOODS, f"/terms/{name}", day))
            assert problem(answer) == (422, "validation"), (name, day)
            assert {one["pointer"] for one in answer.json()["errors"]} == {f"/terms/{name}"}, (name, day)
        money = {"amount_fen": 5, "bank_ref": secrets.token_hex(6), "drawn_on": day}
        listed = {"from": day, "to": today, "lines": []}
        for path, body in ((f"/v1/facilities/{facility}/drawdowns", money), ("/v1/reconciliations", listed)):
            assert problem(await here["bank"].post(path, body)) == (422, "validation"), (path, day)
    assert await counts(here) == before


async def test_api10_anothers_facility_and_reference_are_reached_from_no_body(here: Town) -> None:
    """A signing or a status that renews it, a correction of its money, a list that names its references."""
    owner, bank = here.hall.owner, here["other bank"]
    theirs, today = here.things["facility_id"], here.things["today"]
    own = await made.facility(owner, here.firm, here.other, 90_000_000)
    fr = await here.request(audience=[here.other.outlet_no])
    accepted = await made.claim(owner, fr, here.other, "accepted")
    money = f"SELECT row_to_json(f)::text FROM hall.facility f WHERE id = '{theirs}'"
    before = await owner.fetchval(money)
    signing = {"claim_id": accepted.id, "contract_no": "c-9", "document_sha256": made.HASH, "signed_on": today,
               "line_ends_on": here.things["in a year"], "renewed_from": theirs}  # fmt: skip
    headers = bank.headers | {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": str(accepted.fence)}
    renewing = await bank.http.post("/v1/facilities", json=signing, headers=headers)
    assert [one["pointer"] for one in renewing.json()["errors"]] == ["/renewed_from"]
    status = {"as_of": today, "state": "active", "days_past_due": 0, "five_class": "normal", "renewed_from": theirs}
    drawn = {"amount_fen": 5, "bank_ref": "own", "drawn_on": today, "first_loan": False, "evidence_sha256": made.HASH}
    assert (await bank.post(f"/v1/facilities/{own}/drawdowns", drawn)).status_code == 201
    renewed = await bank.post(f"/v1/facilities/{own}/status", status)
    assert [one["pointer"] for one in renewed.json()["errors"]] == ["/renewed_from"]
    correction = {"corrects": "first", "bank_ref": "x1", "amount_fen": 0, "note": "n"}
    assert problem(await bank.post(f"/v1/facilities/{own}/corrections", correction)) == (404, "not-found")
    line = {"bank_ref": "first", "kind": "drawdown", "contract_no": "C", "amount_fen": 10_000_000}
    listed = await bank.post("/v1/reconciliations", {"from": today, "to": today, "lines": [line]})
    assert listed.status_code == 201, listed.text
    (found,) = [one for one in listed.json()["lines"] if one["bank_ref"] == "first"]
    assert found["result"] == "missing-here"
    assert [found[name] for name in ("ours_contract_no", "ours_kind", "ours_fen")] == [None] * 3
    assert await owner.fetchval(money) == before


CONFUSABLE = {"Cyrillic A": "\u0410", "full width 9": "\uff19", "Greek Alpha": "\u0391", "Arabic digit": "\u0669"}


@pytest.mark.parametrize("name", CONFUSABLE)
async def test_api10_a_credit_code_with_a_look_alike_is_none(here: Town, name: str) -> None:
    """Neither taken for the code it looks like nor kept as one of its own."""
    code = CONFUSABLE[name] + here.firm[1:]
    assert unicodedata.normalize("NFKC", code) != code or not code.isascii()
    for path in (f"/v1/enterprises/{code}", f"/v1/enterprises/{code}/exposure", f"/v1/enterprises/{code}/consents"):
        assert problem(await here["enterprise"].get(path)) == (422, "validation")
    body = {"uscc": code, "name": "A", "district": "350211", "industry_section": "I"}
    assert problem(await here["portal"].post("/v1/enterprises", body)) == (422, "validation")
    lookups = {"usccs": [code], "purpose": "financing"}
    assert problem(await here["bank"].post("/v1/limits/query", lookups)) == (422, "validation")


HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'; DROP TABLE hall.claim; --", "${jndi:ldap://x/a}",
    "{{7*7}}", "../../etc/passwd", "=cmd|' /C calc'!A0", "@SUM(1+1)", "%00%0d%0aSet-Cookie: a=b", "\u202egnp.exe",
]  # fmt: skip


async def test_api10_a_hostile_name_is_kept_as_text_and_comes_back_as_json_alone(here: Town) -> None:
    """No answer of the hall is a page: JSON, not sniffed, under a policy that lets nothing run."""
    for name in HOSTILE:
        body = {"uscc": here.firm, "name": name, "contact_name": name, "district": "350211", "industry_section": "I"}
        kept = await here["enterprise"].post("/v1/enterprises", body)
        assert kept.status_code == 200, name
        read = await here["enterprise"].get(f"/v1/enterprises/{here.firm}")
        assert read.json()["name"] == name
        assert read.headers["content-type"] == "application/json"
        assert read.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in read.headers["content-security-policy"]
        assert "set-cookie" not in read.headers
    for name in ("a\nb", "a\x1b[2J", "\x00", "a\x7f", "", "a" * 201):
        body = {"uscc": here.firm, "name": name, "district": "350211", "industry_section": "I"}
        assert problem(await here["enterprise"].post("/v1/enterprises", body))[0] in (400, 422), name
    claims: Any = await here.hall.owner.fetchval("SELECT count(*) FROM hall.claim")
    assert claims >= 4


async def test_api10_hostile_names_and_texts_of_banks_and_products_are_inert(here: Town) -> None:
    """Of institutions, outlets, officers and products, in the catalogue that everybody reads, in orders and notes."""
    admin, manager = here["admin"], here["institution-manager"]
    approver = here["second institution-manager"]
    inert = ("application/json", "nosniff")
    for name in HOSTILE:
        bank = await admin.post("/v1/institutions", {"name": name})
        at = f"/v1/institutions/{bank.json()['id']}/outlets"
        outlet = await admin.post(at, {"name": name, "district": "350211"})
        officer = await admin.post(f"{at}/{outlet.json()['id']}/officers", {"name": name})
        told = TERMS | {"target_customers": name, "security": name, "documents": [name], "eligibility": {"note": name}}
        proposed = await manager.post("/v1/products", GOODS | {"name": name, "terms": told})
        product = proposed.json()["id"]
        await approver.post(f"/v1/products/{product}/versions/1/approve")
        shown = await here.hall.http.get(f"/v1/products/{product}")
        order = {"kind": "suspend", "order_no": name, "note": name}
        ordered = await admin.post(f"/v1/institutions/{bank.json()['id']}/orders", order)
        closed = await admin.post(f"{at}/{outlet.json()['id']}/close", {"note": name})
        for answer in (bank, outlet, officer, proposed, shown, ordered, closed):
            assert answer.status_code in (200, 201), (name, answer.text)
            assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == inert
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert answer.json().get("name", name) == name
        assert (shown.json()["terms"]["target_customers"], shown.json()["terms"]["documents"]) == (name, [name])
        await manager.post(f"/v1/products/{product}/versions/1/withdraw")


async def test_api10_what_moves_a_terminal_is_in_no_name_note_or_order(here: Town) -> None:
    admin, before = here["admin"], await counts(here)
    order = {"kind": "suspend", "order_no": "1", "note": "n"}
    outlet = f"/v1/institutions/{here.mine.institution}/outlets/{here.sister}"
    for text in ("a\x1b[2J", "\x07", "a\x7f", "a\x0b", ""):
        bodies: list[tuple[str, str, dict[str, Any], str]] = [
            ("admin", "/v1/institutions", {"name": text}, "/name"),
            ("admin", f"/v1/institutions/{here.mine.institution}/orders", order | {"note": text}, "/note"),
            ("admin", f"/v1/institutions/{here.mine.institution}/orders", order | {"order_no": text}, "/order_no"),
            ("admin", f"{outlet}/close", {"note": text}, "/note"),
            ("institution-manager", "/v1/products", GOODS | {"name": text}, "/name"),
            ("institution-manager", "/v1/products", put(GOODS, "/terms/target_customers", text),
                "/terms/target_customers"),
            ("institution-manager", "/v1/products", put(GOODS, "/terms/subsidy", text), "/terms/subsidy"),
        ]  # fmt: skip
        for who, path, body, pointer in bodies:
            answer = await here[who].post(path, body)
            assert problem(answer) == (422, "validation"), (path, text)
            assert {one["pointer"] for one in answer.json()["errors"]} == {pointer}
            assert "\x1b" not in answer.text
    assert await counts(here) == before
    lines = await admin.post(f"/v1/institutions/{here.other.institution}/orders", order | {"note": "a\r\nb\tc"})
    assert lines.status_code == 201, "a note has lines"


async def test_api10_a_reference_cannot_be_a_formula(here: Town) -> None:
    """A bank's reference begins with a letter or digit, so that no sheet takes it for a formula."""
    path = f"/v1/facilities/{here.things['facility_id']}/repayments"
    for reference in ("=1+1", "+1", "-1", "@A1", "\t=1", "=HYPERLINK(1)", "a b", "a;b", ""):
        body = {"amount_fen": 5, "bank_ref": reference, "repaid_on": here.things["today"]}
        assert problem(await here["bank"].post(path, body)) == (422, "validation"), reference


async def test_api10_an_export_holds_no_text_that_anybody_wrote(here: Town, tmp_path: Path) -> None:
    """Outcomes as CSV: codes, ids of ours, days and numbers, whatever names and notes say; no cell is a formula."""
    await here.hall.owner.execute(
        "UPDATE hall.enterprise SET name = '=1+1', contact_name = '@A1'; "
        "UPDATE hall.institution SET name = '=1+' || id; "
        "UPDATE hall.outlet SET name = '=1+' || id, closing_note = '@A1'; UPDATE hall.officer SET name = '=1+1'; "
        "UPDATE hall.product SET name = '=1+1', terms = terms || '{\"security\": \"=1+1\"}'"
    )
    facility = here.things["facility_id"]
    status = {"as_of": here.things["today"], "state": "overdue", "days_past_due": 91, "five_class": "doubtful"}
    assert (await here["bank"].post(f"/v1/facilities/{facility}/status", status)).status_code == 200
    file = tmp_path / "loan_outcomes.csv"
    assert await export_outcomes(here.hall.service.pool, file) == 1
    cells = pl.read_csv(file, infer_schema=False).row(0)
    assert facility in cells
    assert not [cell for cell in cells if cell and cell[0] in "=+-@\t\r"]
