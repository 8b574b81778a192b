"""Every operation of the OpenAPI file is asked for what it declares and for what it does not, in a living town.

No answer is a fault of ours (5xx), none has a status, a media type or a body that the file does not tell, and every
error is a problem of a type that the operation lists (hall.md §7, reliability.md §4).
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.openapi import document
from api.scopes import ROLES
from api.settings import Settings
from tests.hall import made
from tests.hall.callers import serving
from tests.hall.conftest import _database
from tests.hall.residents import Town, town

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PROBLEM = "application/problem+json"
SECONDS = 20
MOST_SHOWN = 3
LEAST_SHARE = 0.5
WITHOUT_MODEL = "/problems/engine-unavailable"
"""Here no model was promoted, so an answer that needs one is a refusal that the file tells."""


@dataclass(frozen=True)
class Served:
    """What a thread serves while the test asks: the address, a token a client, and what there is to name."""

    address: str
    tokens: Mapping[str, str]
    roles: Mapping[str, str]
    there: Mapping[str, Any]


@pytest.fixture(scope="module")
def database(server: str, template: str) -> Iterator[str]:
    """One for all tests here."""
    yield from _database(server, template)


@pytest.fixture(scope="module")
def served(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(serving(database, tmp_path_factory.mktemp("home"))) as hall,
    ):
        yield described(portal.call(town, hall))


def described(here: Town) -> Served:
    return Served(
        str(here.hall.http.base_url).rstrip("/"),
        {name: client.headers["Authorization"] for name, client in here.clients.items()},
        here.roles,
        named(here),
    )


def named(here: Town) -> dict[str, Any]:
    """Values that mean something here, by the name of the parameter or member that takes them."""
    offer = made.HASH
    return here.things | {
        "Claim-Fence": str(here.claims["contacted"].fence),
        "amount_fen": 20_000_000, "bank_ref": "another", "card_version": 5, "channel": "portal", "corrects": "first",
        "district": "350211", "document_sha256": offer, "drawn_on": here.things["today"], "line_ends_on":
        here.things["in a year"], "product_id": f"{here.mine.product}@1", "purpose": "financing", "round": 1,
        "round_no": "1", "scheme": "ordinary", "sha256": offer, "signed_on": here.things["today"], "to": "broadcast",
        "usccs": [here.firm, here.neighbour], "version": 5, "wait_seconds": 0, "wishes": [here.mine.institution],
        "code": "grab-lost",
    }  # fmt: skip


def planted(thing: Any, there: Mapping[str, Any], draw: Any) -> Any:
    """The same with some of its members made to name what is there."""
    if isinstance(thing, dict):
        return {
            name: there[name] if name in there and draw(st.integers(0, 7)) else planted(value, there, draw)
            for name, value in thing.items()
        }
    return [planted(one, there, draw) for one in thing] if isinstance(thing, list) else thing


@st.composite
def asked(draw: Any, operation: APIOperation[Any, Any, Any, Any], served: Served) -> tuple[Case[Any], dict[str, str]]:
    """A call and its headers: by somebody who has the scope as a rule, of what is there as a rule."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    case = draw(operation.as_strategy(generation_mode=mode))
    demands = operation.definition.raw.get("security", [])
    scopes = {scope for one in demands for named in one.values() for scope in named}
    able = [name for name, role in served.roles.items() if scopes & set(ROLES[role])]
    who = None
    if scopes:
        who = draw(st.sampled_from([able[0], able[0], *able] if draw(st.integers(0, 5)) else [*served.tokens]))
    headers = {"Authorization": served.tokens[who]} if who else {}
    if draw(st.integers(0, 5)):
        by_path = {**served.there, "product_id": served.there["product_id"].split("@")[0]}
        case.path_parameters = planted(dict(case.path_parameters or {}), by_path, draw)
        case.query = planted(dict(case.query or {}), by_path, draw)
        case.body = planted(case.body, served.there, draw)
        headers |= {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": served.there["Claim-Fence"]}
    if isinstance(case.body, dict) and "wait_seconds" in case.body:
        case.body["wait_seconds"] = 0
    return case, headers


def broken(case: Case[Any], headers: dict[str, str], address: str, seen: Counter[tuple[str, int]]) -> list[str]:
    """What is wrong with the answer to a call; its status is counted."""
    if case.operation.definition.raw["operationId"] == "stream_hall":
        return broken_stream(case, headers, address, seen)
    answer = case.call(base_url=address, headers=headers, timeout=SECONDS)
    seen[case.operation.label, answer.status_code] += 1
    told: list[str] = []
    is_without_model = answer.status_code == 503 and answer.json()["type"] == WITHOUT_MODEL
    try:
        case.validate_response(answer, checks=CHECKS[1:] if is_without_model else CHECKS)
    except FailureGroup as group:
        told += [f"{type(one).__name__}: {one}" for one in group.exceptions]
    except Failure as failure:
        told.append(f"{type(failure).__name__}: {failure}")
    if answer.status_code >= 400:
        told += badly_told(answer.status_code, answer.headers["content-type"][0], answer.json())
    return [f"{answer.status_code} {one}" for one in told]


def broken_stream(case: Case[Any], headers: dict[str, str], address: str, seen: Counter[tuple[str, int]]) -> list[str]:
    """The same of the stream, whose answer does not end: its head, and its body where it is an error."""
    kwargs = case.as_transport_kwargs(base_url=address, headers=headers)
    with requests.Session().request(**kwargs, stream=True, timeout=SECONDS) as answer:
        seen[case.operation.label, answer.status_code] += 1
        if str(answer.status_code) not in case.operation.definition.raw["responses"] or answer.status_code >= 500:
            return [f"{answer.status_code} {answer.text}"]
        kind = answer.headers["content-type"]
        if answer.status_code < 400:
            return [] if kind.startswith("text/event-stream") else [kind]
        return badly_told(answer.status_code, kind, answer.json())


def badly_told(status: int, kind: str, problem: Mapping[str, Any]) -> list[str]:
    """What a problem lacks that every problem has."""
    wrong = [name for name in ("type", "title", "status", "trace_id") if name not in problem]
    if kind != PROBLEM:
        wrong.append(kind)
    if problem.get("status") != status:
        wrong.append("its status is another")
    return wrong


def fuzz(served: Served, examples: int) -> dict[str, list[str]]:
    """Ask every operation so many times; by operation what was wrong, the same fault once.

    Nothing would be found wrong by who never gets beyond the door, so most operations must have done something.
    """
    seen: Counter[tuple[str, int]] = Counter()
    schema = schemathesis.openapi.from_dict(document(create_app(Settings())))
    operations = all_of(schema)
    found = {operation.label: faults(operation, served, examples, seen) for operation in operations}
    did = {label for label, status in seen if status < 300}
    assert len(did) > LEAST_SHARE * len(operations), sorted({one.label for one in operations} - did)
    return {label: told for label, told in found.items() if told}


def all_of(schema: schemathesis.BaseSchema) -> list[APIOperation[Any, Any, Any, Any]]:
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def faults(
    operation: APIOperation[Any, Any, Any, Any], served: Served, examples: int, seen: Counter[tuple[str, int]]
) -> list[str]:
    """What was wrong with the answers of one operation, with the call that showed it; every status is counted."""
    wrong: dict[str, str] = {}

    # Whether the draws repeat themselves, the profile of the run says.
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(call=asked(operation, served))
    def ask(call: tuple[Case[Any], dict[str, str]]) -> None:
        case, headers = call
        for one in broken(case, headers, served.address, seen):
            wrong.setdefault(one, case.as_curl_command(headers=headers))

    ask()
    return [f"{one}\n    {call}" for one, call in wrong.items()][:MOST_SHOWN]


def shown(found: dict[str, list[str]]) -> str:
    return "\n".join(f"{label}\n  " + "\n  ".join(faults) for label, faults in found.items())


def test_e1_no_call_whatever_it_says_gets_a_fault_or_an_answer_that_the_file_does_not_tell(served: Served) -> None:
    found = fuzz(served, 6)
    assert not found, shown(found)


@pytest.mark.soak
def test_e1_the_same_for_long(served: Served, soak_length: int) -> None:
    found = fuzz(served, soak_length)
    assert not found, shown(found)


def test_a_fault_behind_one_operation_is_found(served: Served, database: str) -> None:
    """The control, and the last test here: a statement fails, another operation answers what the file does not tell."""

    async def spoil() -> None:
        owner = await asyncpg.connect(database)
        for name in ("claim_view(p_actor jsonb, p_id text)", "facility_view(p_actor jsonb, p_id text)"):
            body = (
                "BEGIN RAISE division_by_zero; END" if "claim" in name else "BEGIN RETURN '{\"facility_id\": 7}'; END"
            )
            await owner.execute(
                f"CREATE OR REPLACE FUNCTION hall.{name} RETURNS jsonb LANGUAGE plpgsql STABLE AS $$ {body} $$"
            )
        await owner.close()

    asyncio.run(spoil())
    schema = schemathesis.openapi.from_dict(document(create_app(Settings())))
    seen: Counter[tuple[str, int]] = Counter()
    by_id = {one.definition.raw["operationId"]: one for one in all_of(schema)}
    assert any("500 ServerError" in told for told in faults(by_id["read_claim"], served, 10, seen))
    assert any("JsonSchemaError" in told for told in faults(by_id["read_facility"], served, 10, seen))
