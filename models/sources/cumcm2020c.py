"""Import `cumcm2020c`: the VAT invoices of 425 real, anonymised small firms (CUMCM 2020, problem C).

SRC is the prepared parquet folder: enterprises, input_invoices, output_invoices, industry_annotation. The set holds
less than the contracts ask, so this is what is assumed, and nothing else:

- Credit codes: the firms carry none. Each gets a valid made-up one, drawn from a hash of its id, and `enterprises` is
  sorted by it: the firm's number and its place in the set say much about default and must reach no feature. The id
  stays readable in `name` ("E1 ***电器销售有限公司").
- Loans of the 123 firms with a record: the defaults carry no dates. Assumed is a loan of 12 months paid out on
  2020-02-22, the day after the last invoice, watched to 2021-02-22 and known on that day; the day of default is null.
- The bank's own rating is written nowhere: D was given with knowledge of the default.
- Invoices: known on the day of issue. Amounts in fen, as in the set, its five wrong sums included.
- Registration: established on, and known from, the day of the first invoice seen; status active; district 000000,
  which is none; industry read by one contest team off the masked names, as section and division of GB/T 4754-2017.
  Everything else about the firm is null.
- Completeness marks: invoices bought and sold from 2016-10-01 to 2020-02-21, as delivered. No other source was.
"""

from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from pathlib import Path

import polars as pl

from data_contracts.errors import ContractError
from data_contracts.marks import Period, marks
from data_contracts.sources import ENTERPRISES, INVOICES, LOAN_OUTCOMES
from data_contracts.uscc import made_up_code
from models.sources.parquet import parquet_schema, read_parquet

FIRST_DAY = date(2016, 10, 1)
LAST_DAY = date(2020, 2, 21)
OPENED_ON = date(2020, 2, 22)
OBSERVED_UNTIL = date(2021, 2, 22)
TERM_MONTHS = 12
DISTRICT = "000000"

INDUSTRIES = {
    "agriculture_forestry_fishing": "A05",
    "manufacturing": "C41",
    "construction": "E50",
    "services": "L72",
    "professional_scientific_technical": "M74",
    "sole_proprietor": "O82",
}
"""Section and division for each class of the annotation: 农林牧渔专业及辅助性活动, 其他制造业,
建筑装饰、装修和其他建筑业, 商务服务业, 专业技术服务业; a sole proprietor is a legal form, so 其他服务业, the
division for what is not named."""

_MONEY = pl.Decimal(18, 2)
_INVOICE_COLUMNS = {
    "enterprise_id": pl.String(),
    "invoice_no": pl.String(),
    "issue_date": pl.Date(),
    "amount_net": _MONEY,
    "tax": _MONEY,
    "amount_gross": _MONEY,
    "is_void": pl.Boolean(),
}
_EXPECTED: dict[str, dict[str, pl.DataType]] = {
    "enterprises": {"enterprise_id": pl.String(), "name_masked": pl.String(), "is_default": pl.Boolean()},
    "industry_annotation": {"enterprise_id": pl.String(), "industry_class": pl.String()},
    "input_invoices": {**_INVOICE_COLUMNS, "seller_id": pl.String()},
    "output_invoices": {**_INVOICE_COLUMNS, "buyer_id": pl.String()},
}


def frames_of(src: Path) -> dict[str, pl.DataFrame]:
    """The set as frames of our contracts, unchecked: `enterprises`, `invoices`, `loan_outcomes` and `feeds`.

    Raises:
        ContractError: a file is missing or damaged, or lacks a column; names everything wrong.
    """
    read = _read(src)
    codes = _codes(read["enterprises"]["enterprise_id"])
    invoices = pl.concat(
        [
            _invoices(read["input_invoices"], codes, "in", "seller_id"),
            _invoices(read["output_invoices"], codes, "out", "buyer_id"),
        ]
    )
    enterprises = _enterprises(read, codes, invoices)
    period = Period(FIRST_DAY, LAST_DAY, LAST_DAY)
    return {
        "enterprises": enterprises,
        "invoices": invoices,
        "loan_outcomes": _loan_outcomes(read["enterprises"], codes),
        "feeds": marks(INVOICES, invoices, enterprises["uscc"], period, "authority"),
    }


