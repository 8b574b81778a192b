"""The examples in the help of the service's commands run, in the order in which an operator would."""

import asyncio
import shlex
import shutil
from pathlib import Path

import asyncpg
import pytest

from tests.api.test_examples import EXAMPLES, needs_a_database
from tests.ground import done, ground
from tests.hall import made
from tests.hall.keys import new_key, public_pem

ELSEWHERE = ("jifen serve", "jifen invariants --watch", "jifen replay")
"""They do not end, or need a quote: tests/hall/test_serving.py, test_invariants.py and test_replay.py."""

RUN = [one for one in EXAMPLES if needs_a_database(one) and not one.startswith(ELSEWHERE)]


def test_the_examples_of_the_service_run(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def institution() -> str:
        connection = await asyncpg.connect(database)
        try:
            return await made.institution(connection)
        finally:
            await connection.close()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIFEN_DATABASE_URL", database)
    shutil.copytree(ground().park, "park")
    for name in ("bank_a.jwk", "bank_a_2027.jwk"):
        Path(name).write_bytes(public_pem(new_key()))
    names = {"in_0193": asyncio.run(institution())}
    left = list(RUN)

    def said(start: str) -> str:
        (example,) = [one for one in left if one.startswith(f"jifen {start}")]
        left.remove(example)
        words = shlex.split(example.partition(" > ")[0])[1:]
        return done(ground().home, *(names.get(word, word) for word in words))

    assert said("migrate")
    assert "invoices" in said("load")
    _, names["cn_0193"], _, names["2026-1"] = said("clients add ").split()
    assert "kid" in said("clients add-key")
    assert "Bank A" in said("clients list")
    assert said("clients revoke") == "revoked\n"
    assert "I5" in said("invariants")
    said("export outcomes")
    assert Path("loan_outcomes.parquet").is_file()
    said("export fairness")
    assert Path("fairness.json").is_file()
    assert '"openapi"' in said("openapi")
    assert left == []
