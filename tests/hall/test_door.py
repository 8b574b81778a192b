"""The door: what is no proper request gets a problem and no further (hall.md §7, §9; reliability.md API3 to API9)."""

import asyncio
import json
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from api.app import create_app, routers
from api.door import MOST_BYTES, Door
from api.openapi import document, needs_key, operations, printed
from api.problems import language_of
from api.reference import problem_types
from api.serving import address_of, listening_on, served
from api.settings import Settings
from data_contracts.uscc import made_up_code
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.feeding import until, value

NAMES = "/v1/institutions"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def hall(database: str, tmp_path: Path) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path) as running:
        yield running


@pytest.fixture
async def admin(hall: Hall) -> Client:
    return await hall.client("admin")


def told(answer: httpx2.Response) -> tuple[int, str]:
    """Status and type of a problem that has the form of all."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["trace_id"] == answer.headers["x-trace-id"]
    assert {"type", "title", "instance"} <= set(problem)
    return answer.status_code, problem["type"].removeprefix("/problems/")


DEEP = b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}"
MALFORMED: dict[str, bytes] = {
    "cut off": b'{"name": "A"',
    "twice": b'{"name": "A", "name": "B"}',
    "twice inside": b'{"name": "A", "x": [{"a": 1, "a": 1}]}',
    "NaN": b'{"hold_cap": NaN}',
    "Infinity": b'{"hold_cap": -Infinity}',
    "out of range": b'{"hold_cap": 1e999}',
    "digits": b'{"hold_cap": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'{"name": "\xff"}',
    "half a character": rb'{"name": "\ud800"}',
    "U+0000": rb'{"name": "\u0000"}',
    "U+0000 in a name": rb'{"\u0000": 1}',
    "raw control character": b'{"name": "\x01"}',
    "deep": DEEP,
    "100,000 deep": b"[" * 100_000,
    "a trailing comma": b"[1,]",
    "no JSON": b"name=A",
}


async def test_a_malformed_body_is_400_and_has_no_effect(hall: Hall, admin: Client) -> None:
    for name, body in MALFORMED.items():
        headers = admin.headers | {"Idempotency-Key": "k", "Content-Type": "application/json"}
        assert told(await hall.http.post(NAMES, content=body, headers=headers)) == (400, "malformed-json"), name
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.idempotency") == 0


async def test_another_media_type_or_a_compressed_body_is_415(hall: Hall, admin: Client) -> None:
    json_type = {"Content-Type": "application/json"}
    others = ("text/plain", "application/xml", "application/x-www-form-urlencoded", "", "application/jsonx")
    for headers in (
        *({"Content-Type": other} for other in others),
        json_type | {"Content-Encoding": "gzip"},
        json_type | {"Content-Encoding": "br"},
    ):
        answer = await hall.http.post(NAMES, content=b'{"name": "A"}', headers=admin.headers | headers)
        assert told(answer) == (415, "media-type"), headers


async def test_a_body_over_one_mebibyte_is_413_declared_or_not(hall: Hall) -> None:
    """API4; also without a token, and counted where the length is not declared."""
    kind = {"Content-Type": "application/json"}
    assert told(await hall.http.post(NAMES, content=b" " * (MOST_BYTES + 1), headers=kind)) == (413, "body-too-large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 65_536

    assert told(await hall.http.post(NAMES, content=chunks(), headers=kind)) == (413, "body-too-large")
    assert told(await hall.http.post(NAMES, content=b" " * MOST_BYTES, headers=kind))[0] == 400


async def test_every_broken_rule_is_named_by_its_place_and_no_value_comes_back(hall: Hall, admin: Client) -> None:
    body = {"name": "", "size_class": "gigantic-secret", "hold_cap": -1, "daily_claim_cap": "7", "winner/x": 1}
    answer = await admin.post(NAMES, body)
    assert told(answer) == (422, "validation")
    assert {one["pointer"] for one in answer.json()["errors"]} == {
        "/name", "/size_class", "/hold_cap", "/daily_claim_cap", "/winner~1x",
    }  # fmt: skip
    assert "secret" not in answer.text
    query = await admin.get(NAMES, limit=10**9, status="x")
    assert told(query) == (422, "validation")
    assert {(one["in"], one["parameter"]) for one in query.json()["errors"]} == {
        ("query", "limit"),
        ("query", "status"),
    }


async def test_api3_a_member_that_is_not_the_callers_to_set_is_422(admin: Client) -> None:
    for member in ("status", "limit", "winner", "fence", "tenant", "is_suspended", "id"):
        assert told(await admin.post(NAMES, {"name": "A", member: "x"})) == (422, "validation"), member


async def test_the_router_too_answers_with_problems(hall: Hall, admin: Client) -> None:
    assert told(await hall.http.get("/nowhere")) == (404, "not-found")
    assert told(await hall.http.get("/v1/institutions/")) == (404, "not-found")
    assert told(await hall.http.get("/v1/products/pr_%00")) == (404, "not-found")
    assert told(await hall.http.get("/v1/products", params={"cursor": "\x00"})) == (400, "bad-filter")
    wrong = await hall.http.delete("/v1/products")
    assert told(wrong) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "GET, POST"
    overridden = admin.headers | {"X-HTTP-Method-Override": "DELETE"}
    assert (await hall.http.get(NAMES, headers=overridden)).status_code == 200


async def test_api5_a_scope_that_is_lacking_is_403_and_names_what_would_do(hall: Hall) -> None:
    operator = await hall.client("operator")
    refused = await operator.post(NAMES, {"name": "A"})
    assert told(refused) == (403, "scope-missing")
    assert refused.json()["scopes"] == ["admin:write"]


async def test_e1_e2_a_fault_of_ours_says_nothing_of_itself() -> None:
    async def broken(_: Any) -> None:
        raise RuntimeError("SELECT secret FROM hall.enterprise")

    app = Starlette(routes=[Route("/x", broken)], middleware=[Middleware(Door)])
    transport = httpx2.ASGITransport(app=app)
    with structlog.testing.capture_logs() as logs:
        async with httpx2.AsyncClient(transport=transport, base_url="http://hall") as http:
            answer = await http.get("/x")
    assert told(answer) == (500, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret" not in json.dumps(logs)
    assert next(one for one in logs if one["event"] == "fault")["fault"] == "RuntimeError"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "zh"), ("zh", "zh"), ("en", "en"), ("en-GB,en;q=0.9", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en;q=0.5,zh;q=0.4", "en"), ("en;q=0", "zh"), ("*", "zh"), ("fr, en;q=0.1", "en"), ("en;q=x", "zh"),
    ],
)  # fmt: skip
def test_e3_titles_are_chinese_unless_english_is_preferred(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


async def test_e3_the_answer_is_in_that_language(hall: Hall) -> None:
    for language, title in (
        ("zh", problem_types()["not-found"].title.zh),
        ("en", problem_types()["not-found"].title.en),
    ):
        answer = await hall.http.get("/nowhere", headers={"Accept-Language": language})
        assert (answer.json()["title"], answer.headers["content-language"]) == (title, language)


async def test_a_problems_type_is_a_page_that_says_what_to_do(hall: Hall) -> None:
    where = (await hall.http.get("/nowhere")).json()["type"]
    page = await hall.http.get(where, headers={"Accept-Language": "en"})
    assert (page.status_code, page.json()["do"]) == (200, problem_types()["not-found"].do.en)


async def test_api8_answers_are_not_stored_guessed_at_framed_or_shared_with_other_sites(
    hall: Hall, database: str, tmp_path: Path
) -> None:
    for path in ("/v1/products", "/nowhere"):
        answer = await hall.http.get(path, headers={"Origin": "https://evil.example"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers
    assert (await hall.http.get("/docs")).status_code == 404
    async with serving(database, tmp_path, behind_tls=True) as behind_tls:
        assert "max-age" in (await behind_tls.http.get("/v1/products")).headers["strict-transport-security"]


async def test_a_trace_goes_on_with_its_caller(hall: Hall) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    for parent, is_kept in (
        (f"00-{trace}-b7ad6b7169203331-01", True),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", False),
        (f"00-{trace}-{'0' * 16}-01", False),
        (f"00-{trace.upper()}-b7ad6b7169203331-01", False),
        (f"ff-{trace}-b7ad6b7169203331-01", False),
        (f"00-{trace}-b7ad6b7169203331-01-more", False),
        ("x", False),
    ):
        answer = await hall.http.get("/nowhere", headers={"traceparent": parent})
        assert (answer.json()["trace_id"] == trace) is is_kept
        assert re.fullmatch(r"[0-9a-f]{32}", answer.json()["trace_id"])


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        (["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], True),
        (["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] * 2, False),
        (["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"], False),
        (["Li Si 13800000000"], False),
        ([], False),
    ],
)
async def test_an_event_carries_the_trace_of_the_act_that_made_it(hall: Hall, sent: list[str], is_kept: bool) -> None:
    """Refusal, answer and event of one caller tell one trace; a header that is malformed goes nowhere."""
    uscc = await made.enterprise(hall.owner)
    fr = await made.request(hall.owner, uscc, "quoted")
    firm = await hall.client("enterprise", uscc=uscc)
    key = secrets.token_hex(8)

    async def withdrawn(version: int) -> httpx2.Response:
        headers = [*firm.headers.items(), ("Idempotency-Key", key), *(("traceparent", one) for one in sent)]
        return await hall.http.post(f"/v1/financing-requests/{fr}/withdraw", json={"version": version}, headers=headers)

    refused = await withdrawn(77)
    assert refused.json()["trace_id"] == refused.headers["x-trace-id"]
    done = await withdrawn(4)
    assert done.status_code == 200, done.text
    again = await withdrawn(4)
    assert again.headers["idempotent-replayed"] == "true"

    await until(lambda: value(hall.owner, "SELECT count(*) > 0 FROM hall.feed WHERE type ~ 'withdrawn'"))
    body = json.loads(await value(hall.owner, "SELECT body FROM hall.feed WHERE type ~ 'withdrawn'"))
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", body["traceparent"])
    assert body["traceparent"].split("-")[1] == done.headers["x-trace-id"]
    assert ([body["traceparent"]] == sent) is is_kept
    assert (refused.headers["x-trace-id"] == done.headers["x-trace-id"]) is is_kept
    others = await hall.owner.fetch("SELECT traceparent FROM hall.event WHERE type !~ 'withdrawn'")
    assert {row["traceparent"] for row in others} == {None}, "it ends with the act"


async def test_logs_name_no_firm_no_token_and_no_query(hall: Hall) -> None:
    code = made_up_code(17)
    portal = await hall.client("portal")
    with structlog.testing.capture_logs() as logs:
        await portal.get(f"/v1/enterprises/{code}", secret="4711")
        await portal.post("/v1/enterprises", {"uscc": code, "name": "Firm", "district": "350211", "contact_name": "Li"})
    written = json.dumps(logs)
    assert [one["route"] for one in logs if one["event"] == "call"] == ["/v1/enterprises/{uscc}", "/v1/enterprises"]
    for private in (code, "4711", "Firm", 'Li"', portal.headers["Authorization"][7:]):
        assert private not in written
    assert portal.client_id in written


# ----------------------------------------------------------------------------------------------------------- inventory


def test_p7_the_committed_openapi_file_is_the_applications() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8") == printed()


def test_api9_every_route_is_in_the_file_and_every_operation_lists_its_problems() -> None:
    made = document(create_app(Settings()))
    known = {(method, path) for path, item in made["paths"].items() for method in (one.upper() for one in item)}
    routes = {(method, route.path) for router in routers() for route in router.routes for method in route.methods}  # pyright: ignore[reportAttributeAccessIssue]
    assert routes == known
    ids = [operation["operationId"] for _, operation in operations(made)]
    assert len(ids) == len(set(ids))
    for method, operation in operations(made):
        assert operation.get("summary"), operation["operationId"]
        assert operation.get("tags"), operation["operationId"]
        types = {
            one for code, response in operation["responses"].items() if code >= "400" for one in told_types(response)
        }
        assert {"/problems/internal"} <= types, operation["operationId"]
        assert types <= {f"/problems/{code}" for code in problem_types()}
        if operation.get("security"):
            assert {"/problems/token-missing", "/problems/scope-missing", "/problems/rate-limited"} <= types
        if needs_key(method, operation):
            assert "/problems/idempotency-key-missing" in types


def told_types(response: dict[str, Any]) -> list[str]:
    content = response["content"].get("application/problem+json")
    return content["schema"]["properties"]["type"]["enum"] if content else []


def test_docs_problems_names_every_problem() -> None:
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    for code, one in problem_types().items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{code}` |")), "")
        assert all(word in row for word in (str(one.status), one.title.zh, one.title.en, one.means.en, one.do.en)), code


def test_every_problem_is_answered_somewhere() -> None:
    """Each is raised, refused or returned; that a route lists it or a table names it is not enough."""
    files = [path for path in (ROOT / "api").rglob("*") if path.suffix in (".py", ".sql")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    said = set(
        re.findall(
            r"""(?:refuse\(|_refuse_token\(|Problem\(\s*|'refused', |code = |then |else |return )['"]([a-z-]+)['"]""",
            text,
        )
    )
    assert [code for code in problem_types() if code not in said] == []


# ----------------------------------------------------------------------------------------------- when to come back


async def test_c5_h2_a_refusal_that_waiting_helps_says_how_long(hall: Hall) -> None:
    bank = await made.bank(hall.owner, daily_claim_cap=1)
    client = await hall.client("bank", institution=bank.institution)
    body = {"round": 1, "outlet_id": bank.outlet, "product_id": f"{bank.product}@1", "card_version": 5}
    requests = [await made.request(hall.owner, await made.enterprise(hall.owner, limit_fen=10**9)) for _ in range(2)]
    await hall.owner.execute("UPDATE hall.round SET opens_at = clock_timestamp() + interval '90 s'")
    early = await client.post(f"/v1/financing-requests/{requests[0]}/claims", body)
    assert told(early) == (409, "gate-not-open")
    assert 80 <= early.json()["retry_after_ms"] / 1000 <= int(early.headers["retry-after"]) <= 90
    await hall.owner.execute("UPDATE hall.round SET opens_at = clock_timestamp() - interval '1 s'")
    won = await client.post(f"/v1/financing-requests/{requests[0]}/claims", body)
    assert won.status_code == 201, won.text
    capped = await client.post(f"/v1/financing-requests/{requests[1]}/claims", body)
    assert told(capped) == (429, "daily-claim-cap")
    midnight = await value(hall.owner, "SELECT extract(epoch FROM hall.start_of(hall.today() + 1) - hall.hall_now())")
    assert 0 <= int(capped.headers["retry-after"]) - midnight < 30


async def test_under_maintenance_nothing_is_done_and_what_was_answered_is_answered_still(
    hall: Hall, admin: Client
) -> None:
    first = await admin.post(NAMES, {"name": "before"}, key="before")
    assert first.status_code == 201, first.text
    await hall.owner.execute("UPDATE hall.setting SET value = 1 WHERE name = 'maintenance'")
    refused = await admin.post(NAMES, {"name": "during"}, key="during")
    assert (told(refused), refused.headers["retry-after"]) == ((503, "maintenance"), "30")
    assert (await admin.post(NAMES, {"name": "before"}, key="before")).content == first.content
    assert [one["name"] for one in (await admin.get(NAMES)).json()["items"]] == ["before"]
    bank = await made.bank(hall.owner)
    subscribing = await hall.client("bank", institution=bank.institution)
    headers = {**subscribing.headers, "If-None-Match": "*"}
    wanted = await hall.http.put(f"/v1/hall/subscriptions/{bank.outlet}", json={}, headers=headers)
    assert (told(wanted), wanted.headers["retry-after"]) == ((503, "maintenance"), "30"), "an act without a key"
    await hall.owner.execute("UPDATE hall.setting SET value = 0 WHERE name = 'maintenance'")
    assert (await hall.http.put(f"/v1/hall/subscriptions/{bank.outlet}", json={}, headers=headers)).status_code == 200
    assert (await admin.post(NAMES, {"name": "during"}, key="during")).status_code == 201


# -------------------------------------------------------------------------------------------------- pages, health, end


async def test_g1_pages_hold_every_row_once_and_a_cursor_is_its_clients_and_filters_own(
    hall: Hall, admin: Client
) -> None:
    made = sorted([await hall.institution(f"bank {number}") for number in range(7)])
    seen, answer = [], await admin.get(NAMES, limit=3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.json()["as_of"]), "G4"
    first = answer.links["next"]["url"]
    while True:
        seen += [one["id"] for one in answer.json()["items"]]
        if "next" not in answer.links:
            break
        answer = await hall.http.get(answer.links["next"]["url"], headers=admin.headers)
    assert seen == made
    other = await hall.client("admin")
    assert told(await hall.http.get(first, headers=other.headers)) == (400, "bad-cursor")
    cursor = first.split("cursor=")[1]
    assert told(await admin.get("/v1/products", cursor=cursor)) == (400, "bad-cursor")
    for altered in ("x", cursor[:-2], "A" + cursor[1:], cursor + "%", "\u00e4"):
        assert told(await admin.get(NAMES, cursor=altered)) == (400, "bad-cursor"), altered


async def test_readyz_says_what_is_missing_and_healthz_only_that_we_live(hall: Hall) -> None:
    assert (await hall.http.get("/readyz")).json() == {
        "status": "ok",
        "parts": {"database": "ok", "migrations": "ok", "reference": "ok"},
    }
    await hall.owner.execute("DELETE FROM hall.problem_type WHERE code = 'cool-down'")
    await hall.owner.execute("DELETE FROM hall.migration WHERE version = '0001_ground'")
    not_ready = await hall.http.get("/readyz")
    assert (not_ready.status_code, not_ready.json()["parts"]) == (
        503,
        {"database": "ok", "migrations": "missing 0001_ground", "reference": "not brought in line"},
    )
    assert (await hall.http.get("/healthz")).json() == {"status": "ok"}
    hall.service.closing.set()
    assert (await hall.http.get("/readyz")).status_code == 503


async def test_metrics_count_by_template(hall: Hall, admin: Client) -> None:
    code = made_up_code(18)
    await admin.get(f"/v1/enterprises/{code}")
    figures = (await hall.http.get("/metrics")).text
    assert re.search(r'jifen_calls_total\{method="GET",route="/v1/enterprises/\{uscc\}",status="403"\} \d', figures)
    assert "jifen_call_seconds_bucket" in figures
    assert 'jifen_pool_connections{state="used"}' in figures
    assert code not in figures


async def test_a_database_out_of_reach_is_503_with_retry_after(hall: Hall) -> None:
    await hall.service.pool.close()
    answer = await hall.http.get("/v1/products")
    assert told(answer) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"
    assert (await hall.http.get("/healthz")).status_code == 200


async def test_it_ends_within_three_seconds_also_with_idle_and_half_sent_calls(database: str, tmp_path: Path) -> None:
    listening = listening_on("127.0.0.1", 0)
    port = int(address_of(listening).rsplit(":", 1)[1])
    async with served(Settings(home=tmp_path), database, listening):
        idle = socket.create_connection(("127.0.0.1", port))
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(b"POST /v1/institutions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await asyncio.sleep(0.2)
        began = time.monotonic()
    assert time.monotonic() - began < 3
    idle.close()
    half.close()
