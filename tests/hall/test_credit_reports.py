"""Credit reports: a quote is frozen, banks look under a consent and are counted, anybody asks whether one stands."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import rfc8785

from api.limits import CALLS
from models.rulebooks import policy_text, ruleset_text
from scoring.feeds import FEEDS
from tests.ground import ground
from tests.hall import made
from tests.hall.callers import Client, Hall, serving
from tests.hall.test_outcomes import later

CONDITIONAL_FEN = 73_195_420_068
"""A number that nothing else here holds."""

POLICY = policy_text("torch-points")[0]
RULESET = ruleset_text(POLICY)


@pytest.fixture
async def hall(database: str, home: Path) -> AsyncIterator[Hall]:
    async with serving(database, home) as served:
        yield served


@pytest.fixture
async def firm(hall: Hall) -> Client:
    """An enterprise's own client; `uscc_of` tells whose."""
    return await hall.client("enterprise", uscc=await made.enterprise(hall.owner))


async def uscc_of(hall: Hall, client: Client) -> str:
    return str(await hall.owner.fetchval("SELECT uscc FROM hall.client WHERE id = $1", client.client_id))


async def quoted(hall: Hall, uscc: str, limit_fen: int = 30_000_000, scheme: str = "torch-points") -> str:
    """A quote whose conditional limit is a number of its own."""
    return await made.quote(hall.owner, uscc, scheme, limit_fen=limit_fen, conditional_limit_fen=CONDITIONAL_FEN)


async def issued(hall: Hall, client: Client, **quote: Any) -> dict[str, Any]:
    asked = await client.post(
        "/v1/credit-reports", {"quote_id": await quoted(hall, await uscc_of(hall, client), **quote)}
    )
    assert asked.status_code == 201, asked.text
    return asked.json()


async def looked(client: Client, report: dict[str, Any], **query: Any) -> httpx2.Response:
    return await client.get(f"/v1/credit-reports/{report['report_id']}", **query)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("type", "").removeprefix("/problems/")


NOT_FOUND = (404, "not-found")


# ----------------------------------------------------------------------------------------------------------- issuing


async def test_a_report_freezes_the_quote_and_both_sides_compute_its_hash(hall: Hall, firm: Client) -> None:
    report = await issued(hall, firm)
    content = report["content"]
    assert sha256(rfc8785.dumps(content)).hexdigest() == report["sha256"]
    assert sha256(rfc8785.dumps(report["enterprise_part"])).hexdigest() == content["enterprise_part_sha256"]
    assert report["enterprise_part"]["conditional_limit_fen"] == CONDITIONAL_FEN
    assert report["enterprise_part"]["missing_feeds"] == ["debts"]
    assert (report["state"], content["report_id"]) == ("valid", report["report_id"])
    told = ("outcome", "limit_fen", "grade", "score", "rate_bp", "innovation_points_hundredths", "own_word_points_bp")
    assert [content[name] for name in told] == ["eligible", 30_000_000, "B1", 612, 377, 5327, 2600]
    assert content["reasons"][0]["zh"] == "额度由产品额度上限决定"
    assert content["conditions"] == ["pbc_report"]
    assert content["model_version"] == "20260701-4db58b39cc50"
    assert (content["ruleset_version"], content["input_sha256"]) == ("jifen-default.2026-11-01", made.HASH)
    assert RULESET is not None
    assert content["policy_sha256"] == sha256(POLICY.encode()).hexdigest()
    assert content["ruleset_sha256"] == sha256(RULESET.encode()).hexdigest()
    feeds = {one["feed"]: one for one in content["feeds"]}
    assert list(feeds) == [feed.name.removesuffix("_feed") for feed in FEEDS]
    assert {one["state"] for name, one in feeds.items() if name != "debts"} == {"complete"}
    assert feeds["debts"]["state"] == "missing"
    assert feeds["invoices_out"]["from"] == "2025-07-01"
    assert (await looked(firm, report)).json() == report
    stored: Any = await hall.owner.fetchval(
        "SELECT expires_at FROM hall.limit_quote WHERE id = $1", content["quote_id"]
    )
    assert abs(datetime.fromisoformat(content["valid_until"]) - stored) < timedelta(milliseconds=1)


