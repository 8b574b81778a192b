"""The invariants of the hall: each a sentence and a query that returns nothing at any instant, in production too."""

from dataclasses import dataclass

from asyncpg import Record

from api.database import Connection
from data_contracts.errors import UsageError


@dataclass(frozen=True)
class Invariant:
    """One invariant.

    Args:
        name: its number.
        sentence: what always holds.
        sql: finds the rows that break it.
    """

    name: str
    sentence: str
    sql: str


async def violated(connection: Connection) -> dict[str, list[Record]]:
    """The rows that break each invariant, by its name, all read on one snapshot; empty lists where it holds.

    Args:
        connection: not in a transaction.

    Raises:
        UsageError: the database has no hall.
    """
    if await connection.fetchval("SELECT to_regclass('hall.journal') IS NULL"):
        raise UsageError("The database has no hall yet; bring it up to date: jifen migrate")
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("SET LOCAL statement_timeout = '5min'")
        return {one.name: await connection.fetch(one.sql) for one in INVARIANTS}


_CLAIMS = (
    Invariant(
        "I1",
        "At most one winner per request, round and slot",
        "SELECT fr_id, round, slot FROM hall.claim GROUP BY fr_id, round, slot HAVING count(*) > 1",
    ),
    Invariant(
        "I2",
        "Never more winners than slots",
        """
        SELECT r.fr_id, r.n
        FROM hall.round r LEFT JOIN hall.claim c ON c.fr_id = r.fr_id AND c.round = r.n
        GROUP BY r.fr_id, r.n
        HAVING count(c.id) > r.slots OR count(c.id) <> r.taken
        """,
    ),
    Invariant(
        "I3",
        "No claim before the gate or after the close",
        """
        SELECT c.id
        FROM hall.claim c JOIN hall.round r ON r.fr_id = c.fr_id AND r.n = c.round
        WHERE r.opens_at IS NULL OR c.claimed_at < r.opens_at OR c.claimed_at >= r.closes_at
        """,
    ),
    Invariant(
        "I4",
        "Fences rise and are not reused, and no write was accepted under another fence or after the claim's end",
        """
        SELECT fr_id AS id FROM hall.claim GROUP BY fr_id, fence HAVING count(*) > 1
        UNION ALL
        SELECT fr_id FROM (
            SELECT fr_id, fence, lag(fence) OVER (PARTITION BY fr_id ORDER BY round, slot) AS before FROM hall.claim
        ) AS by_round WHERE fence <= before
        UNION ALL
        SELECT w.claim_id FROM hall.fenced_write w JOIN hall.claim c ON c.id = w.claim_id
        WHERE w.fence <> c.fence OR w.at > coalesce(c.ended_at, 'infinity')
        """,
    ),
    Invariant(
        "I14",
        "No institution ever held more claims without contact than its cap at the time of the claim",
        """
        SELECT id FROM (
            SELECT id, cap, sum(step) OVER steps AS held
            FROM (
                SELECT id, institution_id, claimed_at AS at, 1 AS step, hold_cap AS cap FROM hall.claim
                UNION ALL
                SELECT c.id, c.institution_id, h.decided_at, -1, NULL
                FROM hall.history h JOIN hall.claim c ON c.id = h.subject_id
                WHERE h.machine = 'claim' AND h.from_state = 'held'
            ) AS moves
            WINDOW steps AS (PARTITION BY institution_id ORDER BY at, step ROWS UNBOUNDED PRECEDING)
        ) AS running WHERE held > cap
        """,
    ),
    Invariant(
        "I16",
        "No claim by the institution that let the round before lapse or released it",
        """
        SELECT c.id
        FROM hall.claim c JOIN hall.claim earlier ON earlier.fr_id = c.fr_id
            AND earlier.institution_id = c.institution_id AND earlier.state IN ('lapsed', 'released')
        WHERE earlier.round = (SELECT max(r.n) FROM hall.round r WHERE r.fr_id = c.fr_id AND r.n < c.round)
        """,
    ),
    Invariant(
        "I23",
        "One open request per enterprise, scheme and purpose; one first loan per enterprise",
        """
        SELECT uscc FROM hall.financing_request WHERE hall.seeks_a_bank(state)
        GROUP BY tenant, uscc, scheme, purpose HAVING count(*) > 1
        UNION ALL
        SELECT uscc FROM hall.first_loan WHERE withdrawn_at IS NULL GROUP BY uscc HAVING count(*) > 1
        """,
    ),
)

