"""The hall beside its physical limits, on one database in one run: read the ratios, not the figures.

    python benchmarks/hall.py                       a minute or two
    python benchmarks/hall.py --seconds 30          longer runs, narrower ranges
    python benchmarks/hall.py --only grabs streams

grabs    winning claims of distinct requests: HTTP against pgbench, which calls the same function
race     57 banks race for every request: decided requests a second, HTTP against pgbench
streams  546 streams hear 20 events a second: the hall against nginx with nchan and the same bytes, same clients
quotes   a limit quote by HTTP, and its parts

Client, server and PostgreSQL share the processors. Runs alternate (ABBA, streams ABBAAB); a ratio holds where
ranges do not overlap.
PostgreSQL syncs every commit to disk. An event's time runs from just before it is written (the hall: into its table;
nchan: to its publisher) until a subscriber has read it from its socket.
"""

import argparse
import asyncio
import importlib.metadata
import os
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import orjson
import psutil
from hall_clients import Ear, ears, lines, message
from hall_quotes import p, quotes
from hall_stage import (
    PATH,
    WARM,
    banks,
    database,
    known_to_pgbench,
    pgbench,
    requests,
    serving,
    staged,
    version_of,
)

from api.serving import run
from tests.hall.doors import Racer

BANKS = 57
SUBSCRIBERS = 546
EVENTS_A_SECOND = 20
ORDER = ("API", "pgbench", "pgbench", "API")
PEER = "nginx + nchan"
SIDES = ("hall", PEER, PEER, "hall", "hall", PEER)
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
HAS_PEER = NCHAN.exists() and version_of("nginx", "-v") is not None

_GRAB = r"""
\set i :i + 1
\set n NUMBER
SELECT o.status FROM bench.racer b, bench.stage s, LATERAL hall.once(b.client, 'POST', '/v1/claims by pgbench',
    'pgbench-' || :client_id || '-' || :n, decode(repeat('00', 32), 'hex'), 'grab', b.actor,
    b.args || jsonb_build_object('fr_id', s.fr), 'en', 'trace') AS o
WHERE b.no = :client_id AND s.n = :n;
"""
DISTINCT = _GRAB.replace("NUMBER", ":start + :client_id + :step * (:i - 1)")
CONTESTED = _GRAB.replace("NUMBER", ":start + :i - 1")


@dataclass
class Stage:
    """What all cases share; `used`: so many of the requests are taken."""

    url: str
    owner: asyncpg.Connection
    racers: list[Racer]
    frs: list[str]
    seconds: float
    address: str
    pid: int
    used: int = 0

    def taken(self, count: int) -> int:
        """The first of so many requests that nobody had before."""
        first, self.used = self.used, self.used + count
        return first


# --------------------------------------------------------------------------------------------------------------- claims


def grab(racer: Racer, fr: str, key: str) -> bytes:
    bank = racer.bank
    body = {"round": 1, "outlet_id": bank.outlet, "product_id": f"{bank.product}@1", "card_version": 5}
    return message(f"POST {PATH.format(fr_id=fr)}", racer.token, key, orjson.dumps(body))


async def claimed(stage: Stage, first: int, each: int, *, contested: bool) -> float:
    """Requests decided a second by HTTP: each bank has its own, or all go for one after another."""
    wins = 0

    async def banked(place: int) -> None:
        nonlocal wins
        for turn in range(each):
            n = first + (turn if contested else place + len(opened) * turn)
            status = await opened[place].said(grab(stage.racers[place], stage.frs[n], f"http-{place}-{n}"))
            wins += status == 201
            if status not in (201, 409):
                raise SystemExit(f"a claim was answered {status}")

    async with lines(stage.address, BANKS) as opened:
        began = time.perf_counter()
        await asyncio.gather(*(banked(place) for place in range(BANKS)))
        spent = time.perf_counter() - began
    count = each if contested else each * BANKS
    if wins != count:
        raise SystemExit(f"{count} requests, {wins} winners")
    return count / spent


async def claims(stage: Stage, *, contested: bool) -> None:
    """A and B in the order ABBA, each over requests of its own."""
    each = max(2, round(stage.seconds * (6 if contested else 4)))
    script = CONTESTED if contested else DISTINCT
    found: dict[str, list[float]] = {"API": [], "pgbench": []}
    shares: list[str] = []
    # Tokens and plans of a first run are not what is measured.
    await claimed(stage, stage.taken(BANKS), 1, contested=False)
    for who in ORDER:
        turns = each if who == "API" else WARM + each
        first = stage.taken(turns if contested else turns * BANKS)
        if who == "API":
            client, server, began = (
                psutil.Process().cpu_times(),
                psutil.Process(stage.pid).cpu_times(),
                time.perf_counter(),
            )
            found[who].append(await claimed(stage, first, each, contested=contested))
            spent = time.perf_counter() - began
            shares.append(f"{cpu(psutil.Process(), client, spent)} {cpu(psutil.Process(stage.pid), server, spent)}")
        else:
            rate = await pgbench(stage.url, script, BANKS, each, i=0, start=first, step=BANKS)
            found[who].append(rate / BANKS if contested else rate)
    what = "decided requests/s, 57 racers each" if contested else "winning claims/s, distinct requests"
    for who, rates in found.items():
        print(f"{what:<38}{who:<9}{statistics.mean(rates):>9.1f}   {min(rates):.1f} to {max(rates):.1f}")
    ratio = statistics.mean(found["API"]) / statistics.mean(found["pgbench"])
    print(
        f"{'':<38}{'ratio':<9}{ratio:>9.2f}   client and server CPU of the API's runs: {', '.join(shares)}", flush=True
    )


