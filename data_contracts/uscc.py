"""统一社会信用代码, the unified social credit code (GB 32100-2015), and the organisation code in it (GB 11714-1997).

Eighteen characters: registrar (1), category (1), district (6 digits), organisation code (8 + its own check
character), check character. The early pilot in Fujian issued codes whose last character follows no published
rule (characters 9 to 12 are `M000`); they are lawful registrations, so they pass with a warning.
"""

from enum import Enum

import numpy as np
import polars as pl

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of a code; the value of a character is its place. I, O, S, V and Z are not used."""

_VALUE = {character: value for value, character in enumerate(ALPHABET)}
_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
_ORGANISATION_VALUE = {character: value for value, character in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
_ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
_LENGTH = 18


class CodeState(Enum):
    """What checking a code found."""

    VALID = "valid"
    LEGACY = "legacy"
    """The last character fails, but the code has the form of the Fujian pilot: lawful, ask the registry."""
    INVALID = "invalid"


def check_character(first17: str) -> str:
    """The 18th character for the first 17: `(31 - Σ value·3^(i-1) mod 31) mod 31` as a character.

    Raises:
        KeyError: a character outside `ALPHABET`.
    """
    total = sum(_VALUE[character] * weight for character, weight in zip(first17, _WEIGHTS, strict=True))
    return ALPHABET[(31 - total % 31) % 31]


def organisation_check_character(first8: str) -> str:
    """The 9th character of an organisation code for its first 8: `11 - Σ value·weight mod 11`, 10 is X, 11 is 0."""
    total = sum(
        _ORGANISATION_VALUE[character] * weight for character, weight in zip(first8, _ORGANISATION_WEIGHTS, strict=True)
    )
    return "0123456789X0"[11 - total % 11]


def code_state(code: str) -> CodeState:
    """Check one code. Surrounding blanks, lower case and full-width characters are not repaired: they are invalid."""
    if len(code) != _LENGTH or not set(code) <= set(ALPHABET) or not (code[2:8].isascii() and code[2:8].isdigit()):
        return CodeState.INVALID
    if check_character(code[:17]) == code[17]:
        return CodeState.VALID
    organisation_fits = organisation_check_character(code[8:16]) == code[16]
    return CodeState.LEGACY if code[8:12] == "M000" and organisation_fits else CodeState.INVALID


def made_up_code(number: int, district: str = "350211") -> str:
    """A valid code for a made-up enterprise: category 91, `district`, and an organisation code drawn from `number`.

    Args:
        number: 0 to 99,999,999; different numbers give different codes.
        district: six digits of GB/T 2260.
    """
    organisation = f"{number:08d}"
    body = f"91{district}{organisation}{organisation_check_character(organisation)}"
    return body + check_character(body)


def states(codes: pl.Series) -> pl.Series:
    """`CodeState` values, one per code, null where the code is null. Each distinct code is checked once."""
    distinct = codes.drop_nulls().unique()
    found = [code_state(code).value for code in distinct]
    return codes.replace_strict(distinct, pl.Series(found, dtype=pl.String), default=None, return_dtype=pl.String)


SHAPE = "^[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}$"
"""What looks like a unified social credit code; a resident's identity number may look like one."""
_PLACES = np.zeros(128, dtype=np.int64)
_PLACES[[ord(character) for character in ALPHABET]] = range(len(ALPHABET))
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _is_resident_number(number: str) -> bool:
    """Is it a 公民身份号码 (GB 11643-1999), by its check character? A natural person may be a buyer or a lender."""
    if not number[:17].isdigit():
        return False
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _RESIDENT_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17]


def mistyped(ids: pl.Series) -> pl.Series:
    """Of distinct ids of parties those that look like a credit code and are none, nor a resident's number."""
    shaped = ids.drop_nulls().filter(ids.drop_nulls().str.contains(SHAPE))
    if shaped.is_empty():
        return shaped
    # At once: a park has ten times as many buyers as enterprises.
    letters = np.frombuffer("".join(shaped).encode(), dtype=np.uint8).reshape(-1, _LENGTH)
    values = _PLACES[letters]
    wanted = (31 - values[:, :17] @ np.array(_WEIGHTS) % 31) % 31
    doubtful = shaped.filter(pl.Series(wanted != values[:, 17]))
    bad = [code_state(one) is CodeState.INVALID and not _is_resident_number(one) for one in doubtful]
    return doubtful.filter(pl.Series(bad, dtype=pl.Boolean))
