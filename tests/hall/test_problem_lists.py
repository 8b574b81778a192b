"""Each operation lists the problems that its act can refuse with, and no other (hall.md §7, P7).

What an act can refuse stands in the text of its function and of those that it calls. Both are read from the catalogue
of the database, so a refusal is found wherever it stands.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastapi.routing import APIRoute

import api
from api.app import routers
from api.database import Connection
from api.machines import machines
from api.openapi import WITHOUT_KEY
from api.problems import CODES, problem_types

OF_ALL = {"validation", "not-found", "body-too-large"}
"""Listed for every operation, or for every one with a body (api.openapi); a route may list them as well."""

NEVER_REFUSES = {("end_line_if_settled", "move_facility")}
"""Calls whose guard leaves nothing to refuse; a test below holds why."""


class Acts:
    """The functions of the hall: what each says and whom it calls."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.calls = {
            name: {
                one
                for one in re.findall(r"hall\.(\w+)\s*\(", text)
                if one in texts and (name, one) not in NEVER_REFUSES
            }
            for name, text in texts.items()
        }

    def reached(self, name: str) -> set[str]:
        """The function and all that it calls."""
        seen: set[str] = set()
        to_see = {name}
        while to_see:
            one = to_see.pop()
            seen.add(one)
            to_see |= self.calls[one] - seen - {"refuse"}
        return seen

    def refusals(self, name: str) -> set[str]:
        """The problems that a function can refuse with, itself or by what it calls."""
        found: set[str] = set()
        for one in self.reached(name):
            text = self.texts[one]
            found |= set(re.findall(r"(?:hall\.refuse\(|'refused', )'([a-z-]+)'", text))
            if re.search(r"hall\.refuse\([^']", text):  # which one, a variable or another function says
                said = " ".join(self.texts[other] for other in self.reached(one))
                found |= set(re.findall(r"'([a-z-]+)'", said)) & set(problem_types())
        return found


async def acts_of(owner: Connection) -> Acts:
    rows = await owner.fetch(
        r"""
        SELECT proname, string_agg(regexp_replace(prosrc, '--[^\n]*', '', 'g'), ' ') AS text
        FROM pg_proc WHERE pronamespace = 'hall'::regnamespace GROUP BY proname
        """
    )
    return Acts({row["proname"]: row["text"] for row in rows})


def operations() -> Iterator[tuple[APIRoute, set[str]]]:
    """Each route with what it lists of its own."""
    for router in routers():
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield route, {code for response in route.responses.values() for code in response.get(CODES, ())}


def raised_in_python() -> set[str]:
    """The problems that the routes and what stands behind them raise themselves."""
    sources = [path.read_text(encoding="utf-8") for path in Path(api.__path__[0]).rglob("*.py")]
    return {code for text in sources for code in re.findall(r'Problem\("([a-z-]+)"', text)}


def acts_named(route: APIRoute, acts: Acts) -> set[str]:
    """The acts that the route's function does."""
    words = re.findall(r'"(\w+)"', inspect.getsource(route.endpoint))
    return {f"act_{word}" for word in words} & set(acts.texts)


async def test_every_operation_lists_what_its_act_can_refuse_and_nothing_that_nobody_raises(owner: Connection) -> None:
    acts = await acts_of(owner)
    in_python = raised_in_python()
    unlisted, unraised = {}, {}
    for route, listed in operations():
        done = acts_named(route, acts)
        refused = {code for name in done for code in acts.refusals(name)}
        if more := refused - listed - OF_ALL:
            unlisted[route.path] = more
        if done and (less := listed - refused - OF_ALL - in_python):
            unraised[route.path] = less
    assert (unlisted, unraised) == ({}, {})


async def test_every_act_of_the_database_is_of_a_route_and_every_route_that_takes_a_key_does_one(
    owner: Connection,
) -> None:
    """Else the comparison would pass for want of something to compare."""
    acts = await acts_of(owner)
    named = {(route.name, name) for route, _ in operations() for name in acts_named(route, acts)}
    assert {name for name in acts.texts if name.startswith("act_")} == {name for _, name in named}
    posts = {route.name for route, _ in operations() if "POST" in (route.methods or ())}
    assert posts - {route for route, _ in named} == set(WITHOUT_KEY)


async def test_a_refusal_behind_another_function_or_told_by_a_variable_is_found(owner: Connection) -> None:
    acts = await acts_of(owner)
    assert "request-suspended" in acts.refusals("act_sign_facility"), "by expect_fence"
    assert {"consent-missing", "consent-revoked", "grab-lost"} <= acts.refusals("act_grab")
    assert {"quote-expired", "over-limit"} <= acts.refusals("act_broadcast_request")


async def test_a_line_that_is_settled_by_itself_leaves_its_state_by_an_edge_that_exists(owner: Connection) -> None:
    acts = await acts_of(owner)
    found = re.search(r"f\.state in \(([^)]*)\)", acts.texts["end_line_if_settled"])
    assert found is not None
    states = set(re.findall(r"'(\w+)'", found[1]))
    assert states
    (f9,) = [edge for edge in machines().facility.edges if edge.number == "F9"]
    assert states <= {source for source, target in f9.steps() if target == "settled"}
