"""D5 for the service: a stored decision comes out again byte for byte, or it is said exactly what differs."""

import asyncio
import json

import asyncpg
import pytest
from typer.testing import Result

from api import quotes
from tests.ground import ground, run
from tests.hall.callers import serving


@pytest.fixture
def decision(town_database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A decision that the service stored, in the database that the program is then told of."""

    async def made() -> str:
        async with serving(town_database, ground().home) as hall:
            portal = await hall.client("portal")
            await hall.owner.execute("UPDATE hall.enterprise SET portal = $1", portal.client_id)
            asked = {"uscc": ground().best["uscc"], "scheme": "torch-points"}
            answered = await portal.post("/v1/limit-quotes", asked)
            assert answered.status_code == 201, answered.text
            measured = await quotes.measured(hall.service, asked["uscc"], "torch-points")
            assert measured.decision["answer"]["decision_id"] == answered.json()["decision_id"]
            return answered.json()["decision_id"]

    made_id = asyncio.run(made())
    monkeypatch.setenv("JIFEN_DATABASE_URL", town_database)
    return made_id


def replayed(decision_id: str) -> Result:
    return run(ground().home, "replay", decision_id)


def changed(database: str, statement: str) -> None:
    """What only an owner who switches the guard off can do."""

    async def done() -> None:
        owner = await asyncpg.connect(database)
        await owner.execute("ALTER TABLE hall.decision DISABLE TRIGGER USER")
        await owner.execute(statement)
        await owner.close()

    asyncio.run(done())


def test_d5_a_stored_decision_replays_to_the_same_bytes_and_is_that_of_the_batch(decision: str) -> None:
    ended = replayed(decision)
    assert ended.exit_code == 0, ended.output
    assert "same bytes" in ended.output
    assert decision == ground().best["decision_id"]
    of_the_file = run(ground().home, "replay", decision, "--from", ground().root / "limits.parquet")
    assert of_the_file.output == ended.output


def test_d5_a_changed_answer_is_named_column_by_column(decision: str, town_database: str) -> None:
    before = ground().best["limit_fen"]
    changed(
        town_database, f"UPDATE hall.decision SET text = replace(text, '\"limit_fen\":{before}', '\"limit_fen\":7')"
    )
    ended = replayed(decision)
    assert ended.exit_code == 1
    assert f"limit_fen: stored 7, comes out as {before}" in ended.stderr
    assert "rate_bp" not in ended.stderr


def test_d5_what_was_changed_is_noticed(decision: str, town_database: str) -> None:
    for path, value, code, said in [
        ("{run,as_of}", "2026-06-30", 1, "as_of: stored 2026-07-01, comes out as 2026-06-30"),
        ("{run,model_version}", "20200101-000000000000", 3, "is not under"),
        ("{features,mean_invoice_fen}", 1, 1, "changed after it was written"),
        ("{types}", {"uscc": "Colour"}, 3, "cannot be read"),
        ("{run}", {}, 3, "cannot be read"),
    ]:
        changed(
            town_database,
            f"UPDATE hall.decision SET content = jsonb_set(content, '{path}', '{json.dumps(value)}'::jsonb)",
        )
        ended = replayed(decision)
        assert ended.exit_code == code, ended.output
        assert said in ended.stderr


def test_an_unknown_decision_is_bad_usage(decision: str) -> None:
    ended = replayed("d" + "0" * 24)
    assert ended.exit_code == 2
    assert "has no decision" in ended.stderr
