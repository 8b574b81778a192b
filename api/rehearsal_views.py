"""What a rehearsal shows at its end: who got what, how quickly, the way of some requests, and the invariants."""

from collections.abc import Mapping, Sequence
from typing import Any

from asyncpg import Record
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from api.database import Connection
from api.rehearsal import Race
from models.views import cny, rate, table_of

MOST_BANKS = 12
EXAMPLES = 4


async def winners_table(connection: Connection) -> Table:
    """Institutions by what they signed: the first of them one by one, the others in one line, and the sum."""
    rows = await connection.fetch(
        """
        SELECT i.name, i.size_class, (SELECT count(*) FROM hall.outlet o WHERE o.institution_id = i.id) AS outlets,
            (SELECT count(*) FROM hall.claim c WHERE c.institution_id = i.id) AS grabs,
            (SELECT count(*) FROM hall.offer o WHERE o.institution_id = i.id) AS offers,
            (SELECT count(*) FROM hall.claim c
                WHERE c.institution_id = i.id AND c.state IN ('accepted', 'done')) AS accepted,
            coalesce(sum(f.ceiling_fen), 0)::bigint AS signed_fen,
            coalesce(sum(f.drawn_fen + f.over_limit_fen), 0)::bigint AS drawn_fen
        FROM hall.institution i LEFT JOIN hall.facility f ON f.institution_id = i.id
        GROUP BY i.id ORDER BY signed_fen DESC, grabs DESC, i.name
        """
    )
    table = table_of(
        "谁抢到了什么 Who got what", "机构 institution", "class", "outlets", "grabs", "offers", "accepted",
        "signed CNY", "drawn CNY", right=(2, 3, 4, 5, 6, 7),
    )  # fmt: skip
    for row in rows[:MOST_BANKS]:
        table.add_row(row["name"], row["size_class"], *_figures([row]))
    if len(rows) > MOST_BANKS:
        table.add_row(f"其余 {len(rows) - MOST_BANKS} 家 others", "", *_figures(rows[MOST_BANKS:]))
    table.add_row("合计 all", "", *_figures(rows), style="bold")
    return table


def _figures(rows: Sequence[Record]) -> list[str]:
    counts = [f"{sum(row[name] for row in rows):,}" for name in ("outlets", "grabs", "offers", "accepted")]
    return [*counts, *(cny(sum(row[name] for row in rows)) for name in ("signed_fen", "drawn_fen"))]


async def speed_table(connection: Connection) -> Table:
    """Median and 90th percentile of the steps between publication and offer."""
    rows = await connection.fetch(
        """
        WITH won AS (
            SELECT c.claimed_at - r.published_at AS from_card, c.claimed_at - r.opens_at AS from_gate,
                o.made_at - c.claimed_at AS to_offer
            FROM hall.claim c JOIN hall.round r ON r.fr_id = c.fr_id AND r.n = c.round
                LEFT JOIN hall.offer o ON o.claim_id = c.id)
        SELECT step, count(took) AS count,
            percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM took)) AS median,
            percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM took)) AS p90
        FROM won, LATERAL (VALUES (1, '卡片发布到抢单 card published to grab', from_card),
            (2, '开闸到抢单 gate open to grab', from_gate),
            (3, '抢单到报价 grab to offer', to_offer)) AS one (n, step, took)
        GROUP BY n, step ORDER BY n
        """
    )
    table = table_of("多快 How quick", "step", "times", "median s", "p90 s", right=(1, 2, 3))
    for row in rows:
        table.add_row(row["step"], f"{row['count']:,}", *(_seconds(row[name]) for name in ("median", "p90")))
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


async def ends_line(connection: Connection) -> str:
    """Where the requests stand, in words."""
    rows = await connection.fetch(
        "SELECT state, count(*) AS count FROM hall.financing_request GROUP BY state ORDER BY count DESC, state"
    )
    return "requests: " + ", ".join(f"{row['count']} {row['state']}" for row in rows)


def race_lines(race: Race) -> list[str]:
    """What the parties met: wins, losses and everything that was refused."""
    claims = race.claims
    lost = {name: count for name, count in sorted(claims.items()) if name not in {"won", "gave way"}}
    sent = sum(lost.values()) + claims["won"]
    others = sum((one.problems for one in race.clients), start=type(claims)()) - claims
    quoted, differing = sum(one.quoted for one in race.portals), sum(one.differing for one in race.portals)
    refused = "".join(f", {name} {count:,}" for name, count in lost.items())
    gaps = sum(one.gaps for one in race.clients)
    lines = [
        f"grabs sent {sent:,}: won {claims['won']:,}{refused}; gave way before sending {claims['gave way']:,}",
        f"quotes by HTTP {quoted:,}, different from the batch's: {differing:,}",
        f"streams {len(race.clients)}, events left out of them: {gaps:,}",
    ]
    if others:
        lines.append("other refusals: " + ", ".join(f"{name} {count:,}" for name, count in sorted(others.items())))
    if race.moved:
        lines.append(f"rounds that nobody took: the clock was moved on {race.moved} times")
    return lines


