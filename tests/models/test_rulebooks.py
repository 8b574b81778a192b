"""A zone brings its own policy and its own scale of points by two files beside each other."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.cells import cell_len
from rich.console import Console

from data_contracts.errors import PolicyError, UsageError
from models.rulebooks import policy_text, rulebook
from models.views import policy_view
from scoring.policy import Policy
from scoring.strict_yaml import Record
from tests.ground import done, ground, run


def shipped(folder: str, name: str) -> str:
    return files("scoring").joinpath(folder, name).read_text(encoding="utf-8")


@pytest.fixture
def zone(tmp_path: Path) -> Path:
    """海沧, say: it lends on points from 20 % of its own scale on and stops at 2 million."""
    ruleset = shipped("rulesets", "jifen-default.2026-11-01.yaml").replace(
        "version: jifen-default.2026-11-01", "version: haicang.2026-12-01"
    )
    policy = shipped("policies", "torch-points.2026-11-01.yaml")
    for old, new in (
        ("name: torch-points", "name: haicang"),
        ("version: 2026-11-01", "version: 2026-12-01"),
        ("ruleset: jifen-default.2026-11-01", "ruleset: haicang.2026-12-01"),
        ("ordinary_cap: {value: 300000000,", "ordinary_cap: {value: 200000000,"),
        (
            "{points_share_at_least_bp: 3000, amount_fen: 20000000}",
            "{points_share_at_least_bp: 2000, amount_fen: 25000000}",
        ),
    ):
        assert policy.count(old) == 1, old
        policy = policy.replace(old, new)
    (tmp_path / "haicang.2026-12-01.yaml").write_text(ruleset, encoding="utf-8")
    path = tmp_path / "policy.yaml"
    path.write_text(policy, encoding="utf-8")
    return path


def test_a_zone_scores_with_its_own_policy_and_scale(zone: Path, tmp_path: Path) -> None:
    assert "nothing is wrong" in done(ground().home, "policy", "check", zone)
    out = tmp_path / "limits.parquet"
    done(ground().home, "score", ground().park, "--out", out, "--policy", zone)
    own = pl.read_parquet(out)
    assert own["policy_version"].str.starts_with("haicang@2026-12-01#").all()
    at_the_cap = own.filter(pl.col("binding") == "BOUND_STATUS_CAP", outcome="eligible")["limit_fen"]
    assert set(at_the_cap) >= {200_000_000}
    assert 300_000_000 not in set(at_the_cap)
    assert (own["limit_fen"] == 25_000_000).any()
    decision = own.filter(pl.col("limit_fen") > 0)["decision_id"][0]
    zone.unlink()
    (zone.parent / "haicang.2026-12-01.yaml").unlink()
    done(ground().home, "replay", decision, "--from", out)


def test_the_zones_own_scale_is_part_of_the_version(zone: Path) -> None:
    before = rulebook(str(zone)).version
    scale = zone.parent / "haicang.2026-12-01.yaml"
    scale.write_text(
        scale.read_text(encoding="utf-8").replace("steps: [[1_000_000_000, 100]", "steps: [[900_000_000, 100]"),
        encoding="utf-8",
    )
    assert rulebook(str(zone)).version != before


def test_a_scale_that_is_nowhere_is_asked_for(zone: Path) -> None:
    (zone.parent / "haicang.2026-12-01.yaml").unlink()
    ended = run(ground().home, "policy", "check", zone)
    assert ended.exit_code == 3
    assert "put it beside the policy as haicang.2026-12-01.yaml" in " ".join(ended.stderr.split())


def test_a_scale_that_is_wrong_is_refused_with_everything(zone: Path) -> None:
    scale = zone.parent / "haicang.2026-12-01.yaml"
    scale.write_text(scale.read_text(encoding="utf-8") + "\nsurprise: 1\nscale: 90\n", encoding="utf-8")
    with pytest.raises(PolicyError) as refused:
        rulebook(str(zone))
    said = " ".join(refused.value.problems)
    assert "surprise" in said
    assert "repeated" in said


def test_a_shipped_policy_is_found_by_name_with_and_without_its_day() -> None:
    assert policy_text("torch-points") == policy_text("torch-points.2026-11-01")
    with pytest.raises(UsageError, match="no policy file") as refused:
        policy_text("torch-points.1999-01-01")
    for name in ("torch-points.2026-11-01", "cumcm2020c.2026-11-01"):
        assert name in str(refused.value.problems)
    with pytest.raises(UsageError, match="no policy file"):
        policy_text("torch")


def test_nothing_that_decides_under_a_policy_is_left_out_of_its_page() -> None:
    whole = rulebook("torch-points").policy
    policy = whole.model_copy(update={"rules": (whole.rules[0], next(rule for rule in whole.rules if rule.condition))})
    before = page_of(policy)
    places = list(leaves(policy))
    assert len(places) > 100
    silent = {".".join(map(str, place)) for place in places if page_of(changed(policy, place)) == before}
    words = {one for one in silent if ".failed." in one or ".unknown." in one or ".words." in one}
    assert silent - words == {"name", "version"}, "these two are in the version that the page is handed"


def page_of(policy: Policy) -> str:
    page = Console(width=1_000, highlight=False)
    with page.capture() as wide:
        page.print(policy_view(policy, "a version"))
    return wide.get()


def leaves(node: object) -> Iterator[tuple[str | int, ...]]:
    """Where the single values of a policy stand."""
    if isinstance(node, Record):
        parts = [(name, getattr(node, name)) for name in type(node).model_fields]
    elif isinstance(node, tuple):
        parts = list(enumerate(node))
    else:
        yield ()
        return
    for name, inside in parts:
        yield from ((name, *place) for place in leaves(inside))


def changed(node: Any, place: Sequence[str | int]) -> Any:
    """The same with one value changed, whether a policy may hold it or not."""
    if not place:
        if isinstance(node, bool):
            return not node
        if isinstance(node, date):
            return node + timedelta(days=1)
        return f"{node or ''}anew" if isinstance(node, str | None) else node + 1
    name, *inner = place
    if isinstance(node, tuple):
        return tuple(changed(part, inner) if number == name else part for number, part in enumerate(node))
    return node.model_copy(update={name: changed(getattr(node, str(name)), inner)})


def test_every_number_of_a_shipped_policy_is_shown_with_its_source() -> None:
    said = done(ground().home, "policy", "show", "torch-points")
    assert max(cell_len(line.rstrip()) for line in said.splitlines()) <= 100
    book = rulebook("torch-points")
    page = Console(width=1_000, highlight=False)
    with page.capture() as wide:
        page.print(policy_view(book.policy, book.version))
    for words in ("jifen default", "厦工信企业〔2019〕236号", "NO_OVERDUE", "CAP_SRDI", "ROUND_TRADE", "nobody yet"):
        assert words in wide.get(), words
