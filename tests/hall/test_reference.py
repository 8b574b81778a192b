"""What the hall looks up is what the files say, whatever stood there before."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest

from api.database import Pool
from api.reference import HallPolicy, bring_in_line, calendar, hall_policy, own_values, problem_types
from data_contracts.errors import PolicyError
from scoring.strict_yaml import record

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    "setting",
    "edge",
    "scheme",
    "channel",
    "purpose",
    "appeal_reason",
    "rating_reason",
    "amount_band",
    "problem_type",
    "working_day",
    "calendar_year",
)
SQL = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "api" / "migrations").glob("*.sql")))

Answer = TypeVar("Answer")


def as_owner(database: str, work: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
    async def done() -> Answer:
        connection = await asyncpg.connect(database)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(done())


async def looked_up(connection: asyncpg.Connection, *, written: bool = False) -> dict[str, set[tuple[object, ...]]]:
    """Every looked-up table's rows; `written`: with where each row version lies, which any writing moves."""
    place = "ctid::text, xmin::text," if written else ""
    return {
        name: {tuple(row.values()) for row in await connection.fetch(f"SELECT {place} * FROM hall.{name}")}
        for name in TABLES
    }


def test_the_tables_say_what_the_files_say_and_a_second_time_nothing_is_written(database: str) -> None:
    async def twice(connection: asyncpg.Connection) -> tuple[object, object, dict[str, set[tuple[object, ...]]]]:
        await bring_in_line(connection)
        first = await looked_up(connection, written=True)
        await bring_in_line(connection)
        return first, await looked_up(connection, written=True), await looked_up(connection)

    first, second, rows = as_owner(database, twice)
    assert first == second
    policy = hall_policy()
    assert rows["setting"] == {(name, one.value, one.unit, "shipped") for name, one in policy.settings.items()}
    assert rows["scheme"] == {
        ("torch-points", "torch-points", True, "火炬积分贷", "Torch points loan"),
        ("ordinary", "torch-points", False, "普通融资需求", "ordinary financing need"),
    }
    assert {str(row[0]) for row in rows["channel"]} == set(policy.channels)
    assert {str(row[0]) for row in rows["purpose"]} == set(policy.purposes)
    assert {str(row[0]) for row in rows["appeal_reason"]} == set(policy.appeal_reasons)
    assert {str(row[0]) for row in rows["rating_reason"]} == set(policy.rating_reasons)
    assert rows["problem_type"] == {
        (code, one.status, one.title.zh, one.title.en) for code, one in problem_types().items()
    }
    assert {row[0] for row in rows["calendar_year"]} == set(calendar()) >= {2024, 2025, 2026}


def test_what_differs_from_the_files_is_put_right(database: str) -> None:
    async def disturbed(connection: asyncpg.Connection) -> tuple[object, object, object]:
        await bring_in_line(connection)
        first = await looked_up(connection)
        await connection.execute(
            """
            UPDATE hall.setting SET value = value + 1;
            INSERT INTO hall.setting VALUES ('stray', 1, 'count');
            DELETE FROM hall.edge WHERE number = 'T9';
            INSERT INTO hall.edge VALUES ('request', 'T9', 'draft', 'claimed');
            UPDATE hall.scheme SET quote_binds = NOT quote_binds;
            INSERT INTO hall.channel VALUES ('stray', '甲', 'a');
            DELETE FROM hall.purpose WHERE name = 'other';
            DELETE FROM hall.appeal_reason WHERE name = 'other';
            UPDATE hall.rating_reason SET title_en = 'a';
            UPDATE hall.amount_band SET from_fen = from_fen + 7;
            INSERT INTO hall.amount_band VALUES ('7777-up', 77, '甲', 'a');
            UPDATE hall.problem_type SET status = 500, title_zh = '甲';
            UPDATE hall.working_day SET works = NOT works;
            INSERT INTO hall.working_day VALUES ('2026-03-03', false);
            """
        )
        second = await looked_up(connection)
        await bring_in_line(connection)
        return first, second, await looked_up(connection)

    first, second, third = as_owner(database, disturbed)
    assert second != first
    assert third == first


def test_two_processes_at_once_bring_an_empty_hall_in_line(database: str) -> None:
    async def raced(connection: asyncpg.Connection) -> dict[str, set[tuple[object, ...]]]:
        await connection.execute("; ".join(f"DELETE FROM hall.{name}" for name in TABLES))
        other = await asyncpg.connect(database)
        await asyncio.gather(bring_in_line(connection), bring_in_line(other))
        await other.close()
        return await looked_up(connection)

    assert all(as_owner(database, raced).values())


