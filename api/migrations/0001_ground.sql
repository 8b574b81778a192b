-- The ground that the hall's tables stand on: the service's role and its rights, the clock, and what may not change.
-- The schema `hall` and `hall.migration` are there already: the runner makes them.

-- The service works as this role, never as the owner: a fault in it can neither drop a table nor rewrite history.
-- Roles belong to the whole server, so another database of the same server may have made it, perhaps this very moment.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'jifen_service') THEN
        BEGIN
            CREATE ROLE jifen_service NOLOGIN NOINHERIT;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
    IF NOT pg_catalog.pg_has_role(current_user, 'jifen_service', 'MEMBER') THEN
        EXECUTE format('GRANT jifen_service TO %I', current_user);
    END IF;
END
$$;

GRANT USAGE ON SCHEMA hall TO jifen_service;
GRANT SELECT ON hall.migration TO jifen_service;

-- Time of the hall, so that a rehearsal can be moved on by days. Empty in production; the service cannot write it.
CREATE TABLE hall.clock_offset (
    tenant text PRIMARY KEY,
    "offset" interval NOT NULL DEFAULT '0'
);
GRANT SELECT ON hall.clock_offset TO jifen_service;

CREATE FUNCTION hall.hall_now() RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN clock_timestamp() + coalesce((SELECT o."offset" FROM hall.clock_offset AS o WHERE o.tenant = 'default'), '0');

COMMENT ON FUNCTION hall.hall_now() IS
    'The time by which deadlines are kept. Read it after the row is locked: now() is when the transaction began.';

-- From here on a new table may be read by the service. What it may add or change, a migration grants by name; most
-- changes are made by functions that run as the owner. Nothing is ever deleted by the service.
ALTER DEFAULT PRIVILEGES IN SCHEMA hall GRANT SELECT ON TABLES TO jifen_service;
ALTER DEFAULT PRIVILEGES IN SCHEMA hall GRANT USAGE ON SEQUENCES TO jifen_service;

CREATE FUNCTION hall.refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only', tg_table_schema, tg_table_name USING ERRCODE = 'restrict_violation';
END
$$;

-- By statement, so that one that meets no row is refused too; by row as well, for rows reached through a partition.
CREATE PROCEDURE hall.append_only(target regclass)
LANGUAGE plpgsql
AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION hall.refuse_change()', target);
    EXECUTE format(
        'CREATE TRIGGER append_only_row BEFORE UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION hall.refuse_change()', target);
    -- ALWAYS: also in a session that applies changes as a replica.
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only', target);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only_row', target);
END
$$;

COMMENT ON PROCEDURE hall.append_only(regclass) IS
    'Refuses every UPDATE, DELETE and TRUNCATE of a table, also to its owner. CALL it in the migration that makes it.';

CREATE DOMAIN hall.fen AS bigint CONSTRAINT fen_is_not_negative CHECK (VALUE >= 0);
COMMENT ON DOMAIN hall.fen IS 'An amount of money in whole fen (0.01 CNY), never negative.';

CREATE DOMAIN hall.uscc AS text CONSTRAINT uscc_has_18_characters CHECK (VALUE ~ '^[0-9A-Z]{18}$');
COMMENT ON DOMAIN hall.uscc IS 'Unified social credit code 统一社会信用代码; its check digit is proved at the door.';
