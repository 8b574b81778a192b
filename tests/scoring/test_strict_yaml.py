from datetime import date

import pytest

from data_contracts.errors import PolicyError
from scoring.strict_yaml import Record, record


class Inner(Record):
    bp: int


class Shape(Record):
    name: str
    count: int = 0
    share: float | None = None
    on: bool | None = None
    day: date | None = None
    many: tuple[Inner, ...] = ()


def problems_of(text: str) -> str:
    with pytest.raises(PolicyError) as refused:
        record(text, Shape, "thing")
    return str(refused.value)


def test_plain_values_have_the_types_they_look_like() -> None:
    text = "name: '5'\ncount: 1_500\nshare: 0.25\non: true\nday: 2026-11-01\nmany: [{bp: -3}, {bp: 0}]"
    found = record(text, Shape, "thing")
    assert found == Shape(
        name="5", count=1500, share=0.25, on=True, day=date(2026, 11, 1), many=(Inner(bp=-3), Inner(bp=0))
    )


@pytest.mark.parametrize("word", ["no", "off", "yes", "010", "12:30", "0x1F", "1e3", "=", "<<"])
def test_a_word_that_yaml_turns_into_something_else_stays_a_word(word: str) -> None:
    assert record(f"name: {word}", Shape, "thing").name == word


def test_a_repeated_key_is_refused_wherever_it_stands() -> None:
    said = problems_of("name: a\nname: b\nmany:\n  - {bp: 1, bp: 2}\n")
    assert "name: line 2: the key is repeated" in said
    assert "many.0.bp: line 4: the key is repeated" in said


def test_every_problem_is_named_at_once() -> None:
    said = problems_of("count: '3'\ncolour: red\nmany: [{bp: x}, {}]\nday: 2026-02-30")
    for problem in ("name: Field required", "count:", "colour:", "many.0.bp:", "many.1.bp:", "no day of the calendar"):
        assert problem in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "- 1",
        "a\x00b",
        "name: [",
        "name: &a x\nname2: *a",
        "name: !!python/object:os.system x",
        "name: !!str 5",
        "? [1]\n: 2",
        "--- {name: a}\n--- {name: b}",
        "[" * 200,
        "name: " + "[" * 31 + "]" * 31,
        "count: " + "9" * 5_000 + "\nname: a",
        "name: " + "x" * 1_000_001,
        "\t- broken: [",
    ],
    ids=lambda text: text[:20],
)
def test_text_that_is_no_plain_document_is_refused_without_a_traceback(text: str) -> None:
    assert "thing" in problems_of(text)
