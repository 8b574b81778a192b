"""G2: what changes in the API is told to programs, and an operation that will go says so in each of its answers."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.app import create_app
from api.changes import parse_changes, shipped
from api.limits import CALLS
from api.openapi import document, operations
from api.settings import Settings
from data_contracts.errors import PolicyError
from tests.hall import made
from tests.hall.callers import Hall, serving

WORDS = "what: {zh: 改用新的, en: call the other one}"


def told(*entries: str) -> str:
    """A file of changes of these entries, each without its words."""
    return "changes:\n" + "".join(f"  - {{{entry}, {WORDS}}}\n" for entry in entries)


DEPRECATED = told("on: 2026-12-01, kind: deprecated, operations: [list_products, is_alive], sunset: 2027-06-01")
KNOWN = ("list_products", "is_alive", "grab")


@pytest.fixture
async def hall(database: str, home: Path) -> AsyncIterator[Hall]:
    async with serving(database, home) as served:
        yield served


def client_of(hall: Hall, changes: str | None) -> httpx2.AsyncClient:
    """Calls an application with its own file of changes, on the hall's service."""
    app = create_app(Settings(rate_limits=False), changes)
    app.state.service = hall.service
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://hall")


# -------------------------------------------------------------------------------------------------------- the headers


async def test_every_answer_of_a_deprecated_operation_says_since_when_until_when_and_where_it_is_told(
    hall: Hall,
) -> None:
    async with client_of(hall, DEPRECATED) as http:
        good = await http.get("/v1/products")
        bad = await http.get("/v1/products", params={"limit": 0})
        other = [await http.get("/v1/meta/changes"), await http.post("/v1/products"), await http.delete("/healthz")]
    assert (good.status_code, bad.status_code, [one.status_code for one in other]) == (200, 422, [200, 401, 405])
    for one in (good, bad):
        since = re.fullmatch(r"@(\d+)", one.headers["Deprecation"])
        assert since is not None, "a date of RFC 9651"
        assert datetime.fromtimestamp(int(since[1]), UTC) == datetime(2026, 11, 30, 16, tzinfo=UTC), (
            "midnight in Beijing"
        )
        assert one.headers["Sunset"] == "Mon, 31 May 2027 16:00:00 GMT"
        assert parsedate_to_datetime(one.headers["Sunset"]) == datetime(2027, 5, 31, 16, tzinfo=UTC)
        assert one.headers["Link"] == '</v1/meta/changes>; rel="deprecation"; type="application/json"'
    for one in other:
        assert not {"deprecation", "sunset", "link"} & set(one.headers), one.request.method


async def test_the_way_to_the_next_page_stays_beside_the_way_to_the_deprecation(hall: Hall) -> None:
    for _ in range(2):
        await made.bank(hall.owner)
    async with client_of(hall, DEPRECATED) as http:
        page = await http.get("/v1/products", params={"limit": 1})
    links = page.headers.get_list("link")
    assert [re.search(r'rel="(\w+)"', link)[1] for link in links] == ["next", "deprecation"]  # pyright: ignore[reportOptionalSubscript]


async def test_the_openapi_file_marks_what_is_deprecated() -> None:
    marked = {one["operationId"] for _, one in operations(document(create_app(Settings(), DEPRECATED)))
              if one.get("deprecated")}  # fmt: skip
    assert marked == {"list_products", "is_alive"}


async def test_today_nothing_is_deprecated(hall: Hall) -> None:
    async with client_of(hall, None) as http:
        assert "deprecation" not in (await http.get("/healthz")).headers
    assert not any(one.get("deprecated") for _, one in operations(document(create_app(Settings()))))


# ----------------------------------------------------------------------------------------------------------- the list


