"""A stage for the benchmarks of the hall: a PostgreSQL that syncs to disk, banks, thousands of open requests, a server.

Requests go their way along the machine's edges, by one statement for all of them instead of ten for each.
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import orjson

from api.migrating import prepare
from api.postgres import Postgres
from api.programs import found_programs
from api.settings import Settings
from data_contracts.uscc import made_up_code
from tests.hall import racing
from tests.hall.doors import Racer

PROGRAM = Path(sys.executable).parent / "jifen"
PATH = "/v1/financing-requests/{fr_id}/claims"
AMOUNT_FEN = 1_000_000
EACH_ENTERPRISE = 5
WARM = 6
"""PostgreSQL plans a statement anew five times before it keeps a plan."""

SETTINGS = "settings: {gate_ms: 0, gate_waits_for_working_time: 0}\n"

_REQUESTS = """
WITH firm AS (
    SELECT uscc, (n - 1) / $2::integer AS no, n FROM unnest($1::text[]) WITH ORDINALITY AS u (uscc, n)
), permitted AS (
    INSERT INTO hall.consent (id, uscc, signer, method, evidence_sha256, purpose, data_sets, recipients, valid_from,
            valid_to, one_time, receipt_sha256, given_by, given_at)
        SELECT hall.new_id('co'), uscc, 'made', 'ca-signature', sha256('made'), 'financing', '{limit,facts,report}',
            '{claiming-institution}', hall.hall_now() - interval '1 day', hall.hall_now() + interval '1 year', false,
            sha256('made'), 'made', hall.hall_now()
        FROM firm
        RETURNING id, uscc
)
INSERT INTO hall.financing_request (id, uscc, registered_by, scheme, quote_binds, amount_fen, term_months, purpose,
        industry_section, district, consent_id, quote_fen, quote_expires_at, state, edge, moved_at, moved_by)
    SELECT hall.new_id('fr'), uscc, 'made', 'torch-points', true, $3, 12, 'purpose-' || n, 'I', '350211', id, $3,
        hall.hall_now() + interval '30 days', 'draft', 'T1', hall.hall_now() - interval '5 minutes', 'made'
    FROM permitted, generate_series(1, $2::integer) AS n
"""
_ROUNDS = """
WITH numbered AS (UPDATE hall.financing_request SET round_no = 1 WHERE state = 'quoted' RETURNING id)
INSERT INTO hall.round (fr_id, n, state, audience, audience_sha256, card, card_version, announced_at, published_at,
        opens_at, closes_at)
    SELECT f.id, 1, 'open', (SELECT array_agg(no ORDER BY no) FROM hall.outlet), decode(repeat('00', 32), 'hex'),
        hall.card_of(f), 5, t - interval '2 minutes', t - interval '2 minutes', t - interval '1 minute',
        t + interval '1 day'
    FROM hall.financing_request f JOIN numbered USING (id), hall.hall_now() AS t
