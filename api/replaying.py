"""`jifen replay ID` of a decision that the service stored: recomputed from its own row, compared byte for byte."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from pydantic import ValidationError

from api.database import service_database
from api.settings import Settings
from data_contracts.errors import ContractError, UsageError
from models.replay import ROW_HASH, Replayed, Run, compared, unchanged

_TYPES: Mapping[str, pl.DataType] = {
    str(kind): kind for kind in (pl.String(), pl.Int64(), pl.Int32(), pl.Float64(), pl.Boolean(), pl.Date())
}


async def replay_stored(settings: Settings, decision_id: str, home: Path) -> Replayed:
    """Recompute a decision of the service.

    Args:
        settings: name the database.
        decision_id: of the decision.
        home: where the models are.

    Raises:
        UsageError: there is no such decision.
        ContractError: what is stored is no decision of this program.
        ArtefactError: the model is gone or changed.
        ReplayError: it comes out otherwise, or its feature row was changed; says what differs.
    """
    async with service_database(settings) as pool:
        row = await pool.fetchrow(
            """
            SELECT d.content, d.text, b.policy, b.ruleset, b.size_classes
            FROM hall.decision d JOIN hall.rulebook b ON b.version = d.policy_version
            WHERE d.id = $1
            """,
            decision_id,
        )
    if row is None:
        raise UsageError(f"the service has no decision {decision_id}", ["of a limits file: --from FILE"])
    try:
        run = Run.model_validate_json(_json(row["content"]["run"], row))
        whole = unchanged(feature_row(row["content"]))
    except (ValidationError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ContractError(f"what is stored as {decision_id} cannot be read", [type(error).__name__]) from error
    return compared(decision_id, row["text"].encode(), whole, run, home)


def feature_row(content: Mapping[str, Any]) -> pl.DataFrame:
    """The stored feature row with its types and its hash."""
    types = {name: _TYPES[kind] for name, kind in content["types"].items()}
    values = {name: [content["features"][name]] for name in types}
    return pl.DataFrame(values, schema=types).with_columns(pl.lit(content["row_sha256"]).alias(ROW_HASH))


def _json(run: Mapping[str, Any], row: Mapping[str, Any]) -> bytes:
    return orjson.dumps({**run, **{name: row[name] for name in ("policy", "ruleset", "size_classes")}})
