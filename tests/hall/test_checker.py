"""The checkers of histories agree with a search that tries every order, and see what must not be."""

import math
from collections.abc import Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import TypeVar

import pytest
from numpy.random import PCG64, Generator

from tests.hall.histories import (
    ROUNDS,
    Attempt,
    Hall,
    Operation,
    Recorder,
    after,
    attempts,
    broken_rule,
    histories,
    is_linearizable,
    minimal,
    unstable_answers,
)

Thing = TypeVar("Thing")

SHORT = 2_500
LONG = 60_000


def explained_by_some_order(history: Sequence[Operation]) -> bool:
    """The definition, word for word: an order of all that returned and some of the rest, true to time and model."""
    known = [one for one in history if one.result != "info"]
    unknown = [one for one in history if one.result == "info"]
    for count in range(len(unknown) + 1):
        for happened in combinations(unknown, count):
            if any(_explains(order) for order in permutations([*known, *happened])):
                return True
    return False


def _explains(order: Sequence[Operation]) -> bool:
    state: Hall | None = Hall()
    latest = -math.inf
    for one in order:
        if one.returned < latest:
            return False
        latest = max(latest, one.invoked)
        assert state is not None
        state = after(state, one)
        if state is None:
            return False
    return True


def one_of(draw: Generator, things: Sequence[Thing]) -> Thing:
    return things[int(draw.integers(len(things)))]


def one_round(draw: Generator) -> list[Operation]:
    """Claims and reads of one round, made up without regard for what can be."""
    made = []
    for _ in range(draw.integers(1, 7)):
        kind = one_of(draw, ["claim", "claim", "read"])
        result = one_of(draw, ["won", "lost", "lost", "info"] if kind == "claim" else ["free", "taken"])
        made.append(_between(draw, kind, result, fence=1 if result == "won" else 0))
    return made


def several_rounds(draw: Generator) -> list[Operation]:
    """What happened in some true order, seen over intervals around it; in half of them one thing is then untrue."""
    state = Hall()
    made: list[Operation] = []
    for moment in range(10, 10 * int(draw.integers(3, 8)), 10):
        kind = one_of(draw, ["claim", "claim", "claim", "read", "release", "release", "contact"])
        made.append(_true(draw, state, kind, moment))
        moved = after(state, made[-1])
        assert moved is not None
        # An operation whose end nobody saw may not have happened at all.
        state = moved if made[-1].result != "info" or draw.random() < 0.5 else state
    if draw.random() < 0.5:
        place = int(draw.integers(len(made)))
        made[place] = _untrue(draw, made[place])
    return made


def _true(draw: Generator, state: Hall, kind: str, moment: int) -> Operation:
    begins, ends = moment - int(draw.integers(0, 26)), moment + int(draw.integers(0, 26))
    named = one_of(draw, [state.round, state.round, max(1, state.round - 1)])
    fence = one_of(draw, [state.holder or state.last, max(1, state.last)])
    if kind == "read":
        return Operation("read", "taken" if state.taken else "free", begins, ends, state.round)
    if kind != "contact" and draw.random() < 0.25:
        return Operation(kind, "info", begins, math.inf, named, fence if kind == "release" else 0)
    if kind == "claim":
        wins = named == state.round and not state.taken
        return Operation("claim", "won" if wins else "lost", begins, ends, named, state.last + 1 if wins else 0)
    return Operation(kind, "done" if state.holder == fence else "stale", begins, ends, named, fence)


def _untrue(draw: Generator, one: Operation) -> Operation:
    other = {"won": "lost", "lost": "won", "free": "taken", "taken": "free", "done": "stale", "stale": "done"}
    match one_of(draw, ["result", "fence", "round", "time"]):
        case "result":
            return one._replace(result=other.get(one.result, one.result))
        case "fence":
            return one._replace(fence=one.fence + one_of(draw, [-1, 1]))
        case "round":
            return one._replace(round=min(ROUNDS, one.round + 1))
        case _:
            shift = one_of(draw, [-30, 30])
            return one._replace(invoked=one.invoked + shift, returned=one.returned + shift)


def _between(draw: Generator, kind: str, result: str, fence: int) -> Operation:
    begins, ends = sorted(draw.choice(40, 2, replace=False).tolist())
    return Operation(kind, result, begins, math.inf if result == "info" else ends, 1, fence)


def agree_on_one_round(seed: int, trials: int) -> int:
    draw = Generator(PCG64(seed))
    broken = 0
    for _ in range(trials):
        history = one_round(draw)
        truth = explained_by_some_order(history)
        broken += not truth
        assert (broken_rule(history) is None) == truth == is_linearizable(history), (seed, history)
    return broken


