import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize

from data_contracts.errors import UsageError
from models.baselines import Comparison, Kind, fit_rival
from models.encoding import Input
from models.metrics import auc
from tests.models.trained import RULE, sample


def test_the_one_variable_rule_is_the_penalised_likelihood_optimum() -> None:
    table, defaulted = sample()
    z = np.log1p(table["sales_fen"].to_numpy().astype(np.float64))
    z = (z - z.mean()) / z.std()

    def loss(beta: np.ndarray) -> float:
        log_odds = beta[0] + beta[1] * z
        return float(np.logaddexp(0, np.where(defaulted, -log_odds, log_odds)).sum() + beta[1] ** 2 / 2)

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert fit_rival(RULE, table, defaulted, seed=0)(table) == pytest.approx(best[0] + best[1] * z, abs=1e-4)


@pytest.mark.parametrize("kind", ["ridge", "lightgbm"])
def test_a_rival_ranks_rows_it_has_not_seen_with_values_missing(kind: Kind) -> None:
    table, defaulted = sample(400)
    unseen, outcome = sample(400, seed=1)
    rival = Comparison(kind, "rival", "对手", (Input("sales_fen", 0, "log"), Input("late_days")))
    log_odds = fit_rival(rival, table, defaulted, seed=0)(unseen)
    assert auc(outcome, log_odds) > 0.65
    assert np.array_equal(log_odds, fit_rival(rival, table, defaulted, seed=0)(unseen))


def test_a_column_never_seen_in_training_has_no_effect() -> None:
    table, defaulted = sample()
    gone = table.with_columns(late_days=pl.lit(None, pl.Int64))
    rival = Comparison("ridge", "rival", "对手", (Input("late_days"),))
    assert len(set(fit_rival(rival, gone, defaulted, seed=0)(table).round(12))) == 1


@pytest.mark.parametrize("inputs", [(), (Input("sales_fen"), Input("late_days"))])
def test_a_one_variable_rule_has_one_variable(inputs: tuple[Input, ...]) -> None:
    table, defaulted = sample()
    with pytest.raises(UsageError, match="inputs"):
        fit_rival(Comparison("one_variable", "rule", "规则", inputs), table, defaulted, seed=0)