@pytest.mark.anyio
async def test_the_service_reads_what_it_looks_up_and_changes_none_of_it(pool: Pool) -> None:
    for name in TABLES:
        await pool.fetch(f"SELECT * FROM hall.{name}")
        for change in (
            f"INSERT INTO hall.{name} SELECT * FROM hall.{name}",
            f"DELETE FROM hall.{name}",
            f"TRUNCATE hall.{name}",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await pool.execute(change)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute("UPDATE hall.setting SET value = 0")


def test_every_setting_and_problem_that_the_database_names_is_in_the_files() -> None:
    settings = set(re.findall(r"hall\.setting\('(\w+)'\)", SQL))
    problems = set(re.findall(r"hall\.refuse\('([\w-]+)'", SQL)) | set(re.findall(r"'refused', '([\w-]+)'", SQL))
    assert "contact_minutes" in settings
    assert {"grab-lost", "not-found"} <= problems
    assert settings - set(hall_policy().settings) == set()
    assert problems - set(problem_types()) == set()


def test_every_problem_of_the_specifications_first_stage_has_its_status() -> None:
    specified = {
        400: "malformed-json idempotency-key-missing bad-cursor bad-filter",
        401: "token-missing token-expired client-assertion-invalid",
        403: "scope-missing consent-missing consent-revoked four-eyes-required institution-suspended",
        404: "not-found",
        409: "grab-lost gate-not-open round-closed duplicate-request illegal-transition idempotency-in-flight "
        "hold-cap-reached cool-down",
        412: "stale-version stale-fence",
        413: "body-too-large",
        415: "media-type",
        422: "validation idempotency-key-reused over-limit over-facility offer-expired hash-mismatch bank-ref-reused",
        428: "precondition-required",
        429: "rate-limited daily-claim-cap",
        500: "internal",
        503: "overloaded maintenance",
    }
    wanted = {code: status for status, codes in specified.items() for code in codes.split()}
    assert {code: problem_types()[code].status for code in wanted} == wanted


def test_an_amount_is_shown_as_the_band_it_lies_in(database: str) -> None:
    bands = {
        0: "0000-0050",
        49_999_999: "0000-0050",
        50_000_000: "0050-0100",
        300_000_000: "0300-0500",
        999_999_999: "0500-1000",
        10**15: "1000-up",
    }

    async def shown(connection: asyncpg.Connection) -> dict[int, str | None]:
        await bring_in_line(connection)
        return {amount: await connection.fetchval("SELECT hall.amount_band_of($1)", amount) for amount in bands}

    assert as_owner(database, shown) == bands


# --------------------------------------------------------------------------------------------- an operator's own values


def test_an_operators_own_values_take_the_place_of_the_shipped_ones(database: str, tmp_path: Path) -> None:
    own = tmp_path / "hall.yaml"
    own.write_text("settings: {contact_minutes: 60, rounds: 5}\n", encoding="utf-8")

    async def kept(connection: asyncpg.Connection) -> dict[str, int]:
        await bring_in_line(connection, own)
        return {row["name"]: row["value"] for row in await connection.fetch("SELECT * FROM hall.setting")}

    shipped = {name: one.value for name, one in hall_policy().settings.items()}
    assert as_owner(database, kept) == {**shipped, "contact_minutes": 60, "rounds": 5}


def test_an_operators_own_values_stay_until_a_file_says_otherwise(database: str, tmp_path: Path) -> None:
    """Also beside a shipped value that was changed by hand, which is put right."""
    files = [tmp_path / f"{n}.yaml" for n in range(3)]
    for file, text in zip(files, ("{contact_minutes: 60, rounds: 3}", "{rounds: 5}", "{}"), strict=True):
        file.write_text(f"settings: {text}\n", encoding="utf-8")
    shipped = {name: one.value for name, one in hall_policy().settings.items()}

    async def told(connection: asyncpg.Connection) -> list[tuple[dict[str, int], list[tuple[str, int, int]]]]:
        seen: list[tuple[dict[str, int], list[tuple[str, int, int]]]] = []
        for file in (files[0], None, files[1], None, files[2], None):
            await bring_in_line(connection, file)
            await connection.execute("UPDATE hall.setting SET value = value + 1 WHERE name = 'gate_ms'")
            await bring_in_line(connection)
            rows = {row["name"]: row["value"] for row in await connection.fetch("SELECT * FROM hall.setting")}
            own = [(one.name, one.value, one.shipped) for one in await own_values(connection)]
            seen.append(({name: value for name, value in rows.items() if value != shipped[name]}, own))
        return seen

    first = ({"contact_minutes": 60}, [("contact_minutes", 60, 120), ("rounds", 3, 3)])
    second = ({"rounds": 5}, [("rounds", 5, 3)])
    assert as_owner(database, told) == [first, first, second, second, ({}, []), ({}, [])]


def test_a_value_that_stays_and_does_not_fit_this_program_is_named_and_nothing_changes(
    database: str, tmp_path: Path
) -> None:
    own = tmp_path / "hall.yaml"
    own.write_text("settings: {rounds: 5, hold_cap_officer: 4}\n", encoding="utf-8")

    async def tried(connection: asyncpg.Connection) -> tuple[object, object]:
        await bring_in_line(connection, own)
        await connection.execute("UPDATE hall.setting SET value = 7 * value WHERE origin = 'operator'")
        before = await looked_up(connection, written=True)
        with pytest.raises(PolicyError) as refused:
            await bring_in_line(connection)
        assert refused.value.problems == (
            "settings.rounds: 35 is not within 1 and 10",
            "settings.hold_cap_officer: 28 does not fit below hold_cap_outlet, 5",
        )
        after = await looked_up(connection, written=True)
        await bring_in_line(connection, own)
        return before, after

    before, after = as_owner(database, tried)
    assert before == after


def test_every_fault_of_an_operators_file_is_named_at_once() -> None:
    with pytest.raises(PolicyError) as refused:
        hall_policy(
            "settings: {contact: 5, rounds: 0, gate_ms: 1, gate_ms: 2, hold_cap_officer: 6, working_day_opens: 1020}"
        )
    assert refused.value.problems == (
        "settings.gate_ms: line 1: the key is repeated",
        "settings.contact: no setting has this name",
        "settings.rounds: 0 is not within 1 and 10",
        "settings.working_day_opens: 1020 does not fit below working_day_closes, 1020",
        "settings.hold_cap_officer: 6 does not fit below hold_cap_outlet, 5",
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("settings: {rounds: 2.0}", "settings.rounds"),
        ("settings: {rounds: '2'}", "settings.rounds"),
        ("settings: {rounds: true}", "settings.rounds"),
        ("rounds: 2", "rounds"),
        ("", "empty"),
    ],
)
def test_a_value_of_another_kind_is_refused(text: str, place: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(place)):
        hall_policy(text)


