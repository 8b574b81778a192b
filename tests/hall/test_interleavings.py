"""Two acts at once, in every order of their statements: each outcome is one that some order of whole acts has (§4)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import asyncpg
import orjson
import pytest

from api.database import Connection
from api.invariants import violated
from tests.hall import made
from tests.hall.interleaving import MOST_STEPS, Act, conductor, make_steps
from tests.hall.steps import FIRST, SECOND, order, quote

STEPPED = (
    "act_grab", "act_contact_enterprise", "act_give_up_claim", "act_make_offer", "act_accept_offer",
    "act_withdraw_request", "act_report_drawdown", "own_claim", "claim_is_over", "move_claim", "take_hold", "reserve",
    "void_reservation", "attribute_reservation", "announce_round", "sweep_claim", "set_limit", "locked_facility",
    "square", "look_at_dossier", "look_at_request", "look_at_limits", "consent_for",
    "act_revoke_consent", "act_correct", "act_broadcast_request", "why_no_round", "kept_consent", "go_on_or_assist",
)  # fmt: skip
AT_MOST = 14
"""Statements after which a session is interrupted, counted from its first; later ones are tried in the long form."""
SHORT = 7
"""Orders of each pair that the short form tries, spread over all of them."""
OUTCOMES = {
    "claim and claim": {("ok", "grab-lost"), ("grab-lost", "ok")},
    # The lapse opens the second round, in which a claim on the first is lost as before.
    "claim and lapse": {("grab-lost", "ok")},
    # The sweeper leaves out what another holds, and comes again.
    "contact and lapse": {("stale-fence", "ok"), ("stale-fence", "nothing"), ("ok", "nothing"), ("ok", "ok")},
    "accept and withdraw": {("ok", "stale-version"), ("stale-version", "ok"), ("illegal-transition", "ok")},
    "drawdown and limit cut": {("ok", "ok")},
    "release and offer": {("ok", "ok"), ("ok", "stale-fence")},
    # Nothing is shown behind the end of the claim, or of the consent; before it, all is.
    "dossier and release": {("ok", "ok"), ("nothing", "ok")},
    "request and lapse": {("ok", "ok"), ("nothing", "ok"), ("ok", "nothing")},
    "dossier and revocation": {("ok", "ok"), ("nothing", "ok")},
    "limit and revocation": {("ok", "ok"), ("nothing", "ok")},
    # Revoked before, no round is announced; revoked after, it ends.
    "broadcast and revocation": {("ok", "ok"), ("consent-revoked", "ok")},
    "release and revocation": {("ok", "ok")},
    "correction and drawdown": {("ok", "ok")},
}


UNCARRIED = """
SELECT k.fr_id FROM hall.round k JOIN hall.financing_request f ON f.id = k.fr_id
WHERE k.state IN ('announced', 'open') AND hall.request_consent(f, hall.hall_now()) IS NULL
"""


@dataclass(frozen=True)
class Scene:
    """What the acts of a pair are about."""

    owner: Connection
    banks: tuple[made.Bank, made.Bank]
    uscc: str


async def claim_and_claim(scene: Scene) -> tuple[Act, Act]:
    fr = await made.request(scene.owner, scene.uscc, purpose=secrets.token_hex(4), amount_fen=1_000_000)
    return tuple(_act(one.actor, "grab", **_claim(fr, one)) for one in scene.banks)  # pyright: ignore[reportReturnType]


async def claim_and_lapse(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "held")
    await _overdue(scene, claim)
    return _act(scene.banks[1].actor, "grab", **_claim(claim.fr, scene.banks[1])), _sweep


async def contact_and_lapse(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "held")
    await _overdue(scene, claim, milliseconds=8)
    contact = _act(claim.bank.actor, "contact_enterprise", claim_id=claim.id, fence=claim.fence, method="call",
                   proof_sha256=made.HASH)  # fmt: skip
    return contact, _sweep


async def accept_and_withdraw(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "offered")
    me = made.enterprise_actor(scene.uscc)
    version = await scene.owner.fetchval("SELECT version FROM hall.financing_request WHERE id = $1", claim.fr)
    return (
        _act(me, "accept_offer", offer_id=claim.offer, version=version, sha256=made.HASH),
        _act(me, "withdraw_request", fr_id=claim.fr, version=version, note="changed plans"),
    )


async def drawdown_and_limit_cut(scene: Scene) -> tuple[Act, Act]:
    uscc = await made.enterprise(scene.owner, limit_fen=3_000_000)
    facility = await made.facility(scene.owner, uscc, scene.banks[0], 2_000_000)
    today = str(await scene.owner.fetchval("SELECT hall.today()"))
    draw = _act(scene.banks[0].actor, "report_drawdown", facility_id=facility, amount_fen=1_500_000, drawn_on=today,
                bank_ref=secrets.token_hex(8), first_loan=False, evidence_sha256=made.HASH)  # fmt: skip

    async def cut(connection: Connection) -> Any:
        await connection.execute(
            "SELECT hall.set_limit($1, 'torch-points', 1000000, hall.hall_now() + interval '1 day')", uscc
        )
        return "cut"

    return draw, cut


async def release_and_offer(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "contacted")
    fenced = {"claim_id": claim.id, "fence": claim.fence}
    return (
        _act(claim.bank.actor, "give_up_claim", to="released", reason="no-capacity", **fenced),
        _act(claim.bank.actor, "make_offer", amount_fen=1_000_000, rate_basis="LPR1Y", basis_bp=300, spread_bp=65,
             line_months=12, draw_months=12, repayment="bullet", revolving=True, fees=[], conditions=[],
             above_quote_reason=None, **fenced),
    )  # fmt: skip


async def dossier_and_release(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "contacted")
    release = _act(claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="released", reason="x")
    return _look(claim.bank.actor, "dossier", claim.id), release


async def request_and_lapse(scene: Scene) -> tuple[Act, Act]:
    claim = await _claimed(scene, "held")
    await _overdue(scene, claim, milliseconds=8)
    return _look(claim.bank.actor, "request", claim.fr), _sweep


async def dossier_and_revocation(scene: Scene) -> tuple[Act, Act]:
    claim, revocation = await _revoked(scene)
    return _look(claim.bank.actor, "dossier", claim.id), revocation


async def limit_and_revocation(scene: Scene) -> tuple[Act, Act]:
    claim, revocation = await _revoked(scene)
    return _look(claim.bank.actor, "limits", [claim.uscc], "financing"), revocation


async def correction_and_drawdown(scene: Scene) -> tuple[Act, Act]:
    """C2: the correction takes the first loan from one line of the enterprise, and gives it to the other."""
    uscc = await made.enterprise(scene.owner, limit_fen=10_000_000)
    today = str(await scene.owner.fetchval("SELECT hall.today()"))
    lines = [await made.facility(scene.owner, uscc, bank, 2_000_000) for bank in scene.banks]
    refs = [secrets.token_hex(8) for _ in lines]
    first, second = [
        _act(bank.actor, "report_drawdown", facility_id=line, amount_fen=1_000, drawn_on=today, first_loan=True,
             evidence_sha256=made.HASH, bank_ref=ref)
        for bank, line, ref in zip(scene.banks, lines, refs, strict=True)
    ]  # fmt: skip
    await first(scene.owner)
    await second(scene.owner)
    correction = _act(scene.banks[0].actor, "correct", facility_id=lines[0], amount_fen=0, corrects=refs[0],
                      bank_ref=secrets.token_hex(8), note="another firm's money")  # fmt: skip
    more = _act(scene.banks[1].actor, "report_drawdown", facility_id=lines[1], amount_fen=1_000, drawn_on=today,
                bank_ref=secrets.token_hex(8))  # fmt: skip
    return correction, more


async def broadcast_and_revocation(scene: Scene) -> tuple[Act, Act]:
    uscc = await made.enterprise(scene.owner, limit_fen=10**12)
    fr = await made.request(scene.owner, uscc, "quoted", amount_fen=1_000_000)
    version = await scene.owner.fetchval("SELECT version FROM hall.financing_request WHERE id = $1", fr)
    broadcast = _act(made.enterprise_actor(uscc), "broadcast_request", fr_id=fr, version=version, amount_fen=1_000_000,
                     wishes=[])  # fmt: skip
    return broadcast, await _revocation(scene, uscc, fr)


async def release_and_revocation(scene: Scene) -> tuple[Act, Act]:
    claim, revocation = await _revoked(scene)
    release = _act(claim.bank.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="released", reason="x")
    return release, revocation


PAIRS: dict[str, Callable[[Scene], Awaitable[tuple[Act, Act]]]] = {
    "claim and claim": claim_and_claim,
    "claim and lapse": claim_and_lapse,
    "contact and lapse": contact_and_lapse,
    "accept and withdraw": accept_and_withdraw,
    "drawdown and limit cut": drawdown_and_limit_cut,
    "release and offer": release_and_offer,
    "dossier and release": dossier_and_release,
    "request and lapse": request_and_lapse,
    "dossier and revocation": dossier_and_revocation,
    "limit and revocation": limit_and_revocation,
    "broadcast and revocation": broadcast_and_revocation,
    "release and revocation": release_and_revocation,
    "correction and drawdown": correction_and_drawdown,
}


def orders(*, whole: bool) -> list[list[tuple[int, int]]]:
    """Turns that interrupt one session after so many statements, and, in the long form, the other one too."""
    once = [[(which, steps), (1 - which, MOST_STEPS)] for which, steps in product((0, 1), range(AT_MOST))]
    if not whole:
        return once[:: max(1, len(once) // SHORT)]
    twice = [
        [(which, first), (1 - which, second)]
        for which, first, second in product((0, 1), range(AT_MOST), range(1, AT_MOST))
    ]
    return once + twice


async def played(database: str, owner: Connection, pair: str, *, whole: bool) -> set[tuple[str, str]]:
    """The outcomes of a pair over its orders; after each the hall is whole."""
    await make_steps(owner, STEPPED)
    await owner.execute("UPDATE hall.setting SET value = 0 WHERE name IN ('gate_ms', 'gate_waits_for_working_time')")
    uscc = await made.enterprise(owner, limit_fen=10**12)
    scene = Scene(owner, (await made.bank(owner), await made.bank(owner)), uscc)
    seen: set[tuple[str, str]] = set()
    tried = orders(whole=whole)
    async with conductor(database) as conducting:
        for turns in tried:
            outcome = await conducting.play(await PAIRS[pair](scene), turns)
            assert outcome in OUTCOMES[pair], (pair, turns, outcome)
            seen.add(outcome)
            while await owner.fetchval("SELECT hall.sweep()") is not None:
                pass
    while await owner.fetchval("SELECT published FROM hall.sequence_feed('default', 1000)"):
        pass
    broken = {name: rows for name, rows in (await violated(owner)).items() if rows}
    assert not broken, (pair, broken)
    assert await owner.fetch(UNCARRIED) == [], (pair, "a card without a consent")
    print(f"{pair}: {len(tried)} orders, outcomes {sorted(seen)}")
    return seen


@pytest.mark.parametrize("pair", PAIRS)
async def test_two_acts_at_once_end_as_one_after_the_other(database: str, owner: Connection, pair: str) -> None:
    await played(database, owner, pair, whole=False)


@pytest.mark.soak
@pytest.mark.parametrize("pair", PAIRS)
async def test_two_acts_at_once_in_every_order_with_two_interruptions(
    database: str, owner: Connection, pair: str
) -> None:
    await played(database, owner, pair, whole=True)


async def test_c2_looks_at_many_limits_take_their_locks_in_one_order(database: str, owner: Connection) -> None:
    """Each wants what the other has, in the order asked; a third holds both up until they have begun."""
    banks = [await made.bank(owner) for _ in "12"]
    firms = sorted([await made.enterprise(owner, limit_fen=100) for _ in "1234"])
    consents = {
        uscc: await made.consent(owner, uscc, one_time=True, recipients=[bank.institution for bank in banks])
        for uscc in firms
    }
    looks = [[firms[0], firms[1], firms[3]], [firms[3], firms[2], firms[0]]]
    *sessions, third = [await asyncpg.connect(database) for _ in "123"]
    try:
        async with third.transaction():
            held = [consents[firms[1]], consents[firms[2]]]
            await third.execute("SELECT 1 FROM hall.consent WHERE id = ANY ($1) FOR NO KEY UPDATE", held)
            shown = [
                asyncio.create_task(_look(bank.actor, "limits", usccs, "financing")(session))
                for bank, usccs, session in zip(banks, looks, sessions, strict=True)
            ]
            pids = [session.get_server_pid() for session in sessions]
            async with asyncio.timeout(20):
                while await owner.fetchval(WAITING, pids) != len(pids):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert None not in await asyncio.gather(*shown)
    finally:
        for session in (*sessions, third):
            await session.close()


async def at_once(database: str, owner: Connection, held: str, first: Act, second: Act) -> list[Any]:
    """The answers of two acts: the first waits for what a third holds, the second for the first; the third ends."""
    *sessions, third = [await asyncpg.connect(database) for _ in "123"]
    pids = [session.get_server_pid() for session in sessions]
    told: list[asyncio.Task[Any]] = []
    try:
        async with third.transaction():
            await third.execute(held)
            for count, (act, session) in enumerate(zip((first, second), sessions, strict=True), 1):
                told.append(asyncio.ensure_future(act(session)))
                async with asyncio.timeout(20):
                    while await owner.fetchval(WAITING, pids) != count:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        return await asyncio.gather(*told)
    finally:
        await asyncio.gather(*told, return_exceptions=True)
        for session in (*sessions, third):
            await session.close()


async def test_c2_a_signing_that_renews_and_an_appeal_lock_two_requests_in_one_order(
    database: str, owner: Connection
) -> None:
    bank, uscc = await made.bank(owner), await made.enterprise(owner, limit_fen=10**9)
    old = await made.facility(owner, uscc, bank, 2_000_000)
    today = str(await owner.fetchval("SELECT hall.today()"))
    await made.act(owner, bank.actor, "report_drawdown", facility_id=old, amount_fen=1_000, drawn_on=today,
                   first_loan=False, evidence_sha256=made.HASH, bank_ref="drawn")  # fmt: skip
    fr = await made.request(owner, uscc, amount_fen=1_000_000, purpose="renewal")
    claim = await made.claim(owner, fr, bank, "accepted")
    await quote(owner, uscc, 10**9)
    quoted = await owner.fetchval("SELECT id FROM hall.limit_quote ORDER BY id DESC LIMIT 1")
    await owner.execute("UPDATE hall.financing_request SET quote_id = $1", quoted)
    signed, appealed = await at_once(
        database, owner, "SELECT 1 FROM hall.claim WHERE state = 'accepted' FOR NO KEY UPDATE",
        lambda session: made.sign(session, claim, renewed_from=old),
        _act(made.enterprise_actor(uscc), "open_appeal", quote_id=quoted, reason="other", text="x"),
    )  # fmt: skip
    assert (signed["renewed_from"], appealed["against"]) == (old, f"quote/{quoted}")
    assert await owner.fetchval("SELECT count(*) FROM hall.financing_request WHERE is_under_appeal") == 2


async def test_c2_an_order_that_is_lifted_and_a_correction_lock_lines_before_cases(
    database: str, owner: Connection
) -> None:
    """The correction gives the first loan to the suspended line, whose case of stating it twice is closed."""
    uscc = await made.enterprise(owner, limit_fen=10**9)
    banks = [await made.bank(owner) for _ in "12"]
    lines = [await made.facility(owner, uscc, bank, 2_000_000) for bank in banks]
    today = str(await owner.fetchval("SELECT hall.today()"))
    for bank, line in zip(banks, lines, strict=True):
        await made.act(owner, bank.actor, "report_drawdown", facility_id=line, amount_fen=1_000, drawn_on=today,
                       first_loan=True, evidence_sha256=made.HASH, bank_ref=f"ref-{line}")  # fmt: skip
    fr = str(await owner.fetchval("SELECT fr_id FROM hall.facility WHERE id = $1", lines[1]))
    await order(owner, fr, "suspend")
    lifting = await made.act(owner, FIRST, "propose_order", fr_id=fr, kind="resume", order_no="1", note="x")
    corrected, lifted = await at_once(
        database, owner, "SELECT 1 FROM hall.exposure FOR NO KEY UPDATE",
        _act(banks[0].actor, "correct", facility_id=lines[0], amount_fen=0, corrects=f"ref-{lines[0]}",
             bank_ref="correction", note="another firm's money"),
        _act(SECOND, "approve_order", approval_id=lifting["approval_id"]),
    )  # fmt: skip
    assert (corrected["corrects"], lifted["kind"]) == (f"ref-{lines[0]}", "resume")
    closed = "SELECT closed_at IS NOT NULL FROM hall.hall_case WHERE kind = 'first-loan-stated-twice'"
    assert await owner.fetchval(closed) is True


WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE pid = ANY ($1) AND NOT granted"


def _act(who: dict[str, Any], name: str, **args: Any) -> Act:
    return lambda connection: made.act(connection, who, name, **args)


async def _sweep(connection: Connection) -> Any:
    return await connection.fetchval("SELECT hall.sweep_claim()")


def _look(who: dict[str, Any], what: str, *args: Any) -> Act:
    """A look; nothing where the data of the enterprise is not shown."""
    places = ", ".join(f"${no}" for no in range(2, 2 + len(args)))
    query = f"SELECT shown::text FROM hall.look_at_{what}($1::text::jsonb, {places}) AS shown"

    async def look(connection: Connection) -> Any:
        told = await connection.fetchval(query, made.json_of(who), *args)
        return told if told is not None and not {"withheld", "card"} & set(orjson.loads(told)) else None

    return look


async def _revoked(scene: Scene) -> tuple[made.Claim, Act]:
    """A claim on a request of an enterprise with one consent, and the revocation of that."""
    uscc = await made.enterprise(scene.owner, limit_fen=10**12)
    fr = await made.request(scene.owner, uscc, purpose=secrets.token_hex(4), amount_fen=1_000_000)
    claim = await made.claim(scene.owner, fr, scene.banks[0], "contacted")
    return claim, await _revocation(scene, uscc, fr)


async def _revocation(scene: Scene, uscc: str, fr: str) -> Act:
    consent = await scene.owner.fetchval("SELECT consent_id FROM hall.financing_request WHERE id = $1", fr)
    return _act(made.enterprise_actor(uscc), "revoke_consent", uscc=uscc, consent_id=consent)


def _claim(fr: str, bank: made.Bank) -> dict[str, Any]:
    return {"fr_id": fr, "round": 1, "outlet_id": bank.outlet, "product_id": bank.product, "product_version": 1,
            "card_version": 5}  # fmt: skip


async def _claimed(scene: Scene, state: str) -> made.Claim:
    fr = await made.request(scene.owner, scene.uscc, purpose=secrets.token_hex(4), amount_fen=1_000_000)
    return await made.claim(scene.owner, fr, scene.banks[0], state)


async def _overdue(scene: Scene, claim: made.Claim, milliseconds: int = 0) -> None:
    """Let the claim's lease end in so many milliseconds."""
    await scene.owner.execute(
        "UPDATE hall.claim SET deadline = hall.hall_now() + $2 * interval '1 millisecond' WHERE id = $1",
        claim.id, milliseconds,
    )  # fmt: skip


