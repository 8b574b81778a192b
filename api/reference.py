"""What the hall looks up, brought in line with the files beside the code: settings, edges, problems, working days."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

import orjson
from pydantic import Field, model_validator

from api.database import Connection
from api.machines import Words, machines
from data_contracts.errors import PolicyError
from scoring.strict_yaml import Record, record

_LOCK = int.from_bytes(sha256(b"jifen: one brings the reference in line").digest()[:8], signed=True)
_BAND_UNIT_FEN = 1_000_000  # 10,000 CNY 万元
_RISING = (
    ("working_day_opens", "working_day_closes"),
    ("appeal_contact_minutes", "appeal_opinion_minutes"),
    ("hold_cap_officer", "hold_cap_outlet"),
    ("hold_cap_outlet", "hold_cap_institution"),
)

Unit = Literal["minute-of-day", "working-minutes", "minutes", "days", "milliseconds", "count", "flag"]
Row = Mapping[str, object]


class Setting(Record):
    """One number of the hall, with the bounds within which an operator may set it otherwise."""

    value: int
    unit: Unit
    least: int
    most: int
    source: str = Field(min_length=1)
    why: str = Field(min_length=1)


class Scheme(Record):
    """What a request may come under: the credit policy that answers it, and whether amounts keep to the quote."""

    policy: str
    quote_binds: bool
    title: Words


class HallPolicy(Record):
    """hall_policy.yaml; `amount_band_edges_fen` are lower edges in fen, the first 0, each in whole 万元."""

    settings: dict[str, Setting]
    schemes: dict[str, Scheme]
    channels: dict[str, Words]
    purposes: dict[str, Words]
    appeal_reasons: dict[str, Words]
    rating_reasons: dict[str, Words]
    amount_band_edges_fen: tuple[int, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = _misfits(self.settings)
        edges = self.amount_band_edges_fen
        if edges[0] != 0 or list(edges) != sorted(set(edges)) or any(edge % _BAND_UNIT_FEN for edge in edges):
            problems.append("amount_band_edges_fen: they begin with 0 and rise, in whole units of 10,000 CNY")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _misfits(settings: Mapping[str, Setting]) -> list[str]:
    problems = [
        f"settings.{name}: {one.value} is not within {one.least} and {one.most}"
        for name, one in settings.items()
        if not one.least <= one.value <= one.most
    ]
    problems += [
        f"settings.{smaller}: {settings[smaller].value} does not fit below {greater}, {settings[greater].value}"
        for smaller, greater in _RISING
        if settings[smaller].value > settings[greater].value - (greater == "working_day_closes")
    ]
    return problems


class _OwnValues(Record):
    """An operator's own values, by name of the setting."""

    settings: dict[str, int]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        shipped = _shipped().settings
        problems = [f"settings.{name}: no setting has this name" for name in self.settings if name not in shipped]
        problems += _misfits(_over(self.settings, shipped))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def _over(own: Mapping[str, int], shipped: Mapping[str, Setting]) -> dict[str, Setting]:
    """The shipped settings with these values instead of theirs."""
    return {name: one.model_copy(update={"value": own.get(name, one.value)}) for name, one in shipped.items()}


class ProblemType(Record):
    """A kind of problem (RFC 9457): what it means and what a client should do."""

    status: int = Field(ge=400, le=599)
    title: Words
    means: Words
    do: Words


class _Problems(Record):
    problems: dict[str, ProblemType]


@cache
def problem_types() -> Mapping[str, ProblemType]:
    """Every problem of the API by its code, the last step of its `type`."""
    return record(_text("problems.yaml"), _Problems, "problems' file").problems


def hall_policy(own: str | None = None) -> HallPolicy:
    """The numbers of the hall.

    Args:
        own: an operator's own values as YAML text, `settings: {name: value}`; None: all as shipped.

    Raises:
        PolicyError: with every unknown name and every value that is out of bounds or does not fit with another.
    """
    return _with({} if own is None else _told(own))


def _told(own: str) -> Mapping[str, int]:
    return record(own, _OwnValues, "hall's own policy").settings


def _with(own: Mapping[str, int]) -> HallPolicy:
    shipped = _shipped()
    return shipped.model_copy(update={"settings": _over(own, shipped.settings)})


@cache
def _shipped() -> HallPolicy:
    return record(_text("hall_policy.yaml"), HallPolicy, "hall's policy")


