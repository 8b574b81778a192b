"""The made-up park: it keeps every contract, hides a known risk, and its dirt is all caught."""

from datetime import date
from importlib.resources import files
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from pandera.errors import SchemaErrors

from data_contracts import samples_dirt
from data_contracts.checking import checked_text, sources_of
from data_contracts.errors import UsageError
from data_contracts.marks import Period, marks
from data_contracts.parsing import FAILURE_SUFFIX
from data_contracts.rules import rules_of
from data_contracts.samples import AS_OF, Park, park
from data_contracts.samples_firms import Firms, made_up_firms
from data_contracts.samples_registry import INDICATORS
from data_contracts.sources import SOURCES, Source
from scoring.feeds import feed_states
from scoring.sme_size import parse_size_classes, size_class

SMALL_PARK = 240
MANY_FIRMS = 12_000


@pytest.fixture(scope="module")
def clean() -> Park:
    return park(SMALL_PARK, 7)


@pytest.fixture(scope="module")
def dirty() -> Park:
    return park(SMALL_PARK, 7, dirty_share=0.002)


@pytest.fixture(scope="module")
def many_firms() -> Firms:
    return made_up_firms(MANY_FIRMS, 3, AS_OF)


def hashes(frames: dict[str, pl.DataFrame]) -> dict[str, int]:
    return {name: hash(tuple(frame.hash_rows(seed=1))) for name, frame in frames.items()}


def auc(score: np.ndarray, defaulted: np.ndarray) -> float:
    rank = score.argsort().argsort()[defaulted]
    events = defaulted.sum()
    return float((rank.mean() - (events - 1) / 2) / (~defaulted).sum())


