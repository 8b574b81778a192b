"""One party is written in one way: else a buyer counts twice, and related parties and round trade stay hidden."""

import pytest

from data_contracts.checking import checked
from data_contracts.sources import SOURCES
from data_contracts.uscc import made_up_code
from tests import make

CODE = made_up_code(7)
SPELLINGS = {
    "a blank before": f" {CODE}",
    "a blank after": f"{CODE} ",
    "an ideographic blank after": f"{CODE}　",
    "a blank that does not break": f"{CODE} ",
    "lower case": "b00001",
    "one lower-case letter": "B0000a",
    "full-width letters": "Ｂ00001",
    "full-width digits": "B０0001",
    "an invisible character": "B00\u200b001",
    "two blanks inside": "ACME  LTD",
}
NOBODY = ["null", "NULL", "NaN", "None", "n/a", "NA", "-", "无"]
WELL = [CODE, "B00001", "ACME LTD", "张三", "11010519491231002X", "913502110000000", "5", "NARADA", "O2PLUS"]


def rules(source: str, **changes: str) -> list[str]:
    found = checked(SOURCES[source], make.frame(source, [make.MAKERS[source](**changes)]))
    return found.quarantined["rules"].to_list()


@pytest.mark.parametrize("column", ["counterparty_id", "group_id"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_of_an_id_goes_to_quarantine(spelling: str, column: str) -> None:
    source = "invoices" if column == "counterparty_id" else "enterprises"
    assert rules(source, **{column: SPELLINGS[spelling]}) == [f"{column}_written_otherwise"]


@pytest.mark.parametrize("word", NOBODY)
def test_a_word_for_nothing_is_no_id(word: str) -> None:
    for source, column in (("invoices", "counterparty_id"), ("debts", "lender_id"), ("enterprises", "group_id")):
        (found,) = rules(source, **{column: word})
        assert f"{column}_names_nobody" in found.split("; ")


@pytest.mark.parametrize("code", WELL)
def test_codes_names_and_residents_numbers_stay(code: str) -> None:
    assert rules("invoices", counterparty_id=code) == []
    assert rules("enterprises", group_id=code) == []


def test_what_looks_like_a_credit_code_has_its_check_character() -> None:
    for wrong in ("91350211000000019J", "11010519491231002Y", CODE[:-1] + ("0" if CODE[-1] != "0" else "1")):
        assert rules("invoices", counterparty_id=wrong) == ["counterparty_id_check_character"]
    assert rules("invoices", counterparty_id="91350203M0001FUE2P") == []


def test_a_lender_may_be_written_in_lower_case_but_not_with_outer_blanks() -> None:
    assert rules("debts", lender_id="bank-1") == []
    assert rules("debts", lender_id="bank-1 ") == ["lender_id_written_otherwise"]
    assert rules("debts", debt_id=" line-1") == ["debt_id_written_otherwise"]
    assert rules("loan_outcomes", loan_id="loan-1　") == ["loan_id_written_otherwise"]
