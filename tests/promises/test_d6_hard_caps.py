"""D6: a limit is whole fen on its step, 0 or at least the minimum, and never above a hard cap, whatever the points."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.batch import Engine
from scoring.limit import ASKED, HARD_CAPS, PD, PD_HI, sized
from scoring.policy import Policy
from scoring.score import PPB
from tests.promises.test_d1_same_bits import asked_of
from tests.promises.worlds import World, decided

SEED_ROWS = 3_000
FEN = [0, 1, 4_999_999, 5_000_000, 5_999_999, 7_000_001, 10**8, 300_000_000, 10**9, 2 * 10**9, 10**12, 10**14]


def assert_within_caps(terms: pl.DataFrame, limit_fen: pl.Series, policy: Policy) -> None:
    """The promise, from the terms that a limit is explained with."""
    step, least = policy.limit.step.value, policy.limit.minimum.value
    assert limit_fen.dtype == pl.Int64
    assert limit_fen.null_count() == 0
    assert (limit_fen % step == 0).all()
    assert ((limit_fen == 0) | (limit_fen >= least)).all()
    for cap in HARD_CAPS:
        above = terms.filter(limit_fen > terms[cap].fill_null(10**18))
        assert above.is_empty(), f"{cap}: {above.head(3).to_dicts()}"


def made_up_terms(policy: Policy, seed: int) -> pl.DataFrame:
    """Rows to size that no park would give: every amount tiny, huge or on an edge, every share of points."""
    rng = np.random.default_rng(seed)

    def fen(nulls: float = 0.0) -> pl.Series:
        wild = (10 ** (rng.random(SEED_ROWS) * 14)).astype(np.int64)
        values = np.where(rng.random(SEED_ROWS) < 0.5, rng.choice(np.array(FEN), SEED_ROWS), wild)
        return pl.Series(values).set(pl.Series(rng.random(SEED_ROWS) < nulls), None)

    pd = (10 ** rng.uniform(-9, 0, SEED_ROWS) * PPB).astype(np.int64).clip(1, PPB - 1)
    flags = {name: rng.random(SEED_ROWS) < 0.5 for name in ("srdi_live", "tech_live")}
    return pl.DataFrame(
        {
            PD: pd,
            PD_HI: np.minimum(pd * rng.integers(1, 4, SEED_ROWS), PPB - 1),
            ASKED: fen(0.5),
            "points_share_bp": pl.Series(rng.integers(0, 10_001, SEED_ROWS)),
            "existing_unsecured_fen": fen(0.5),
            "group_existing_unsecured_fen": fen(),
            "working_capital_need_fen": fen(0.5),
            "statements_doubted": rng.random(SEED_ROWS) < 0.1,
            "tax_paid_complete_24m_fen": fen(),
            "sales_less_top1_12m_fen": fen(),
            "weaker_half_12m_fen": fen(),
            "declared_sales_12m_fen": fen(),
            **flags,
            "age_months": rng.integers(0, 120, SEED_ROWS),
            "tax_filings_feed": rng.choice(["complete", "incomplete"], SEED_ROWS),
            "unfiled_months_24m": rng.choice([0, 0, 0, 3], SEED_ROWS),
            "tax_arrears_fen": rng.choice([0, 0, 0, 5], SEED_ROWS),
            "social_arrears_12m_fen": rng.choice([0, 0, 0, 5], SEED_ROWS),
            "live_listings": rng.choice([0, 0, 0, 1], SEED_ROWS),
            "overdue_days_now": rng.choice([0, 0, 0, 9], SEED_ROWS),
        }
    )


@pytest.mark.parametrize("name", ["plain_world", "thorny_world"])
def test_no_limit_of_a_park_is_above_a_hard_cap(park_engine: Engine, name: str, request: pytest.FixtureRequest) -> None:
    world: World = request.getfixturevalue(name)
    found = decided(park_engine, world, asked_of(world))
    terms = found["terms"].struct.unnest()
    policy = park_engine.rulebook.policy
    assert_within_caps(terms, found["limit_fen"], policy)
    assert (found["limit_fen"] <= terms["limit_fen"]).all()
    conditional = found["conditional_limit_fen"]
    assert (conditional % policy.limit.step.value == 0).all()
    asked = found.join(asked_of(world), on="uscc", maintain_order="left")
    assert (asked["conditional_limit_fen"] <= asked["asked_fen"]).all()
    assert (asked["limit_fen"] > 0).sum() > 10


def test_no_limit_of_a_real_firm_is_above_a_hard_cap(real_engine: Engine, real_world: World) -> None:
    found = decided(real_engine, real_world, asked_of(real_world))
    assert (found["limit_fen"] > 0).any()
    assert_within_caps(found["terms"].struct.unnest(), found["limit_fen"], real_engine.rulebook.policy)


@given(seed=st.integers(0, 2**32 - 1))
def test_no_amounts_at_all_lift_a_limit_above_a_hard_cap(park_engine: Engine, seed: int) -> None:
    policy = park_engine.rulebook.policy
    terms = sized(made_up_terms(policy, seed), policy)
    assert_within_caps(terms, terms["limit_fen"], policy)
    bound = terms.filter(pl.col("limit_fen") == pl.col("status_cap_fen"))
    assert bound.height > 0, "no row reached its cap, so the rows say nothing"


def test_points_lift_soft_terms_but_no_hard_cap(park_engine: Engine) -> None:
    policy = park_engine.rulebook.policy
    rows = made_up_terms(policy, 1)
    low, high = (sized(rows.with_columns(points_share_bp=pl.lit(share)), policy) for share in (0, 10_000))
    assert (high["soft_fen"] >= low["soft_fen"]).all()
    assert (high["soft_fen"] > low["soft_fen"]).any()
    assert all(high[cap].equals(low[cap]) for cap in HARD_CAPS)
    assert_within_caps(high, high["limit_fen"], policy)