def _text(name: str) -> str:
    return (files("api") / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ rows of tables


def setting_rows(policy: HallPolicy, own: Collection[str] = ()) -> list[Row]:
    """Rows of `hall.setting`; `own`: names of those whose value is the operator's."""
    return [
        {"name": name, "value": one.value, "unit": one.unit, "origin": "operator" if name in own else "shipped"}
        for name, one in policy.settings.items()
    ]


def amount_band_rows(policy: HallPolicy) -> list[Row]:
    """Rows of `hall.amount_band`; the code tells the edges in 万元, so that one on an old card keeps its meaning."""
    edges = [edge // _BAND_UNIT_FEN for edge in policy.amount_band_edges_fen]
    rows: list[Row] = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        low_cny, high_cny = f"CNY {low * 10_000:,}", f"CNY {(high or 0) * 10_000:,}"
        if high is None:
            code, zh, en = f"{low:04}-up", f"{low}万元及以上", f"{low_cny} and above"
        elif low == 0:
            code, zh, en = f"{low:04}-{high:04}", f"{high}万元以下", f"below {high_cny}"
        else:
            code, zh, en = f"{low:04}-{high:04}", f"{low}万元至{high}万元", f"{low_cny} to {high_cny}"
        rows.append({"code": code, "from_fen": low * _BAND_UNIT_FEN, "title_zh": zh, "title_en": en})
    return rows


def calendar() -> dict[int, list[Row]]:
    """The years whose official calendar is known, each with the days that weekdays tell wrongly.

    Source: the State Council's yearly notices of holidays and make-up days, as the library chinesecalendar has them.
    """
    from chinese_calendar import holidays, is_workday

    years = range(min(holidays).year, max(holidays).year + 1)
    # A notice may reach into its neighbours by a day or two; a year is known by its own National Day.
    return {
        year: [
            {"day": day, "works": is_workday(day)}
            for day in (date(year, 1, 1) + timedelta(days=n) for n in range(366))
            if day.year == year and is_workday(day) != (day.isoweekday() < 6)
        ]
        for year in years
        if date(year, 10, 1) in holidays
    }


def _titled(words: Mapping[str, Words]) -> list[Row]:
    return [{"name": name, "title_zh": one.zh, "title_en": one.en} for name, one in words.items()]


# ------------------------------------------------------------------------------------------------------ bring in line


async def bring_in_line(connection: Connection, own: Path | None = None) -> None:
    """Make the looked-up tables equal to the files, in one transaction; the second time changes nothing.

    A year of the calendar once known stays known, also when an older library knows less: a deadline that was sure must
    not become doubtful. Deadlines set by weekdays of a year that is known now are set anew (S6).

    Args:
        connection: of the tables' owner, not in a transaction.
        own: the operator's own values (JIFEN_HALL_POLICY), all of them: a setting that the file does not name is as
            shipped. None: the values that an operator's file has set before stay.

    Raises:
        PolicyError: a file is wrong, or a value that was to stay does not fit this program; nothing was changed.
    """
    told = None if own is None else _told(_text_of(own))
    years = calendar()
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        values = await _kept(connection) if told is None else told
        for statement, rows in _tables(_with(values), values):
            await connection.execute(statement, orjson.dumps(rows).decode())
        await _bring_calendar_in_line(connection, years)
        await connection.execute("SELECT hall.recompute_provisional()")


@dataclass(frozen=True, slots=True)
class OwnValue:
    """A setting that an operator has set."""

    name: str
    value: int
    shipped: int


async def own_values(connection: Connection) -> list[OwnValue]:
    """The operator's own values that are in force, by name."""
    shipped = _shipped().settings
    rows = await connection.fetch("SELECT name, value FROM hall.setting WHERE origin = 'operator' ORDER BY name")
    return [OwnValue(row["name"], row["value"], shipped[row["name"]].value) for row in rows if row["name"] in shipped]


async def _kept(connection: Connection) -> Mapping[str, int]:
    """The operator's values of settings that there still are.

    Raises:
        PolicyError: with each that is out of bounds now, or does not fit with another.
    """
    kept = {one.name: one.value for one in await own_values(connection)}
    problems = _misfits(_over(kept, _shipped().settings))
    if problems:
        raise PolicyError(
            "the operator's own values do not fit; name a file that sets them (JIFEN_HALL_POLICY)", problems
        )
    return kept


def _text_of(own: Path) -> str:
    try:
        return own.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError("the hall's own policy cannot be read", [f"{own}: {error}"]) from error


def _tables(policy: HallPolicy, own: Collection[str]) -> list[tuple[str, Sequence[Row]]]:
    schemes: list[Row] = [
        {
            "name": name,
            "policy": one.policy,
            "quote_binds": one.quote_binds,
            "title_zh": one.title.zh,
            "title_en": one.title.en,
        }
        for name, one in policy.schemes.items()
    ]
    problems: list[Row] = [
        {"code": code, "status": one.status, "title_zh": one.title.zh, "title_en": one.title.en}
        for code, one in problem_types().items()
    ]
    titled = {
        "channel": policy.channels,
        "purpose": policy.purposes,
        "appeal_reason": policy.appeal_reasons,
        "rating_reason": policy.rating_reasons,
    }
    return [
        (_SETTINGS, setting_rows(policy, own)),
        (_EDGES, machines().edge_rows()),
        (_SCHEMES, schemes),
        *((_TITLED.format(table=table), _titled(words)) for table, words in titled.items()),
        (_AMOUNT_BANDS, amount_band_rows(policy)),
        (_PROBLEM_TYPES, problems),
    ]


async def _bring_calendar_in_line(connection: Connection, years: Mapping[int, Sequence[Row]]) -> None:
    days = [row for rows in years.values() for row in rows]
    await connection.execute(_WORKING_DAYS, orjson.dumps(days).decode(), list(years))
    await connection.execute(_CALENDAR_YEARS, list(years))


# One statement a table, so that it is never seen half changed. A row that is right already is left alone.

_SETTINGS = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.setting, $1::text::jsonb)),
        gone AS (DELETE FROM hall.setting WHERE name NOT IN (SELECT name FROM wanted))
    INSERT INTO hall.setting AS kept SELECT * FROM wanted
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, unit = excluded.unit, origin = excluded.origin
    WHERE kept IS DISTINCT FROM excluded