def cpu(process: psutil.Process, before: tuple[float, ...], seconds: float) -> str:
    return f"{(cpu_seconds(process) - before[0] - before[1]) / seconds:.0%}"


# -------------------------------------------------------------------------------------------------------------- streams


class Load:
    """Processor time of a server with all its children, and of this process, from now on."""

    def __init__(self, pid: int) -> None:
        self._server = psutil.Process(pid)
        self._began = (self._spent(), cpu_seconds(psutil.Process()), time.perf_counter())

    def _spent(self) -> float:
        return sum(cpu_seconds(one) for one in [self._server, *self._server.children(recursive=True)])

    def told(self) -> str:
        """Shares of one processor."""
        server, client, began = self._began
        passed = time.perf_counter() - began
        ours = (cpu_seconds(psutil.Process()) - client) / passed
        return f"server {(self._spent() - server) / passed:.0%}, client {ours:.0%}"


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time that a process spent so far."""
    times = process.cpu_times()
    return times.user + times.system


async def hall_streams(stage: Stage) -> tuple[list[Ear], dict[int, int], str]:
    """Events written to the hall's table, heard by every stream; when each got its place in the feed; and the load."""
    fr = stage.frs[-1]
    asked = [message("GET /v1/hall/stream", stage.racers[n % BANKS].token) for n in range(SUBSCRIBERS)]
    async with ears(stage.address, asked) as opened:
        load = Load(stage.pid)
        for _ in range(events_of(stage)):
            await stage.owner.execute(
                "SELECT hall.emit('bench/1', 'fin.bench.told.v1', jsonb_build_object('sent', $1::bigint, 'pad', "
                "repeat('x', 60)), p_fr => $2, p_round => 1)",
                time.time_ns(), fr,
            )  # fmt: skip
            await asyncio.sleep(1 / EVENTS_A_SECOND)
        told = load.told()
        await asyncio.sleep(1.5)
    rows = await stage.owner.fetch(
        "SELECT (body::jsonb #>> '{data,sent}')::bigint AS sent, (extract(epoch FROM published_at) * 1e9)::bigint "
        "AS at FROM hall.feed WHERE type = 'fin.bench.told.v1'"
    )
    return opened, {row["sent"]: row["at"] for row in rows}, told


@asynccontextmanager
async def nchan(folder: Path) -> AsyncGenerator[tuple[str, int]]:
    """An nginx with one channel, /pub and /sub: its address and process number."""
    with tempfile.TemporaryFile() as log, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = folder / "nginx.conf"
        config.write_text(
            f"load_module {NCHAN}; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr warn;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{port};\n"
            "  location = /pub { nchan_publisher; nchan_channel_id hall; nchan_message_buffer_length 200; }\n"
            "  location = /sub { nchan_subscriber eventsource; nchan_channel_id hall; } } }\n",
            encoding="utf-8",
        )
        words = ["nginx", "-c", str(config), "-p", str(folder)]
        program = await asyncio.create_subprocess_exec(*words, stdout=log, stderr=log)
        try:
            await asyncio.sleep(0.5)
            yield f"http://127.0.0.1:{port}", program.pid
        finally:
            program.terminate()
            await program.wait()


async def nchan_streams(stage: Stage, body: str) -> tuple[list[Ear], str]:
    """The same bytes but for the time, published by POST and heard by the same clients; and the load."""
    before, _, after = body.partition('"sent": ')
    with tempfile.TemporaryDirectory() as folder:
        async with (
            nchan(Path(folder)) as (address, pid),
            lines(address, 1) as (publisher,),
            ears(address, [message("GET /sub")] * SUBSCRIBERS) as opened,
        ):
            load = Load(pid)
            for _ in range(events_of(stage)):
                event = f'{before}"sent": {time.time_ns()}{after[19:]}'.encode()
                status = await publisher.said(message("POST /pub", body=event))
                if status not in (200, 201, 202):
                    raise SystemExit(f"nchan answered {status}")
                await asyncio.sleep(1 / EVENTS_A_SECOND)
            told = load.told()
            await asyncio.sleep(1.5)
    return opened, told