def agree_on_several_rounds(seed: int, trials: int) -> int:
    draw = Generator(PCG64(seed))
    broken = 0
    for _ in range(trials):
        history = several_rounds(draw)
        truth = explained_by_some_order(history)
        broken += not truth
        assert is_linearizable(history) == truth, (seed, history)
    return broken


def test_the_quick_checker_is_exact_for_one_round() -> None:
    broken = agree_on_one_round(7, SHORT)
    assert SHORT // 5 < broken < SHORT - SHORT // 20, "both kinds of histories must be among them"


def test_the_search_is_exact_over_several_rounds_with_releases_and_unknown_ends() -> None:
    broken = agree_on_several_rounds(11, SHORT)
    assert SHORT // 10 < broken < SHORT - SHORT // 10, "both kinds of histories must be among them"


@pytest.mark.soak
def test_the_checkers_are_exact_on_many_histories(soak_length: int) -> None:
    trials = max(LONG, soak_length)
    print(f"one round: {agree_on_one_round(101, trials)} of {trials} histories are not linearizable, all agree")
    print(f"rounds: {agree_on_several_rounds(103, trials)} of {trials} histories are not linearizable, all agree")


WON = Operation("claim", "won", 10, 20, 1, 1, "a")
LOST = Operation("claim", "lost", 30, 40, 1, 0, "b")


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        ("more than one claim won", [WON, WON._replace(who="b", fence=2)]),
        ("taken was seen before the winner claimed", [WON, LOST._replace(invoked=1, returned=5)]),
        ("the round was seen free after it was won", [WON, Operation("read", "free", 25, 30)]),
        ("the round was seen free after it was seen taken", [LOST, Operation("read", "free", 45, 50), WON._replace(
            returned=60)]),
        ("taken was seen, and nobody can have taken it", [LOST, Operation("claim", "info", 45, math.inf)]),
    ],
)  # fmt: skip
def test_what_must_not_be_is_named(rule: str, history: list[Operation]) -> None:
    found = broken_rule(history)
    assert found is not None
    assert found[0] == rule
    assert not is_linearizable(history)


def test_a_contested_round_of_many_racers_is_searched_at_once() -> None:
    racers = [Operation("claim", "lost", 10 + n, 1_000 + n, 1, 0, str(n)) for n in range(300)]
    unknown = [Operation("claim", "info", 5 + n, math.inf, 1, 0, f"u{n}") for n in range(30)]
    reads = [Operation("read", "taken", 900 + n, 950 + n) for n in range(100)]
    assert is_linearizable([*racers, *unknown, *reads, WON])
    seen_free = Operation("read", "free", 2_000, 2_001)
    assert not is_linearizable([*racers, *unknown, *reads, WON, seen_free])
    assert minimal([*racers, *reads, WON, seen_free]) == [WON, seen_free]


def test_messages_with_one_key_are_one_operation(tmp_path: Path) -> None:
    path = tmp_path / "client.jsonl"
    with Recorder(path) as recorder:
        first = recorder.invoke("fr", "claim", "a", "k", round_no=1)
        recorder.done(first, "info", "timeout")
        again = recorder.invoke("fr", "claim", "a", "k", round_no=1)
        recorder.done(again, "ok", "won", fence=1, body="x")
        early = recorder.invoke("fr", "claim", "b", "k", round_no=1)
        recorder.done(early, "ok", "gate")
        refused = recorder.invoke("fr", "claim", "b", "k", round_no=1)
        recorder.done(refused, "fail", "idempotency-in-flight")
        recorder.invoke("fr", "claim", "c", "k", round_no=1)
    seen = attempts(path)
    claim, gate, lost_client = sorted(histories(seen)["fr"], key=lambda one: one.who)
    assert (claim.kind, claim.result, claim.invoked, claim.returned) == (
        "claim",
        "won",
        seen[0].invoked,
        seen[1].returned,
    )
    assert (gate.kind, gate.result) == ("read", "free")
    assert (lost_client.result, lost_client.returned) == ("info", math.inf)


def test_i20_two_answers_to_one_key_are_seen() -> None:
    def answered(body: str) -> Attempt:
        return Attempt(1, "fr", "claim", "a", "k", 1, 1, "ok", "won", body, 1, 2)

    assert unstable_answers([answered("x"), answered("x")]) == []
    assert unstable_answers([answered("x"), answered("y")]) == [("a", "k", {"x", "y"})]
