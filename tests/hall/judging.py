"""What a run is judged by: one order explains what every client saw, and the database holds that and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from api.database import Connection
from api.invariants import violated
from tests.hall.histories import (
    STORED,
    Attempt,
    Operation,
    broken_rule,
    histories,
    is_linearizable,
    minimal,
    told,
    unstable_answers,
)


@dataclass
class Verdict:
    """What a run showed.

    Attributes:
        requests: whose histories were checked.
        operations: in them.
        unknown: operations of which no client knows what became.
        faults: what judged -> sentences; empty: the run is good.
    """

    requests: int = 0
    operations: int = 0
    unknown: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        how = "linearizable" if not self.faults else "\n".join(
            f"{judge}: {len(found)}, such as\n{found[0]}" for judge, found in self.faults.items()
        )  # fmt: skip
        return f"{self.requests} requests, {self.operations} operations, {self.unknown} of unknown end: {how}"


async def verdict(owner: Connection, tried: Sequence[Attempt]) -> Verdict:
    """Judge a run by its history, by I18 to I20, and by every invariant of the database."""
    seen = histories(tried)
    judged = Verdict(len(seen), sum(map(len, seen.values())))
    judged.unknown = sum(one.result == "info" for ops in seen.values() for one in ops)
    found = {"checker": [why for fr, ops in seen.items() if (why := broken_order(fr, ops))]}
    found["I20"] = [f"client {who}, key {key}: {sorted(bodies)}" for who, key, bodies in unstable_answers(tried)]
    found |= await unlike_the_database(owner, tried)
    found |= {name: [str(dict(row)) for row in rows] for name, rows in (await violated(owner)).items()}
    judged.faults = {judge: sentences for judge, sentences in found.items() if sentences}
    return judged


def broken_order(fr: str, history: Sequence[Operation]) -> str | None:
    """Why no order explains the request's history, with a history that shows it; None: one does."""
    if all(one.round == 1 and one.kind in ("claim", "read") for one in history):
        broken = broken_rule(history)
        return broken and f"{fr}: {broken[0]}\n{told(broken[1])}"
    if is_linearizable(history):
        return None
    return f"{fr}: no order explains\n{told(minimal(history))}"


async def unlike_the_database(owner: Connection, tried: Sequence[Attempt]) -> dict[str, list[str]]:
    """I18: what was acknowledged and is not there; I19: what is there and nobody can have done; I9: done twice."""
    acts = [one for one in tried if one.key]
    kept = {
        (row["client_id"], row["key"]): row
        for row in await owner.fetch(
            "SELECT id, client_id, key, status, body FROM hall.idempotency WHERE client_id = ANY($1)",
            list({one.who for one in acts}),
        )
    }
    effects: dict[object, list[str]] = {}
    for row in await owner.fetch(
        "SELECT cause, id AS what FROM hall.claim UNION ALL "
        "SELECT cause, subject_id || ' ' || edge FROM hall.history WHERE machine = 'claim' AND edge IN ('K2', 'K6')"
    ):
        effects.setdefault(row["cause"], []).append(row["what"])
    lost = [
        f"{one.who} was told {one.result} under key {one.key}, and the database keeps {dict(row) if row else None}"
        for one in acts
        if one.event == "ok" and one.result in STORED
        for row in [kept.get((one.who, one.key))]
        if row is None or row["body"] != one.body or (one.result == "won" and row["id"] not in effects)
    ]
    may_be = {(one.who, one.key) for one in acts if one.event == "info" or one.result in STORED}
    phantoms = [f"{who} key {key}: nobody sent it" for who, key in kept.keys() - may_be]
    known = {row["id"] for row in kept.values()}
    phantoms += [f"{what}: no key of a client caused it" for cause, what in effects.items() if cause not in known]
    twice = [f"one key did {what}" for what in effects.values() if len(what) > 1]
    return {"I18": lost, "I19": phantoms, "I9": twice}