def events_of(stage: Stage) -> int:
    return max(20, round(stage.seconds * EVENTS_A_SECOND))


async def streams(stage: Stage) -> None:
    """Both peers by turns; each run's own percentiles, so that their range is seen."""
    found: dict[str, list[list[float]]] = {}
    loads: dict[str, list[str]] = {"hall": [], PEER: []}

    async def hall() -> None:
        opened, published, load = await hall_streams(stage)
        heard = [one for ear in opened for one in ear.heard]
        found.setdefault("hall, from its place in the feed", []).append(
            [(at - published[sent]) / 1e6 for sent, at in heard]
        )
        found.setdefault("hall, from the write", []).append([(at - sent) / 1e6 for sent, at in heard])
        loads["hall"].append(load)

    async def peer() -> None:
        body = await stage.owner.fetchval("SELECT body FROM hall.feed WHERE type = 'fin.bench.told.v1' LIMIT 1")
        opened, load = await nchan_streams(stage, str(body))
        found.setdefault(PEER, []).append([(at - sent) / 1e6 for ear in opened for sent, at in ear.heard])
        loads[PEER].append(load)

    if not HAS_PEER:
        print("nginx with nchan (Debian: nginx-light, libnginx-mod-nchan) is not here: no peer for the streams")
    for side in SIDES:
        if side == "hall":
            await hall()
        elif HAS_PEER:
            await peer()
    due = SUBSCRIBERS * events_of(stage)
    nothing = [[float("nan")] * 2]
    for name, runs in found.items():
        cells: list[str] = []
        for percent in (50, 99):
            ours, theirs = ([p(run, percent) for run in of] for of in (runs, found.get(PEER, nothing)))
            ratio = statistics.median(ours) / statistics.median(theirs)
            middle = f"p{percent} {statistics.median(ours):>6.1f} ({min(ours):.1f} to {max(ours):.1f}) ms"
            cells.append(f"{middle}, x nchan {ratio:.1f}")
        delivered = sum(map(len, runs)) / (due * len(runs))
        print(f"{f'{SUBSCRIBERS} streams, {EVENTS_A_SECOND}/s':<20}{name:<33}{'; '.join(cells)}; {delivered:.1%} came")
    for name, told in loads.items():
        print(f"{'':<20}{name:<33}of one processor: {'; '.join(told)}", flush=True)


# ------------------------------------------------------------------------------------------------------------------ all


async def all_of(chosen: argparse.Namespace) -> None:
    packages = ("asyncpg", "fastapi", "uvicorn", "uvloop", "orjson", "pydantic")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages))
    async with database() as url:
        owner = await asyncpg.connect(url)
        told = await owner.fetchval(
            "SELECT current_setting('server_version') || ', fsync ' || current_setting('fsync')"
        )
        load = os.getloadavg()[0]
        print(f"PostgreSQL {told}; {version_of('nginx', '-v')}; {os.cpu_count()} processors, load {load:.1f}")
        if {"grabs", "race", "streams"} & set(chosen.only):
            await hall_cases(chosen, url, owner)
        if "quotes" in chosen.only:
            for name, found in await quotes(url, most=max(10, round(chosen.seconds * 8))):
                print(
                    f"{name:<44}p50 {p(found, 50):>7.1f} ms, p99 {p(found, 99):>7.1f} ms   of {len(found)}", flush=True
                )
        await owner.close()
        print(f"load at the end {os.getloadavg()[0]:.1f}")


async def hall_cases(chosen: argparse.Namespace, url: str, owner: asyncpg.Connection) -> None:
    racers = await banks(owner, BANKS)
    turns = {
        "grabs": round(chosen.seconds * 16) * BANKS + 2 * WARM * BANKS,
        "race": round(chosen.seconds * 24) + 2 * WARM,
    }
    await requests(owner, sum(turns.get(case, 0) for case in chosen.only) + 4 * BANKS)
    await known_to_pgbench(owner, racers)
    frs = await staged(owner)
    print(f"{len(frs):,} open requests, {BANKS} banks, no draw of chance\n", flush=True)
    with tempfile.TemporaryDirectory() as home, serving(url, Path(home)) as (address, pid):
        stage = Stage(url, owner, racers, frs, chosen.seconds, address, pid)
        if "grabs" in chosen.only:
            await claims(stage, contested=False)
        if "race" in chosen.only:
            await claims(stage, contested=True)
        if "streams" in chosen.only:
            while await owner.fetchval("SELECT EXISTS (SELECT FROM hall.unpublished)"):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            await asyncio.sleep(2)
            await streams(stage)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print versions, the table and the load of the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long a run is about")
    cases = ("grabs", "race", "streams", "quotes")
    parser.add_argument("--only", nargs="+", choices=cases, default=cases)
    run(all_of(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