"""
_EDGES = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.edge, $1::text::jsonb)),
        gone AS (
            DELETE FROM hall.edge WHERE (machine, number, from_state, to_state) NOT IN
                (SELECT machine, number, from_state, to_state FROM wanted))
    INSERT INTO hall.edge SELECT * FROM wanted ON CONFLICT DO NOTHING
"""
_SCHEMES = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.scheme, $1::text::jsonb)),
        gone AS (DELETE FROM hall.scheme WHERE name NOT IN (SELECT name FROM wanted))
    INSERT INTO hall.scheme AS kept SELECT * FROM wanted
    ON CONFLICT (name) DO UPDATE SET policy = excluded.policy, quote_binds = excluded.quote_binds,
        title_zh = excluded.title_zh, title_en = excluded.title_en
    WHERE kept IS DISTINCT FROM excluded
"""
_TITLED = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.{table}, $1::text::jsonb)),
        gone AS (DELETE FROM hall.{table} WHERE name NOT IN (SELECT name FROM wanted))
    INSERT INTO hall.{table} AS kept SELECT * FROM wanted
    ON CONFLICT (name) DO UPDATE SET title_zh = excluded.title_zh, title_en = excluded.title_en
    WHERE kept IS DISTINCT FROM excluded
"""
_AMOUNT_BANDS = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.amount_band, $1::text::jsonb)),
        gone AS (DELETE FROM hall.amount_band WHERE code NOT IN (SELECT code FROM wanted))
    INSERT INTO hall.amount_band AS kept SELECT * FROM wanted
    ON CONFLICT (code) DO UPDATE SET from_fen = excluded.from_fen,
        title_zh = excluded.title_zh, title_en = excluded.title_en
    WHERE kept IS DISTINCT FROM excluded
"""
_PROBLEM_TYPES = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.problem_type, $1::text::jsonb)),
        gone AS (DELETE FROM hall.problem_type WHERE code NOT IN (SELECT code FROM wanted))
    INSERT INTO hall.problem_type AS kept SELECT * FROM wanted
    ON CONFLICT (code) DO UPDATE SET status = excluded.status,
        title_zh = excluded.title_zh, title_en = excluded.title_en
    WHERE kept IS DISTINCT FROM excluded
"""
_WORKING_DAYS = """
    WITH wanted AS (SELECT * FROM jsonb_populate_recordset(null::hall.working_day, $1::text::jsonb)),
        gone AS (
            DELETE FROM hall.working_day
            WHERE extract(year FROM day)::integer = ANY ($2::integer[]) AND day NOT IN (SELECT day FROM wanted))
    INSERT INTO hall.working_day AS kept SELECT * FROM wanted
    ON CONFLICT (day) DO UPDATE SET works = excluded.works
    WHERE kept.works <> excluded.works
"""
_CALENDAR_YEARS = """
    INSERT INTO hall.calendar_year (year) SELECT unnest($1::integer[]) ON CONFLICT DO NOTHING
"""
