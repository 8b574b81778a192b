"""The state machines of the hall as machines.yaml tells them, and the page of the documents made from them."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Self

from pydantic import Field, model_validator

from scoring.strict_yaml import Record, record

CREATION = "-"
"""What an edge starts from that makes the thing."""


class Words(Record):
    """A name or sentence in both languages of the hall."""

    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)


class Deadline(Record):
    """A limit of the time in a state.

    Attributes:
        setting: the number in hall_policy.yaml that says how long; None: another paper does, such as the contract.
        then: what happens when it has passed.
    """

    setting: str | None
    then: Words


class State(Record):
    """A state; one with neither owner nor deadline is final: nothing is awaited in it."""

    zh: str
    en: str
    owner: Words | None = None
    deadlines: tuple[Deadline, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether nobody has to act."""
        return self.owner is None


class Edge(Record):
    """Transitions under one number: from each of `sources` to each of `targets`.

    Attributes:
        scopes: what a caller's token must allow, one of them is enough; empty where the hall itself acts.
        when: the guard, in words.
        note: why the edge is there, where that is not plain.
    """

    number: str = Field(pattern=r"^[TKF][1-9][0-9]?$")
    sources: tuple[str, ...] = Field(alias="from", min_length=1)
    targets: tuple[str, ...] = Field(alias="to", min_length=1)
    who: Words
    scopes: tuple[str, ...] = ()
    when: Words
    note: str | None = None

    def steps(self) -> Iterator[tuple[str, str]]:
        """Each single transition."""
        yield from ((source, target) for source in self.sources for target in self.targets)


class Machine(Record):
    """One state machine: its states by name, its edges by number."""

    title: Words
    states: dict[str, State]
    edges: tuple[Edge, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sources, targets = {*self.states, CREATION}, {*self.states}
        problems = [
            f"{edge.number}: no state is named {name}"
            for edge in self.edges
            for name in (*(set(edge.sources) - sources), *(set(edge.targets) - targets))
        ]
        steps = [(edge.number, *step) for edge in self.edges for step in edge.steps()]
        problems += [
            f"{' '.join(step)}: stands twice" for step in sorted({step for step in steps if steps.count(step) > 1})
        ]
        left = {source for _, source, _ in steps}
        reached = {target for _, _, target in steps}
        for name, state in self.states.items():
            if state.is_final == bool(state.deadlines):
                problems.append(f"{name}: an owner and a deadline, or neither")
            if not state.is_final and name not in left:
                problems.append(f"{name}: nothing leads out of it")
            if name not in reached:
                problems.append(f"{name}: nothing leads to it")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class Machines(Record):
    """The three machines."""

    request: Machine
    claim: Machine
    facility: Machine

    def items(self) -> Mapping[str, Machine]:
        """By the name that `hall.edge.machine` has."""
        return {"request": self.request, "claim": self.claim, "facility": self.facility}

    def edge_rows(self) -> list[dict[str, str]]:
        """The rows of `hall.edge`, one a transition."""
        return [
            {"machine": name, "number": edge.number, "from_state": source, "to_state": target}
            for name, machine in self.items().items()
            for edge in machine.edges
            for source, target in edge.steps()
        ]


@cache
def machines() -> Machines:
    """The machines of this program.

    Raises:
        PolicyError: the file is wrong; with every problem.
    """
    return record((files("api") / "machines.yaml").read_text(encoding="utf-8"), Machines, "state machines' file")


def page(told: Machines) -> str:
    """docs/machines.md: a picture and two tables a machine, in Markdown."""
    lines = [
        "# State machines",
        "",
        "Made from api/machines.yaml, which the database's guard is made from too: only these edges exist. Lengths of",
        "deadlines are in api/hall_policy.yaml. A suspended request (T21) keeps its state: the flag stops its clocks",
        "and hides its card.",
    ]
    for name, machine in told.items().items():
        lines += ["", f"## {machine.title.zh} {machine.title.en} (`{name}`)", "", *_picture(machine)]
        lines += ["", *_states(machine), "", *_edges(machine), *_notes(machine)]
    return "\n".join(lines) + "\n"


def _picture(machine: Machine) -> list[str]:
    labels: dict[tuple[str, str], list[str]] = {}
    for edge in machine.edges:
        for step in edge.steps():
            labels.setdefault(step, []).append(edge.number)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {name}: {name} {state.zh}" for name, state in machine.states.items()]
    for (source, target), numbers in labels.items():
        start = "[*]" if source == CREATION else source
        lines.append(f"    {start} --> {target}: {', '.join(numbers)}")
    lines += [f"    {name} --> [*]" for name, state in machine.states.items() if state.is_final]
    return [*lines, "```"]


def _states(machine: Machine) -> list[str]:
    rows = ["| State | 状态 | Name | Who must act | Deadline, and then |", "|---|---|---|---|---|"]
    for name, state in machine.states.items():
        owner = f"{state.owner.zh} {state.owner.en}" if state.owner else "final"
        deadlines = "; ".join(
            f"{f'`{deadline.setting}`: ' if deadline.setting else ''}{deadline.then.zh} {deadline.then.en}"
            for deadline in state.deadlines
        )
        rows.append(f"| `{name}` | {state.zh} | {state.en} | {owner} | {deadlines or '–'} |")
    return rows


def _edges(machine: Machine) -> list[str]:
    rows = ["| # | From | To | Who | When | Scope |", "|---|---|---|---|---|---|"]
    for edge in machine.edges:
        sources = ", ".join("–" if name == CREATION else f"`{name}`" for name in edge.sources)
        targets = ", ".join(f"`{name}`" for name in edge.targets)
        scopes = ", ".join(f"`{scope}`" for scope in edge.scopes) or "–"
        who, when = (f"{words.zh} {words.en}" for words in (edge.who, edge.when))
        rows.append(f"| {edge.number} | {sources} | {targets} | {who} | {when} | {scopes} |")
    return rows


def _notes(machine: Machine) -> list[str]:
    noted = [
        f"- {edge.number} to {' and '.join(f'`{name}`' for name in edge.targets)}. {edge.note}"
        for edge in machine.edges
        if edge.note
    ]
    return ["", *noted] if noted else []