_MONEY = (
    Invariant(
        "I5",
        "Never over-lend: pending, committed and drawn are within the limit, none is negative; reported money beyond "
        "it stands in over_limit with a case",
        """
        SELECT uscc::text AS id FROM hall.exposure
        WHERE pending_fen + committed_fen + drawn_fen > limit_fen
            OR least(pending_fen, committed_fen, drawn_fen, over_limit_fen, unbound_committed_fen,
                unbound_drawn_fen) < 0
        UNION ALL
        SELECT uscc || ' ' || institution_id FROM hall.exposure_share
        WHERE least(pending_fen, committed_fen, drawn_fen, over_limit_fen, unbound_committed_fen, unbound_drawn_fen) < 0
        UNION ALL
        SELECT f.id FROM hall.facility f
        WHERE f.committed_fen + f.drawn_fen > f.ceiling_fen OR (f.over_limit_fen > 0 AND NOT EXISTS (
            SELECT 1 FROM hall.hall_case k WHERE k.kind = 'over-limit' AND k.subject = 'facility/' || f.id))
        """,
    ),
    Invariant(
        "I6",
        "Balances are the sums of the journal: of the enterprise, of each share, of each facility",
        """
        WITH leg AS (
            SELECT uscc, facility_id, to_account AS account, to_institution AS institution, amount_fen FROM hall.journal
            UNION ALL
            SELECT uscc, facility_id, from_account, from_institution, -amount_fen FROM hall.journal
        ),
        held AS (
            SELECT e.uscc, '' AS institution, a.account, a.amount_fen FROM hall.exposure e, LATERAL (VALUES
                ('pending', e.pending_fen), ('committed', e.committed_fen), ('drawn', e.drawn_fen),
                ('over_limit', e.over_limit_fen), ('unbound_committed', e.unbound_committed_fen),
                ('unbound_drawn', e.unbound_drawn_fen)) AS a (account, amount_fen)
            UNION ALL
            SELECT e.uscc, e.institution_id, a.account, a.amount_fen FROM hall.exposure_share e, LATERAL (VALUES
                ('pending', e.pending_fen), ('committed', e.committed_fen), ('drawn', e.drawn_fen),
                ('over_limit', e.over_limit_fen), ('unbound_committed', e.unbound_committed_fen),
                ('unbound_drawn', e.unbound_drawn_fen)) AS a (account, amount_fen)
        ),
        summed AS (
            SELECT uscc, '' AS institution, account, sum(amount_fen) AS amount_fen FROM leg GROUP BY uscc, account
            UNION ALL
            SELECT uscc, institution, account, sum(amount_fen) FROM leg GROUP BY uscc, institution, account
        )
        SELECT coalesce(h.uscc, s.uscc)::text AS id, coalesce(h.account, s.account) AS account
        FROM held h FULL JOIN (SELECT * FROM summed WHERE account <> 'free') s
            ON s.uscc = h.uscc AND s.institution = h.institution AND s.account = h.account
        WHERE coalesce(h.amount_fen, 0) <> coalesce(s.amount_fen, 0)
        UNION ALL
        SELECT f.id, 'facility'
        FROM hall.facility f LEFT JOIN (
            SELECT facility_id,
                sum(amount_fen) FILTER (WHERE account IN ('committed', 'unbound_committed')) AS committed,
                sum(amount_fen) FILTER (WHERE account IN ('drawn', 'unbound_drawn')) AS drawn,
                sum(amount_fen) FILTER (WHERE account = 'over_limit') AS over
            FROM leg GROUP BY facility_id
        ) AS j ON j.facility_id = f.id
        WHERE (f.committed_fen, f.drawn_fen, f.over_limit_fen)
            <> (coalesce(j.committed, 0), coalesce(j.drawn, 0), coalesce(j.over, 0))
        """,
    ),
    Invariant(
        "I7",
        "The institutions' shares sum to the enterprise's exposure, and what is owed on facilities to what is drawn",
        """
        SELECT e.uscc::text AS id
        FROM hall.exposure e LEFT JOIN hall.exposure_share s ON s.uscc = e.uscc
        GROUP BY e.uscc
        HAVING (e.pending_fen, e.committed_fen, e.drawn_fen, e.over_limit_fen, e.unbound_committed_fen,
                e.unbound_drawn_fen)
            <> (coalesce(sum(s.pending_fen), 0), coalesce(sum(s.committed_fen), 0), coalesce(sum(s.drawn_fen), 0),
                coalesce(sum(s.over_limit_fen), 0), coalesce(sum(s.unbound_committed_fen), 0),
                coalesce(sum(s.unbound_drawn_fen), 0))
        UNION ALL
        SELECT f.id
        FROM hall.facility f LEFT JOIN hall.money_moved m ON m.facility_id = f.id
        GROUP BY f.id
        HAVING f.drawn_fen + f.over_limit_fen <> greatest(0, coalesce(
            sum(CASE m.kind WHEN 'drawdown' THEN m.amount_fen ELSE -m.amount_fen END), 0))
        """,
    ),
    Invariant(
        "I8",
        "A reservation resolves at most once, a pending one belongs to a live claim, and they sum to what is pending",
        """
        SELECT r.id FROM hall.reservation r
        WHERE r.state = 'pending'
            AND NOT EXISTS (SELECT 1 FROM hall.claim c WHERE c.fr_id = r.fr_id AND c.ended_at IS NULL)
        UNION ALL
        SELECT reservation_id FROM hall.journal WHERE kind = 'void' OR (kind = 'commit' AND to_account <> 'free')
        GROUP BY reservation_id HAVING reservation_id IS NOT NULL AND count(*) > 1
        UNION ALL
        SELECT e.uscc FROM hall.exposure e
        WHERE e.pending_fen <> (SELECT coalesce(sum(r.amount_fen), 0) FROM hall.reservation r
            WHERE r.uscc = e.uscc AND r.state = 'pending' AND r.counts_in_limit)
        """,
    ),
    Invariant(
        "I9",
        "An idempotency key has at most one effect, and each has its stored answer",
        """
        SELECT id::text FROM hall.idempotency WHERE status IS NULL OR body IS NULL
        UNION ALL
        SELECT min(id::text) FROM hall.idempotency GROUP BY client_id, method, path, key HAVING count(*) > 1
        UNION ALL
        SELECT cause::text FROM (
            SELECT cause, 'claim' AS what FROM hall.claim
            UNION ALL SELECT cause, 'facility' FROM hall.facility
            UNION ALL SELECT cause, 'drawdown' FROM hall.drawdown
            UNION ALL SELECT cause, 'repayment' FROM hall.repayment
            UNION ALL SELECT cause, 'correction' FROM hall.correction
            UNION ALL SELECT cause, 'report' FROM hall.facility_report
            UNION ALL SELECT cause, 'reconciliation' FROM hall.reconciliation
        ) AS effect WHERE cause IS NOT NULL GROUP BY cause, what HAVING count(*) > 1
        """,
    ),
    Invariant(
        "I10",
        "A bank's references and contract numbers are used once, for ever",
        """
        SELECT institution_id || ' ' || bank_ref AS id FROM (
            SELECT institution_id, bank_ref FROM hall.drawdown WHERE bank_ref IS NOT NULL
            UNION ALL SELECT institution_id, bank_ref FROM hall.repayment
            UNION ALL SELECT institution_id, bank_ref FROM hall.correction
        ) AS used GROUP BY institution_id, bank_ref HAVING count(*) > 1
        UNION ALL
        SELECT institution_id || ' ' || contract_no FROM hall.facility
        GROUP BY institution_id, contract_no HAVING count(*) > 1
        """,
    ),
    Invariant(
        "I26",
        "Money is integral and positive, and days are in order: signed, then drawn, then repaid, or a case says so; "
        "none is in the future",
        """
        SELECT d.id FROM hall.drawdown d JOIN hall.facility f ON f.id = d.facility_id
        WHERE d.amount_fen <= 0 OR d.drawn_on < f.signed_on OR hall.start_of(d.drawn_on) > d.resolved_at
        UNION ALL
        SELECT r.id FROM hall.repayment r JOIN hall.facility f ON f.id = r.facility_id
        WHERE r.amount_fen <= 0 OR r.repaid_on < f.signed_on OR hall.start_of(r.repaid_on) > r.at
        UNION ALL
        SELECT m.facility_id FROM hall.money_moved m WHERE m.amount_fen > 0
        GROUP BY m.facility_id
        HAVING min(m.day) FILTER (WHERE m.kind = 'repayment') < min(m.day) FILTER (WHERE m.kind = 'drawdown')
            AND NOT EXISTS (SELECT 1 FROM hall.hall_case k
                WHERE k.kind = 'repaid-before-drawn' AND k.subject = 'facility/' || m.facility_id)
        UNION ALL
        SELECT id FROM hall.facility WHERE line_ends_on <= signed_on OR hall.start_of(signed_on) > created_at
        """,
    ),
)

