"""Edits of invoices, one a firm, for all firms at once: each says which way the firm's facts get better.

An edit takes the facts by source, the day looked from and a seeded generator, and gives the facts as they would be
had it been so from the start. A firm without a fact of the kind stays as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
import polars as pl

from data_contracts.sources import INVOICES, SOURCES

Frames = dict[str, pl.DataFrame]
Change = Callable[[Frames, date, np.random.Generator], Frames]
Way = Literal["better", "worse", "same"]


@dataclass(frozen=True)
class Edit:
    """An edit, and which way it may move an answer: `worse` also stands for what must never help."""

    name: str
    way: Way
    change: Change


OUT, IN = pl.col("direction") == "out", pl.col("direction") == "in"
SALE = OUT & ~pl.col("is_void") & (pl.col("net_fen") > 0)
VOID_SALE = OUT & pl.col("is_void") & (pl.col("net_fen") > 0)
PURCHASE = IN & ~pl.col("is_void") & (pl.col("net_fen") > 0)
RED = OUT & ~pl.col("is_void") & (pl.col("net_fen") < 0)
DIGITAL = pl.col("invoice_no").str.contains(r"^[0-9]{20}$")
DAYS_BACK = 1_200


def one_each(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """One of each firm's rows by lot."""
    ordered = rows.sort(rows.columns)
    return ordered[rng.permutation(ordered.height)].unique("uscc", keep="first", maintain_order=True)


def standing(name: str) -> pl.Expr:
    """Is the row the last word on its key? Undoing a correction would be another edit than undoing the fact."""
    return pl.col("known_on") == pl.col("known_on").max().over(SOURCES[name].key)


def edited(frames: Frames, name: str, where: pl.Expr, rng: np.random.Generator, **changes: pl.Expr) -> Frames:
    """One row a firm of those that `where` holds for, changed."""
    numbered = frames[name].with_row_index("row")
    chosen = one_each(numbered.filter(where & standing(name)), rng)["row"]
    hit = pl.col("row").is_in(chosen.implode())
    changed = numbered.with_columns(
        pl.when(hit).then(change).otherwise(pl.col(column)).alias(column) for column, change in changes.items()
    )
    return {**frames, name: changed.drop("row")}


def dropped(frames: Frames, name: str, where: pl.Expr, rng: np.random.Generator) -> Frames:
    """One row a firm of those that `where` holds for, gone with all its corrections."""
    keys = one_each(frames[name].filter(where & standing(name)), rng).select(SOURCES[name].key)
    return {**frames, name: frames[name].join(keys, on=SOURCES[name].key, how="anti")}


def added(frames: Frames, name: str, rows: pl.DataFrame) -> Frames:
    """The rows beside the others; one that repeats a key that is there is left out."""
    typed = rows.select(pl.col(column).cast(dtype) for column, dtype in SOURCES[name].types.items())
    new = typed.join(frames[name], on=SOURCES[name].key, how="anti")
    return {**frames, name: pl.concat([frames[name], new])}


def with_net(net: pl.Expr) -> dict[str, pl.Expr]:
    """The three amounts of an invoice of this net amount, in whole fen."""
    tax = net * 13 // 100
    return {"net_fen": net, "tax_fen": tax, "gross_fen": net + tax}


def partners(frames: Frames, where: pl.Expr, rng: np.random.Generator) -> pl.DataFrame:
    """`uscc` and `counterparty_id`: one partner a firm among the invoices that `where` holds for."""
    return one_each(frames["invoices"].filter(where).select("uscc", "counterparty_id").unique(), rng)


def new_partners(frames: Frames, as_of: date, rng: np.random.Generator) -> pl.DataFrame:
    """One partner a firm that it never met."""
    return frames["enterprises"].select("uscc").unique().sort("uscc").with_columns(counterparty_id=pl.lit("NEW0001"))


def largest_buyers(frames: Frames, as_of: date, rng: np.random.Generator) -> pl.DataFrame:
    """The buyer of each firm with the most net sales in its whole history."""
    sums = frames["invoices"].filter(OUT & ~pl.col("is_void")).group_by("uscc", "counterparty_id").agg(net=_NET)
    return sums.sort("net", "counterparty_id").unique("uscc", keep="last", maintain_order=True)


def negative_buyers(frames: Frames, as_of: date, rng: np.random.Generator) -> pl.DataFrame:
    """One buyer a firm of those that reversed more than they bought."""
    sums = frames["invoices"].filter(OUT & ~pl.col("is_void")).group_by("uscc", "counterparty_id").agg(net=_NET)
    return one_each(sums.filter(pl.col("net") < 0).drop("net"), rng)


