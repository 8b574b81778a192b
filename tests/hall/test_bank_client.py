"""examples/bank_client.py as a bank's engineer runs it: a process of its own against a real hall."""

import ast
import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from api.clients import NewClient, add_client, new_key, public_jwk
from tests.hall import made
from tests.hall.callers import Hall, serving
from tests.hall.feeding import until
from tests.hall.made import Bank
from tests.hall.residents import TERMS
from tests.hall.steps import order, revoke, told, version

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


async def complained(process: Process, word: str) -> None:
    """Wait for the word on its standard error."""
    assert process.stderr is not None
    async with asyncio.timeout(SECONDS):
        while line := await process.stderr.readline():
            if word in line.decode():
                return
    raise AssertionError(f"it ended without {word!r}")


@dataclass
class Balancer:
    """What stands before a hall: bytes to and fro, or while it is down a page of its own."""

    hall: str
    url: str = ""
    is_down: bool = False
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def down(self) -> None:
        """Break all connections; new ones get the page."""
        self.is_down = True
        for one in self.open:
            one.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            await reader.read(65536)
            page = b"<html>502 Bad Gateway</html>"
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n%b" % (len(page), page))  # fmt: skip
            writer.close()
            return
        there = urlsplit(self.hall)
        behind, onward = await asyncio.open_connection(there.hostname, there.port)
        self.open |= {writer, onward}
        await asyncio.gather(_piped(reader, onward), _piped(behind, writer))
        self.open -= {writer, onward}


async def _piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def balanced(hall: str) -> AsyncGenerator[Balancer]:
    balancer = Balancer(hall)
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield balancer
    balancer.down()
    server.close()


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


async def accepted(hall: Hall) -> asyncpg.Record:
    """The enterprise accepts the one offer that there is; its terms."""
    offer = await hall.owner.fetchrow(
        """
        SELECT o.id, encode(o.sha256, 'hex') AS sha256, f.version, f.uscc,
            (o.rate_basis, o.basis_bp + o.spread_bp, o.line_months, o.draw_months, o.repayment, o.is_revolving,
                o.prepayment_fee_bp) AS terms
        FROM hall.offer o JOIN hall.financing_request f ON f.id = o.fr_id
        """
    )
    assert offer is not None
    await made.act(hall.owner, made.enterprise_actor(offer["uscc"]), "accept_offer", offer_id=offer["id"],
                   version=offer["version"], sha256=offer["sha256"])  # fmt: skip
    return offer["terms"]


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
        assert tuple(await accepted(hall)) == ("fixed", 400, 12, 6, "equal-principal", False, 100)
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
        (fr,) = await gated(hall, bank, seconds=5)
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
        await gated(hall, bank, seconds=6, cards=12)
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(SECONDS):
            while sum("offered" in line for line in lines) < 12:
                lines.append((await process.stdout.readline()).decode())
        first = next(place for place, line in enumerate(lines) if "offered" in line)
        assert sum("grabbed" in line for line in lines[:first]) >= 12 - 7
        process.kill()
        await process.wait()


async def test_a_contract_of_a_suspended_request_is_reported_when_the_order_is_lifted(
    database: str, home: Path, tmp_path: Path
) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        first = await started(config)
        await said(first, "following")
        fr = await wanted(hall, bank)
        await said(first, "offered")
        first.kill()
        await first.wait()
        await accepted(hall)
        await order(hall.owner, fr, "suspend")
        second = await started(config)
        await complained(second, "is signed later")
        second.kill()
        await second.wait()
        third = await started(config)
        await complained(third, "is signed later")
        await order(hall.owner, fr, "resume")
        assert "500,000 CNY" in await said(third, "signed")
        third.kill()
        await third.wait()


async def test_the_page_of_a_balancer_is_no_answer(database: str, home: Path, tmp_path: Path) -> None:
    async with serving(database, home) as hall, balanced(hall.service.issuer) as balancer:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        config.write_text(json.dumps(json.loads(config.read_text()) | {
            "url": balancer.url, "issuer": hall.service.issuer}))  # fmt: skip
        balancer.is_down = True
        process = await started(config)
        await complained(process, "502 with text/html")
        balancer.is_down = False
        await said(process, "following")
        (fr,) = await gated(hall, bank, seconds=4)
        await waiting(config, fr, is_there=True)
        balancer.down()
        await complained(process, "the same act again")
        balancer.is_down = False
        assert fr in await said(process, "grabbed")
        process.kill()
        await process.wait()


async def test_v8_the_snapshot_is_read_to_its_end(database: str, home: Path, tmp_path: Path) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        cards = await gated(hall, bank, seconds=200_000, cards=201)
        process = await started(config)
        await said(process, "following")
        kept = json.loads(config.with_name("bank.json.state").read_text())["cards"]
        assert set(kept) == set(cards)
        process.kill()
        await process.wait()


async def test_x2_what_the_enterprise_no_longer_lets_it_see_it_declines(
    database: str, home: Path, tmp_path: Path
) -> None:
    async with serving(database, home) as hall:
        bank = await made.bank(hall.owner)
        config = await configured(hall, bank, tmp_path)
        (fr,) = await gated(hall, bank, seconds=3)
        process = await started(config)
        await waiting(config, fr, is_there=True)
        process.kill()
        await process.wait()
        await asyncio.sleep(3)
        # As if the grab's answer had come and the enterprise had revoked its consent before the contact.
        claim = await made.claim(hall.owner, fr, bank)
        kept = config.with_name("bank.json.state")
        state = json.loads(kept.read_text())
        card = state["cards"][fr]
        state["acts"][f"grab {fr} {card['round']} {card['opens_at']}"] = {
            "key": "k", "body": {}, "status": 201,
            "answer": {"claim_id": claim.id, "fence": claim.fence, "lease_until": "later"}}  # fmt: skip
        kept.write_text(json.dumps(state))
        consent = await told(hall.owner, "SELECT consent_id FROM hall.financing_request WHERE id = $1", fr)
        await revoke(hall.owner, claim.uscc, consent)
        second = await started(config)
        await until(lambda: _is_declined(hall, claim.id), SECONDS)
        await waiting(config, fr, is_there=False)
        second.kill()
        await second.wait()


async def _is_declined(hall: Hall, claim: str) -> bool:
    return await told(hall.owner, "SELECT state FROM hall.claim WHERE id = $1", claim) == "declined"


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
