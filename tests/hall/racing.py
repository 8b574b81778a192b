"""Banks that race for requests as they do in the field, with keys sent twice and answers that are not awaited.

A racer claims with a key, sends the same key again (at once, or later), gives up waiting before the hall has answered
and asks anew, reads in between, and writes down what it saw (`tests.hall.histories`).
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import asyncpg
from numpy.random import Generator

from api.database import Connection, pool_of
from api.scopes import ROLES
from tests.hall import made
from tests.hall.doors import PATIENCE, Answer, Door, Racer, Unanswered, Unreached
from tests.hall.histories import Recorder
from tests.hall.processes import SERVER_DIED

TRIES = 12
SHARE_OF_DUPLICATES = 0.2
SHARE_OF_IMPATIENT = 0.1
SHARE_OF_GONE = 0.1
"""Of those who got no answer: they never ask again, and nobody knows what became of their claim."""
SHARE_OF_READERS = 0.3


# ------------------------------------------------------------------------------------------------------- the stage


async def racers(owner: Connection, count: int, **institution: Any) -> list[Racer]:
    """So many banks with an outlet that wants every card, a product, and a token for an hour."""
    made_ones = []
    for _ in range(count):
        bank = await made.bank(owner, **institution)
        token = secrets.token_urlsafe(32)
        scopes = list(ROLES["bank"])
        await owner.execute("UPDATE hall.client SET scopes = $2 WHERE id = $1", bank.client, scopes)
        await owner.execute("INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ($1, 'k', '{}')", bank.client)
        await owner.execute(
            "INSERT INTO hall.access_token (token_sha256, client_id, kid, scopes, expires_at) "
            "VALUES ($1, $2, 'k', $3, clock_timestamp() + interval '1 day')",
            sha256(token.encode()).digest(), bank.client, scopes,
        )  # fmt: skip
        await owner.execute(
            "INSERT INTO hall.subscription (outlet_id, updated_at, updated_by) VALUES ($1, hall.hall_now(), 'made')",
            bank.outlet,
        )
        made_ones.append(Racer(bank, token))
    return made_ones


async def requests(
    owner: Connection, count: int, *, each_fen: int = 1_000_000, limit_fen: int | None = None
) -> list[str]:
    """So many requests of one enterprise in an open round that every outlet sees; its limit is enough unless given."""
    uscc = await made.enterprise(owner, limit_fen=limit_fen if limit_fen is not None else count * each_fen)
    consent = await made.consent(owner, uscc)
    return [
        await made.request(
            owner, uscc, amount_fen=each_fen, quote_fen=each_fen, purpose=f"purpose-{n}", consent_id=consent
        )
        for n in range(count)
    ]


async def requests_at(url: str, count: int) -> list[str]:
    """`requests` over a connection of its own, again and again while the server is down."""
    while True:
        with suppress(*SERVER_DIED):
            owner = await asyncpg.connect(url, timeout=5)
            try:
                return await requests(owner, count)
            finally:
                await owner.close(timeout=5)
        await asyncio.sleep(0.1)


async def keep_shut(owner: Connection, fr: str, milliseconds: int) -> None:
    """Let the gate of the first round open only after so long."""
    await owner.execute(
        "UPDATE hall.round SET opens_at = hall.hall_now() + $2 * interval '1 millisecond' WHERE fr_id = $1",
        fr, milliseconds,
    )  # fmt: skip


@asynccontextmanager
async def publishing(owner_url: str) -> AsyncGenerator[None]:
    """The feed's sequencer, for racers who go straight to the database: it opens the rounds that follow."""
    async with pool_of(owner_url, most=2) as pool:

        async def publish() -> None:
            while True:
                with suppress(*SERVER_DIED):  # the server may be killed
                    await pool.fetchrow("SELECT * FROM hall.sequence_feed('default', 100)")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(publish())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# -------------------------------------------------------------------------------------------------------- the race


