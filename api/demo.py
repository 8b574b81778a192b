"""`jifen demo`: the whole job from made-up facts to explained limits, end to end, with the real engine."""

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.rule import Rule

from data_contracts.errors import UsageError
from models import progress, views
from models.development import train
from models.explanation import KNOWN_FIGURES, REFERENCE_ONLY, explanation
from models.park import write_park
from models.registry import promote
from models.replay import replay
from models.scoring_run import explain_one, names_of, score_folder
from models.sources.folder import read_folder, write_quarantine

POLICY = "torch-points"
DIRTY_SHARE = 0.00002
MARK = ".jifen-demo"
"""Lies in a folder that a demonstration made and may empty again."""


def run_demo(folder: Path, enterprises: int, seed: int) -> None:
    """Make a park under `folder`, check it, train, promote, score, explain one firm and replay it.

    What an earlier demonstration left in the folder is removed first.

    Raises:
        UsageError: the folder holds something that no demonstration made.
    """
    started = time.monotonic()
    _prepare(folder)
    console = progress.console()
    park, home, out = folder / "park", folder / "home", folder / "limits.parquet"
    console.print(
        Rule(f"1/6 虚构园区 made-up park: {enterprises:,} enterprises (a software test, not real firms)", align="left")
    )
    with progress.working("making firms, invoices, filings, loans"):
        written = write_park(park, enterprises, seed, dirty_share=DIRTY_SHARE)
    console.print(
        f"{sum(written.values()):,} rows in {len(written)} source files, {written['invoices']:,} of them invoices"
    )

    console.print(Rule("2/6 检查 check: bad rows to quarantine", align="left"))
    with progress.working("checking") as told:
        found = read_folder(park, on_progress=told)
        write_quarantine(park, found)
    console.print(views.check_table(found, rules=2))

    console.print(Rule("3/6 训练 train: a challenger, judged beside plain rivals", align="left"))
    with progress.steps() as (on_days, on_progress):
        trained = train(
            found.sources, home, at=datetime.now(UTC), seed=seed, repeats=2, on_days=on_days, on_progress=on_progress
        )
    console.print(views.development_view(trained))

    console.print(Rule("4/6 上线 promote: the minutes quote what the training said", align="left"))
    minutes = f"demonstration: {trained.development.sentence}"
    console.print(f"champion {promote(home, trained.version, minutes, at=datetime.now(UTC)).version}")

    console.print(Rule("5/6 测额 limits", align="left"))
    with progress.working("scoring") as told:
        limits = score_folder(park, out, home, csv=folder / "limits.csv", policy=POLICY, on_progress=told)
    names = names_of(found, limits["as_of"][0])
    for table in (views.limits_table(limits, names), views.summary_table(limits), views.why_zero_table(limits)):
        console.print(table)
    console.print("\n".join((*KNOWN_FIGURES, *REFERENCE_ONLY)))

    console.print(Rule("6/6 解释与复算 explain and replay one decision", align="left"))
    one = limits.sort("limit_fen", "uscc", descending=[True, False]).row(limits.height // 20, named=True)
    with progress.working("scoring") as told:
        explained = explain_one(park, one["uscc"], home, policy=POLICY, on_progress=told)
    console.print(explanation(*explained))
    same = replay(one["decision_id"], out, home)
    console.print(f"replayed {same.decision_id}: same bytes, sha256 {same.sha256}")
    console.print(f"done in {time.monotonic() - started:.0f} s; everything is under {folder}")


def _prepare(folder: Path) -> None:
    """An empty folder with the mark of a demonstration; only what a demonstration made is removed."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UsageError(f"{folder} holds something that no demonstration made; name a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    for old in ("park", "home"):
        shutil.rmtree(folder / old, ignore_errors=True)
