"""D10: the break-even rate is the formula rounded up, and it rises with PD, LGD and funding."""

import itertools
import math
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rulebooks import rulebook
from scoring.policy import BP, Price
from scoring.price import break_even_bp, rate_bp
from scoring.score import PPB

MOST_BP = 10**9
GRID_PD = [1, 2, 49_999_999, 50_000_000, 123_456_789, 500_000_000, 999_999_998, 999_999_999]
GRID = {
    "funding": [0, 1, 200, 10_000],
    "lgd": [0, 1, 4_500, 7_500, 10_000],
    "cover": [0, 3_333, 7_000, 10_000],
    "utilisation": [1, 3_333, 10_000],
    "exposure": [3_000, 10_000],
}
bp = st.integers(0, BP)
prices = st.fixed_dictionaries(
    {
        "funding": bp, "operating": bp, "lgd": bp, "cover": bp, "hurdle": bp,
        "risk_weight": st.integers(0, 15_000), "capital_ratio": bp,
        "utilisation": st.integers(1, BP), "exposure": bp,
    }
)  # fmt: skip
ppb = st.integers(1, PPB - 1) | st.sampled_from(GRID_PD)


@pytest.fixture(scope="module")
def shipped() -> Price:
    """The price settings of the park's policy."""
    return rulebook("torch-points").policy.price


def priced(price: Price, **changes: int) -> Price:
    """The settings with some numbers changed, whatever a policy file may hold."""
    settings = {name: getattr(price, name).model_copy(update={"value": value}) for name, value in changes.items()}
    return price.model_copy(update=settings)


def of(pd_ppb: int, price: Price) -> int:
    """The rate of one loan."""
    return pl.DataFrame({"pd": [pd_ppb]}).select(break_even_bp(pl.col("pd"), price)).item()


def brute_force(pd_ppb: int, price: Price) -> int:
    """The formula of the docstring in exact fractions, in basis points, rounded up."""

    def share(name: str) -> Fraction:
        return Fraction(getattr(price, name).value, BP)

    pd, u, e = Fraction(pd_ppb, PPB), share("utilisation"), share("exposure")
    loss = pd * share("lgd") * (1 - share("cover")) * e
    capital = share("hurdle") * share("risk_weight") * share("capital_ratio") * e
    rate = (u * share("funding") + share("operating") + loss + capital) / ((1 - pd) * u)
    return min(math.ceil(rate * BP), MOST_BP)


def test_the_rate_equals_the_formula_on_a_grid(shipped: Price) -> None:
    frame = pl.DataFrame({"pd": GRID_PD})
    for values in itertools.product(*GRID.values()):
        price = priced(shipped, **dict(zip(GRID, values, strict=True)))
        found = frame.select(break_even_bp(pl.col("pd"), price)).to_series().to_list()
        assert found == [brute_force(pd, price) for pd in GRID_PD], dict(zip(GRID, values, strict=True))


@given(pd=ppb, numbers=prices)
def test_the_rate_equals_the_formula(shipped: Price, pd: int, numbers: dict[str, int]) -> None:
    price = priced(shipped, **numbers)
    assert of(pd, price) == brute_force(pd, price)


@given(pds=st.lists(ppb, min_size=2, max_size=50), numbers=prices)
def test_the_rate_never_falls_with_pd(shipped: Price, pds: list[int], numbers: dict[str, int]) -> None:
    rates = pl.DataFrame({"pd": sorted(pds)}).select(r=break_even_bp(pl.col("pd"), priced(shipped, **numbers)))["r"]
    assert rates.is_sorted()


@pytest.mark.parametrize("name", ["lgd", "funding", "operating", "hurdle"])
@given(pd=ppb, numbers=prices, other=bp)
def test_the_rate_never_falls_with_a_cost(
    shipped: Price, name: str, pd: int, numbers: dict[str, int], other: int
) -> None:
    low, high = sorted([numbers[name], other])
    lower, higher = (of(pd, priced(shipped, **{**numbers, name: value})) for value in (low, high))
    assert lower <= higher


@pytest.mark.parametrize("name", ["pd", "lgd", "funding"])
def test_the_rate_rises_strictly_where_a_step_is_worth_a_basis_point(shipped: Price, name: str) -> None:
    if name == "pd":
        assert of(10_000_000, shipped) < of(40_000_000, shipped) < of(80_000_000, shipped)
    else:
        value = getattr(shipped, name).value
        assert of(50_000_000, priced(shipped, **{name: value - 100})) < of(50_000_000, shipped)


def test_the_reference_rate_is_never_below_break_even_or_the_least_rate(shipped: Price) -> None:
    frame = pl.DataFrame({"pd": GRID_PD})
    price = priced(shipped, least_rate=400)
    rows = frame.select(rate=rate_bp(pl.col("pd"), price), least=break_even_bp(pl.col("pd"), price))
    assert (rows["rate"] >= rows["least"]).all()
    assert (rows["rate"] >= 400).all()