_NET = pl.col("net_fen").sum()


def drawn(partners_: pl.DataFrame, as_of: date, rng: np.random.Generator, direction: str = "out") -> pl.DataFrame:
    """One invoice a partner: any day of the last forty months, from one fen to 30 million CNY."""
    count = partners_.height
    recent = rng.random(count) < 0.6
    back = np.where(recent, rng.integers(0, 400, count), rng.integers(0, DAYS_BACK, count))
    days = [as_of - timedelta(days=int(day)) for day in back]
    net = np.where(rng.random(count) < 0.2, rng.choice([1, 99_999, 100_000], count), 10 ** (rng.random(count) * 9.5))
    return (
        partners_.select("uscc", "counterparty_id")
        .with_columns(
            pl.Series("issued_on", days, dtype=pl.Date),
            pl.Series("known_on", days, dtype=pl.Date),
            pl.Series("invoice_no", [f"EDIT{number:08d}" for number in range(count)], dtype=pl.String),
            pl.Series("net", net.astype(np.int64)),
            supplier=pl.lit("authority"),
            direction=pl.lit(direction),
            is_void=pl.lit(value=False),
            red_of=pl.lit(None, pl.String),
        )
        .with_columns(**with_net(pl.col("net")))
        .drop("net")
    )


def red(sales: pl.DataFrame, number: str, red_of: pl.Expr, **changes: pl.Expr) -> pl.DataFrame:
    """A red letter for the whole of each sale, on its own day unless changed."""
    return sales.with_columns(
        pl.col("net_fen", "tax_fen", "gross_fen") * -1,
        red_of=red_of,
        invoice_no=pl.lit(number) + pl.int_range(pl.len()).cast(pl.String).str.zfill(8),
        **changes,
    )


def _add_sale(whom: Callable[[Frames, date, np.random.Generator], pl.DataFrame], direction: str = "out") -> Change:
    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        return added(frames, "invoices", drawn(whom(frames, as_of, rng), as_of, rng, direction))

    return change


def _partner_of(where: pl.Expr) -> Callable[[Frames, date, np.random.Generator], pl.DataFrame]:
    return lambda frames, _, rng: partners(frames, where, rng)