# ---------------------------------------------------------------------------------------------------- ways of requests


async def ways(connection: Connection) -> RenderableType:
    """The way of some requests of different kinds, step by step."""
    chosen = await connection.fetch(
        """
        WITH told AS (
            SELECT f.id, f.quote_binds, f.state, f.amount_fen, f.quote_fen, f.created_at, count(c.id) AS claims
            FROM hall.financing_request f LEFT JOIN hall.claim c ON c.fr_id = f.id GROUP BY f.id),
        kinds AS (
            SELECT DISTINCT ON (kind) kind, id FROM told, LATERAL (VALUES
                (1, claims = 1 AND state = 'active' AND quote_binds),
                (2, claims > 1 AND state IN ('signed', 'active')),
                (3, claims = 1 AND state IN ('signed', 'active') AND NOT quote_binds),
                (4, state = 'assisted' AND claims = 0)) AS one (kind, fits)
            WHERE fits ORDER BY kind, created_at)
        SELECT id FROM kinds ORDER BY kind LIMIT $1
        """,
        EXAMPLES,
    )
    return Group(*[await _way(connection, row["id"]) for row in chosen])


async def _way(connection: Connection, fr_id: str) -> Text:
    about = await connection.fetchrow(
        """
        SELECT e.name, f.scheme, f.amount_fen, f.quote_fen, f.term_months, f.purpose, f.state
        FROM hall.financing_request f JOIN hall.enterprise e ON e.uscc = f.uscc WHERE f.id = $1
        """,
        fr_id,
    )
    steps = await connection.fetch(
        """
        SELECT h.machine, h.edge, h.to_state, h.decided_at, i.name AS bank, o.amount_fen, o.annual_cost_bp,
            coalesce(h.reason ->> 'code', h.reason ->> 'why') AS why, fa.ceiling_fen, fa.drawn_fen,
            extract(epoch FROM h.decided_at - c.claimed_at) AS since_claim,
            extract(epoch FROM c.claimed_at - r.published_at) AS since_card
        FROM hall.history h JOIN hall.event e ON e.id = h.event_id
            LEFT JOIN hall.claim c ON h.machine = 'claim' AND c.id = h.subject_id
            LEFT JOIN hall.round r ON r.fr_id = c.fr_id AND r.n = c.round
            LEFT JOIN hall.institution i ON i.id = c.institution_id
            LEFT JOIN hall.offer o ON o.claim_id = c.id
            LEFT JOIN hall.facility fa ON fa.fr_id = $1
        WHERE (h.machine = 'request' AND h.subject_id = $1) OR c.fr_id = $1
        ORDER BY e.no
        """,
        fr_id,
    )
    rounds = {
        row["announced_at"]: row
        for row in await connection.fetch(
            "SELECT n, announced_at, cardinality(audience) AS outlets FROM hall.round WHERE fr_id = $1", fr_id
        )
    }
    assert about is not None  # it was chosen among the requests there are
    way = Text(f" {about['name']}: asked {cny(about['amount_fen'])} CNY ({about['scheme']}, {about['purpose']}, ")
    way.append(f"{about['term_months']} months), reference limit {cny(about['quote_fen'])} CNY\n")
    for step in steps:
        told = _told(step, rounds)
        if told:
            way.append(f"   → {told}\n")
    return way


def _told(step: Record, rounds: Mapping[Any, Record]) -> str | None:
    match step["machine"], step["to_state"]:
        case "request", "broadcast":
            shown = rounds.get(step["decided_at"])
            return None if shown is None else f"round {shown['n']}: card to {shown['outlets']} outlets"
        case "claim", "held":
            return f"grabbed by {step['bank']} {step['since_card']:.2f} s after the card"
        case "claim", "offered":
            cost = rate(step["annual_cost_bp"])
            return f"offered {cny(step['amount_fen'])} CNY at {cost} a year, {step['since_claim']:.1f} s after the grab"
        case "claim", ("declined" | "released" | "rejected" | "lapsed" | "expired") as ended:
            return f"{ended} ({step['why'] or 'its time was up'})"
        case "request", ("assisted" | "accepted") as reached:
            return {"assisted": "no bank in its rounds: to the case manager", "accepted": "accepted"}[reached]
        case "request", "signed":
            return f"signed {cny(step['ceiling_fen'])} CNY"
        case "request", "active":
            return f"first drawdown {cny(step['drawn_fen'])} CNY"
        case _:
            return None
