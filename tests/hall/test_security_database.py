"""What the service's role may do in the database, exactly: a fault of the service's code can do no more."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from api.database import Pool

ROLE = "jifen_service"
ADDS = frozenset({"access_token", "assertion_seen", "fact_doubt"}) | {
    f"fact_{source}"
    for source in (
        "enterprises", "qualifications", "financial_statements", "social_insurance", "innovation_indicators",
        "tax_filings", "taxpayer_ratings", "invoices", "debts", "public_records", "loan_outcomes", "feeds",
    )
}  # fmt: skip
"""Tables to which the service adds rows itself: tokens at the door, and facts by COPY."""

ADDS_SOME_COLUMNS = {("fact_batch", column) for column in ("source_label", "fingerprint", "made_by", "report")}
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

_OF_TABLES = """
SELECT c.relname AS name, p.privilege
FROM pg_class AS c, unnest($2::text[]) AS p (privilege)
WHERE c.relnamespace = 'hall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_table_privilege($1, c.oid, p.privilege)
"""
_OF_COLUMNS = """
SELECT c.relname AS name, a.attname AS column, p.privilege
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped,
    unnest(ARRAY['INSERT', 'UPDATE', 'REFERENCES']) AS p (privilege)
WHERE c.relnamespace = 'hall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND has_column_privilege($1, c.oid, a.attnum, p.privilege) AND NOT has_table_privilege($1, c.oid, p.privilege)
"""
_DEFINERS = """
SELECT p.oid::regprocedure::text AS name, coalesce(p.proconfig, '{}') AS settings,
    EXISTS (
        SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS g WHERE g.grantee = 0
    ) AS is_public
FROM pg_proc AS p
WHERE p.prosecdef AND p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""


@pytest.fixture
async def session(pool: Pool) -> AsyncIterator[asyncpg.Connection]:
    async with pool.acquire() as connection:
        yield connection  # pyright: ignore[reportReturnType]  (a proxy of one)


async def test_the_role_reads_every_table_and_adds_to_those_named_here_and_changes_none(
    owner: asyncpg.Connection,
) -> None:
    tables = {row["name"] for row in await owner.fetch("SELECT relname AS name FROM pg_class WHERE relnamespace = "
        "'hall'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')")}  # fmt: skip
    granted = {(row["name"], row["privilege"]) for row in await owner.fetch(_OF_TABLES, ROLE, list(PRIVILEGES))}
    assert granted == {(name, "SELECT") for name in tables} | {(name, "INSERT") for name in ADDS}
    columns = {tuple(row.values()) for row in await owner.fetch(_OF_COLUMNS, ROLE)}
    assert columns == {(table, column, "INSERT") for table, column in ADDS_SOME_COLUMNS}


async def test_a_grant_too_many_is_seen(owner: asyncpg.Connection) -> None:
    await owner.execute(f"GRANT UPDATE (state) ON hall.claim TO {ROLE}; GRANT DELETE ON hall.offer TO PUBLIC")
    granted = {(row["name"], row["privilege"]) for row in await owner.fetch(_OF_TABLES, ROLE, list(PRIVILEGES))}
    assert ("offer", "DELETE") in granted
    columns = {tuple(row.values()) for row in await owner.fetch(_OF_COLUMNS, ROLE)}
    assert ("claim", "state", "UPDATE") in columns


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hall.claim SET fence = 1",
        "DELETE FROM hall.event",
        "INSERT INTO hall.journal (uscc) VALUES ('x')",
        "UPDATE hall.client SET scopes = '{admin:write}'",
        "INSERT INTO hall.client_key (client_id, kid, jwk) VALUES ('a', 'k', '{}')",
        "UPDATE hall.access_token SET expires_at = 'infinity'",
        "UPDATE hall.setting SET value = 10 ^ 9",
        "TRUNCATE hall.access_log",
        "INSERT INTO hall.clock_offset VALUES ('default', '1 year')",
        "ALTER TABLE hall.journal DISABLE TRIGGER ALL",
        "DROP TABLE hall.offer",
        "CREATE TABLE hall.mine (a int)",
        "CREATE TABLE public.mine (a int)",
        "CREATE FUNCTION hall.mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT hall.begin_epoch('default')",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT hall.move_claim('x', 'K6', 'released', 'me', now())",
    ],
)
async def test_what_only_the_owner_or_an_act_may_do_is_refused(session: asyncpg.Connection, statement: str) -> None:
    """The last one: a function that no act called runs as the role, which may change nothing."""
    if "move_claim" in statement:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await session.execute("SELECT 1 FROM hall.claim FOR UPDATE")
        return
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await session.execute(statement)


async def test_the_role_is_nobody_special_and_belongs_to_no_other(owner: asyncpg.Connection) -> None:
    row = await owner.fetchrow(
        """
        SELECT rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolinherit,
            EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) AS is_member,
            has_schema_privilege(oid, 'hall', 'CREATE') OR has_schema_privilege(oid, 'public', 'CREATE') AS creates
        FROM pg_roles AS r WHERE rolname = $1
        """,
        ROLE,
    )
    assert row is not None
    assert not any(row.values()), dict(row)


async def test_every_function_that_runs_as_the_owner_has_a_fixed_path_and_is_granted_by_name(
    owner: asyncpg.Connection,
) -> None:
    """A function of the owner that searched the caller's path could be made to call the caller's functions."""
    definers = await owner.fetch(_DEFINERS)
    assert len(definers) >= 10
    wrong = [row["name"] for row in definers if list(row["settings"]) != ["search_path=hall, pg_temp"]]
    assert wrong == []
    assert [row["name"] for row in definers if row["is_public"]] == []


async def test_a_definer_without_path_or_with_a_public_grant_is_seen(owner: asyncpg.Connection) -> None:
    await owner.execute("CREATE FUNCTION hall.loose() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
    loose = [row for row in await owner.fetch(_DEFINERS) if "loose" in row["name"]]
    assert len(loose) == 1
    assert loose[0]["is_public"]
    assert list(loose[0]["settings"]) == []


async def test_a_statement_cannot_carry_a_second_one_where_it_has_parameters(session: asyncpg.Connection) -> None:
    """All of the service's statements are constants with parameters; the protocol then takes one statement alone."""
    with pytest.raises(asyncpg.PostgresSyntaxError):
        await session.fetch("SELECT $1::int; SELECT 2", 1)