def _add_sale_of_a_reversed_number(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
    named = one_each(frames["invoices"].filter(RED & pl.col("red_of").is_not_null()), rng)
    sales = drawn(named, as_of, rng).drop("invoice_no").join(named.select("uscc", invoice_no="red_of"), on="uscc")
    return added(frames, "invoices", sales)


def _red_letter(linked: bool, times: int = 1) -> Change:
    """A red letter for a sale, `times` its amount, on some day after it; linked to the sale or not."""

    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        sales = one_each(frames["invoices"].filter(SALE & (pl.col("issued_on") <= as_of)), rng)
        later = rng.random(sales.height)
        link = pl.col("invoice_no") if linked else pl.lit(None, pl.String)
        days = [
            day + timedelta(days=int((as_of - day).days * part))
            for day, part in zip(sales["issued_on"], later, strict=True)
        ]
        amount = pl.min_horizontal(pl.col("net_fen") * times, pl.lit(10**11))
        reds = red(sales.with_columns(**with_net(amount)), "RED", link).with_columns(
            pl.Series("issued_on", days, dtype=pl.Date), pl.Series("known_on", days, dtype=pl.Date)
        )
        return added(frames, "invoices", reds)

    return change


def _one_more_red_letter(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
    """Another red letter of a number that red letters name already, on any day, often of one fen."""
    named = one_each(frames["invoices"].filter(RED & pl.col("red_of").is_not_null()), rng)
    small = drawn(named, as_of, rng).join(named.select("uscc", number="red_of"), on="uscc", maintain_order="left")
    return added(frames, "invoices", red(small, "RED", pl.col("number")).drop("number"))


def _wash_pair(linked: bool) -> Change:
    """A sale and its reversal in one month with one buyer."""

    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        whom = partners(frames, OUT, rng) if rng.random() < 0.7 else new_partners(frames, as_of, rng)
        sales = drawn(whom, as_of, rng)
        reds = red(sales, "RED", pl.col("invoice_no") if linked else pl.lit(None, pl.String))
        return added(added(frames, "invoices", sales), "invoices", reds)

    return change


def _split(where: pl.Expr) -> Change:
    """An invoice in two of the same day and buyer; one that a red letter names is left whole, for it names one half."""

    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        invoices = frames["invoices"]
        named = invoices.select("uscc", invoice_no="red_of").drop_nulls()
        versions = pl.len().over(INVOICES.key) == 1
        free = invoices.filter(versions & where & (pl.col("net_fen").abs() > 1)).join(
            named, on=["uscc", "invoice_no"], how="anti"
        )
        chosen = one_each(free, rng)
        part = (pl.col("net_fen") * pl.Series(rng.random(chosen.height))).cast(pl.Int64)
        first = chosen.with_columns(part=part).with_columns(**with_net(pl.col("part"))).drop("part")
        rest = chosen.with_columns(pl.Series("net_fen", chosen["net_fen"] - first["net_fen"]))
        rest = rest.with_columns(
            **with_net(pl.col("net_fen")),
            invoice_no=pl.lit("HALF") + pl.int_range(pl.len()).cast(pl.String).str.zfill(8),
        )
        others = invoices.join(chosen, on=INVOICES.key, how="anti")
        return {**frames, "invoices": pl.concat([others, first, rest.select(first.columns)])}

    return change


def _more(where: pl.Expr, factor: float, plus: int) -> Change:
    def change(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
        net = (pl.col("net_fen") * factor).cast(pl.Int64) + plus
        return edited(frames, "invoices", where & (pl.col("net_fen").abs() < 10**10), rng, **with_net(net))

    return change


def _flag(where: pl.Expr, value: bool) -> Change:
    return lambda frames, _, rng: edited(frames, "invoices", where, rng, is_void=pl.lit(value))


def _drop(where: pl.Expr) -> Change:
    return lambda frames, _, rng: dropped(frames, "invoices", where, rng)


def _shuffled(frames: Frames, as_of: date, rng: np.random.Generator) -> Frames:
    return {name: rows[rng.permutation(rows.height)] for name, rows in frames.items()}


INVOICE_EDITS: Sequence[Edit] = (
    Edit("add a sale to a new buyer", "better", _add_sale(new_partners)),
    Edit("add a sale to an old buyer", "better", _add_sale(_partner_of(OUT))),
    Edit("add a sale to the largest buyer", "better", _add_sale(largest_buyers)),
    Edit("add a sale to a buyer whose net is negative", "better", _add_sale(negative_buyers)),
    Edit("add a sale to a supplier", "better", _add_sale(_partner_of(IN))),
    Edit("add a sale with a number that was reversed", "better", _add_sale_of_a_reversed_number),
    Edit("enlarge a sale", "better", _more(SALE, 2.5, 1)),
    Edit("enlarge a sale by one fen", "better", _more(SALE, 1.0, 1)),
    Edit("make a void sale valid", "better", _flag(VOID_SALE, value=False)),
    Edit("drop a red letter", "better", _drop(RED)),
    Edit("drop an unlinked red letter", "better", _drop(RED & pl.col("red_of").is_null())),
    Edit("void a red letter", "better", _flag(RED & ~DIGITAL, value=True)),
    Edit("add a purchase from a new seller", "better", _add_sale(new_partners, "in")),
    Edit("add a purchase from an old seller", "better", _add_sale(_partner_of(IN), "in")),
    Edit("add a purchase from a buyer", "better", _add_sale(_partner_of(OUT), "in")),
    Edit("remove a sale", "worse", _drop(SALE)),
    Edit("void a sale", "worse", _flag(SALE & ~DIGITAL, value=True)),
    Edit("shrink a sale", "worse", _more(SALE, 0.3, 0)),
    Edit("remove a purchase", "worse", _drop(PURCHASE)),
    Edit("reverse a sale by a linked red letter", "worse", _red_letter(linked=True)),
    Edit("reverse a sale by an unlinked red letter", "worse", _red_letter(linked=False)),
    Edit("reverse a sale three times", "worse", _red_letter(linked=True, times=3)),
    Edit("one more red letter of a reversed number", "worse", _one_more_red_letter),
    Edit("a wash pair with a linked red letter", "worse", _wash_pair(linked=True)),
    Edit("a wash pair with an unlinked red letter", "worse", _wash_pair(linked=False)),
    Edit("split a sale", "same", _split(SALE)),
    Edit("split a void sale", "same", _split(VOID_SALE & ~DIGITAL)),
    Edit("split a purchase", "same", _split(PURCHASE)),
    Edit("split an unlinked red letter", "same", _split(RED & pl.col("red_of").is_null())),
    Edit("hand the rows in another order", "same", _shuffled),
)
"""What may happen to invoices."""
