"""examples/bank_client.py as a bank's engineer runs it: a process of its own against a real hall."""

import ast
import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from api.clients import NewClient, add_client, new_key, public_jwk
from tests.hall import made
from tests.hall.callers import Hall, serving
from tests.hall.feeding import until
from tests.hall.made import Bank
from tests.hall.residents import TERMS
from tests.hall.steps import order, told, version

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "bank_client.py"
SECONDS = 40
OWN_TERMS = TERMS | {"rate": {"basis": "fixed", "from_bp": 400, "to_bp": 450}, "repayments": ["equal-principal"],
                     "draw_months": 6, "is_revolving": False, "prepayment_fee_bp": 100}  # fmt: skip
"""Of the product that the client claims with: nothing that a program would offer by itself."""


_STARTED: list[Process] = []


@pytest.fixture(autouse=True)
async def no_client_is_left() -> AsyncIterator[None]:
    """A failing test leaves no client running: at its end the loop would wait for it for ever."""
    yield
    while _STARTED:
        process = _STARTED.pop()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def started(config: Path, *words: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), str(config), *words, stdout=PIPE, stderr=PIPE
    )
    _STARTED.append(process)
    return process


async def said(process: Process, word: str) -> str:
    """The line that has the word in it."""
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        while line := await process.stdout.readline():
            if word in line.decode():
                return line.decode()
    assert process.stderr is not None
    raise AssertionError(f"it ended without {word!r}: {(await process.stderr.read()).decode()}")


async def configured(hall: Hall, bank: Bank, folder: Path) -> Path:
    key, config = folder / "bank.pem", folder / "bank.json"
    await hall.owner.execute("UPDATE hall.product SET terms = $1::text::jsonb", made.json_of(OWN_TERMS))
    jwk = public_jwk(new_key(key))
    client = await add_client(hall.owner, NewClient("an engineer's", "bank", bank.institution), jwk)
    told = {"url": hall.service.issuer, "client": client, "kid": jwk["kid"], "key": str(key), "outlet": bank.outlet,
            "product": f"{bank.product}@1"}  # fmt: skip
    config.write_text(json.dumps(told))
    return config


async def wanted(hall: Hall, bank: Bank) -> str:
    uscc = await made.enterprise(hall.owner, limit_fen=50_000_000)
    return await made.request(hall.owner, uscc, audience=[bank.outlet_no])


async def test_a_client_killed_after_its_grab_goes_on_with_the_same_key_to_the_signing(
    database: str, home: Path, tmp_path: Path
) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        first = await started(config)
        await said(first, "following")
        fr = await wanted(hall, bank)
        await said(first, "grabbed")
        first.send_signal(signal.SIGKILL)
        await first.wait()

        # As if the answer had not come: the key was kept before anything was sent, so it is known here.
        state = config.with_name("bank.json.state")
        kept = json.loads(state.read_text())
        (grab,) = [act for name, act in kept["acts"].items() if name.startswith("grab")]
        grab["status"] = grab["answer"] = None
        state.write_text(json.dumps(kept))

        second = await started(config, "--once")
        await said(second, "offered")
        offer = await hall.owner.fetchrow(
            """
            SELECT o.id, encode(o.sha256, 'hex') AS sha256, f.version, f.uscc,
                (o.rate_basis, o.basis_bp + o.spread_bp, o.line_months, o.draw_months, o.repayment, o.is_revolving,
                    o.prepayment_fee_bp) AS terms
            FROM hall.offer o JOIN hall.financing_request f ON f.id = o.fr_id
            """
        )
        assert offer is not None
        assert offer["terms"] == ("fixed", 400, 12, 6, "equal-principal", False, 100)
        enterprise = made.enterprise_actor(offer["uscc"])
        await made.act(hall.owner, enterprise, "accept_offer", offer_id=offer["id"], version=offer["version"],
                       sha256=offer["sha256"])  # fmt: skip
        assert "500,000 CNY" in await said(second, "signed")
        assert await asyncio.wait_for(second.wait(), SECONDS) == 0

        counts = await hall.owner.fetchrow(
            """
            SELECT (SELECT count(*) FROM hall.claim WHERE fr_id = $1) AS claims,
                (SELECT count(*) FROM hall.contact) AS contacts, (SELECT count(*) FROM hall.offer) AS offers,
                (SELECT count(*) FROM hall.facility WHERE fr_id = $1) AS facilities
            """,
            fr,
        )
        assert counts is not None
        assert dict(counts) == {"claims": 1, "contacts": 1, "offers": 1, "facilities": 1}


