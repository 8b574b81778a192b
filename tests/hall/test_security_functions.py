"""Who may call what (reliability.md §6, API5 and API9): every operation of the OpenAPI file by every role."""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from api.app import create_app
from api.openapi import document
from api.scopes import ROLES
from api.settings import Settings
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.conftest import _database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


class Operation(NamedTuple):
    """An operation of the OpenAPI file; `scopes`: any of them will do, none: everybody may call it."""

    method: str
    path: str
    scopes: frozenset[str]

    @property
    def roles(self) -> list[str]:
        return [role for role, has in ROLES.items() if self.scopes & set(has)]

    def named(self) -> str:
        """Its path with things that may be there, none of which is."""
        return re.sub(r"\{(\w+)\}", lambda found: _SAMPLES[found[1]], self.path)


_SAMPLES = {
    "fr_id": made.new("fr"), "claim_id": made.new("cl"), "offer_id": made.new("of"), "facility_id": made.new("fa"),
    "drawdown_id": made.new("dd"), "case_id": made.new("ca"), "consent_id": made.new("co"), "code": "grab-lost",
    "quote_id": made.new("lq"), "approval_id": made.new("ap"), "institution_id": made.new("in"), "round_no": "1",
    "outlet_id": made.new("ol"), "officer_id": made.new("oc"), "appeal_id": made.new("al"), "report_id": made.new("cr"),
    "product_id": made.new("pr"), "version": "1", "uscc": "91350211MA0000000X",
}  # fmt: skip


def operations() -> Iterator[Operation]:
    for path, item in document(create_app(Settings()))["paths"].items():
        for method, told in item.items():
            scopes = {one for demand in told.get("security", []) for named in demand.values() for one in named}
            yield Operation(method.upper(), path, frozenset(scopes))


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests here: none changes anything."""
    yield from _database(server, template)


@pytest.fixture(scope="module")
async def hall(database: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hall]:
    async with serving(database, tmp_path_factory.mktemp("home")) as served:
        yield served


@pytest.fixture(scope="module")
async def callers(hall: Hall) -> dict[str, Client]:
    """A client of each role with all that the role may have."""
    bank = await hall.institution("a bank")
    belongs: dict[str, dict[str, Any]] = {
        "bank": {"institution": bank},
        "institution-manager": {"institution": bank},
        "enterprise": {"uscc": await made.enterprise(hall.owner)},
    }
    return {role: await hall.client(role, **belongs.get(role, {})) for role in ROLES}


async def told(http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and problem of a call; of the stream, which does not end, the beginning."""
    own = headers | {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": "1"}
    async with http.stream(method, path, headers=own, json={} if method in ("POST", "PUT") else None) as answer:
        if answer.status_code < 400:
            return answer.status_code, ""
        await answer.aread()
        return answer.status_code, answer.json().get("type", "").removeprefix("/problems/")


async def test_api5_who_lacks_the_scope_is_403_who_has_no_token_401_and_who_has_it_gets_on(
    hall: Hall, callers: dict[str, Client]
) -> None:
    """Every operation by every role, and by nobody; the file and the service cannot disagree."""
    wrong: list[str] = []
    for one in operations():
        known = {"nobody": {}} | {role: client.headers for role, client in callers.items()}
        for role, headers in known.items():
            status, problem = await told(hall.http, one.method, one.named(), headers)
            if not one.scopes:
                fits = status not in (401, 403)
            elif role == "nobody":
                fits = (status, problem) == (401, "token-missing")
            elif role in one.roles:
                fits = status not in (401, 403) or problem.startswith("consent")
            else:
                fits = (status, problem) == (403, "scope-missing")
            if not fits:
                wrong.append(f"{one.method} {one.path} by {role}: {status} {problem}")
    assert wrong == []


async def test_a_token_of_fewer_scopes_reaches_less(hall: Hall) -> None:
    admin = await hall.client("admin")
    await hall.owner.execute("UPDATE hall.access_token SET scopes = '{ops:read}' WHERE client_id = $1", admin.client_id)
    assert await told(hall.http, "POST", "/v1/institutions", admin.headers) == (403, "scope-missing")


async def test_api5_the_method_is_the_one_that_was_sent(hall: Hall, callers: dict[str, Client]) -> None:
    """A method that a path does not have is 405 and names those it has; no header makes it another."""
    overriding = {
        "X-HTTP-Method-Override": "POST", "X-HTTP-Method": "DELETE", "X-Method-Override": "PUT",
        "X-Original-URL": "/v1/institutions", "X-Rewrite-URL": "/v1/institutions",
    }  # fmt: skip
    paths: dict[str, set[str]] = {}
    for one in operations():
        paths.setdefault(one.named(), set()).add(one.method)
    for path, has in paths.items():
        for method in set(METHODS) - has:
            answer = await hall.http.request(method, path, headers=callers["admin"].headers | overriding)
            assert answer.status_code == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) == has, (method, path)
    read = await hall.http.get("/v1/institutions", headers=callers["admin"].headers | overriding)
    assert read.status_code == 200
    assert "items" in read.json()