async def test_a_report_of_a_decision_that_the_engine_made_says_what_the_quote_says(town_database: str) -> None:
    async with serving(town_database, ground().home) as hall:
        portal = await hall.client("portal")
        await hall.owner.execute("UPDATE hall.enterprise SET portal = $1", portal.client_id)
        for row in ground().limits.group_by("outcome").first().iter_rows(named=True):
            asked = await portal.post("/v1/limit-quotes", {"uscc": row["uscc"], "scheme": "torch-points"})
            quote = asked.json()
            report = (await portal.post("/v1/credit-reports", {"quote_id": quote["quote_id"]})).json()
            same = quote.keys() & report["content"].keys()
            assert {name: report["content"][name] for name in same} == {name: quote[name] for name in same}
            assert {"limit_fen", "grade", "reasons", "decision_id", "outcome"} <= same
            own = report["enterprise_part"]
            assert own["conditional_limit_fen"] == quote["conditional_limit_fen"]
            missing = {one["feed"] for one in report["content"]["feeds"] if one["state"] != "complete"}
            assert sorted(own["missing_feeds"]) == sorted(quote["missing_feeds"]) == sorted(missing)
            assert sha256(rfc8785.dumps(report["content"])).hexdigest() == report["sha256"]


async def test_a_quote_has_one_report_however_often_and_at_once_it_is_asked_for(hall: Hall, firm: Client) -> None:
    quote = await quoted(hall, await uscc_of(hall, firm))
    answers = await asyncio.gather(*(firm.post("/v1/credit-reports", {"quote_id": quote}) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [200, 200, 200, 200, 201]
    assert len({one.json()["sha256"] for one in answers}) == 1
    assert await hall.owner.fetchval("SELECT count(*) FROM hall.credit_report") == 1


async def test_numbers_tell_neither_time_nor_one_another(hall: Hall, firm: Client) -> None:
    numbers = [(await issued(hall, firm))["report_id"] for _ in range(3)]
    assert len({number[:9] for number in numbers}) == 3, "other ids begin with the time"


async def test_only_the_enterprises_side_issues_and_no_report_is_born_expired(hall: Hall, firm: Client) -> None:
    uscc = await uscc_of(hall, firm)
    quote = await quoted(hall, uscc)
    stranger = await hall.client("enterprise", uscc=await made.enterprise(hall.owner))
    for one in (stranger, await hall.client("portal")):
        assert problem(await one.post("/v1/credit-reports", {"quote_id": quote})) == NOT_FOUND
    assert problem(await firm.post("/v1/credit-reports", {"quote_id": made.new("lq")})) == NOT_FOUND
    behind_the_route = {"quote_id": quote, "feeds": [], "ruleset_version": None}
    for who in (made.enterprise_actor(await made.enterprise(hall.owner)), made.actor("scoring", "engine")):
        with pytest.raises(made.Refused, match="not-found"):
            await made.act(hall.owner, who, "issue_credit_report", **behind_the_route)
    scoring = await hall.client("scoring")
    assert problem(await scoring.post("/v1/credit-reports", {"quote_id": quote})) == (403, "scope-missing")
    portal = await hall.client("portal")
    await hall.owner.execute("UPDATE hall.enterprise SET portal = $2 WHERE uscc = $1", uscc, portal.client_id)
    assert (await portal.post("/v1/credit-reports", {"quote_id": quote})).status_code == 201
    over = await hall.owner.fetchval(
        "INSERT INTO hall.limit_quote SELECT $2, uscc, scheme, decision_id, outcome, limit_fen, made_at - interval "
        "'40 days', expires_at - interval '40 days' FROM hall.limit_quote WHERE id = $1 RETURNING id",
        quote, made.new("lq"),
    )  # fmt: skip
    assert problem(await firm.post("/v1/credit-reports", {"quote_id": over})) == (422, "quote-expired")


async def test_a_report_is_appended_and_its_hashes_are_held_by_the_table(hall: Hall, firm: Client) -> None:
    report = await issued(hall, firm)
    for statement in ("UPDATE hall.credit_report SET valid_until = 'infinity'", "DELETE FROM hall.credit_report",
                      "TRUNCATE hall.credit_report_look"):  # fmt: skip
        with pytest.raises(asyncpg.RestrictViolationError):
            await hall.owner.execute(statement)
    forged = """
        INSERT INTO hall.credit_report
        SELECT $1, $2, uscc, content || $3::text::jsonb, enterprise_part || $4::text::jsonb, sha256, issued_by,
            issued_at, valid_until
        FROM hall.credit_report WHERE id = $5
        """
    other = await quoted(hall, await uscc_of(hall, firm), limit_fen=1)
    for content, own in (('{"limit_fen": 99}', "{}"), ("{}", '{"conditional_limit_fen": 99}')):
        with pytest.raises(asyncpg.CheckViolationError):
            await hall.owner.execute(forged, "cr_" + "0" * 32, other, content, own, report["report_id"])


# ------------------------------------------------------------------------------------------------- who may read one


@pytest.fixture
async def bank(hall: Hall) -> tuple[made.Bank, Client]:
    own = await made.bank(hall.owner)
    return own, await hall.client("bank", institution=own.institution)


async def accesses(hall: Hall) -> list[tuple[Any, ...]]:
    rows = await hall.owner.fetch(
        "SELECT what, purpose, institution_id, consent_id, withheld FROM hall.access_log ORDER BY id"
    )
    return [tuple(row.values()) for row in rows]


async def test_a_bank_that_a_consent_names_reads_under_a_numbered_watermark(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report = await issued(hall, firm)
    own, client = bank
    consent = await made.consent(hall.owner, await uscc_of(hall, firm), recipients=[own.institution])
    first, second = [(await looked(client, report)).json() for _ in range(2)]
    for view, shown in enumerate((first, second), start=1):
        assert {name: shown[name] for name in ("report_id", "state", "sha256", "content")} == {
            name: report[name] for name in ("report_id", "state", "sha256", "content")
        }
        assert sha256(rfc8785.dumps(shown["content"])).hexdigest() == report["sha256"]
        marked = shown["watermark"]
        assert (marked["institution_id"], marked["consent_id"], marked["view"]) == (own.institution, consent, view)
        assert abs(datetime.fromisoformat(marked["at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert await accesses(hall) == [("credit-report", "financing", own.institution, consent, None)] * 2
    seen = await firm.get(f"/v1/enterprises/{await uscc_of(hall, firm)}/accesses")
    assert [one["what"] for one in seen.json()["accesses"]] == ["credit-report"] * 2


async def test_looks_at_once_have_numbers_of_their_own(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report = await issued(hall, firm)
    await made.consent(hall.owner, await uscc_of(hall, firm), recipients=[bank[0].institution])
    shown = await asyncio.gather(*(looked(bank[1], report) for _ in range(8)))
    assert sorted(one.json()["watermark"]["view"] for one in shown) == [*range(1, 9)]


@pytest.mark.parametrize(
    "given",
    [
        {"recipients": ["in_" + "0" * 32]},
        {"recipients": ["claiming-institution"]},
        {"data_sets": ["limit", "facts"]},
        {"purpose": "post-loan"},
        {"valid_to": datetime(2026, 1, 2, tzinfo=UTC), "valid_from": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=["names another", "names who claims", "other data sets", "other purpose", "over"],
)
async def test_a_bank_without_a_consent_that_fits_finds_nothing_and_its_try_is_logged(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client], given: dict[str, Any]
) -> None:
    report = await issued(hall, firm)
    own, client = bank
    uscc = await uscc_of(hall, firm)
    await made.consent(hall.owner, uscc, **{"recipients": [own.institution]} | given)
    refused, unknown = await looked(client, report), await client.get(f"/v1/credit-reports/{made.new('cr')}")
    assert problem(refused) == problem(unknown) == NOT_FOUND
    assert set(refused.json()) == set(unknown.json())
    assert await accesses(hall) == [("credit-report", "financing", own.institution, None, "consent-missing")]


async def test_a_bank_whose_consent_was_revoked_finds_nothing(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report, uscc = await issued(hall, firm), await uscc_of(hall, firm)
    consent = await made.consent(hall.owner, uscc, recipients=[bank[0].institution])
    assert (await looked(bank[1], report)).status_code == 200
    assert (await firm.post(f"/v1/enterprises/{uscc}/consents/{consent}/revoke")).status_code == 200
    assert problem(await looked(bank[1], report)) == NOT_FOUND
    assert [row[-1] for row in await accesses(hall)] == [None, "consent-revoked"]


async def test_other_enterprises_portals_and_roles_find_no_report(hall: Hall, firm: Client) -> None:
    report = await issued(hall, firm)
    for one in (await hall.client("enterprise", uscc=await made.enterprise(hall.owner)), await hall.client("portal")):
        assert problem(await looked(one, report)) == NOT_FOUND
    manager = await hall.client("institution-manager", institution=(await made.bank(hall.owner)).institution)
    for one in (manager, await hall.client("scoring"), await hall.client("auditor"), await hall.client("operator")):
        assert problem(await looked(one, report)) == (403, "scope-missing")
    assert await accesses(hall) == []


async def test_the_holder_of_a_live_claim_reads_until_its_claim_ends(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report = await issued(hall, firm)
    own, client = bank
    uscc = await uscc_of(hall, firm)
    await made.limit(hall.owner, uscc, 10**12)
    claim = await made.claim(hall.owner, await made.request(hall.owner, uscc), own)
    assert (await looked(client, report)).json()["watermark"]["view"] == 1
    rival = await hall.client("bank", institution=(await made.bank(hall.owner)).institution)
    assert problem(await looked(rival, report)) == NOT_FOUND
    sister = await hall.client("bank", institution=own.institution)
    outlet, _ = await made.outlet(hall.owner, own.institution)
    await hall.owner.execute("UPDATE hall.client SET outlet_id = $2 WHERE id = $1", sister.client_id, outlet)
    assert problem(await looked(sister, report)) == NOT_FOUND
    await made.act(
        hall.owner, own.actor, "give_up_claim", claim_id=claim.id, fence=claim.fence, to="released", reason="x"
    )
    assert problem(await looked(client, report)) == NOT_FOUND


async def test_the_holder_without_a_consent_to_the_report_is_told_why(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report = await issued(hall, firm)
    own, client = bank
    uscc = await uscc_of(hall, firm)
    await made.limit(hall.owner, uscc, 10**12)
    to_limit = await made.consent(hall.owner, uscc, data_sets=["limit"])
    await made.claim(hall.owner, await made.request(hall.owner, uscc, consent_id=to_limit), own)
    assert problem(await looked(client, report)) == (403, "consent-missing")
    to_report = await made.consent(hall.owner, uscc, data_sets=["report"])
    assert (await looked(client, report)).status_code == 200
    revoked = await firm.post(f"/v1/enterprises/{uscc}/consents/{to_report}/revoke")
    assert revoked.status_code == 200
    assert problem(await looked(client, report)) == (403, "consent-revoked")
    withheld = [row[-1] for row in await accesses(hall)]
    assert withheld == ["consent-missing", None, "consent-revoked"]


async def test_a_consent_to_one_look_is_used_up_by_it(hall: Hall, firm: Client, bank: tuple[made.Bank, Client]) -> None:
    report = await issued(hall, firm)
    await made.consent(hall.owner, await uscc_of(hall, firm), recipients=[bank[0].institution], one_time=True)
    shown = await asyncio.gather(*(looked(bank[1], report) for _ in range(4)))
    assert sorted(one.status_code for one in shown) == [200, 404, 404, 404]


async def test_no_bank_gets_a_byte_of_the_conditional_limit(
    hall: Hall, firm: Client, bank: tuple[made.Bank, Client]
) -> None:
    report = await issued(hall, firm)
    await made.consent(hall.owner, await uscc_of(hall, firm), recipients=[bank[0].institution])
    shown = await looked(bank[1], report)
    assert shown.status_code == 200
    assert str(CONDITIONAL_FEN) in (await looked(firm, report)).text
    assert str(CONDITIONAL_FEN) not in shown.text
    assert report["enterprise_part"]["salt"] not in shown.text
    guessed = {"conditional_limit_fen": CONDITIONAL_FEN, "missing_feeds": ["debts"]}
    assert sha256(rfc8785.dumps(guessed)).hexdigest() != report["content"]["enterprise_part_sha256"]


# -------------------------------------------------------------------------------------------------------- verification


async def verified(hall: Hall, number: str, digest: str) -> httpx2.Response:
    return await hall.http.get(f"/v1/credit-reports/{number}/verification", params={"sha256": digest})


async def test_anybody_learns_that_a_report_stands_and_nothing_else(hall: Hall, firm: Client) -> None:
    report, other = await issued(hall, firm, scheme="torch-points"), await issued(hall, firm, scheme="ordinary")
    number, digest = report["report_id"], report["sha256"]
    good = await verified(hall, number, digest)
    assert good.json() == {"state": "valid"}
    tries = [(number, "0" * 64), (number, other["sha256"]), (made.new("cr"), digest), ("nothing", digest),
             (number.upper(), digest)]  # fmt: skip
    bad = [await verified(hall, *one) for one in tries]
    assert {(one.status_code, one.text) for one in bad} == {(200, '{"state":"invalid"}')}
    ours = {"date", "x-trace-id", "content-length"}
    assert len({frozenset((k, v) for k, v in one.headers.items() if k not in ours) for one in [good, *bad]}) == 1
    for digest in ("", "zz", "a" * 63, "A" * 64):
        for known in (number, made.new("cr")):
            assert problem(await verified(hall, known, digest)) == (422, "validation")


async def test_a_later_quote_of_the_scheme_supersedes_and_one_of_another_scheme_does_not(
    hall: Hall, firm: Client
) -> None:
    report = await issued(hall, firm)
    await quoted(hall, await uscc_of(hall, firm), scheme="ordinary")
    await quoted(hall, await made.enterprise(hall.owner))
    assert (await verified(hall, report["report_id"], report["sha256"])).json() == {"state": "valid"}
    await quoted(hall, await uscc_of(hall, firm), limit_fen=10)
    assert (await verified(hall, report["report_id"], report["sha256"])).json() == {"state": "superseded"}
    assert (await verified(hall, report["report_id"], "0" * 64)).json() == {"state": "invalid"}
    assert (await looked(firm, report)).json() == report | {"state": "superseded"}


async def test_a_report_is_valid_as_long_as_its_quote(hall: Hall, firm: Client) -> None:
    report = await issued(hall, firm)
    await later(hall.owner, 29)
    assert (await verified(hall, report["report_id"], report["sha256"])).json() == {"state": "valid"}
    await later(hall.owner, 31)
    over = await verified(hall, report["report_id"], report["sha256"])
    assert (over.status_code, over.json()) == (200, {"state": "invalid"})
    state = await hall.owner.fetchval("SELECT hall.credit_report_state(r) FROM hall.credit_report r")
    assert state == "expired"


async def test_verifying_has_the_pace_of_other_public_paths(database: str, home: Path) -> None:
    async with serving(database, home, rate_limits=True, processes=CALLS.burst) as hall:
        answers = [await verified(hall, made.new("cr"), "0" * 64) for _ in range(5)]
        assert {one.status_code for one in answers} == {200, 429}
        assert all("RateLimit" in one.headers for one in answers)
