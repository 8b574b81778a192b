"""What clients saw of the hall, written down as it happened, and whether one order of events explains it all.

Every client writes JSON lines: `invoke`, then `ok` (an answer that says what happened), `fail` (certainly no effect)
or `info` (nobody knows: time-out, reset, 5xx), each with the nanoseconds of the machine's monotonic clock, which all
processes of one machine share. A history splits by request: linearizability is local (Herlihy and Wing 1990).

Two checkers. `broken_rule` is exact for one round with one winner, in O(n). `is_linearizable` searches, after Wing and
Gong (1993) with Lowe's memo (2017), for rounds that follow each other. tests/hall/test_checker.py proves both against a
search that tries every order.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any, Literal, NamedTuple, Self

import orjson

Event = Literal["ok", "fail", "info"]
STORED = ("won", "lost", "done")
"""Results that the hall keeps under their key: whoever repeats the key gets the same answer (I3, I5)."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One message of a client and what became of it.

    Attributes:
        id: of the attempt within its file.
        fr: the request it was about.
        kind: claim, read, release or contact.
        who: the client.
        key: its Idempotency-Key; empty for a read.
        round: that a claim named, or that a read showed; 0: none.
        fence: that the write carried, or that the answer gave; 0: none.
        event: ok, fail or info.
        result: of `ok`: won, lost, gate, free, taken, done, stale; of `fail`: the problem's code; of `info`: why.
        body: of the answer, for comparing bytes.
        invoked: nanoseconds.
        returned: nanoseconds; infinite for `info`.
    """

    id: int
    fr: str
    kind: str
    who: str
    key: str
    round: int
    fence: int
    event: Event
    result: str
    body: str
    invoked: int
    returned: float


class Recorder:
    """Writes one process's attempts to a file; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._ids = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def invoke(self, fr: str, kind: str, who: str, key: str = "", *, round_no: int = 0, fence: int = 0) -> int:
        """Write that a message is about to be sent; the number names it in `done`."""
        self._ids += 1
        self._write(id=self._ids, event="invoke", fr=fr, kind=kind, who=who, key=key, round=round_no, fence=fence)
        return self._ids

    def done(self, attempt: int, event: Event, result: str, **seen: object) -> None:
        """Write what became of it; `seen`: round, fence, body where the answer told them."""
        self._write(id=attempt, event=event, result=result, **seen)

    def _write(self, **line: object) -> None:
        # The clock is read before the invocation leaves and after the answer came: the interval is never too short.
        self._file.write(orjson.dumps(line | {"at": monotonic_ns()}) + b"\n")


def attempts(*paths: Path) -> list[Attempt]:
    """All attempts of the files; one without an end is `info`: its client was killed."""
    found: list[Attempt] = []
    for path in paths:
        begun: dict[int, dict[str, Any]] = {}
        for line in path.read_bytes().splitlines():
            read = orjson.loads(line)
            if read["event"] == "invoke":
                begun[read["id"]] = read
            else:
                found.append(_attempt(begun.pop(read["id"]), read))
        found += [_attempt(left, {"event": "info", "result": "never answered"}) for left in begun.values()]
    return sorted(found, key=lambda one: one.invoked)


def _attempt(begun: dict[str, Any], ended: dict[str, Any]) -> Attempt:
    return Attempt(
        id=begun["id"],
        fr=begun["fr"],
        kind=begun["kind"],
        who=begun["who"],
        key=begun["key"],
        round=ended.get("round", begun["round"]),
        fence=ended.get("fence", begun["fence"]),
        event=ended["event"],
        result=ended["result"],
        body=ended.get("body", ""),
        invoked=begun["at"],
        returned=math.inf if ended["event"] == "info" else ended["at"],
    )


# ------------------------------------------------------------------------------------------------------- operations


