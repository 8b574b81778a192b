"""Facts in the hall's tables are the facts of the files: same columns, same rows, same decisions to the last bit."""

import json
from datetime import date
from pathlib import Path

import asyncpg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from api.database import Pool, pool_of
from api.facts import FACTS, PEERS, known_of_enterprise, parted
from api.loading import load
from data_contracts.errors import ContractError
from data_contracts.samples import AS_OF
from data_contracts.sources import SOURCES, Sources
from models import rulebooks
from models.batch import Engine
from models.scoring_run import served_model
from models.sources.folder import read_folder
from scoring.features import features
from tests.ground import ground

TYPES = {"text": pl.String, "bigint": pl.Int64, "date": pl.Date, "boolean": pl.Boolean, "uscc": pl.String}


async def sources_of(pool: Pool, uscc: str) -> Sources:
    return (await known_of_enterprise(pool, uscc)).sources


def quiet(_: str) -> None:
    """Nobody watches."""


async def test_the_tables_are_the_contracts(pool: Pool) -> None:
    for name, source in SOURCES.items():
        rows = await pool.fetch(
            """
            SELECT column_name AS name, coalesce(domain_name, data_type) AS type, is_nullable = 'YES' AS nullable
            FROM information_schema.columns WHERE table_schema = 'hall' AND table_name = $1
            ORDER BY ordinal_position
            """,
            f"fact_{name}",
        )
        found = [(row["name"], TYPES[row["type"]], row["nullable"]) for row in rows]
        wanted = [(column, source.types[column], one.nullable) for column, one in source.columns.items()]
        assert found == [("batch_id", pl.Int64, False), ("line", pl.Int64, False), *wanted], name
    assert list(FACTS) == list(SOURCES)


def some_firms(park: Sources) -> list[str]:
    """Every twentieth, and all that belong to a group: their features read the rows of others."""
    grouped = park.enterprises.drop_nulls("group_id")["uscc"].unique()
    assert not grouped.is_empty()
    return sorted({*park.enterprises["uscc"].unique().sort().gather_every(20), *grouped})


def rows_needed(park: Sources, name: str, uscc: str) -> pl.DataFrame:
    """The rows of a source that a quote of the firm reads."""
    groups = park.enterprises.filter(pl.col("uscc") == uscc)["group_id"].drop_nulls()
    members = park.enterprises.filter(pl.col("group_id").is_in(groups.implode()))["uscc"] if name in PEERS else []
    return getattr(park, name).filter(pl.col("uscc").is_in([uscc, *members]))


async def test_facts_of_the_database_are_the_facts_of_the_files(town_database: str) -> None:
    park = read_folder(ground().park).sources
    async with pool_of(town_database) as pool:
        for uscc in some_firms(park):
            stored = await sources_of(pool, uscc)
            for name in SOURCES:
                assert_frame_equal(getattr(stored, name), rows_needed(park, name, uscc), check_row_order=False)


async def test_every_feature_and_decision_is_the_same_as_of_the_files(town_database: str) -> None:
    park = read_folder(ground().park).sources
    engine = Engine(served_model(ground().home, None), rulebooks.rulebook("torch-points"))
    of_files = features(park, AS_OF)
    async with pool_of(town_database) as pool:
        for uscc in some_firms(park):
            stored, mine = await sources_of(pool, uscc), pl.col("uscc") == uscc
            assert_frame_equal(features(stored, AS_OF).filter(mine), of_files.filter(mine), check_exact=True)
            row = engine.decided(stored, AS_OF, only=[uscc]).limits
            assert_frame_equal(row, ground().limits.filter(mine), check_exact=True)