def test_a_file_that_cannot_be_read_changes_nothing(database: str, tmp_path: Path) -> None:
    async def tried(connection: asyncpg.Connection) -> tuple[object, object]:
        await bring_in_line(connection)
        before = await looked_up(connection, written=True)
        with pytest.raises(PolicyError, match="cannot be read"):
            await bring_in_line(connection, tmp_path / "missing.yaml")
        return before, await looked_up(connection, written=True)

    before, after = as_owner(database, tried)
    assert before == after


@pytest.mark.parametrize("edges", ["[50_000_000]", "[0, 100_000_000, 50_000_000]", "[0, 0]", "[0, 500_000]"])
def test_bands_begin_with_nothing_and_rise_in_whole_ten_thousands(edges: str) -> None:
    text = re.sub(r"(?<=amount_band_edges_fen: ).*", edges, (ROOT / "api" / "hall_policy.yaml").read_text("utf-8"))
    with pytest.raises(PolicyError, match="amount_band_edges_fen"):
        record(text, HallPolicy, "hall's policy")


# ------------------------------------------------------------------------------------------------------- the calendar


def test_a_year_once_known_stays_known_to_an_older_program(database: str) -> None:
    async def older(connection: asyncpg.Connection) -> tuple[object, object]:
        await connection.execute(
            "INSERT INTO hall.calendar_year VALUES (2031); INSERT INTO hall.working_day VALUES ('2031-10-01', false)"
        )
        await bring_in_line(connection)
        known = await connection.fetchval("SELECT hall.calendar_knows('2031-10-01 09:00+08')")
        return known, await connection.fetchval("SELECT hall.works('2031-10-01')")

    assert as_owner(database, older) == (True, False)


def test_s6_a_deadline_set_by_weekdays_is_set_anew_when_the_calendar_arrives(database: str) -> None:
    async def arrives(connection: asyncpg.Connection) -> tuple[asyncpg.Record | None, asyncpg.Record | None]:
        await bring_in_line(connection)
        await connection.execute(
            """
            DELETE FROM hall.calendar_year WHERE year = 2026;
            DELETE FROM hall.working_day WHERE extract(year FROM day) = 2026;
            INSERT INTO hall.enterprise (uscc, name) VALUES ('91350200MA2XN1A234', '甲');
            INSERT INTO hall.financing_request (id, uscc, registered_by, scheme, quote_binds, amount_fen, term_months,
                purpose, state, edge, moved_at, moved_by, deadline, deadline_from, deadline_minutes,
                deadline_is_provisional)
            SELECT 'fr_1', '91350200MA2XN1A234', 'cl', 'ordinary', false, 100, 12, 'other', 'draft', 'T1', began, 'cl',
                hall.add_working_minutes(began, 2400), began, 2400, true
            FROM (VALUES ('2026-02-13 10:00+08'::timestamptz)) AS v (began);
            """
        )
        asked = (
            "SELECT deadline AT TIME ZONE 'Asia/Shanghai' AS at, deadline_is_provisional FROM hall.financing_request"
        )
        before = await connection.fetchrow(asked)
        await bring_in_line(connection)
        return before, await connection.fetchrow(asked)

    before, after = as_owner(database, arrives)
    assert before is not None
    assert after is not None
    assert (str(before["at"]), before["deadline_is_provisional"]) == ("2026-02-20 10:00:00", True)
    assert (str(after["at"]), after["deadline_is_provisional"]) == ("2026-02-27 10:00:00", False)
