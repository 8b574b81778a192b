"""Shapes that bodies of the API share."""

import re
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from data_contracts.uscc import CodeState, code_state


class Closed(BaseModel):
    """A body that refuses members nobody reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _registered(code: str) -> str:
    if code_state(code) is CodeState.INVALID:
        raise ValueError("the check character of the code does not fit")
    return code


Code = Annotated[
    str,
    Field(pattern=r"^[0-9A-HJ-NPQRTUWXY]{18}$", description="统一社会信用代码 (GB 32100)"),
    AfterValidator(_registered),
]


def _written(day: object) -> object:
    """A day as text alone: a number would be taken for seconds or milliseconds since 1970, whichever fits."""
    if not isinstance(day, date) and not (isinstance(day, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", day, re.ASCII)):
        raise ValueError("a day is written YYYY-MM-DD")
    return day


Day = Annotated[date, BeforeValidator(_written, json_schema_input_type=date)]
Fen = Annotated[int, Field(strict=True, ge=0, le=10**15, description="whole fen (0.01 CNY)")]
Amount = Annotated[int, Field(strict=True, gt=0, le=10**15, description="whole fen (0.01 CNY), more than none")]
BasisPoints = Annotated[int, Field(strict=True, ge=0, le=10_000, description="basis points")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Note = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$",
        description="text, lines and all",
    ),
]
District = Annotated[str, Field(pattern=r"^[0-9]{6}$", description="district, GB/T 2260")]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Id = Annotated[str, Field(pattern=r"^[a-z]{2}_[0-9a-f]{32}$")]
