"""The break-even reference rate. It is a reference, not an offer: the bank prices by itself."""

import polars as pl

from scoring.policy import BP, Price
from scoring.score import PPB


def break_even_bp(pd_ppb: pl.Expr, price: Price) -> pl.Expr:
    """r_min, the yearly rate in whole basis points, rounded up, at which a loan pays for itself.

        r_min = ceil_bp( (u·f + c + pd·LGD·(1 - cover)·e + h·K·e) / ((1 - pd)·u) )

    with f funding, c operating cost, cover the share of the loss that a risk fund bears, h the hurdle over f,
    K = risk weight × capital ratio, u utilisation and e exposure share. Computed in integers: no float decides.

    Args:
        pd_ppb: PD in parts per billion, Int64 in 1 to 10^9 - 1.
        price: the policy's settings, in bp.

    Returns:
        Int64; it rises with PD, LGD and funding.
    """
    u, e = price.utilisation.value, price.exposure.value
    loss = price.lgd.value * (BP - price.cover.value) * e
    capital = price.hurdle.value * price.risk_weight.value * price.capital_ratio.value * e
    # Everything is multiplied by 10^21, which clears every denominator: pd 10^9, LGD, cover and e 10^4 each.
    fixed = u * price.funding.value * 10**17 + price.operating.value * 10**21 + capital * 10**9
    pd = pd_ppb.cast(pl.Int128)
    needed = pl.lit(fixed, pl.Int128) + pd * pl.lit(loss * BP, pl.Int128)
    earned = (PPB - pd) * pl.lit(u * 10**8, pl.Int128)
    most = pl.lit(10**9, pl.Int128)
    return pl.min_horizontal((needed + earned - 1) // earned, most).cast(pl.Int64)


def rate_bp(pd_ppb: pl.Expr, price: Price) -> pl.Expr:
    """The reference rate where no demand curve is given: r_min, but not below the product's least rate."""
    return pl.max_horizontal(break_even_bp(pd_ppb, price), pl.lit(price.least_rate.value, pl.Int64))


def affordable(pd_ppb: pl.Expr, price: Price) -> pl.Expr:
    """Is the break-even rate within the product's most rate?"""
    return break_even_bp(pd_ppb, price) <= price.most_rate.value
