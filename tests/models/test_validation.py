from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from data_contracts.errors import ContractError, UsageError
from models.baselines import Comparison, fit_rival
from models.encoding import Input
from models.fitting import fit_pipeline
from models.metrics import auc
from models.splits import stratified_folds
from models.validation import certificate_of, develop, splits_for
from models.verdict import FEWEST_REPEATS, PHRASES, Verdict
from tests.models.trained import INPUTS, RULE, development, sample


def test_the_model_and_every_rival_are_judged_by_the_same_metrics() -> None:
    model, rule = development().figures
    assert (model.name, rule.name) == ("model", "rule")
    assert list(model.metrics) == list(rule.metrics) == ["auc", "gini", "log_loss", "ks", "pr_auc", "brier", "ece"]
    for spread in model.metrics.values():
        assert spread.mean == pytest.approx(np.mean(spread.values))
        assert spread.sd == pytest.approx(np.std(spread.values, ddof=1))
        assert len(spread.values) == 2


def test_gini_and_its_interval_follow_from_the_auc() -> None:
    found = development()
    area, twice = found.intervals["auc"], found.intervals["gini"]
    assert (twice.value, twice.low, twice.high) == (2 * area.value - 1, 2 * area.low - 1, 2 * area.high - 1)
    for figures in found.figures:
        pairs = zip(figures.metrics["auc"].values, figures.metrics["gini"].values, strict=True)
        assert all(gini == 2 * auc_ - 1 for auc_, gini in pairs)


def test_the_lead_over_a_rival_is_the_difference_of_mean_log_losses() -> None:
    model, rule = development().figures
    assert rule.lead is not None
    assert rule.lead.value == pytest.approx(rule.metrics["log_loss"].mean - model.metrics["log_loss"].mean)
    assert rule.lead.low < rule.lead.value < rule.lead.high
    pairs = zip(model.metrics["log_loss"].values, rule.metrics["log_loss"].values, strict=True)
    assert rule.wins == sum(own < other for own, other in pairs)


def test_every_row_has_log_odds_from_a_fit_that_had_not_seen_it() -> None:
    table, defaulted = sample()
    found = develop(table, defaulted, INPUTS, comparisons={}, seed=3, repeats=1, folds=3, bag=0)
    fold_of = stratified_folds(defaulted, 3, 3)
    for fold in range(3):
        out = fold_of == fold
        unseen = fit_pipeline(table.filter(~out), defaulted[~out], INPUTS, seed=3 + 1_000 * (fold + 1))
        assert np.array_equal(found.oof_log_odds[out], unseen.log_odds(table.filter(out)))


def test_a_rival_that_learns_by_heart_gains_nothing_by_it() -> None:
    table, _ = sample(300)
    noise = np.random.default_rng(5).random(table.height) < 0.4
    rival = Comparison("lightgbm", "by heart", "死记", (Input("sales_fen"), Input("late_days")))
    by_heart = develop(table, noise, INPUTS, comparisons={"rival": rival}, seed=0, repeats=1, folds=3, bag=0).figures[1]
    assert 0.35 < by_heart.metrics["auc"].mean < 0.65
    assert auc(noise, fit_rival(rival, table, noise, seed=0)(table)) > 0.8


def test_the_same_seed_gives_the_same_development_and_another_seed_another() -> None:
    table, defaulted = sample()
    again = develop(table, defaulted, INPUTS, comparisons={"rule": RULE}, seed=0, repeats=2, folds=2, bag=3)
    assert np.array_equal(again.oof_log_odds, development().oof_log_odds)
    assert (again.sentence, again.figures) == (development().sentence, development().figures)
    assert [one.booster_texts for one in again.bag] == [one.booster_texts for one in development().bag]
    other = develop(table, defaulted, INPUTS, comparisons={}, seed=1, repeats=1, folds=2, bag=0)
    assert not np.array_equal(other.oof_log_odds, development().oof_log_odds)


def test_the_sentence_holds_the_words_of_its_verdict_and_names_the_rule() -> None:
    for sentence, place, words in (
        (development().sentence, 0, RULE.words),
        (development().sentence_zh, 1, RULE.words_zh),
    ):
        assert PHRASES[development().verdict][place] in sentence
        assert words in sentence


def test_a_model_of_noise_is_not_said_to_beat_the_rule() -> None:
    table, defaulted = sample()
    noise = Input("firm", -1)
    found = develop(table, defaulted, [noise], comparisons={"rule": RULE}, seed=0, repeats=2, folds=3, bag=0)
    assert found.verdict is Verdict.DOES_NOT_BEAT
    assert "does not beat log of sales alone" in found.sentence
    assert "The lowest log loss has log of sales alone" in found.sentence


