"""The champion at work in one process: loaded once, replaced when another is promoted, never run on the event loop.

What decides is imported as the champion is loaded: calls and streams are served before the numerical libraries are.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import orjson
import polars as pl
import structlog

from api.problems import Problem
from data_contracts.errors import JifenError
from data_contracts.sources import Sources

if TYPE_CHECKING:
    from api.service import Service
    from models.batch import Engine

Answer = TypeVar("Answer")
MOST_SECONDS = 10.0
"""A decision that takes longer is given up; its thread ends by itself."""

LOOK_SECONDS = 2.0
"""How often the registry is looked at, so that a quote need not wait for the model that was just promoted."""

log = structlog.get_logger()

Texts = tuple[str, str | None, str]


@dataclass(frozen=True)
class Made:
    """A decision as it is stored.

    Attributes:
        decision: `answer` (the columns of the limits file), `features` with their `types` and `row_sha256`, `terms`,
            `run` (what it was made with) and `rulebook` (the texts behind the policy version).
        text: the answer as canonical bytes, which a replay must give again.
    """

    decision: dict[str, Any]
    text: str


@dataclass(frozen=True)
class Ready:
    """An engine and the texts of its rulebook."""

    engine: "Engine"
    texts: Texts

    def decision_id(self, sources: Sources, uscc: str, as_of: date) -> str:
        """The id that the decision on these facts has, found without deciding."""
        from models.batch import decision_id
        from scoring.input_hash import input_hashes

        found = input_hashes(sources, [uscc], as_of)["input_hash"][0]
        return decision_id(uscc, as_of, self.engine.model.version, self.engine.rulebook.version, found, None)

    def made(self, sources: Sources, uscc: str, as_of: date) -> Made | None:
        """Decide; None where the registry's facts of the enterprise are not known, so that nothing can be said."""
        from models.replay import row_bytes, row_hashes, run_of

        decided = self.engine.decided(sources, as_of, only=[uscc])
        if decided.limits.height == 0:
            return None
        limits = decided.limits
        text = row_bytes(limits).decode()
        row = decided.features
        run = run_of(self.engine, as_of, self.texts).model_dump(mode="json")
        policy, ruleset, size_classes = (run.pop(name) for name in ("policy", "ruleset", "size_classes"))
        decision = {
            "answer": orjson.loads(text),
            "features": row.row(0, named=True),
            "types": {name: str(kind) for name, kind in row.schema.items()},
            "row_sha256": row_hashes(row)[0],
            "terms": decided.terms["terms"][0],
            "run": run,
            "rulebook": {"policy": policy, "ruleset": ruleset, "size_classes": size_classes},
        }
        return Made(decision, text)


class Engines:
    """The champion under each policy that was asked for."""

    def __init__(self, home: Path) -> None:
        """Make ready; nothing is read before the first decision.

        Args:
            home: where the registry of models is.
        """
        self._home = home
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._version: str | None = None
        self._ready: dict[str, Ready] = {}
        # As many decisions at once as there are cores: more would only wait for one another.
        self._at_once = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def run(self, work: Callable[..., Answer], *args: Any) -> Answer:  # noqa: ANN401  (whatever `work` takes)
        """Do `work` in a worker thread.

        Raises:
            Problem: engine-unavailable: no answer in time, no champion, or it gave something that is no probability.
        """
        try:
            with anyio.fail_after(MOST_SECONDS):
                return await anyio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._at_once)
        except TimeoutError:
            raise Problem("engine-unavailable", detail="the engine gave no answer in time") from None
        except Problem:
            raise
        except (JifenError, pl.exceptions.PolarsError) as error:
            raise Problem("engine-unavailable", detail="the model in service cannot be used") from error

    async def load(self, policies: Sequence[str]) -> None:
        """Have the champion ready under each policy, in a worker thread that takes no place of a decision's.

        Raises:
            Problem, JifenError: see `ready`.
        """

        def all_ready() -> None:
            for policy in policies:
                self.ready(policy)

        await anyio.to_thread.run_sync(all_ready, abandon_on_cancel=True)

    def ready(self, policy: str) -> Ready:
        """The champion of this moment under a policy; called in a worker thread.

        Raises:
            Problem: engine-unavailable: no model was promoted yet, or the registry cannot be read.
            ArtefactError: the champion was changed, or it needs more than the facts of the contracts.
        """
        try:
            with self._lock:
                self._follow_registry()
                if policy not in self._ready:
                    self._ready[policy] = self._made_ready(policy)
                return self._ready[policy]
        except OSError as error:
            raise Problem("engine-unavailable", detail="the registry of models cannot be read") from error

    def _follow_registry(self) -> None:
        """Forget the engines if the log of the registry has grown by a promotion."""
        try:
            state = (self._home / "registry.jsonl").stat()
        except FileNotFoundError:
            raise Problem("engine-unavailable", detail="no model was promoted yet: jifen models promote") from None
        mark = (state.st_mtime_ns, state.st_size)
        if mark == self._seen:
            return
        from models.registry import champion_version

        version = champion_version(self._home)
        if version is None:
            raise Problem("engine-unavailable", detail="no model was promoted yet: jifen models promote")
        if version != self._version:
            self._ready.clear()
        self._version, self._seen = version, mark

    def _made_ready(self, policy: str) -> Ready:
        from models import rulebooks
        from models.batch import Engine
        from models.registry import champion
        from scoring.catalogue import CATALOGUE
        from scoring.rulebook import parse_rulebook

        others = list(self._ready.values())
        model = others[0].engine.model if others else champion(self._home)
        if model is None:
            raise Problem("engine-unavailable", detail="no model was promoted yet: jifen models promote")
        extra = [one.name for one in model.inputs if one.name not in CATALOGUE]
        if extra:
            raise Problem("engine-unavailable", detail="the champion needs columns that no contract delivers")
        text, folder = rulebooks.policy_text(policy)
        texts = (text, rulebooks.ruleset_text(text, folder), rulebooks.size_text())
        return Ready(Engine(model, parse_rulebook(*texts)), texts)


async def keep_engines_ready(service: "Service") -> None:
    """Load the champion beside the calls as the process starts and when another is promoted; a quote finds it there."""
    told = ""
    while True:
        rows = await service.pool.fetch("SELECT DISTINCT policy FROM hall.scheme ORDER BY policy")
        try:
            await service.engines.load([row["policy"] for row in rows])
            fault = ""
        except JifenError as error:
            fault = str(error.members.get("detail")) if isinstance(error, Problem) else error.sentence
        if fault != told:
            log.warning("no engine is ready", fault=fault)
            told = fault
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await service.closing.wait()
                return