async def test_the_same_folder_counts_once(town_database: str) -> None:
    async with pool_of(town_database) as pool:
        before = await pool.fetchval("SELECT count(*) FROM hall.fact_invoices")
        again = await load(pool, ground().park, quiet)
        assert again.before
        assert await pool.fetchval("SELECT count(*) FROM hall.fact_invoices") == before


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with three enterprises of the park and one row that breaks its contract."""
    park = read_folder(ground().park).sources
    three = park.enterprises["uscc"].unique().sort().head(3)
    bad = park.invoices.filter(pl.col("uscc") == three[0]).head(1).with_columns(gross_fen=pl.col("gross_fen") + 1)
    for name in SOURCES:
        frame = getattr(park, name).filter(pl.col("uscc").is_in(three.implode()))
        whole = pl.concat([frame, bad.with_columns(invoice_no=pl.lit("99999999"))]) if name == "invoices" else frame
        whole.write_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


class Interrupted(Exception):
    """Somebody pulled the plug."""


async def test_an_interrupted_load_counts_for_nothing_and_may_be_repeated(pool: Pool, small: Path) -> None:
    def until_taxes(now: str) -> None:
        if now.startswith("tax_filings:"):
            raise Interrupted

    with pytest.raises(Interrupted):
        await load(pool, small, until_taxes)
    uscc = pl.read_parquet(small / "enterprises.parquet")["uscc"][0]
    assert await pool.fetchval("SELECT count(*) FROM hall.fact_enterprises") > 0
    assert (await sources_of(pool, uscc)).enterprises.is_empty()
    assert await pool.fetchval("SELECT count(*) FROM hall.enterprise") == 0
    done = await load(pool, small, quiet)
    assert not done.before
    assert (await sources_of(pool, uscc)).enterprises.height > 0
    assert await pool.fetchval("SELECT count(*) FROM hall.enterprise") == 3


async def test_a_bad_row_goes_to_quarantine_and_its_doubt_to_the_database(pool: Pool, small: Path) -> None:
    await load(pool, small, quiet)
    quarantined = pl.read_csv(small / "quarantine" / "invoices.csv")
    assert quarantined["rules"].to_list() == ["gross_not_net_plus_tax"]
    stored = await sources_of(pool, quarantined["uscc"].item())
    assert_frame_equal(stored.doubts, read_folder(small).sources.doubts)
    assert stored.doubts.height == 1


async def test_a_folder_that_cannot_be_used_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ContractError):
        await load(pool, tmp_path, quiet)
    assert await pool.fetchval("SELECT count(*) FROM hall.fact_batch") == 0


async def test_facts_are_appended_and_a_visible_batch_takes_no_more(town_database: str) -> None:
    owner = await asyncpg.connect(town_database)
    try:
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute("UPDATE hall.fact_debts SET balance_fen = 0")
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute("DELETE FROM hall.fact_public_records")
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(
                "INSERT INTO hall.fact_doubt (batch_id, uscc, source) SELECT batch_id, uscc, 'debts' "
                "FROM hall.fact_debts LIMIT 1"
            )
    finally:
        await owner.close()
    async with pool_of(town_database) as pool:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("UPDATE hall.fact_batch SET visible_at = now()")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("INSERT INTO hall.decision (id) VALUES ('d')")


# ----------------------------------------------------------------------------------------------------------- deliveries


def rows_of(sources: Sources, name: str, uscc: str, most: int = 3) -> list[dict[str, object]]:
    frame = getattr(sources, name).filter(pl.col("uscc") == uscc).head(most)
    return frame.with_columns(pl.col(pl.Date).cast(pl.String)).to_dicts()


def test_good_rows_are_kept_and_bad_ones_named_by_pointer_and_every_rule() -> None:
    park = read_folder(ground().park).sources
    uscc = park.invoices["uscc"][0]
    rows = rows_of(park, "invoices", uscc)
    rows[1] |= {"gross_fen": -1, "known_on": "2026-02-30"}
    rows[2] |= {"uscc": park.enterprises.filter(pl.col("uscc") != uscc)["uscc"][0]}
    found = parted(uscc, {"invoices": rows, "feeds": []}, None)
    assert len(found.good["invoices"]) == 1
    assert found.report["quarantined"] == {"invoices": 2}
    assert {(one["pointer"], one["rule"]) for one in found.errors} == {
        ("/invoices/1/known_on", "known_on_not_date"),
        ("/invoices/1/gross_fen", "gross_not_net_plus_tax"),
        ("/invoices/2/uscc", "uscc_of_another"),
    }
    # A row about another enterprise casts no doubt on that one.
    assert {one["uscc"] for one in found.doubts} == {uscc}


def test_an_applicants_rows_are_marked_as_its_own_word_and_doubt_no_feed_of_an_authority() -> None:
    park = read_folder(ground().park).sources
    uscc = park.invoices["uscc"][0]
    rows = rows_of(park, "invoices", uscc)
    rows[0] |= {"gross_fen": -1}
    found = parted(uscc, {"invoices": rows}, "applicant")
    assert {one["supplier"] for one in found.good["invoices"]} == {"applicant"}
    assert found.doubts == []
    assert parted(uscc, {"invoices": rows}, None).doubts != []


def test_a_nul_in_a_bad_row_can_be_kept_as_json() -> None:
    park = read_folder(ground().park).sources
    uscc = park.invoices["uscc"][0]
    rows = rows_of(park, "invoices", uscc, 1)
    found = parted(uscc, {"invoices": [rows[0] | {"counterparty_id": "a\x00b"}]}, None)
    assert "\\u0000" not in json.dumps(found.quarantined).replace("\\\\u0000", "")


async def test_an_applicant_cannot_contradict_away_what_an_authority_said(town_database: str) -> None:
    async with pool_of(town_database) as pool:
        listed = await pool.fetchrow("SELECT * FROM hall.visible_public_records ORDER BY uscc LIMIT 1")
        assert listed is not None
        uscc = listed["uscc"]
        before = await sources_of(pool, uscc)
        row = {name: listed[name] for name in SOURCES["public_records"].columns} | {"removed_on": listed["known_on"]}
        row = {name: str(value) if isinstance(value, date) else value for name, value in row.items()}
        delivery = parted(uscc, {"public_records": [row]}, "applicant")
        assert delivery.good
        await delivered(town_database, uscc, delivery.good)
        after = await sources_of(pool, uscc)
    heard = after.public_records.filter(pl.col("supplier") != "applicant")
    assert_frame_equal(heard, before.public_records)
    assert after.public_records.height == before.public_records.height + 1


async def test_two_batches_that_contradict_each_other_cast_doubt(town_database: str) -> None:
    async with pool_of(town_database) as pool:
        listed = await pool.fetchrow("SELECT * FROM hall.visible_debts WHERE limit_fen > 0 ORDER BY uscc LIMIT 1")
        assert listed is not None
        uscc = listed["uscc"]
        before = await sources_of(pool, uscc)
        row = {name: listed[name] for name in SOURCES["debts"].columns} | {"overdue_days": 77}
        row = {name: str(value) if isinstance(value, date) else value for name, value in row.items()}
        await delivered(town_database, uscc, parted(uscc, {"debts": [row]}, None).good)
        after = await sources_of(pool, uscc)
    assert after.debts.height == before.debts.height - 1
    assert after.doubts.filter(pl.col("source") == "debts").height == before.doubts.height + 1


async def delivered(database: str, uscc: str, good: object) -> None:
    """The act behind POST .../facts, as the platform's own data source."""
    owner = await asyncpg.connect(database)
    args = {"uscc": uscc, "fingerprint": "ab" * 32, "good": good, "quarantined": [], "doubts": [], "report": {}}
    actor = {"client": "source", "role": "scoring"}
    answer = await owner.fetchval("SELECT hall.act_deliver_facts($1, $2)", json.dumps(actor), json.dumps(args))
    await owner.close()
    assert json.loads(answer)["status"] == 200
