-- Idempotency (I1 to I6): the key's row, the effect and the answer are one statement, so they stand or fall together.

create table hall.idempotency (
    id uuid primary key default hall.uuid7(),
    client_id text not null,
    method text not null,
    path text not null,
    key text not null check (length(key) between 1 and 255),
    fingerprint bytea not null check (length(fingerprint) = 32),
    status integer,
    body text,
    created_at timestamptz not null default hall.hall_now(),
    unique (client_id, method, path, key)
);
comment on column hall.idempotency.status is 'null only inside the transaction that makes the effect';

create function hall.problem(p_code text, p_members jsonb, p_language text, p_trace text) returns jsonb
language sql stable as $$
    -- A stored refusal carries its title from the start, so that a replay is byte for byte the first answer.
    select jsonb_build_object('type', '/problems/' || code, 'status', status, 'trace_id', p_trace,
        'title', case p_language when 'en' then title_en else title_zh end) || p_members
    from hall.problem_type where code = p_code
$$;

create function hall.refuse_under_maintenance() returns void language plpgsql as $$
begin
    if hall.setting('maintenance') = 1 then
        perform hall.refuse('maintenance', jsonb_build_object('retry_after_seconds', 30));
    end if;
end $$;

create function hall.once(
    p_client text, p_method text, p_path text, p_key text, p_fingerprint bytea,
    p_act text, p_actor jsonb, p_args jsonb, p_language text, p_trace text, p_traceparent text default null,
    out status integer, out body text, out replayed boolean
) language plpgsql security definer set search_path = hall, pg_temp as $$
-- Runs hall.act_<p_act>(actor, args) at most once for a key. An act returns {"status": 2xx, "body": {...}}, or
-- {"refused": code, "members": {...}} for a refusal that is final and therefore stored (I5); every other refusal raises.
-- p_trace is told in a refusal, p_traceparent in the events of the act.
declare
    known hall.idempotency;
    answer jsonb;
begin
    if not pg_try_advisory_xact_lock(hashtextextended(concat_ws(E'\x1f', p_client, p_method, p_path, p_key), 0)) then
        perform hall.refuse('idempotency-in-flight', '{"retry_after_seconds": 1}');
    end if;
    select * into known from hall.idempotency i
        where i.client_id = p_client and i.method = p_method and i.path = p_path and i.key = p_key;
    if found then
        if known.fingerprint <> p_fingerprint then perform hall.refuse('idempotency-key-reused'); end if;
        status := known.status; body := known.body; replayed := true;
        return;
    end if;
    perform hall.refuse_under_maintenance();  -- what was answered before is answered still
    insert into hall.idempotency (client_id, method, path, key, fingerprint)
        values (p_client, p_method, p_path, p_key, p_fingerprint) returning * into known;
    perform set_config('hall.cause', known.id::text, true), set_config('hall.traceparent', p_traceparent, true);
    execute format('select hall.%I($1, $2)', 'act_' || p_act) into answer using p_actor, p_args;
    if answer ? 'refused' then
        answer := jsonb_build_object('body',
            hall.problem(answer ->> 'refused', answer -> 'members', p_language, p_trace));
        answer := answer || jsonb_build_object('status', answer -> 'body' -> 'status');
    end if;
    status := (answer ->> 'status')::integer;
    body := answer ->> 'body';
    replayed := false;
    update hall.idempotency i set status = once.status, body = once.body where i.id = known.id;
end $$;

create function hall.seen(
    p_client text, p_method text, p_path text, p_key text, p_fingerprint bytea, out status integer, out body text
) language plpgsql stable security definer set search_path = hall, pg_temp as $$
-- The stored answer of a key, or nulls; asked before work that is too dear to do for a replay.
declare known hall.idempotency;
begin
    select * into known from hall.idempotency i
        where i.client_id = p_client and i.method = p_method and i.path = p_path and i.key = p_key;
    if found and known.fingerprint <> p_fingerprint then perform hall.refuse('idempotency-key-reused'); end if;
    status := known.status;
    body := known.body;
end $$;

create function hall.cause() returns uuid language sql stable as $$
    select nullif(current_setting('hall.cause', true), '')::uuid
$$;
