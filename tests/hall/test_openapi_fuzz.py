"""Every operation of the OpenAPI file is asked for what it declares and for what it does not, in a living town.

No answer is a fault of ours (5xx), none has a status, a media type or a body that the file does not tell, and every
error is a problem of a type that the operation lists (hall.md §7, reliability.md §4).
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
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
from tests.hall.residents import Town, town

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PROBLEM = "application/problem+json"
SECONDS = 20
MOST_SHOWN = 3


@dataclass(frozen=True)
class Served:
    """What a thread serves while the test asks: the address, a token a client, and what there is to name."""

    address: str
    tokens: Mapping[str, str]
    roles: Mapping[str, str]
    there: Mapping[str, Any]


@pytest.fixture
def served(database: str, home: Path) -> Iterator[Served]:
    with (
        start_blocking_portal("asyncio", {"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(serving(database, home)) as hall,
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
            name: there[name] if name in there and draw(st.integers(0, 3)) else planted(value, there, draw)
            for name, value in thing.items()
        }
    return [planted(one, there, draw) for one in thing] if isinstance(thing, list) else thing


@st.composite
def asked(draw: Any, operation: APIOperation, served: Served) -> tuple[Case, dict[str, str]]:
    """A call and its headers: by somebody who has the scope as a rule, of what is there as a rule."""
    mode = draw(st.sampled_from([GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
    case = draw(operation.as_strategy(generation_mode=mode))
    demands = operation.definition.raw.get("security", [])
    scopes = {scope for one in demands for named in one.values() for scope in named}
    able = [name for name, role in served.roles.items() if scopes & set(ROLES[role])]
    who = draw(st.sampled_from([*able, *able, *served.tokens])) if scopes else None
    headers = {"Authorization": served.tokens[who]} if who else {}
    if draw(st.integers(0, 4)):
        there = served.there | {"product_id": served.there["product_id"].split("@")[0]}
        case.path_parameters = planted(dict(case.path_parameters or {}), there, draw)
        case.query = planted(dict(case.query or {}), there, draw)
        case.body = planted(case.body, served.there, draw)
        headers |= {"Idempotency-Key": secrets.token_hex(8), "Claim-Fence": served.there["Claim-Fence"]}
    if isinstance(case.body, dict) and "wait_seconds" in case.body:
        case.body["wait_seconds"] = 0
    return case, headers


def broken(case: Case, headers: dict[str, str], address: str) -> list[str]:
    """What is wrong with the answer to a call."""
    if case.operation.definition.raw["operationId"] == "stream_hall":
        return broken_stream(case, headers, address)
    answer = case.call(base_url=address, headers=headers, timeout=SECONDS)
    told: list[str] = []
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as group:
        told += [f"{type(one).__name__}: {one}" for one in group.exceptions]
    except Failure as failure:
        told.append(f"{type(failure).__name__}: {failure}")
    if answer.status_code >= 400:
        told += badly_told(answer.status_code, answer.headers["content-type"][0], answer.json())
    return [f"{answer.status_code} {one}" for one in told]


def broken_stream(case: Case, headers: dict[str, str], address: str) -> list[str]:
    """The same of the stream, whose answer does not end: its head, and its body where it is an error."""
    kwargs = case.as_transport_kwargs(base_url=address, headers=headers)
    with requests.Session().request(**kwargs, stream=True, timeout=SECONDS) as answer:
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
    """Ask every operation so many times; by operation what was wrong, the same fault once."""
    schema = schemathesis.openapi.from_dict(document(create_app(Settings())))
    operations = [result.ok() for result in schema.get_all_operations()]
    found = {operation.label: faults(operation, served, examples) for operation in operations}
    return {label: told for label, told in found.items() if told}


def faults(operation: APIOperation, served: Served, examples: int) -> list[str]:
    """What was wrong with the answers of one operation, with the call that showed it."""
    wrong: dict[str, str] = {}

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(call=asked(operation, served))
    def ask(call: tuple[Case, dict[str, str]]) -> None:
        case, headers = call
        for one in broken(case, headers, served.address):
            wrong.setdefault(one, case.as_curl_command(headers=headers))

    ask()
    return [f"{one}\n    {call}" for one, call in wrong.items()][:MOST_SHOWN]


def shown(found: dict[str, list[str]]) -> str:
    return "\n".join(f"{label}\n  " + "\n  ".join(faults) for label, faults in found.items())


def test_e1_no_call_whatever_it_says_gets_a_fault_or_an_answer_that_the_file_does_not_tell(served: Served) -> None:
    found = fuzz(served, 8)
    assert not found, shown(found)


@pytest.mark.soak
def test_e1_the_same_for_long(served: Served, soak_length: int) -> None:
    found = fuzz(served, soak_length)
    assert not found, shown(found)
