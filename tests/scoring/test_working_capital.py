from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from scoring.conduct import working_capital_need

CASES: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "cases" / "working_capital.yaml").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_the_regulators_formula_gives_the_sheets_figures_as_recomputed(case: dict[str, Any]) -> None:
    found = working_capital_need(**case["inputs"])
    assert list(found) == case["fen"]
    in_wan = [(Decimal(fen) / 1_000_000).quantize(Decimal("0.01"), ROUND_HALF_UP) for fen in found]
    assert [str(amount) for amount in in_wan] == case["sheet"]


@pytest.mark.parametrize("name", ["revenue_fen", "cogs_fen"])
@pytest.mark.parametrize("amount", [0, -1])
def test_without_sales_or_cost_there_is_no_need_to_speak_of(name: str, amount: int) -> None:
    with pytest.raises(ValueError, match="positive revenue and cost"):
        working_capital_need(**(CASES[0]["inputs"] | {name: amount}))