@dataclass
class Race:
    """One run: who races through which door, who writes it down, and the draws."""

    door: Door
    recorder: Recorder
    draw: Generator
    counts: dict[str, int] = field(default_factory=dict)

    async def contested(self, racers: Sequence[Racer], fr: str) -> None:
        """All racers go for the first round of a request at once; each acts as the shares at the top say."""
        await asyncio.gather(
            *(self._one_go(one, fr) for one in self.draw.permutation(len(racers)) for one in [racers[one]])
        )

    async def back_and_forth(self, racers: Sequence[Racer], fr: str, turns: int = 4) -> None:
        """Racers claim, contact and release, so that a request goes through its rounds."""
        await asyncio.gather(*(self._turns(one, fr, turns) for one in racers))

    async def _one_go(self, racer: Racer, fr: str) -> None:
        await asyncio.sleep(self.draw.random() * 0.02)
        if self.draw.random() < SHARE_OF_READERS:
            await self.read(racer, fr)
        await self.pursue(racer, fr, 1, 5)
        if self.draw.random() < SHARE_OF_READERS:
            await self.read(racer, fr)

    async def _turns(self, racer: Racer, fr: str, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(self.draw.random() * 0.05)
            seen = await self.read(racer, fr)
            if seen is None or seen["state"] != "open":
                continue
            won = await self.pursue(racer, fr, seen["n"], seen["card_version"])
            if won is None:
                continue
            if self.draw.random() < 0.5:
                await self.write(racer, fr, "contact", won)
            if self.draw.random() < 0.8:
                await self.write(racer, fr, "release", won)
                # What was given up can be written under no more.
                await self.write(racer, fr, "contact", won)

    async def pursue(self, racer: Racer, fr: str, round_no: int, card_version: int) -> dict[str, Any] | None:
        """Claim until it is known what became of it; the claim if it was won."""
        key = secrets.token_hex(8)
        patience = 0.001 + self.draw.random() * 0.02 if self.draw.random() < SHARE_OF_IMPATIENT else PATIENCE
        repeats = self.draw.random() < SHARE_OF_DUPLICATES
        at_once = repeats and self.draw.random() < 0.5
        tries = [self._claim_for_good(racer, fr, round_no, card_version, key, patience)]
        if at_once:
            tries.append(self._claim_for_good(racer, fr, round_no, card_version, key, PATIENCE))
        answers = await asyncio.gather(*tries)
        if repeats and not at_once:
            await asyncio.sleep(self.draw.random() * 0.05)
            answers.append(await self._claim_for_good(racer, fr, round_no, card_version, key, PATIENCE))
        return next((one.json for one in answers if one is not None and one.status == 201), None)

    async def _claim_for_good(
        self, racer: Racer, fr: str, round_no: int, card_version: int, key: str, patience: float
    ) -> Answer | None:
        """Send the claim with its key until an answer says what happened; None: none did."""
        bank = racer.bank
        body = {"round": round_no, "outlet_id": bank.outlet, "product_id": f"{bank.product}@1",
                "card_version": card_version}  # fmt: skip
        for _ in range(TRIES):
            attempt = self.recorder.invoke(fr, "claim", racer.who, key, round_no=round_no)
            try:
                answer = await self.door.grab(racer, fr, body, key, patience)
            except (Unreached, Unanswered) as error:
                self._broken(attempt, error)
                if isinstance(error, Unanswered) and self.draw.random() < SHARE_OF_GONE:
                    return None
                patience = PATIENCE
                await asyncio.sleep(self.draw.random() * 0.05)
                continue
            match answer.status, answer.code:
                case 201, _:
                    self._ok(attempt, "won", answer, fence=answer.json["fence"])
                    return answer
                case _, "grab-lost":
                    self._ok(attempt, "lost", answer)
                    return answer
                case _, "gate-not-open":
                    self._ok(attempt, "gate", answer)
                    await asyncio.sleep(min(answer.json["retry_after_ms"] / 1000, 1.0))
                case 500, code:
                    self._unknown(attempt, code)
                    await asyncio.sleep(0.05)
                case _, "idempotency-in-flight" | "overloaded" as code:
                    self._fail(attempt, code)
                    await asyncio.sleep(0.02 + self.draw.random() * 0.05)
                case _, code:
                    self._fail(attempt, code)
                    return answer
        return None

    async def write(self, racer: Racer, fr: str, act: str, claim: dict[str, Any]) -> None:
        """A write under the claim's fence, repeated with its key until it is known what became of it."""
        key = secrets.token_hex(8)
        for _ in range(TRIES):
            attempt = self.recorder.invoke(fr, act, racer.who, key, round_no=claim["round"], fence=claim["fence"])
            try:
                answer = await self.door.under_fence(racer, claim["claim_id"], act, claim["fence"], key)
            except (Unreached, Unanswered) as error:
                self._broken(attempt, error)
                await asyncio.sleep(0.05)
                continue
            match answer.status, answer.code:
                case 200, _:
                    return self._ok(attempt, "done", answer)
                case _, "stale-fence":
                    return self._ok(attempt, "stale", answer)
                case 500, code:
                    self._unknown(attempt, code)
                case _, code:
                    self._fail(attempt, code)
                    if code not in ("idempotency-in-flight", "overloaded"):
                        return None
            await asyncio.sleep(0.05)
        return None

    async def read(self, racer: Racer, fr: str) -> dict[str, Any] | None:
        """The request's latest round as the racer may see it."""
        attempt = self.recorder.invoke(fr, "read", racer.who)
        try:
            answer = await self.door.read(racer, fr)
        except (Unreached, Unanswered) as error:
            self._broken(attempt, error)
            return None
        if answer.status != 200:
            self._fail(attempt, answer.code)
            return None
        seen = answer.json["round"]
        result = "free" if seen["state"] in ("announced", "open") else "taken"
        self.recorder.done(attempt, "ok", result, round=seen["n"])
        self._count(f"read {result}")
        return seen

    def _ok(self, attempt: int, result: str, answer: Answer, **seen: int) -> None:
        self.recorder.done(attempt, "ok", result, body=answer.body.decode(), **seen)
        self._count(result)

    def _fail(self, attempt: int, code: str) -> None:
        self.recorder.done(attempt, "fail", code)
        self._count(f"fail {code}")

    def _unknown(self, attempt: int, why: str) -> None:
        self.recorder.done(attempt, "info", why)
        self._count(f"info {why}")

    def _broken(self, attempt: int, error: Unreached | Unanswered) -> None:
        if isinstance(error, Unreached):
            self._fail(attempt, str(error))
        else:
            self._unknown(attempt, str(error))

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
