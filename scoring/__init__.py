"""How a decision is made: pure functions over polars columns, with the numbers of policy kept as dated data."""