def test_a_model_with_all_the_signal_is_said_to_beat_a_rule_of_noise() -> None:
    table, defaulted = sample()
    rule = replace(RULE, inputs=(Input("firm"),), words="firm number alone")
    found = develop(table, defaulted, INPUTS, comparisons={"rule": rule}, seed=0, repeats=5, folds=3, bag=0)
    assert found.verdict is Verdict.BEATS
    assert "It beats firm number alone" in found.sentence
    assert "needs 5 repeats" not in found.sentence


def test_of_too_few_repeats_one_cannot_tell_and_the_sentence_says_why() -> None:
    table, defaulted = sample()
    rule = replace(RULE, inputs=(Input("firm"),), words="firm number alone")
    found = develop(table, defaulted, INPUTS, comparisons={"rule": rule}, seed=0, repeats=2, folds=3, bag=0)
    assert found.verdict is Verdict.CANNOT_TELL
    assert "One cannot tell whether it beats firm number alone" in found.sentence
    assert "needs 5 repeats" in found.sentence
    assert "至少需5次重复" in found.sentence_zh


@pytest.mark.parametrize(("defaults", "warned"), [(29, True), (30, False)])
def test_few_defaults_are_warned_of_in_the_sentence(defaults: int, *, warned: bool) -> None:
    table, _ = sample()
    defaulted = np.arange(table.height) < defaults
    found = develop(table, defaulted, INPUTS, comparisons={}, seed=0, repeats=1, folds=2, bag=0)
    assert ("fewer than 30 defaults" in found.sentence) is warned
    assert ("违约少于30笔" in found.sentence_zh) is warned


def test_without_a_rule_the_sentence_says_so() -> None:
    table, defaulted = sample()
    rival = Comparison("unsigned", "no signs", "无符号")
    found = develop(table, defaulted, INPUTS, comparisons={"free": rival}, seed=0, repeats=1, folds=2, bag=0)
    assert found.verdict is Verdict.NOT_COMPARED
    assert "not compared" in found.sentence


def test_bag_members_differ_share_the_encoder_and_are_certified() -> None:
    found = development()
    table, _ = sample()
    answers = [member.log_odds(table) for member in found.bag]
    assert len(found.bag) == 3
    assert not np.array_equal(answers[0], answers[1])
    assert all(member.encoder == found.pipeline.encoder for member in found.bag)
    assert found.certificate.holds
    assert found.certificate == certificate_of([found.pipeline, *found.bag])


def test_a_bad_bag_member_breaks_the_certificate_and_is_named() -> None:
    found = development()
    bad = replace(found.bag[1], weight=1.5)
    certificate = certificate_of([found.pipeline, found.bag[0], bad])
    assert not certificate.holds
    assert [violation.part for violation in certificate.violations] == ["bag member 2: blend"]


def test_progress_counts_every_step_once() -> None:
    table, defaulted = sample()
    told: list[tuple[str, int, int]] = []
    develop(
        table,
        defaulted,
        INPUTS,
        comparisons={"rule": RULE},
        seed=0,
        repeats=1,
        folds=2,
        bag=2,
        on_progress=lambda what, done, total: told.append((what, done, total)),
    )
    assert [done for _, done, _ in told] == list(range(7))
    assert {total for *_, total in told} == {7}


def test_a_comparison_on_other_rows_is_refused_with_every_reason() -> None:
    table, defaulted = sample()
    short = replace(RULE, table=table.head(3))
    with pytest.raises(UsageError) as refused:
        develop(table, defaulted, INPUTS, comparisons={"a": short, "b": replace(RULE, inputs=())}, seed=0)
    assert len(refused.value.problems) == 2


def test_one_default_is_too_few() -> None:
    table = pl.DataFrame({"sales_fen": [1, 2, 3], "late_days": [1, 2, 3]})
    with pytest.raises(ContractError, match="two defaults"):
        develop(table, np.array([True, False, False]), INPUTS, comparisons={}, seed=0)


@pytest.mark.parametrize("rows", [123, 1_000, 5_000, 20_000])
def test_every_sample_is_split_often_enough_for_a_verdict(rows: int) -> None:
    repeats, folds = splits_for(rows)
    assert repeats >= FEWEST_REPEATS
    assert folds >= 3
