"""Made-up invoices of the kind that break naive features, for the firms of a world.

Few partners, so that cells collide: void and negative invoices, red letters that name an invoice, a missing one, or
more than there is; numbers used twice; amounts of one fen and of millions; the firm itself as a buyer; corrections.
"""

from datetime import date, timedelta

import numpy as np
import polars as pl

from data_contracts.sources import INVOICES
from tests.promises.edits import DIGITAL, with_net
from tests.promises.worlds import Frames, World, remarked

NUMBERS = 6
MOST_ODD = 16
AMOUNTS = np.array([1, 3, 99_999, 100_000, 100_001, 5_000_000, 120_000_000])
RICH_DECLARED_FEN = 10**10
STEADY_SHARE = 0.75


def thorny(world: World, seed: int) -> World:
    """The same firms with thorny invoices beside theirs or (one in four) instead; every second one declared much."""
    rng = np.random.default_rng(seed)
    usccs = world.frames["enterprises"]["uscc"].unique().sort()
    steady = usccs.filter(pl.Series(rng.random(usccs.len()) < STEADY_SHARE))
    invoices = pl.concat(
        [
            _odd(usccs, world.as_of, rng),
            world.frames["invoices"].filter(pl.col("uscc").is_in(steady.implode())),
        ]
    )
    unique = invoices.unique([*INVOICES.key, "known_on"], keep="first", maintain_order=True)
    corrections = _corrections(unique, world.as_of, rng)
    whole = pl.concat([unique, corrections]).unique([*INVOICES.key, "known_on"], keep="first", maintain_order=True)
    rich = usccs.gather_every(2)
    filings = world.frames["tax_filings"]
    declares = pl.col("uscc").is_in(rich.implode()) & (pl.col("tax_kind") == "vat")
    after: Frames = {
        **world.frames,
        "invoices": whole.select(list(INVOICES.columns)),
        "tax_filings": filings.with_columns(
            declared_sales_fen=pl.when(declares).then(RICH_DECLARED_FEN).otherwise("declared_sales_fen")
        ),
    }
    return World(remarked(world.frames, after), world.as_of)


def _odd(usccs: pl.Series, as_of: date, rng: np.random.Generator) -> pl.DataFrame:
    """Up to sixteen odd invoices a firm."""
    uscc = np.repeat(usccs.to_numpy(), rng.integers(0, MOST_ODD + 1, usccs.len()))
    count = len(uscc)
    sign = np.where(rng.random(count) < 0.62, 1, -1)
    net = sign * np.where(
        rng.random(count) < 0.7, rng.choice(AMOUNTS, count), (10 ** (rng.random(count) * 8.5)).astype(np.int64)
    )
    numbers = np.array([f"{number:08d}" for number in range(1, NUMBERS + 1)])
    partner = np.array(["B1", "B2", "B3", "B4"])[rng.integers(0, 4, count)]
    partner = np.where(rng.random(count) < 0.03, uscc, partner)
    linked = (net < 0) & (rng.random(count) < 0.65)
    back = np.where(rng.random(count) < 0.75, rng.integers(0, 420, count), rng.integers(0, 1_200, count))
    days = pl.Series([as_of - timedelta(days=int(one)) for one in back], dtype=pl.Date)
    table = pl.DataFrame(
        {
            "uscc": uscc.tolist(),
            "known_on": days,
            "direction": rng.choice(np.array(["out", "out", "in"]), count).tolist(),
            "invoice_no": rng.choice(numbers, count).tolist(),
            "counterparty_id": partner.tolist(),
            "issued_on": days,
            "net_fen": net.tolist(),
            "is_void": rng.random(count) < 0.15,
            "red_of": rng.choice(numbers, count).tolist(),
        },
        schema_overrides={"net_fen": pl.Int64},
    )
    return table.with_columns(
        **with_net(pl.col("net_fen")),
        supplier=pl.lit("authority"),
        red_of=pl.when(pl.Series(linked)).then("red_of"),
    ).select(list(INVOICES.columns))


def _corrections(invoices: pl.DataFrame, as_of: date, rng: np.random.Generator) -> pl.DataFrame:
    """One invoice in twelve again, known later, with another amount of the same sign or void."""
    chosen = invoices.filter(pl.Series(rng.random(invoices.height) < 1 / 12) & (pl.col("known_on") < as_of))
    return chosen.with_columns(
        **with_net((pl.col("net_fen") * 7) // 5),
        is_void=pl.Series(rng.random(chosen.height) < 0.3) & ~DIGITAL,
        known_on=pl.min_horizontal(pl.col("known_on") + timedelta(days=20), pl.lit(as_of)),
    )
