"""One number of a policy: in its unit, within its bounds, with source and reason."""

from typing import Annotated, Literal

from pydantic import Field

from scoring.strict_yaml import Record

MOST_FEN = 10**14
MOST_DAYS = 366
"""A quote that is to hold for longer than a year is a slip of the pen."""

Text = Annotated[str, Field(min_length=1, max_length=1_000)]


class Setting(Record):
    """One number of policy: what it is, in which unit, where it comes from and why; its bounds are in `measured`."""

    value: int
    unit: Literal["fen", "bp", "days"]
    source: Text
    why: Text


def measured(whole: Record, unit: str, most: int, *names: str, least: int = 0) -> list[str]:
    """What is wrong with settings that must be in a unit and within bounds; a number in another unit has none."""
    problems: list[str] = []
    for name in names:
        setting: Setting = getattr(whole, name)
        if setting.unit != unit:
            problems.append(f"{name} is not in {unit}")
        elif setting.value > most:
            problems.append(f"{name} is above {most} {unit}")
        elif setting.value < least:
            problems.append(f"{name} is below {least} {unit}")
    return problems
