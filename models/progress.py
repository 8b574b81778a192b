"""The terminal while long work runs: where tables go, a spinner for one step, bars for training."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

WIDTH_WITHOUT_TERMINAL = 120


def console(*, errors: bool = False) -> Console:
    """Where tables go: as wide as the terminal, or as `COLUMNS` says, or 120 columns in a file."""
    found = Console(stderr=errors, highlight=False)
    if found.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return found
    return Console(stderr=errors, highlight=False, width=WIDTH_WITHOUT_TERMINAL)


@contextmanager
def working(what: str) -> Generator[Callable[[str], None]]:
    """A spinner on the error stream while a step runs; what it is told is shown beside it."""
    errors = console(errors=True)
    with errors.status(what) as status:

        def told(now: str) -> None:
            status.update(f"{what}: {now}")

        yield told


@contextmanager
def steps() -> Generator[tuple[Callable[[int, int], None], Callable[[str, int, int], None]]]:
    """Two progress bars on the error stream: days of features, and steps of development."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(errors=True),
    ) as progress:
        days = progress.add_task("features as of each day", total=None)
        work = progress.add_task("development", total=None, visible=False)

        def on_days(done: int, whole: int) -> None:
            progress.update(days, completed=done, total=whole)

        def on_progress(what: str, done: int, whole: int) -> None:
            progress.update(work, completed=done, total=whole, description=what, visible=True)

        yield on_days, on_progress
        for task in progress.tasks:
            progress.update(task.id, completed=task.total)
