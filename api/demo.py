"""`jifen demo`: the whole job from made-up facts to signed loans, with the real engine and the real hall."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from api.demo_folder import demo_folder
from api.invariants import INVARIANTS, violated
from api.postgres import Postgres
from api.rehearsal import POLICY as HALL_POLICY
from api.rehearsal import Prepared, Race, opened, prepared, serving
from api.rehearsal_views import ends_line, race_lines, speed_table, ways, winners_table
from api.settings import Settings
from api.simulated_banks import BASIS_BP
from api.simulated_enterprises import Applicant, applicants
from api.simulated_parties import made_up_banks
from data_contracts.errors import JifenError, UsageError
from models import progress, views
from models.development import train
from models.explanation import KNOWN_FIGURES, REFERENCE_ONLY, explanation
from models.park import write_park
from models.registry import promote
from models.replay import replay
from models.scoring_run import explain_one, names_of, score_folder
from models.sources.folder import Folder, read_folder, write_quarantine

POLICY = "torch-points"
DIRTY_SHARE = 0.00002
LATECOMERS = 30
PAUSE_SECONDS = 10.0
"""While the hall stays open, so often another enterprise applies."""


class HallBroken(JifenError):
    """An invariant of the hall did not hold."""

    code = "invariant-broken"


@dataclass(frozen=True)
class Demo:
    """What a demonstration is to be.

    Attributes:
        enterprises: firms in the made-up park.
        requests: how many of them apply.
        institutions: banks that race.
        outlets: of all banks together.
        seed: of all draws.
        port: of the hall; 0: any that is free.
        serve: False: the hall stays closed.
    """

    enterprises: int
    requests: int
    institutions: int
    outlets: int
    seed: int
    port: int = 0
    serve: bool = True


def run_demo(named: Path | None, demo: Demo) -> None:
    """Make a park, check it, train, promote, score, explain and replay; then open the hall and let banks race.

    Args:
        named: folder to work in; None: see `demo_folder`.
        demo: what it is to be.

    Raises:
        UsageError: the folder is in use or not ours, or there are fewer outlets than institutions.
        HallBroken: an invariant does not hold.
    """
    if demo.outlets < demo.institutions:
        raise UsageError("there are fewer outlets than institutions, and each has one at least")
    started = time.monotonic()
    console = progress.console()
    with ExitStack() as stack:
        folder = stack.enter_context(demo_folder(named, serves=demo.serve))
        settings = Settings(
            home=folder / "home", hall_policy=folder / "hall_policy.yaml", database_url=None, issuer=None,
            rate_limits=True, processes=1, behind_tls=False,
        )  # fmt: skip
        if demo.serve:
            # At the beginning, since a folder that it cannot work in is better told now than in a minute.
            stack.enter_context(Postgres(settings.data_folder() / "postgres", settings.postgres_bin))
        found, limits = _limits(console, folder, demo)
        if demo.serve:
            _hall(console, folder, settings, demo, found, limits)
        console.print(f"done in {time.monotonic() - started:.0f} s; everything is under {folder}")


# ---------------------------------------------------------------------------------------------------------- the engine


def _limits(console: Console, folder: Path, demo: Demo) -> tuple[Folder, pl.DataFrame]:
    """From a made-up park to limits, one explanation and one replay."""
    park, home, out = folder / "park", folder / "home", folder / "limits.parquet"
    _title(console, f"1 虚构园区 made-up park: {demo.enterprises:,} enterprises (a software test, not real firms)")
    with progress.working("making firms, invoices, filings, loans"):
        written = write_park(park, demo.enterprises, demo.seed, dirty_share=DIRTY_SHARE)
    console.print(
        f"{sum(written.values()):,} rows in {len(written)} source files, {written['invoices']:,} of them invoices"
    )

    _title(console, "2 检查 check: bad rows to quarantine")
    with progress.working("checking") as told:
        found = read_folder(park, on_progress=told)
        write_quarantine(park, found)
    console.print(views.check_table(found, rules=2))

    _title(console, "3 训练 train: a challenger, judged beside plain rivals")
    with progress.steps() as (on_days, on_progress):
        trained = train(
            found.sources,
            home,
            at=datetime.now(UTC),
            seed=demo.seed,
            repeats=2,
            on_days=on_days,
            on_progress=on_progress,
        )
    console.print(views.development_view(trained))

    _title(console, "4 上线 promote: the minutes quote what the training said")
    minutes = f"demonstration: {trained.development.sentence}"
    console.print(f"champion {promote(home, trained.version, minutes, at=datetime.now(UTC)).version}")

    _title(console, "5 测额 limits")
    with progress.working("scoring") as told:
        scored = score_folder(park, out, home, csv=folder / "limits.csv", policy=POLICY, on_progress=told)
    limits = scored.limits
    names = names_of(found, limits["as_of"][0])
    for table in (views.limits_table(limits, names), views.summary_table(limits), views.why_zero_table(limits)):
        console.print(table)
    console.print("\n".join((*KNOWN_FIGURES, *REFERENCE_ONLY, *(f"注意 note: {one}" for one in scored.caveats))))

    _title(console, "6 解释与复算 explain and replay one decision")
    one = limits.sort("limit_fen", "uscc", descending=[True, False]).row(limits.height // 20, named=True)
    with progress.working("scoring") as told:
        explained = explain_one(park, one["uscc"], home, policy=POLICY, on_progress=told)
    console.print(explanation(explained))
    same = replay(one["decision_id"], out, home)
    console.print(f"replayed {same.decision_id}: same bytes, sha256 {same.sha256}")
    return found, limits


def _title(console: Console, title: str) -> None:
    console.print(Rule(title, align="left"))


# ------------------------------------------------------------------------------------------------------------ the hall


def _hall(console: Console, folder: Path, settings: Settings, demo: Demo, found: Folder, limits: pl.DataFrame) -> None:
    """Found the hall, open it and let everybody race; in a terminal it stays open until Ctrl-C."""
    (folder / "hall_policy.yaml").write_text(HALL_POLICY, encoding="utf-8")
    _title(console, f"7 大厅 hall: {demo.institutions} institutions with {demo.outlets} outlets")
    with progress.working("preparing the hall") as told:
        banks = made_up_banks(demo.institutions, demo.outlets, demo.seed, BASIS_BP)
        hall = asyncio.run(prepared(settings, folder / "park", limits["as_of"][0], banks, told))
    institutions = [one.id for one in hall.banks]
    who = applicants(found.sources, limits, demo.requests + LATECOMERS, institutions, demo.seed)
    in_terminal = sys.stdout.isatty()
    with serving(settings, folder / "hall.log", demo.port) as address:
        console.print(f"the hall is open at {address}; its clock stands at {limits['as_of'][0]}")
        try:
            asyncio.run(
                _raced(console, hall, address, who, demo, _to_try(folder, hall, address) if in_terminal else None)
            )
        except KeyboardInterrupt:
            if not in_terminal:
                raise
            console.print("the hall is closed")


async def _raced(
    console: Console, hall: Prepared, address: str, who: Sequence[Applicant], demo: Demo, to_try: str | None
) -> None:
    """The race and what came of it; with something to try, the hall then stays open until it is cancelled."""
    async with opened(hall, address, demo.seed) as race:
        now, later = who[: demo.requests], who[demo.requests :]
        _title(console, f"8 抢单 the race: {len(now)} requests, {len(hall.banks)} banks by HTTP and SSE")
        with progress.working("racing") as told:
            await race.run(now, told)
        console.print("\n".join(race_lines(race)))
        connection = race.connection
        console.print(f"{await ends_line(connection)}; {race.seconds:.0f} s")
        _title(console, "9 结果 what happened")
        for table in (await winners_table(connection), await speed_table(connection), await ways(connection)):
            console.print(table)
        broken = await violated(connection)
        console.print(_invariants_table({name: len(rows) for name, rows in broken.items()}))
        if any(broken.values()):
            raise HallBroken("invariants of the hall are broken", [name for name, rows in broken.items() if rows])
        if to_try is not None:
            race.dismiss_banks()
            console.print(to_try, soft_wrap=True)
            await _stay_open(race, hall, later)


def _invariants_table(rows: dict[str, int]) -> Table:
    table = views.table_of("不变式 Invariants", "", "what always holds", "rows", right=(2,))
    for one in INVARIANTS:
        table.add_row(one.name, one.sentence, f"{rows[one.name]:,}")
    return table


async def _stay_open(race: Race, hall: Prepared, later: Sequence[Applicant]) -> None:
    """Until Ctrl-C; now and then an enterprise applies that wants the first bank, which an engineer may stand for."""
    for place, one in enumerate(later):
        await race.portals[place % len(race.portals)].apply(replace(one, wishes=(hall.banks[0].id,)))
        await asyncio.sleep(PAUSE_SECONDS)
    await asyncio.Event().wait()


def _to_try(folder: Path, hall: Prepared, address: str) -> str:
    """Write down how an engineer's own program reaches the hall as the first bank; what to try with it."""
    bank, who = hall.banks[0], hall.engineer
    key, config = folder / "bank.pem", folder / "bank.json"
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_bytes(who.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    told = {"url": address, "client": who.client_id, "kid": who.kid, "key": str(key.absolute()),
        "outlet": bank.outlets[0].id, "product": bank.goods[2].id}  # fmt: skip
    config.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    client = f"{sys.executable} examples/bank_client.py {config}"
    return "\n".join(
        [
            f"the hall stays open at {address} until Ctrl-C; now and then a firm asks {bank.name} first. Try:",
            f"  {client}                 a bank's program at work: stream, grab, contact, dossier, offer, signing",
            f"  {client} --token         a token for ten minutes, by private_key_jwt",
            f'  curl -H "Authorization: Bearer $({client} --token)" {address}/v1/hall',
            f"  JIFEN_HOME={folder / 'home'} jifen invariants",
        ]
    )