def latest(frame: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    return frame.sort("known_on").unique(key, keep="last", maintain_order=True)


def test_the_same_arguments_give_the_same_park(clean: Park, dirty: Park) -> None:
    assert hashes(park(SMALL_PARK, 7).frames) == hashes(clean.frames)
    again = park(SMALL_PARK, 7, dirty_share=0.002)
    assert hashes(again.frames) == hashes(dirty.frames)
    assert again.dirt.equals(dirty.dirt)


def test_another_seed_gives_another_park(clean: Park) -> None:
    other = hashes(park(SMALL_PARK, 8).frames)
    assert all(other[name] != found for name, found in hashes(clean.frames).items())


def test_a_clean_park_keeps_every_contract(clean: Park) -> None:
    assert set(clean.frames) == set(SOURCES)
    _, reports = sources_of(clean.frames)
    for name, report in reports.items():
        assert report.quarantined.is_empty(), name
        assert not report.warnings, name
        assert report.good.height > 0, name


def test_pandera_itself_accepts_a_clean_park(clean: Park) -> None:
    for name, source in SOURCES.items():
        assert source.contract.validate(clean.frames[name], lazy=True).equals(clean.frames[name]), name
        broken = clean.frames[name].head(2).with_columns(supplier=pl.lit("nobody"))
        with pytest.raises(SchemaErrors):
            source.contract.validate(broken, lazy=True)


@pytest.mark.parametrize("enterprises", [1, 2, 9])
def test_the_smallest_parks_keep_every_contract_too(enterprises: int) -> None:
    for seed in range(6):
        _, reports = sources_of(park(enterprises, seed).frames)
        assert all(report.quarantined.is_empty() for report in reports.values())


@pytest.mark.parametrize("as_of", [date(2024, 3, 1), date(2025, 11, 1), date(2026, 1, 1), date(2030, 9, 1)])
def test_any_month_may_be_the_first_that_is_not_history(as_of: date) -> None:
    frames = park(40, 1, as_of=as_of).frames
    _, reports = sources_of(frames)
    assert all(report.quarantined.is_empty() for report in reports.values())
    assert all(frame["known_on"].max() < as_of for frame in frames.values())  # pyright: ignore[reportOperatorIssue]


def test_every_fact_is_known_before_the_day_of_the_park(clean: Park) -> None:
    for name, frame in clean.frames.items():
        assert frame.filter(pl.col("known_on") >= AS_OF).is_empty(), name


def test_the_day_after_the_latest_fact_is_the_day_of_the_park(clean: Park) -> None:
    newest = max(frame["known_on"].max() for name, frame in clean.frames.items() if name != "loan_outcomes")  # pyright: ignore[reportArgumentType]
    assert newest == date(2026, 6, 30)


def test_marks_reconcile_with_the_rows_but_for_the_gaps(clean: Park) -> None:
    """Each mark is made anew by the function that importers use, for the firms and the period it speaks of."""
    feeds = clean.frames["feeds"]
    short = clean.gaps.filter(pl.col("fault") == "rows_missing").drop("fault")
    sound = feeds.join(short, on=["uscc", "source", "direction"], how="anti", nulls_equal=True)
    lots = sound.select("source", "period_from", "period_to", "known_on").unique(maintain_order=True)
    for name, first, last, known_on in lots.sample(60, seed=1).iter_rows():
        told = sound.filter(source=name, period_from=first, period_to=last, known_on=known_on)
        anew = marks(
            SOURCES[name], clean.frames[name], told["uscc"].unique(), Period(first, last, known_on), "authority"
        )
        both = told.join(anew, on=["uscc", "direction"], nulls_equal=True, suffix="_anew")
        assert both.height == told.height
        assert (both["row_count"] == both["row_count_anew"]).all(), name
        assert both["total_fen"].eq_missing(both["total_fen_anew"]).all(), name


def test_each_gap_leaves_its_feed_incomplete_and_every_other_feed_is_complete(clean: Park) -> None:
    sources, _ = sources_of(clean.frames)
    registry = latest(clean.frames["enterprises"], ("uscc",)).select("uscc", "established_on")
    states = feed_states(sources, registry, AS_OF).unpivot(index="uscc", variable_name="feed", value_name="state")
    states = states.filter(pl.col("feed") != "debts_feed")
    direction = pl.col("direction").fill_null("")
    feed = pl.when(direction == "").then(pl.col("source")).otherwise(pl.col("source") + "_" + direction) + "_feed"
    spoilt = clean.gaps.select("uscc", feed=feed)
    assert spoilt.height > 3
    assert set(states.join(spoilt, on=["uscc", "feed"], how="anti")["state"]) == {"complete"}
    assert "complete" not in set(states.join(spoilt, on=["uscc", "feed"])["state"])


def test_marks_known_at_a_loans_opening_cover_the_look_back(clean: Park) -> None:
    sources, _ = sources_of(clean.frames)
    registry = latest(clean.frames["enterprises"], ("uscc",)).select("uscc", "established_on")
    never = clean.gaps.filter(pl.col("fault") == "never_delivered")["uscc"]
    for (opened_on,), loans in clean.truth.group_by("opened_on"):
        assert isinstance(opened_on, date)
        borrowers = registry.join(loans.filter(~pl.col("uscc").is_in(never.implode())), on="uscc", how="semi")
        states = feed_states(sources, borrowers, opened_on).drop("uscc", "debts_feed")
        assert set(states.unpivot()["value"]) == {"complete"}


def test_the_hidden_risk_tells_defaults_apart_as_well_as_lenders_know(many_firms: Firms) -> None:
    loans = many_firms.has_loan
    pd, defaulted = many_firms.pd[loans], many_firms.defaulted[loans]
    assert 0.6 < loans.mean() < 0.7
    assert 0.04 < pd.mean() < 0.05
    assert 0.035 < defaulted.mean() < 0.055
    assert 0.80 < auc(pd, defaulted) < 0.85


def test_loans_open_on_twelve_first_days_of_a_month_and_are_watched_for_a_year(clean: Park) -> None:
    loans = clean.frames["loan_outcomes"]
    days = loans["opened_on"].unique().to_list()
    assert len(days) == 12
    assert min(days) == date(2024, 7, 1)
    assert max(days) == date(2025, 6, 1)
    assert (loans["observed_until"] == loans["opened_on"].dt.offset_by("12mo")).all()
    assert (loans["known_on"] > loans["observed_until"]).all()
    both = clean.truth.join(loans, on=["uscc", "loan_id", "opened_on", "defaulted"])
    assert both.height == loans.height == clean.truth.height


MONTH = pl.col("issued_on").dt.truncate("1mo").n_unique().cast(pl.Int64)
LEVELS = {"A": 0, "B": 1, "M": 2, "C": 3, "D": 4}


@pytest.mark.parametrize(
    ("trait", "source", "fact", "least"),
    [
        ("small", "invoices", -pl.col("net_fen").sum() / MONTH, 0.6),
        ("careless", "invoices", (pl.col("is_void") | (pl.col("net_fen") < 0)).mean(), 0.3),
        ("careless", "tax_filings", pl.col("late_days").mean(), 0.6),
        ("careless", "taxpayer_ratings", pl.col("grade").replace_strict(LEVELS).mean(), 0.6),
        ("unsteady", "invoices", -MONTH, 0.3),
        ("concentrated", "invoices", -pl.col("counterparty_id").n_unique().cast(pl.Int64), 0.3),
    ],
)
def test_worse_facts_go_with_a_higher_risk(clean: Park, trait: str, source: str, fact: pl.Expr, least: float) -> None:
    rows = clean.frames[source]
    sold = rows.filter(pl.col("direction") == "out") if source == "invoices" else rows
    firms = made_up_firms(SMALL_PARK, 7, AS_OF)
    old_enough = pl.Series(firms.end - firms.start >= 36)
    traits = pl.DataFrame({"uscc": firms.code, "trait": vars(firms)[trait]}).filter(old_enough)
    known = traits.join(sold.group_by("uscc").agg(fact=fact), on="uscc")
    assert known.select(pl.corr("trait", "fact", method="spearman")).item() > least


def test_there_are_start_ups_without_a_sale_and_some_with_a_first_one(clean: Park) -> None:
    born = latest(clean.frames["enterprises"], ("uscc",)).select("uscc", "established_on")
    sales = (
        clean.frames["invoices"]
        .filter(pl.col("direction") == "out")
        .group_by("uscc")
        .agg(first=pl.col("issued_on").min())
    )
    firms = born.join(sales, on="uscc", how="left")
    without = firms.filter(pl.col("first").is_null())
    assert without.height >= 5
    assert (without["established_on"] > date(2023, 7, 1)).all()
    late = firms.filter(pl.col("first") > date(2026, 1, 31), pl.col("established_on") < date(2025, 12, 1))
    assert late.height >= 2
    tech = clean.frames["innovation_indicators"]["uscc"]
    assert without["uscc"].is_in(tech.implode()).any()


def test_most_firms_are_small_or_micro_and_every_class_occurs() -> None:
    registry = latest(park(1_500, 2).frames["enterprises"], ("uscc",))
    table = files("scoring") / "size_classes" / "sme-size.2017-12-28.yaml"
    classes = parse_size_classes(table.read_text(encoding="utf-8"))
    found = registry.select(size=size_class(classes))["size"].drop_nulls()
    shares = {row[0]: row[1] / found.len() for row in found.value_counts().iter_rows()}
    assert set(shares) == {"micro", "small", "medium", "large"}
    assert shares["micro"] + shares["small"] > 0.8


def test_invoices_are_voided_reversed_grouped_and_traded_round() -> None:
    frames = park(600, 4).frames
    invoices = frames["invoices"]
    assert 230 < invoices.height / 600 < 280
    assert invoices["is_void"].sum() > 100
    red = invoices.filter(pl.col("net_fen") < 0)
    linked = red.filter(pl.col("red_of").is_not_null())
    assert 0.8 < linked.height / red.height < 0.97
    numbers = invoices.select("uscc", "direction", "counterparty_id", red_of="invoice_no")
    # The invoice it reverses is in the same book, but for a buyer in a group whose history began in between.
    assert (
        linked.join(numbers, on=["uscc", "direction", "counterparty_id", "red_of"], how="semi").height
        > 0.99 * linked.height
    )
    corrected = invoices.filter(pl.len().over(SOURCES["invoices"].key) > 1)
    assert corrected.height > 20
    assert (corrected.group_by(SOURCES["invoices"].key).agg(pl.col("is_void").sum())["is_void"] == 1).all()
    codes = frames["enterprises"]["uscc"]
    assert invoices["counterparty_id"].is_in(codes.implode()).any()
    both_ways = invoices.group_by("uscc", "counterparty_id").agg(pl.col("direction").n_unique())
    assert both_ways.filter(pl.col("direction") == 2)["uscc"].n_unique() > 5


def test_members_of_a_group_hold_the_same_invoice_in_both_books() -> None:
    frames = park(400, 5).frames
    invoices = frames["invoices"].select("uscc", "direction", "invoice_no", "counterparty_id", "gross_fen", "known_on")
    codes = frames["enterprises"]["uscc"].unique()
    bought = invoices.filter(pl.col("direction") == "in", pl.col("counterparty_id").is_in(codes.implode()))
    sold = invoices.filter(pl.col("direction") == "out").select(
        "invoice_no", "gross_fen", "known_on", uscc="counterparty_id", counterparty_id="uscc"
    )
    assert bought.height > 10
    assert bought.join(sold, on=sold.columns, how="semi").height == bought.height


def test_declared_sales_come_close_to_invoiced_sales_but_for_a_few(clean: Park) -> None:
    invoices = latest(clean.frames["invoices"], SOURCES["invoices"].key)
    sold = invoices.filter(pl.col("direction") == "out", ~pl.col("is_void"), pl.col("issued_on") < date(2026, 4, 1))
    filings = latest(clean.frames["tax_filings"], SOURCES["tax_filings"].key)
    declared = filings.filter(pl.col("tax_kind") == "vat", pl.col("period_to") < date(2026, 4, 1))
    since = declared.group_by("uscc").agg(pl.col("period_from").min(), pl.col("declared_sales_fen").sum())
    invoiced = sold.join(since, on="uscc").filter(pl.col("issued_on") >= pl.col("period_from"))
    both = invoiced.group_by("uscc").agg(pl.col("net_fen").sum(), pl.col("declared_sales_fen").first())
    ratio = pl.col("declared_sales_fen") / pl.col("net_fen")
    close, below = (
        both.filter(pl.col("net_fen") > 0).select(ratio.is_between(0.99, 1.2).mean(), b=(ratio < 0.9).any()).row(0)
    )
    assert close > 0.9
    assert below


def test_general_taxpayers_file_by_month_and_small_ones_by_quarter(clean: Park) -> None:
    kinds = latest(clean.frames["enterprises"], ("uscc",)).select("uscc", "taxpayer_type")
    vat = clean.frames["tax_filings"].filter(pl.col("tax_kind") == "vat").join(kinds, on="uscc")
    days = (pl.col("period_to") - pl.col("period_from")).dt.total_days()
    assert vat.filter(pl.col("taxpayer_type") == "general").select((days < 31).all()).item()
    assert vat.filter(pl.col("taxpayer_type") == "small_scale").select((days >= 89).mean()).item() > 0.9


def test_vat_periods_of_a_firm_follow_each_other_without_a_gap(clean: Park) -> None:
    vat = latest(clean.frames["tax_filings"], SOURCES["tax_filings"].key).filter(pl.col("tax_kind") == "vat")
    vat = vat.filter(pl.col("period_to") < date(2026, 4, 1)).sort("uscc", "period_from")
    follows = vat.select(
        (pl.col("period_from") == (pl.col("period_to").shift(1).over("uscc").dt.offset_by("1d"))).fill_null(value=True)
    ).to_series()
    assert follows.all()


def test_all_eighteen_indicators_are_reported_for_two_years(clean: Park) -> None:
    rows = clean.frames["innovation_indicators"]
    assert set(rows["indicator_id"]) == set(INDICATORS)
    assert set(rows["year"]) == {2024, 2025}
    assert set(rows["state"]) == {"reported", "missing", "not_applicable"}
    assert set(rows.select("indicator_id", "unit").iter_rows()) == set(INDICATORS.items())


def test_qualifications_cover_the_tags_and_some_lapsed() -> None:
    rows = park(600, 4).frames["qualifications"]
    assert set(rows["tag"]) == {"srdi", "hightech", "tech_sme"}
    last = latest(rows, ("uscc", "tag"))
    assert last.filter(pl.col("valid_to") < AS_OF).height > 0


def test_some_firms_are_outside_the_zone_and_some_entered_lately(clean: Park) -> None:
    zone = latest(clean.frames["enterprises"], ("uscc",))["zone_entered_on"]
    assert 0 < zone.null_count() < 0.2 * zone.len()
    assert (zone > date(2025, 7, 1)).any()
    assert (zone < date(2025, 7, 1)).mean() > 0.5  # pyright: ignore[reportOperatorIssue]


def test_no_row_of_the_registry_tells_a_later_entry_to_the_zone(clean: Park) -> None:
    rows = clean.frames["enterprises"]
    assert rows.filter(pl.col("zone_entered_on") > pl.col("known_on")).is_empty()


def test_bank_feeds_cover_three_firms_in_ten() -> None:
    feeds = park(1_000, 6).frames["feeds"]
    assert 0.25 < feeds.filter(pl.col("source") == "debts")["uscc"].n_unique() / 1_000 < 0.35


def test_quarantine_is_exactly_the_dirt(dirty: Park) -> None:
    _, reports = sources_of(dirty.frames)
    for name, report in reports.items():
        found = report.quarantined.select("row", pl.col("rules").str.split("; "))
        put = dirty.dirt.filter(pl.col("source") == name)
        assert found["row"].to_list() == put["row"].to_list(), name
        both = found.join(put, on="row")
        assert both.select(pl.col("rules").list.contains(pl.col("rule")).all()).item(), name
        assert report.good.height + report.quarantined.height == report.read == dirty.frames[name].height


@pytest.mark.parametrize("name", SOURCES)
def test_there_is_dirt_for_every_rule_of_every_contract(name: str) -> None:
    known = {kind.rule for kind in samples_dirt._typed_kinds(SOURCES[name])}
    assert {rule.code for rule in rules_of(name)} <= known


def test_dirt_leaves_the_clean_rows_as_they_were(clean: Park, dirty: Park) -> None:
    for name, frame in dirty.frames.items():
        spoilt = dirty.dirt.filter(pl.col("source") == name, pl.col("row") <= clean.frames[name].height)["row"] - 1
        untouched = pl.int_range(clean.frames[name].height, eager=True)
        untouched = untouched.filter(~untouched.is_in(spoilt.implode()))
        assert frame[untouched].equals(clean.frames[name][untouched]), name


def test_cells_that_are_no_date_number_or_truth_value_are_all_caught(clean: Park) -> None:
    text = {name: frame.select(pl.all().cast(pl.String)) for name, frame in clean.frames.items()}
    frames, dirt = samples_dirt.spread(text, 0.001, 7, unreadable)
    assert dirt.height > 50
    for name, frame in frames.items():
        report = checked_text(SOURCES[name], frame)
        put = dirt.filter(pl.col("source") == name)
        assert report.quarantined["row"].to_list() == put["row"].to_list(), name
        assert report.quarantined["rules"].to_list() == put["rule"].to_list(), name


def unreadable(source: Source) -> list[samples_dirt.Kind]:
    cells = {pl.Int64: "about 5 million", pl.Date: "2025-02-30", pl.Boolean: "maybe"}
    return [
        samples_dirt.Kind(f"{name}_{FAILURE_SUFFIX[dtype]}", {name: pl.lit(cells[dtype])}, pl.lit(value=True))
        for name, dtype in source.types.items()
        if dtype in cells
    ]


def test_a_park_that_cannot_be_made_is_refused_with_every_reason() -> None:
    with pytest.raises(UsageError) as refused:
        park(0, -1, dirty_share=0.5, as_of=date(2026, 7, 2))
    assert len(refused.value.problems) == 4


def test_a_firms_marks_follow_each_other_without_a_gap(clean: Park) -> None:
    sound = clean.frames["feeds"].join(clean.gaps, on=["uscc", "source", "direction"], how="anti", nulls_equal=True)
    for _, rows in sound.group_by("uscc", "source", "direction"):
        spans = rows.sort("period_from").select("period_from", "period_to").rows()
        assert all((later - before).days == 1 for (_, before), (later, _) in pairwise(spans))
        assert spans[-1][1] == date(2026, 6, 30)