@pytest.mark.parametrize(
    "path",
    [
        "/", "/docs", "/redoc", "/v1", "/v2/hall", "/admin", "/sandbox/clock", "/v1/sandbox/clock", "/.env",
        "/.git/config", "/static/../api/app.py", "/v1/hall/", "//v1/hall", "/V1/HALL", "/v1/hall;a=b",
        "/v1/%2e%2e/metrics", "/debug",
    ],
)  # fmt: skip
async def test_api9_there_is_nothing_beside_the_file(hall: Hall, callers: dict[str, Client], path: str) -> None:
    """No page of documents, no sandbox, no file, no second spelling of a path."""
    for headers in ({}, callers["admin"].headers):
        answer = await hall.http.get(path, headers=headers)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_token_counts_in_its_header_alone(hall: Hall, callers: dict[str, Client]) -> None:
    """Not in the query, where logs of others would keep it, nor in a cookie, which a browser sends by itself."""
    token = callers["admin"].headers["Authorization"].removeprefix("Bearer ")
    path = "/v1/institutions"
    tries = [
        {"url": f"{path}?access_token={token}"},
        {"url": path, "headers": {"Cookie": f"access_token={token}; Authorization=Bearer {token}"}},
        {"url": path, "headers": {"X-Authorization": f"Bearer {token}"}},
        {"url": path, "headers": {"Authorization": f"Basic {token}"}},
        {"url": path, "headers": {"Authorization": token}},
    ]
    for one in tries:
        answer = await hall.http.get(**one)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/token-missing"), one
    doubled = await hall.http.get(path, headers=[("Authorization", "Bearer x"), ("Authorization", f"Bearer {token}")])
    assert doubled.status_code == 401


# ------------------------------------------------------------------------------------------------------------ the page


def rows_of_the_page() -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"^\| `(?:GET|POST|PUT|PATCH|DELETE) .*$", text, re.MULTILINE)


def rows_of_the_file() -> list[str]:
    """A row an operation: who may call it, by which scopes."""
    return [
        f"| `{one.method} {one.path}` | {' or '.join(f'`{scope}`' for scope in sorted(one.scopes)) or '-'} "
        f"| {', '.join(one.roles) or 'everybody'} |"
        for one in sorted(operations(), key=lambda one: (one.path, one.method))
    ]


def test_docs_security_says_who_may_call_what() -> None:
    assert rows_of_the_page() == rows_of_the_file()


def test_docs_security_names_tests_that_exist() -> None:
    """Each row of the page that claims something names the test that holds it."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    written = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", written, re.MULTILINE)) | {
        path.stem for path in Path(__file__).parent.glob("test_*.py")
    }
    assert len(named) > 20
    assert named <= defined, named - defined
