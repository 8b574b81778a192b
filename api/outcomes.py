"""`jifen export outcomes`: what became of the loans made through the hall, as a source file that models learn from."""

from pathlib import Path

import polars as pl

from api.database import Connection, Pool, transaction
from data_contracts.checking import checked
from data_contracts.errors import ContractError, UsageError
from data_contracts.sources import LOAN_OUTCOMES
from models.sources.writing import FORMATS, Format, replacing, write_frame

_MOST_NAMED = 20


async def export_outcomes(pool: Pool, path: Path) -> int:
    """Write the outcomes known now to `path`, whole or not at all; returns how many.

    Args:
        pool: of the service.
        path: ends in .parquet or .csv; a file there is replaced.

    Raises:
        UsageError: another ending.
        ContractError: rows break the contract of `loan_outcomes`; names each, and writes nothing.
    """
    form = _format_of(path)
    async with transaction(pool) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        frame = await outcomes(connection)
    found = checked(LOAN_OUTCOMES, frame)
    if found.quarantined.height:
        broken = found.quarantined.head(_MOST_NAMED)
        raise ContractError(
            f"{found.quarantined.height} outcomes break the contract of {LOAN_OUTCOMES.name}; nothing was written.",
            [f"{loan}: {rules}" for loan, rules in broken.select("loan_id", "rules").iter_rows()],
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        write_frame(found.good, beside, form)
    return found.good.height


def _format_of(path: Path) -> Format:
    for form in FORMATS:
        if path.suffix == f".{form}":
            return form
    raise UsageError(f"{path.name}: name a file that ends in {' or '.join(f'.{form}' for form in FORMATS)}")


async def outcomes(connection: Connection) -> pl.DataFrame:
    """One row a facility that was drawn on and that its bank has reported on since, typed as `loan_outcomes`.

    `opened_on` is the day of the first drawdown, `term_months` the whole months from there to the end of the line as
    signed (1 at least), `amount_fen` the most that was owed at the end of any day. In default
    is a facility from the first report that says: more than 90 days past due, substandard or worse, restructured in
    distress, written off, or compensated by a guarantor. `loss_fen` is what is still owed once nothing more is awaited
    (settled, written off, compensated); null for a default that still runs. It was watched until the latest report.
    """
    rows = await connection.fetch(_OUTCOMES)
    return pl.DataFrame([tuple(row) for row in rows], schema=LOAN_OUTCOMES.types, orient="row")


_OUTCOMES = """
WITH moved AS (
    SELECT facility_id, day, CASE kind WHEN 'drawdown' THEN amount_fen ELSE -amount_fen END AS amount_fen
    FROM hall.money_moved
    WHERE amount_fen > 0
),
owed AS (
    SELECT facility_id, day, sum(sum(amount_fen)) OVER (PARTITION BY facility_id ORDER BY day) AS owed_fen
    FROM moved
    GROUP BY facility_id, day
),
opened AS (
    SELECT facility_id, min(day) AS opened_on FROM moved WHERE amount_fen > 0 GROUP BY facility_id
),
reported AS (
    SELECT
        r.facility_id,
        max(r.as_of) AS observed_until,
        max(r.at) AS known_at,
        min(r.as_of) FILTER (
            WHERE r.days_past_due > 90 OR r.five_class IN ('substandard', 'doubtful', 'loss') OR r.restructured
            OR r.state IN ('written_off', 'compensated')
        ) AS defaulted_on
    FROM hall.facility_report AS r
    JOIN opened AS o ON o.facility_id = r.facility_id AND r.as_of >= o.opened_on
    GROUP BY r.facility_id
)
SELECT
    f.uscc::text,
    (r.known_at AT TIME ZONE 'Asia/Shanghai')::date,
    'bank',
    f.institution_id,
    f.id,
    o.opened_on,
    greatest(12 * extract(year FROM line.lasts) + extract(month FROM line.lasts), 1)::bigint,
    greatest((SELECT max(w.owed_fen) FROM owed AS w WHERE w.facility_id = f.id), 0)::bigint,
    r.defaulted_on IS NOT NULL,
    r.defaulted_on,
    r.observed_until,
    CASE
        WHEN r.defaulted_on IS NOT NULL AND f.state IN ('settled', 'written_off', 'compensated')
        THEN hall.outstanding(f)
    END
FROM hall.facility AS f
JOIN opened AS o ON o.facility_id = f.id
JOIN reported AS r ON r.facility_id = f.id
CROSS JOIN LATERAL age(f.line_ends_on, o.opened_on) AS line (lasts)
ORDER BY f.uscc, f.institution_id, f.id
"""
