"""Two sessions of the database, stepped through their statements in a chosen order, inside the hall's functions too.

Every statement of the functions stepped through is preceded by `hall.step()`, which waits for an advisory lock that the
conductor holds: so it decides who goes on, and sees who waits for whom. PostgreSQL's own isolation tester steps between
statements of the client; an act is one such statement, and what can go wrong lies inside.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from api.database import Connection
from tests.hall.made import Refused

MOST_STEPS = 200
STEP = """
CREATE FUNCTION hall.step() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    me integer := nullif(current_setting('hall.session', true), '')::integer;
    at integer := coalesce(nullif(current_setting('hall.steps', true), '')::integer, 0) + 1;
BEGIN
    IF me IS NULL THEN RETURN true; END IF;
    PERFORM set_config('hall.steps', at::text, true);
    PERFORM pg_advisory_lock(me, at);
    PERFORM pg_advisory_unlock(me, at);
    RETURN true;
END
$$
"""
_STATEMENT = re.compile(r"    (select|update|insert|perform|if|for|return|[a-z_]+ :=)\b")
Act = Callable[[Connection], Coroutine[Any, Any, Any]]


async def make_steps(owner: Connection, functions: Sequence[str]) -> None:
    """Put `hall.step()` before every statement that stands at the first level of these functions."""
    await owner.execute(STEP)
    for name in functions:
        source = await owner.fetchval(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'hall'::regnamespace AND proname = $1",
            name,
        )
        assert source, f"there is no function hall.{name}"
        await owner.execute(_stepped(source))


def _stepped(source: str) -> str:
    head, begin, body = source.partition("\nbegin\n")
    lines: list[str] = []
    before = ";"
    for line in body.split("\n"):
        if _STATEMENT.match(line) and before.rstrip().endswith((";", "then", "else", "loop")):
            # Not PERFORM, which would set FOUND.
            lines.append("    if hall.step() then null; end if;")
        lines.append(line)
        before = line.split("--")[0] or before
    return head + begin + "\n".join(lines)


@dataclass
class Session:
    """A session that does one act, step by step.

    Attributes:
        no: 1 or 2.
        steps: that it was let do.
        outcome: "ok", the refusal's code, or "deadlock".
    """

    no: int
    connection: Connection
    pid: int
    steps: int = 0
    outcome: str = ""
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    async def act(self, act: Act) -> None:
        try:
            told = await act(self.connection)
            self.outcome = "ok" if told is not None else "nothing"
        except Refused as refused:
            self.outcome = refused.code
        except asyncpg.DeadlockDetectedError:
            self.outcome = "deadlock"


@dataclass
class Conductor:
    """Says which session goes on. `holder` holds the locks that the sessions' steps wait for."""

    holder: Connection
    sessions: tuple[Session, Session]

    async def play(self, acts: tuple[Act, Act], turns: Sequence[tuple[int, int]]) -> tuple[str, str]:
        """Do both acts; the outcomes.

        Args:
            acts: of the first and the second session.
            turns: session (0 or 1) and so many steps; then the first goes on to its end, and the second.
        """
        for session in self.sessions:
            await self.holder.execute(
                "SELECT pg_advisory_lock($1, n) FROM generate_series(1, $2) AS n", session.no, MOST_STEPS
            )
            session.steps = 0
            session.outcome = ""
        for session, act in zip(self.sessions, acts, strict=True):
            session.task = asyncio.create_task(session.act(act))
            await self._settled(session)
        for which, steps in turns:
            for _ in range(steps):
                if not await self._step(self.sessions[which]):
                    break
        # Each to its end; who waits for the other goes on when that one has ended, or PostgreSQL has ended a deadlock.
        tasks = [session.task for session in self.sessions if session.task is not None]
        while not all(task.done() for task in tasks):
            for session in self.sessions:
                while await self._step(session):
                    pass
            await asyncio.sleep(0.0005)
        await asyncio.gather(*tasks)
        await self.holder.execute("SELECT pg_advisory_unlock_all()")
        return self.sessions[0].outcome, self.sessions[1].outcome

    async def _step(self, session: Session) -> bool:
        """Let the session do one statement; whether it was at a step and could."""
        if await self._settled(session) != "at a step":
            return False
        session.steps += 1
        await self.holder.execute("SELECT pg_advisory_unlock($1, $2)", session.no, session.steps)
        await self._settled(session)
        return True

    async def _settled(self, session: Session) -> str:
        """Wait until the session is done, at a step, or waits for the other one."""
        assert session.task is not None
        while not session.task.done():
            waits = await self.holder.fetchrow(
                "SELECT locktype, objid::bigint AS step FROM pg_locks WHERE pid = $1 AND NOT granted", session.pid
            )
            if waits is not None and waits["locktype"] != "advisory":
                return "waits for the other"
            if waits is not None and waits["step"] == session.steps + 1:
                return "at a step"
            await asyncio.sleep(0.0005)
        return "done"


@asynccontextmanager
async def conductor(database: str) -> AsyncGenerator[Conductor]:
    """Two sessions and who conducts them."""
    holder, first, second = [await asyncpg.connect(database) for _ in range(3)]
    sessions: list[Session] = []
    for no, connection in ((1, first), (2, second)):
        await connection.execute(f"SET hall.session = '{no}'")
        sessions.append(Session(no, connection, connection.get_server_pid()))
    try:
        yield Conductor(holder, (sessions[0], sessions[1]))
    finally:
        for connection in (holder, first, second):
            await connection.close()