async def test_the_list_is_public_and_is_the_file(hall: Hall) -> None:
    async with client_of(hall, DEPRECATED) as http:
        assert (await http.get("/v1/meta/changes")).json() == {"changes": [{
            "on": "2026-12-01", "kind": "deprecated", "operations": ["list_products", "is_alive"],
            "what": {"zh": "改用新的", "en": "call the other one"}, "sunset": "2027-06-01",
        }]}  # fmt: skip
    own = (await hall.http.get("/v1/meta/changes")).json()["changes"]
    assert "list_changes" in {name for one in own for name in one["operations"]}


async def test_the_list_has_the_pace_of_other_public_paths(database: str, home: Path) -> None:
    async with serving(database, home, rate_limits=True, processes=CALLS.burst) as hall:
        answers = [await hall.http.get("/v1/meta/changes") for _ in range(5)]
        assert {one.status_code for one in answers} == {200, 429}


# ----------------------------------------------------------------------------------------------------------- the file


def refused(text: str, known: tuple[str, ...] = KNOWN) -> list[str]:
    with pytest.raises(PolicyError) as error:
        parse_changes(text, known)
    return list(error.value.problems)


def test_all_that_is_wrong_is_named_at_once() -> None:
    text = told(
        "on: 2026-12-02, kind: deprecated, operations: [grab, moon], sunset: 2027-05-30",
        "on: 2026-12-01, kind: deprecated, operations: [grab]",
        "on: 2026-12-03, kind: added, operations: [sun], sunset: 2028-01-01",
        "on: 2026-12-04, kind: removed, operations: [is_alive]",
    )
    assert refused(text) == [
        "changes.0: no operation is named moon",
        "changes.0: grab is deprecated twice",
        "changes.0: the sunset 2027-05-30 is less than 180 days after 2026-12-02",
        "changes.1: grab is deprecated twice",
        "changes.1: a deprecation has a sunset",
        "changes.2: no operation is named sun",
        "changes.2: a sunset is of a deprecation, not of what was added",
        "changes.3: is_alive is still there",
        "changes.3: is_alive was not deprecated with a sunset until then",
        "changes.1: comes after 2026-12-02, which is later",
    ]


@pytest.mark.parametrize(("days", "is_taken"), [(180, True), (179, False)])
def test_a_sunset_is_at_least_180_days_away(days: int, is_taken: bool) -> None:
    on = date(2026, 12, 1)
    text = told(f"on: {on}, kind: deprecated, operations: [grab], sunset: {on + timedelta(days=days)}")
    if is_taken:
        assert parse_changes(text, KNOWN).deprecated()["grab"].sunset == on + timedelta(days=days)
    else:
        assert refused(text) == [f"changes.0: the sunset {on + timedelta(days=days)} is less than 180 days after {on}"]


def test_what_was_removed_may_stay_in_the_file_once_its_sunset_came() -> None:
    first = "on: 2026-12-01, kind: deprecated, operations: [old], sunset: 2027-06-01"
    assert parse_changes(told(first, "on: 2027-06-01, kind: removed, operations: [old]"), KNOWN)
    too_early = told(first, "on: 2027-05-31, kind: removed, operations: [old]")
    assert refused(too_early) == ["changes.1: old was not deprecated with a sunset until then"]
    assert refused(told(first)) == ["changes.0: no operation is named old"]


@pytest.mark.parametrize("entry", ["kind: added, operations: [grab]", "on: 2026-12-01, kind: gone, operations: [grab]",
                                   "on: 2026-12-01, kind: added, operations: []",
                                   "on: 2026-12-01, kind: added, operations: [grab], whim: 1"])  # fmt: skip
def test_a_file_of_another_shape_is_refused(entry: str) -> None:
    assert refused(told(entry))


def test_the_program_does_not_start_with_a_wrong_file() -> None:
    with pytest.raises(PolicyError):
        create_app(Settings(), told("on: 2026-12-01, kind: added, operations: [moon]"))


def test_the_shipped_file_is_right() -> None:
    known: Any = {one["operationId"] for _, one in operations(document(create_app(Settings())))}
    assert parse_changes(shipped(), known).changes