async def gated(hall: Hall, bank: Bank, *, seconds: float, cards: int = 1) -> list[str]:
    """Requests in the hall whose common gate opens in so many seconds."""
    async with hall.owner.transaction():
        requests = [await wanted(hall, bank) for _ in range(cards)]
        await hall.owner.execute(
            "UPDATE hall.round SET opens_at = hall.hall_now() + $2::interval, "
            "closes_at = hall.hall_now() + $2::interval + interval '1 hour' WHERE fr_id = ANY ($1)",
            requests,
            timedelta(seconds=seconds),
        )
    return requests


async def waiting(config: Path, fr: str, *, is_there: bool) -> None:
    """Until the client keeps the card of a request, or no longer does."""
    state = config.with_name("bank.json.state")
    await until(lambda: _so(state.is_file() and (fr in json.loads(state.read_text())["cards"]) == is_there), SECONDS)


async def _so(fact: bool) -> bool:
    return fact


async def test_a_card_whose_gate_opens_on_monday_holds_nothing_up_and_is_raced_for_once_it_is_resumed(
    database: str, home: Path, tmp_path: Path
) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        process = await started(config)
        await said(process, "following")
        (hidden,) = await gated(hall, bank, seconds=200_000)
        (gone,) = await gated(hall, bank, seconds=200_000)
        assert await wanted(hall, bank) in await said(process, "grabbed")
        await waiting(config, hidden, is_there=True)
        await waiting(config, gone, is_there=True)

        firm = await told(hall.owner, "SELECT uscc FROM hall.financing_request WHERE id = $1", gone)
        await made.act(hall.owner, made.enterprise_actor(firm), "withdraw_request", fr_id=gone,
                       version=await version(hall.owner, gone))  # fmt: skip
        await waiting(config, gone, is_there=False)
        await order(hall.owner, hidden, "suspend")
        await waiting(config, hidden, is_there=False)
        await hall.owner.execute("UPDATE hall.setting SET value = 0 WHERE name = 'gate_waits_for_working_time'")
        await order(hall.owner, hidden, "resume")  # published anew, its gate opens two seconds later
        assert hidden in await said(process, "grabbed")
        process.kill()
        await process.wait()


async def test_a_card_that_waits_for_its_gate_outlives_the_program(database: str, home: Path, tmp_path: Path) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        first = await started(config)
        await said(first, "following")
        (fr,) = await gated(hall, bank, seconds=12)
        await waiting(config, fr, is_there=True)
        first.kill()
        await first.wait()
        second = await started(config)
        assert fr in await said(second, "grabbed")
        await said(second, "offered")
        await waiting(config, fr, is_there=False)
        second.kill()
        await second.wait()


async def test_cards_of_one_gate_are_all_grabbed_before_the_work_on_the_first_begins(
    database: str, home: Path, tmp_path: Path
) -> None:
    """Eight racers: of twelve cards at most seven grabs are under way when the first offer is made."""
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        process = await started(config)
        await said(process, "following")
        await gated(hall, bank, seconds=8, cards=12)
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(SECONDS):
            while sum("offered" in line for line in lines) < 12:
                lines.append((await process.stdout.readline()).decode())
        first = next(place for place, line in enumerate(lines) if "offered" in line)
        assert sum("grabbed" in line for line in lines[:first]) >= 12 - 7
        process.kill()
        await process.wait()


async def test_it_prints_a_token_that_reads_the_hall(database: str, home: Path, tmp_path: Path) -> None:
    async with serving(database, home) as hall:
        config = await configured(hall, await made.bank(hall.owner), tmp_path)
        process = await started(config, "--token")
        out, _ = await process.communicate()
        answer = await hall.http.get("/v1/hall", headers={"Authorization": f"Bearer {out.decode().strip()}"})
        assert answer.status_code == 200
        assert answer.json()["items"] == []


async def test_the_help_says_how_to_run_it() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), "--help", stdout=PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert "--once" in out.decode()


async def test_v9_a_place_that_means_nothing_any_more_leads_to_the_snapshot(
    database: str, home: Path, tmp_path: Path
) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        config.with_name("bank.json.state").write_text(json.dumps({"cursor": "7.5", "last": "5"}))
        fr = await wanted(hall, bank)
        process = await started(config)
        words = {
            "grabbed " + fr,
            "offered",
            "following",
        }  # in any order: the stream and the race are threads of their own
        while words:
            line = await said(process, "")
            words = {word for word in words if word not in line}
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), SECONDS) == 0


async def test_it_imports_nothing_of_ours() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(PROGRAM.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        imported |= {name.split(".")[0] for name in names}
    assert imported - sys.stdlib_module_names == {"httpx2", "jwt"}
