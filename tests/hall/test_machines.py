"""The machines of the file are those of the specification (hall.md §3); database and page are the file's."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from api.machines import CREATION, Machines, machines, page
from api.reference import bring_in_line, hall_policy
from api.scopes import ROLES
from data_contracts.errors import PolicyError
from scoring.strict_yaml import record

ROOT = Path(__file__).resolve().parents[2]

BEFORE_SIGNED = "draft submitted screened quoted broadcast claimed offered accepted assisted"

# hall.md §3, with "any" written out.
SPECIFIED = """
T1 - > draft
T2 draft > submitted
T3 draft quoted > EXPIRED
T4 submitted > screened
T5 submitted > INELIGIBLE
T6 screened > quoted
T7 submitted screened > assisted
T8 quoted > broadcast
T9 broadcast > claimed
T10 broadcast > broadcast
T11 broadcast > assisted
T12 claimed > offered
T13 claimed offered accepted > broadcast assisted
T14 offered > accepted
T15 accepted > signed
T16 signed > active
T17 active > CLOSED
T18 BEFORE_SIGNED > WITHDRAWN
T19 BEFORE_SIGNED signed > CANCELLED
T20 assisted > broadcast DECLINED
K1 - > held
K2 held > contacted
K3 contacted > offered
K4 offered > accepted
K4 held contacted offered > superseded
K5 held contacted accepted > lapsed
K6 held contacted offered > released rejected
K6 contacted offered > declined
K7 offered > expired
K8 accepted > done
F1 - > signed
F2 signed > active
F3 active reduced > frozen
F4 frozen > active reduced
F5 active > reduced
F5 reduced > active
F6 active reduced frozen renewed > overdue
F7 overdue > active reduced frozen
F8 active reduced overdue > renewed
F9 signed active frozen reduced overdue renewed > settled
F10 active frozen reduced overdue renewed compensated > written_off
F11 active frozen reduced overdue renewed written_off > compensated
"""
# What the specification's sentences need and its tables do not list; each has its note in the file.
ADDED = """
T17 signed > CLOSED
K6 accepted > rejected
"""


def steps(lines: str) -> set[tuple[str, str, str]]:
    found: set[tuple[str, str, str]] = set()
    for line in lines.replace("BEFORE_SIGNED", BEFORE_SIGNED).strip().splitlines():
        number, *sources = line.partition(" > ")[0].split()
        found |= {(number, source, target) for source in sources for target in line.partition(" > ")[2].split()}
    return found


def test_s1_only_the_edges_of_the_specification_exist() -> None:
    rows = [(row["number"], row["from_state"], row["to_state"]) for row in machines().edge_rows()]
    assert len(rows) == len(set(rows))
    assert set(rows) == steps(SPECIFIED) | steps(ADDED)


@pytest.mark.parametrize("name", machines().items())
def test_p4_every_state_that_is_not_final_has_an_owner_a_deadline_and_a_consequence(name: str) -> None:
    lengths = {*hall_policy().settings, None}
    for state in machines().items()[name].states.values():
        assert bool(state.owner) == bool(state.deadlines) != state.is_final
        assert {deadline.setting for deadline in state.deadlines} <= lengths
        assert all(deadline.then.zh and deadline.then.en for deadline in state.deadlines)


def test_final_states_are_those_of_the_specification_and_only_a_loss_may_still_move() -> None:
    final = {
        name: {k for k, one in machine.states.items() if one.is_final} for name, machine in machines().items().items()
    }
    assert final == {
        "request": {"INELIGIBLE", "WITHDRAWN", "EXPIRED", "DECLINED", "CLOSED", "CANCELLED"},
        "claim": {"done", "released", "lapsed", "declined", "superseded", "rejected", "expired"},
        "facility": {"settled", "written_off", "compensated"},
    }
    assert all(name.isupper() == one.is_final for name, one in machines().request.states.items())
    left = {(row["machine"], row["from_state"], row["to_state"]) for row in machines().edge_rows()}
    assert {step for step in left if step[1] in final[step[0]]} == {
        ("facility", "written_off", "compensated"),
        ("facility", "compensated", "written_off"),  # a guarantor who paid a part
    }


@pytest.mark.parametrize("name", machines().items())
def test_every_state_is_reached_and_leads_to_an_end(name: str) -> None:
    machine = machines().items()[name]
    found = [(source, target) for edge in machine.edges for source, target in edge.steps()]
    reached, ending = {CREATION}, {state for state, one in machine.states.items() if one.is_final}
    for _ in machine.states:
        reached |= {target for source, target in found if source in reached}
        ending |= {source for source, target in found if target in ending}
    assert reached - {CREATION} == set(machine.states) == ending - {CREATION}


def test_an_edge_asks_for_scopes_that_a_role_can_have() -> None:
    given = {scope for scopes in ROLES.values() for scope in scopes}
    asked = {scope for machine in machines().items().values() for edge in machine.edges for scope in edge.scopes}
    assert asked - given == set()


def test_s1_the_edge_table_equals_the_file(database: str) -> None:
    async def kept() -> list[dict[str, str]]:
        connection = await asyncpg.connect(database)
        await bring_in_line(connection)
        rows = await connection.fetch("SELECT machine, number, from_state, to_state FROM hall.edge")
        await connection.close()
        return [dict(row) for row in rows]

    def ordered(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
        return sorted(tuple(row.values()) for row in rows)

    assert ordered(asyncio.run(kept())) == ordered(machines().edge_rows())


def test_the_page_of_the_machines_equals_the_file() -> None:
    path = ROOT / "docs" / "machines.md"
    made = page(machines())
    assert path.read_text(encoding="utf-8") == made, "write api.machines.page(machines()) to docs/machines.md"


def test_a_wrong_machine_is_refused_with_every_fault() -> None:
    state = "{zh: 甲, en: a}"
    machine = f"""
  title: {{zh: 机, en: machine}}
  states:
    open: {{zh: 开, en: open, owner: {state}}}
    shut: {{zh: 关, en: shut}}
    lost: {{zh: 失, en: lost}}
  edges:
    - {{number: T1, from: ["-"], to: [open, "-"], who: {state}, when: {state}}}
    - {{number: T2, from: [open, open], to: [shut, elsewhere], who: {state}, when: {state}}}
"""
    text = "".join(f"{name}:{machine}" for name in ("request", "claim", "facility"))
    with pytest.raises(PolicyError) as refused:
        record(text, Machines, "state machines' file")
    assert [problem for problem in refused.value.problems if problem.startswith("claim: ")] == [
        "claim: T1: no state is named -",
        "claim: T2: no state is named elsewhere",
        "claim: T2 open elsewhere: stands twice",
        "claim: T2 open shut: stands twice",
        "claim: open: an owner and a deadline, or neither",
        "claim: lost: nothing leads to it",
    ]