_TRACES = (
    Invariant(
        "I11",
        "Only edges of the machines; each history is a path from the beginning, and the row stands where it ends",
        """
        SELECT h.subject_id AS id FROM hall.history h LEFT JOIN hall.edge e ON e.machine = h.machine
            AND e.number = h.edge AND e.from_state = h.from_state AND e.to_state = h.to_state
        WHERE e.number IS NULL
        UNION ALL
        SELECT subject_id FROM (
            SELECT subject_id, from_state, seq, row_number() OVER steps AS place, lag(to_state) OVER steps AS before
            FROM hall.history WINDOW steps AS (PARTITION BY machine, subject_id ORDER BY seq)
        ) AS path WHERE from_state <> coalesce(before, '-') OR seq <> place
        UNION ALL
        SELECT live.id FROM (
            SELECT 'request' AS machine, id, state, version FROM hall.financing_request
            UNION ALL SELECT 'claim', id, state, version FROM hall.claim
            UNION ALL SELECT 'facility', id, state, version FROM hall.facility
        ) AS live LEFT JOIN hall.history h
            ON h.machine = live.machine AND h.subject_id = live.id AND h.seq = live.version
        WHERE h.to_state IS DISTINCT FROM live.state OR EXISTS (SELECT 1 FROM hall.history later
            WHERE later.machine = live.machine AND later.subject_id = live.id AND later.seq > live.version)
        """,
    ),
    Invariant(
        "I12",
        "Each transition has its own event, and the events of a subject are numbered from 1 without a gap",
        """
        SELECT subject AS id FROM hall.event GROUP BY subject
        HAVING max(subject_sequence) <> count(*) OR min(subject_sequence) <> 1
        UNION ALL
        SELECT h.subject_id FROM hall.history h JOIN hall.event e ON e.id = h.event_id
        WHERE e.subject <> CASE h.machine WHEN 'request' THEN 'fr/' ELSE h.machine || '/' END || h.subject_id
        """,
    ),
    Invariant(
        "I13",
        "The feed has no gap, keeps the order of each subject, and holds every event older than 5 s",
        """
        SELECT tenant AS id FROM hall.feed GROUP BY tenant HAVING max(sequence) - min(sequence) + 1 <> count(*)
        UNION ALL
        SELECT subject FROM (
            SELECT f.subject, e.subject_sequence,
                lag(e.subject_sequence) OVER (PARTITION BY f.subject ORDER BY f.sequence) AS before
            FROM hall.feed f JOIN hall.event e ON e.id = f.event_id
        ) AS told WHERE subject_sequence <> coalesce(before, 0) + 1
        UNION ALL
        SELECT e.subject FROM hall.event e
        WHERE e.at < hall.hall_now() - interval '5 s' AND e.transaction_id < pg_snapshot_xmin(pg_current_snapshot())
            AND NOT EXISTS (SELECT 1 FROM hall.feed f WHERE f.event_id = e.id)
        """,
    ),
    Invariant(
        "I15",
        "Deadlines are kept: nothing is overdue by more than 5 s, but for what an open case says; nothing fired early",
        """
        SELECT late.subject FROM (
            SELECT 'fr/' || id AS subject, id AS fr_id, deadline FROM hall.financing_request
            UNION ALL SELECT 'claim/' || id, fr_id, deadline FROM hall.claim
            UNION ALL SELECT 'round/' || fr_id || '/' || n, fr_id, closes_at FROM hall.round WHERE state = 'open'
            UNION ALL SELECT 'facility/' || id, fr_id, deadline FROM hall.facility
            UNION ALL SELECT 'revocation/' || consent_id, NULL, due_at FROM hall.awaited_acknowledgement
            UNION ALL SELECT 'case/' || id, CASE WHEN kind <> 'appeal' THEN hall.request_of(subject) END, due_at
                FROM hall.hall_case WHERE closed_at IS NULL AND overdue_at IS NULL
            UNION ALL SELECT 'drawdown/' || d.id, a.fr_id, d.due_at
                FROM hall.drawdown d JOIN hall.facility a ON a.id = d.facility_id WHERE d.state = 'asked'
            UNION ALL SELECT 'idle-claim/' || c.id, c.fr_id,
                    greatest(c.claimed_at, c.deadline_from, least(o.closed_at, i.suspended_at))
                FROM hall.claim c JOIN hall.outlet o ON o.id = c.outlet_id
                    JOIN hall.institution i ON i.id = o.institution_id
                WHERE c.state IN ('held', 'contacted') AND (o.is_closed OR i.is_suspended)
            UNION ALL SELECT 'event/' || u.event_id, e.audience_fr, greatest(u.at, (
                    SELECT max(lifted.at) FROM hall.event lifted
                    WHERE lifted.subject = 'fr/' || e.audience_fr AND lifted.type = 'fin.request.resumed.v1'))
                FROM hall.unpublishable u JOIN hall.event e ON e.id = u.event_id WHERE u.handled_at IS NULL
        ) AS late LEFT JOIN hall.financing_request f ON f.id = late.fr_id
        WHERE late.deadline < hall.hall_now() - interval '5 s' AND f.is_suspended IS NOT TRUE
            AND NOT EXISTS (SELECT 1 FROM hall.hall_case k
                WHERE k.kind = 'deadline-stuck' AND k.subject = late.subject AND k.closed_at IS NULL)
        UNION ALL
        SELECT subject_id FROM hall.history WHERE decided_at < (reason ->> 'due')::timestamptz
        """,
    ),
    Invariant(
        "I17",
        "Whoever was shown an enterprise's data had its consent at that instant, and a dossier's reader a live claim",
        """
        SELECT l.id
        FROM hall.access_log l LEFT JOIN hall.consent c ON c.id = l.consent_id AND c.uscc = l.uscc
            LEFT JOIN hall.consent_revocation r ON r.consent_id = c.id
            LEFT JOIN hall.client who ON who.id = l.client_id,
        LATERAL (SELECT EXISTS (
            SELECT 1 FROM hall.claim k JOIN hall.financing_request f ON f.id = k.fr_id
                LEFT JOIN hall.history fired ON fired.machine = 'claim' AND fired.subject_id = k.id
                    AND fired.reason ? 'due'
            WHERE f.uscc = l.uscc AND k.institution_id = l.institution_id AND k.claimed_at <= l.at
                AND k.outlet_id = coalesce(who.outlet_id, k.outlet_id)
                AND l.at < least(k.ended_at, (fired.reason ->> 'due')::timestamptz,
                    CASE WHEN f.suspended_at < k.deadline THEN 'infinity' ELSE k.deadline END)) AS now) AS holds
        WHERE l.institution_id IS NOT NULL AND l.withheld IS NULL AND NOT coalesce(
            l.at >= c.valid_from AND l.at < c.valid_to AND l.at < coalesce(r.revoked_at, 'infinity')
            AND (l.what <> 'dossier' OR holds.now)
            AND (l.institution_id = ANY (c.recipients)
                OR (holds.now AND 'claiming-institution' = ANY (c.recipients))), false)
        """,
    ),
    Invariant(
        "I27",
        "A request is under appeal while one that concerns it is open, with its case; a rated claim was contacted",
        """
        SELECT f.id FROM hall.financing_request f WHERE f.is_under_appeal <> EXISTS (
            SELECT 1 FROM hall.appeal a WHERE a.uscc = f.uscc AND f.id = ANY (a.concerns) AND hall.is_open(a))
        UNION ALL
        SELECT a.id FROM hall.appeal a LEFT JOIN hall.hall_case k ON k.id = a.case_id
        WHERE (k.closed_at IS NULL) <> hall.is_open(a)
        UNION ALL
        SELECT r.id FROM hall.rating r JOIN hall.claim c ON c.id = r.claim_id
            JOIN hall.financing_request f ON f.id = c.fr_id
        WHERE r.uscc <> f.uscc OR r.institution_id <> c.institution_id OR coalesce(r.rated_at < c.contacted_at, true)
        """,
    ),
)


INVARIANTS = tuple(sorted((*_CLAIMS, *_MONEY, *_TRACES), key=lambda one: int(one.name[1:])))
"""All that the tables can prove; what a client saw (I18 to I21) is proved against its own history."""