@pytest.mark.parametrize("is_between", [False, True], ids=["alone", "with another between"])
async def test_v1_v4_a_subject_is_fed_in_its_order_whoever_began_first(
    database: str, owner: Connection, *, is_between: bool
) -> None:
    """A transaction may begin first, wait for a lock, and so tell of the subject last, under the lower number."""
    first, between, second = [await asyncpg.connect(database, server_settings={"search_path": "hall"}) for _ in "123"]
    works = [one.transaction() for one in (first, between, second)]
    for one, work in zip((first, between, second), works, strict=True):
        await work.start()
        await one.fetchval("SELECT pg_current_xact_id()")
    if not is_between:
        await works[1].rollback()
    for one, work in ((second, works[2]), (first, works[0])):
        await one.execute("SELECT hall.emit('fr/one', 'fin.test.told.v1', '{}')")
        await work.commit()
    await owner.execute("SELECT hall.sequence_feed('default', 100)")
    if is_between:
        await works[1].rollback()
    # A transaction of another test on the same server may hold the horizon back for a moment.
    async with asyncio.timeout(20):
        while await owner.fetchval("SELECT waiting FROM hall.sequence_feed('default', 99)"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    fed = await owner.fetch(
        "SELECT e.subject_sequence AS no FROM hall.feed f JOIN hall.event e ON e.id = f.event_id ORDER BY f.sequence"
    )
    assert [one["no"] for one in fed] == [1, 2]
    for one in (first, between, second):
        await one.close()