def credit_code(enterprise_id: str) -> str:
    """The made-up credit code of a firm: its eight digits come from a hash, so the order of the firms is gone."""
    drawn = int.from_bytes(sha256(f"cumcm2020c {enterprise_id}".encode()).digest()[:8], "big")
    return made_up_code(drawn % 10**8, DISTRICT)


def _read(src: Path) -> dict[str, pl.DataFrame]:
    read: dict[str, pl.DataFrame] = {}
    problems: list[str] = []
    for name, columns in _EXPECTED.items():
        path = src / f"{name}.parquet"
        try:
            schema = parquet_schema(path)
            wrong = [
                f"{path.name}: no column {column} of type {dtype}"
                for column, dtype in columns.items()
                if schema.get(column) != dtype
            ]
            problems += wrong
            if not wrong:
                read[name] = read_parquet(path, list(columns))
        except ContractError as error:
            problems += error.problems if path.exists() else [f"{path.name}: is missing"]
    if problems:
        raise ContractError(f"{src} is not the prepared folder of cumcm2020c", problems)
    return read


def _codes(ids: pl.Series) -> pl.DataFrame:
    distinct = ids.unique()
    codes = pl.DataFrame({"enterprise_id": distinct, "uscc": [credit_code(each) for each in distinct]})
    if codes["uscc"].n_unique() != codes.height:
        raise ContractError("two firms draw the same made-up credit code")
    return codes


def _fen(column: str) -> pl.Expr:
    """Yuan with two decimals are stored as whole hundredths: the stored integer is the amount in fen."""
    return pl.col(column).to_physical().cast(pl.Int64)


def _invoices(rows: pl.DataFrame, codes: pl.DataFrame, direction: str, counterparty: str) -> pl.DataFrame:
    coded = rows.join(codes, on="enterprise_id", how="left", maintain_order="left")
    return coded.select(
        "uscc",
        known_on=pl.col("issue_date"),
        supplier=pl.lit("authority"),
        direction=pl.lit(direction),
        invoice_no=pl.col("invoice_no"),
        counterparty_id=pl.col(counterparty),
        issued_on=pl.col("issue_date"),
        net_fen=_fen("amount_net"),
        tax_fen=_fen("tax"),
        gross_fen=_fen("amount_gross"),
        is_void=pl.col("is_void"),
        red_of=pl.lit(None, pl.String),
    )


def _enterprises(read: Mapping[str, pl.DataFrame], codes: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    first = invoices.group_by("uscc").agg(established_on=pl.col("issued_on").min())
    firms = read["enterprises"].join(codes, on="enterprise_id").join(first, on="uscc", how="left")
    named = firms.join(read["industry_annotation"], on="enterprise_id", how="left").with_columns(
        known_on=pl.col("established_on"),
        supplier=pl.lit("authority"),
        name=pl.format("{} {}", "enterprise_id", "name_masked"),
        zone_entered_on=pl.lit(None, pl.Date),
        industry_code=pl.col("industry_class").replace_strict(INDUSTRIES, default=None, return_dtype=pl.String),
        district=pl.lit(DISTRICT),
        employees=pl.lit(None, pl.Int64),
        revenue_fen=pl.lit(None, pl.Int64),
        total_assets_fen=pl.lit(None, pl.Int64),
        taxpayer_type=pl.lit(None, pl.String),
        registration_status=pl.lit("active"),
        group_id=pl.lit(None, pl.String),
    )
    return named.select(list(ENTERPRISES.columns)).sort("uscc")


def _loan_outcomes(firms: pl.DataFrame, codes: pl.DataFrame) -> pl.DataFrame:
    labelled = firms.filter(pl.col("is_default").is_not_null()).join(codes, on="enterprise_id")
    loans = labelled.with_columns(
        known_on=pl.lit(OBSERVED_UNTIL),
        supplier=pl.lit("bank"),
        lender_id=pl.lit("cumcm2020c"),
        loan_id=pl.format("loan-{}", "uscc"),
        opened_on=pl.lit(OPENED_ON),
        term_months=pl.lit(TERM_MONTHS, pl.Int64),
        amount_fen=pl.lit(None, pl.Int64),
        defaulted=pl.col("is_default"),
        defaulted_on=pl.lit(None, pl.Date),
        observed_until=pl.lit(OBSERVED_UNTIL),
        loss_fen=pl.lit(None, pl.Int64),
    )
    return loans.select(list(LOAN_OUTCOMES.columns)).sort("uscc")
