"""Those who take part, as the database has them: institutions, outlets, officers, products, enterprises."""

from collections.abc import Sequence

import asyncpg

from api.calls import Caller
from api.database import Connection


async def hall_time(connection: Connection) -> str:
    """The hall's time, RFC 3339 (G4)."""
    return str(await connection.fetchval("SELECT hall.iso(hall.hall_now())"))


async def institutions(connection: Connection, caller: Caller, after: str, most: int) -> Sequence[asyncpg.Record]:
    """Institutions that the caller may see, by id: an administrator all, an institution itself."""
    return await connection.fetch(
        """
        SELECT id, name, size_class, hold_cap, daily_claim_cap, is_suspended
        FROM hall.institution
        WHERE tenant = $1 AND ($2::text IS NULL OR id = $2) AND id > $3
        ORDER BY id
        LIMIT $4
        """,
        caller.tenant,
        caller.institution_id,
        after,
        most,
    )


async def outlets(
    connection: Connection, caller: Caller, institution_id: str, after: str, most: int
) -> Sequence[asyncpg.Record] | None:
    """Outlets of an institution, by id; None: there is no such institution that the caller may see."""
    if not await _may_see(connection, caller, institution_id):
        return None
    return await connection.fetch(
        """
        SELECT id, no, institution_id, name, district, hold_cap, is_closed
        FROM hall.outlet
        WHERE institution_id = $1 AND id > $2
        ORDER BY id
        LIMIT $3
        """,
        institution_id,
        after,
        most,
    )


async def officers(
    connection: Connection, caller: Caller, institution_id: str, outlet_id: str, after: str, most: int
) -> Sequence[asyncpg.Record] | None:
    """Officers of an outlet, by id; None: there is no such outlet that the caller may see."""
    if not await _may_see(connection, caller, institution_id):
        return None
    is_its_own = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM hall.outlet WHERE id = $1 AND institution_id = $2)", outlet_id, institution_id
    )
    if not is_its_own:
        return None
    return await connection.fetch(
        """
        SELECT id, outlet_id, name, hold_cap, is_gone FROM hall.officer WHERE outlet_id = $1 AND id > $2
        ORDER BY id LIMIT $3
        """,
        outlet_id,
        after,
        most,
    )


async def _may_see(connection: Connection, caller: Caller, institution_id: str) -> bool:
    if caller.institution_id not in (None, institution_id):
        return False
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM hall.institution WHERE id = $1 AND tenant = $2)", institution_id, caller.tenant
        )
    )


async def products_offered(
    connection: Connection, category: str | None, institution_id: str | None, after: str, most: int
) -> Sequence[asyncpg.Record]:
    """Products offered now, by id, each in the version that counts, with the name of its institution."""
    return await connection.fetch(
        """
        SELECT p.id, hall.product_json(p) || jsonb_build_object('institution', i.name) AS product
        FROM hall.product AS p
        JOIN hall.institution AS i ON i.id = p.institution_id
        WHERE p.approved_at IS NOT NULL AND p.withdrawn_at IS NULL AND NOT i.is_suspended
            AND ($1::text IS NULL OR p.category = $1) AND ($2::text IS NULL OR p.institution_id = $2) AND p.id > $3
        ORDER BY p.id
        LIMIT $4
        """,
        category,
        institution_id,
        after,
        most,
    )


async def product(connection: Connection, product_id: str, version: int | None) -> dict[str, object] | None:
    """One version of a product, or the latest approved one; None: there is none that was ever approved."""
    return await connection.fetchval(
        """
        SELECT hall.product_json(p) || jsonb_build_object('institution', i.name)
        FROM hall.product AS p
        JOIN hall.institution AS i ON i.id = p.institution_id
        WHERE p.id = $1 AND p.approved_at IS NOT NULL AND ($2::integer IS NULL OR p.version = $2)
        ORDER BY p.version DESC
        LIMIT 1
        """,
        product_id,
        version,
    )


async def products_of_institution(
    connection: Connection, institution_id: str, after: str, most: int
) -> Sequence[asyncpg.Record]:
    """Every version of an institution's products, proposals too, by id and version."""
    return await connection.fetch(
        """
        SELECT p.id || '@' || lpad(p.version::text, 6, '0') AS place, hall.product_json(p) AS product
        FROM hall.product AS p
        WHERE p.institution_id = $1 AND p.id || '@' || lpad(p.version::text, 6, '0') > $2
        ORDER BY place
        LIMIT $3
        """,
        institution_id,
        after,
        most,
    )


async def enterprise(connection: Connection, caller: Caller, uscc: str) -> asyncpg.Record | None:
    """The enterprise, if the caller is it, speaks for it or still writes it down."""
    return await connection.fetchrow(
        """
        SELECT uscc, name, contact_name, contact_phone, industry_section, district, hall.iso(created_at) AS created_at
        FROM hall.enterprise AS e
        WHERE uscc = $1 AND (hall.acts_for($2, uscc) OR hall.may_enter($2, e))
        """,
        uscc,
        caller.actor(),
    )