class Operation(NamedTuple):
    """What a client wanted once, whatever number of messages it took.

    Attributes:
        kind: claim, read, release or contact.
        result: won, lost, free, taken, done, stale or info.
        invoked: when its first message that may have had an effect left.
        returned: when the first answer that says what happened came; infinite for info.
        round: that the claim named or the read showed.
        fence: that the claim won or the write carried; 0: none.
        who: the client.
    """

    kind: str
    result: str
    invoked: float
    returned: float
    round: int = 1
    fence: int = 0
    who: str = ""


def histories(tried: Iterable[Attempt]) -> dict[str, list[Operation]]:
    """The operations of each request.

    Messages with one key are one operation: it takes effect at most once, between the first message and the first
    stored answer. Answers that are not stored say something of their own moment: a claim before the gate saw the slot
    free, a stale fence saw another holder. What certainly had no effect says nothing.
    """
    found: dict[str, list[Operation]] = {}
    keyed: dict[tuple[str, str], list[Attempt]] = {}
    for one in tried:
        mine = found.setdefault(one.fr, [])
        if one.event == "fail" or (one.kind in ("read", "contact") and one.event == "info"):
            continue
        if one.key and (one.event == "info" or one.result in STORED):
            keyed.setdefault((one.who, one.key), []).append(one)
        elif one.result == "gate":
            mine.append(Operation("read", "free", one.invoked, one.returned, one.round, 0, one.who))
        else:
            mine.append(Operation(one.kind, one.result, one.invoked, one.returned, one.round, one.fence, one.who))
    for tries in keyed.values():
        told = min((one for one in tries if one.event == "ok"), key=lambda one: one.returned, default=None)
        last = told or tries[0]
        found[last.fr].append(
            Operation(
                last.kind,
                told.result if told else "info",
                min(one.invoked for one in tries),
                last.returned,
                last.round,
                last.fence,
                last.who,
            )
        )
    return {fr: sorted(mine, key=lambda one: one.invoked) for fr, mine in found.items()}


def unstable_answers(tried: Iterable[Attempt]) -> list[tuple[str, str, set[str]]]:
    """Client, key and the answers of every key that was answered in more than one way (I20)."""
    told: dict[tuple[str, str], set[str]] = {}
    for one in tried:
        if one.key and one.event == "ok" and one.result in STORED:
            told.setdefault((one.who, one.key), set()).add(one.body)
    return [(who, key, bodies) for (who, key), bodies in told.items() if len(bodies) > 1]


# ------------------------------------------------------------------------------------------- one round, exact and quick


def broken_rule(history: Sequence[Operation]) -> tuple[str, list[Operation]] | None:
    """Why the history of one round cannot be, with the operations that show it; None: it is linearizable.

    Args:
        history: claims (won, lost, info) and reads (free, taken) of one round with one winner.
    """
    won = [one for one in history if one.result == "won"]
    if len(won) > 1:
        return "more than one claim won", won[:2]
    taken = min((one for one in history if one.result in ("lost", "taken")), key=lambda o: o.returned, default=None)
    free = max((one for one in history if one.result == "free"), key=lambda o: o.invoked, default=None)
    if won and taken and taken.returned < won[0].invoked:
        return "taken was seen before the winner claimed", [taken, won[0]]
    if won and free and free.invoked > won[0].returned:
        return "the round was seen free after it was won", [won[0], free]
    if taken and free and free.invoked > taken.returned:
        return "the round was seen free after it was seen taken", [taken, free]
    if taken and not won:
        unknown = min((one for one in history if one.result == "info"), key=lambda o: o.invoked, default=None)
        if unknown is None or unknown.invoked > taken.returned:
            return "taken was seen, and nobody can have taken it", [taken]
    return None


# ------------------------------------------------------------------------------ rounds that follow each other, searched


class Hall(NamedTuple):
    """State of a request as its clients can tell it.

    Attributes:
        round: announced last.
        taken: whether the round has its winner.
        holder: fence of the live claim; 0: none.
        last: greatest fence given out.
    """

    round: int = 1
    taken: bool = False
    holder: int = 0
    last: int = 0