"""


@asynccontextmanager
async def database() -> AsyncGenerator[str]:
    """Address of a prepared database on a server of its own that keeps what it committed; gone at the end."""
    home = await asyncio.to_thread(_home)
    try:
        async with Postgres(home, Settings().postgres_bin, {"shared_buffers": "256MB"}) as server:
            await prepare(server.url())
            yield server.url()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _home() -> Path:
    """An empty folder that the system user of a server may reach."""
    folder = Path(tempfile.mkdtemp(prefix="jifen-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    return folder


async def banks(owner: asyncpg.Connection, count: int) -> list[Racer]:
    """Banks whose caps no benchmark reaches."""
    racers = await racing.racers(owner, count, hold_cap=1_000_000, daily_claim_cap=1_000_000)
    await owner.execute("UPDATE hall.outlet SET hold_cap = 1000000")
    return racers


async def requests(owner: asyncpg.Connection, count: int) -> None:
    """At least so many requests of firms with limit enough, open to every outlet; `bench.stage` numbers all from 0."""
    firms = -(-count // EACH_ENTERPRISE)
    codes = [made_up_code(900_000 + n) for n in range(firms)]
    async with owner.transaction():
        await owner.execute(
            "INSERT INTO hall.enterprise (uscc, name, contact_name, contact_phone, industry_section, district) "
            "SELECT uscc, uscc, 'made', '13800000000', 'I', '350211' FROM unnest($1::text[]) AS uscc",
            codes,
        )
        await owner.execute(
            "SELECT hall.set_limit(uscc, 'torch-points', $2, hall.hall_now() + interval '30 days') "
            "FROM unnest($1::text[]) AS uscc",
            codes, 10 * EACH_ENTERPRISE * AMOUNT_FEN,
        )  # fmt: skip
        await owner.execute(_REQUESTS, codes, EACH_ENTERPRISE, AMOUNT_FEN)
        for edge, state in (("T2", "submitted"), ("T4", "screened"), ("T6", "quoted")):
            await moved(owner, edge, state)
        await owner.execute(_ROUNDS)
        await moved(owner, "T8", "broadcast")
        await owner.execute("CREATE SCHEMA bench")
        await owner.execute(
            "CREATE TABLE bench.stage AS SELECT row_number() OVER (ORDER BY id) - 1 AS n, id AS fr "
            "FROM hall.financing_request"
        )
        await owner.execute("ALTER TABLE bench.stage ADD PRIMARY KEY (n)")
    await owner.execute("VACUUM ANALYZE")


async def moved(owner: asyncpg.Connection, edge: str, state: str) -> None:
    """Take every request one step on."""
    await owner.execute(
        "SELECT hall.move_request(id, $1, $2, 'made', hall.hall_now()) FROM hall.financing_request", edge, state
    )


async def staged(owner: asyncpg.Connection) -> list[str]:
    """All requests by their number."""
    return [row["fr"] for row in await owner.fetch("SELECT fr FROM bench.stage ORDER BY n")]


async def known_to_pgbench(owner: asyncpg.Connection, racers: Sequence[Racer]) -> None:
    """What `hall.once` is told for each bank, for a script to look up by the number of its client."""
    await owner.execute("CREATE TABLE bench.racer (no integer PRIMARY KEY, client text, actor jsonb, args jsonb)")
    for no, one in enumerate(racers):
        args = {"round": 1, "outlet_id": one.bank.outlet, "product_id": one.bank.product, "product_version": 1,
                "card_version": 5, "officer_id": None}  # fmt: skip
        await owner.execute(
            "INSERT INTO bench.racer VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb)",
            no, one.who, orjson.dumps(one.bank.actor).decode(), orjson.dumps(args).decode(),
        )  # fmt: skip


@contextmanager
def serving(url: str, home: Path) -> Generator[tuple[str, int]]:
    """A `jifen serve` of one process: its address and process number."""
    policy = home / "hall_policy.yaml"
    policy.write_text(SETTINGS, encoding="utf-8")
    told = {"JIFEN_DATABASE_URL": url, "JIFEN_HOME": str(home), "JIFEN_HALL_POLICY": str(policy),
            "JIFEN_RATE_LIMITS": "off"}  # fmt: skip
    with (home / "serve.log").open("ab") as log:
        program = subprocess.Popen(  # noqa: S603  (a program of ours)
            [PROGRAM, "serve", "--port", "0"], env=os.environ | told, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert program.stdout is not None
        said = program.stdout.readline()
        found = re.search(r"http://\S+:\d+", said)
        if found is None:
            raise SystemExit(f"jifen serve said {said!r}:\n{(home / 'serve.log').read_text(encoding='utf-8')[-2000:]}")
        try:
            yield found[0], program.pid
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(20)
            program.stdout.close()


async def pgbench(url: str, script: str, clients: int, each: int, **variables: int) -> float:
    """Transactions a second of a script that every client runs `WARM + each` times.

    A connection that is new plans every statement of every function, so the first `WARM` of each do not count.
    """
    words = [found_programs(Settings().postgres_bin).folder / "pgbench", "-n", "-M", "prepared", "-j", "2"]
    words += ["-c", str(clients), "-t", str(WARM + each)]
    words += [word for name, value in variables.items() for word in ("-D", f"{name}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "script.sql"
        await asyncio.to_thread(file.write_text, script, encoding="utf-8")
        done = await asyncio.create_subprocess_exec(
            *map(str, [*words, "-l", "--log-prefix=log", "-f", file, url]),
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, wrong = await done.communicate()
        if done.returncode:
            raise SystemExit(f"pgbench failed: {wrong.decode()[-2000:]}")
        return await asyncio.to_thread(steady_rate, Path(folder), WARM * clients)


def steady_rate(folder: Path, warm: int) -> float:
    """Transactions a second by pgbench's log, after so many."""
    lines = [line.split() for log in folder.glob("log*") for line in log.read_text(encoding="utf-8").splitlines()]
    # The last but one column is the second of a transaction's end, the last its microseconds.
    ended = sorted(int(line[4]) + int(line[5]) / 1e6 for line in lines)[warm:]
    return (len(ended) - 1) / (ended[-1] - ended[0])


def version_of(program: str, *words: str) -> str | None:
    """What a program of the system says of itself; None: it is not there."""
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run([path, *words], capture_output=True, text=True, check=False)  # noqa: S603
    return (done.stdout + done.stderr).strip().splitlines()[0]