ROUNDS = 3
"""A release in the last round gives the request to the case manager, and the round stays taken."""


def after(state: Hall, one: Operation) -> Hall | None:
    """The state after an operation with this result; None: it cannot have it here. An unknown one does what it can."""
    match one.kind, one.result:
        case "claim", "won":
            fits = one.round == state.round and not state.taken and one.fence == state.last + 1
            return Hall(state.round, True, one.fence, one.fence) if fits else None
        case "claim", "info":
            fits = one.round == state.round and not state.taken
            return Hall(state.round, True, state.last + 1, state.last + 1) if fits else state
        case "claim", "lost":
            return state if one.round < state.round or (one.round == state.round and state.taken) else None
        case "read", seen:
            return state if one.round == state.round and (seen == "taken") == state.taken else None
        case "release", "done" | "info" as result:
            if state.holder != one.fence:
                return state if result == "info" else None
            return Hall(state.round + 1, False, 0, state.last) if state.round < ROUNDS else state._replace(holder=0)
        case "contact", "done":
            return state if state.holder == one.fence else None
        case _, "stale":
            return state if state.holder != one.fence else None
        case _:
            raise ValueError(f"the model knows no {one.kind} that ends {one.result}")


def is_linearizable(
    history: Sequence[Operation],
    step: Callable[[Hall, Operation], Hall | None] = after,
    start: Hall = Hall(),  # noqa: B008  (it is a tuple)
) -> bool:
    """Whether some order that keeps to real time explains every answer.

    An operation that is possible now and changes nothing is taken at once: in any order that explains the rest it may
    stand here too. Only operations that change the state make the search branch, and those are few.
    """
    ops = sorted(history, key=lambda one: one.invoked)
    required = sum(1 << place for place, one in enumerate(ops) if one.result != "info")
    seen: set[tuple[int, Hall]] = set()
    open_ends = [(0, start)]
    while open_ends:
        done, state = open_ends.pop()
        done, moves = _settled(ops, done, state, step)
        if done & required == required:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        open_ends += [(done | 1 << place, moved) for place, moved in reversed(moves)]
    return False


def _settled(
    ops: Sequence[Operation], done: int, state: Hall, step: Callable[[Hall, Operation], Hall | None]
) -> tuple[int, list[tuple[int, Hall]]]:
    """What is done after all that changes nothing, and the operations that may come next with the state they make."""
    while True:
        quiet = done
        moves: list[tuple[int, Hall]] = []
        for place in _possible(ops, done):
            moved = step(state, ops[place])
            if moved == state:
                # An unknown one that would do nothing need not have happened; later it might do something.
                quiet |= (ops[place].result != "info") << place
            elif moved is not None:
                moves.append((place, moved))
        if quiet == done:
            return done, moves
        done = quiet


def _possible(ops: Sequence[Operation], done: int) -> Iterator[int]:
    """Places of the operations that may come next: invoked before anything that is left had returned."""
    bound = min((one.returned for place, one in enumerate(ops) if not done >> place & 1), default=math.inf)
    for place, one in enumerate(ops):
        if one.invoked > bound:
            return
        if not done >> place & 1:
            yield place


def minimal(history: Sequence[Operation]) -> list[Operation]:
    """A history that is still not linearizable and of which no lost claim and no read can be left out."""
    left = list(history)
    for one in history:
        if one.result in ("lost", "free", "taken", "stale"):
            fewer = [other for other in left if other is not one]
            if not is_linearizable(fewer):
                left = fewer
    return left


def told(history: Iterable[Operation]) -> str:
    """A history for people, in milliseconds since it began."""
    ops = sorted(history, key=lambda one: one.invoked)
    began = ops[0].invoked if ops else 0
    return "\n".join(
        f"{(one.invoked - began) / 1e6:10.3f} to {(one.returned - began) / 1e6:10.3f} ms  {one.who} {one.kind} "
        f"round {one.round} fence {one.fence}: {one.result}"
        for one in ops
    )
