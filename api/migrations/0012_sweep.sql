-- Deadlines (P4, S3): every non-final state has one, and any number of sweepers may fire them.

create function hall.sweep_claim() returns text language plpgsql as $$
-- One claim whose deadline has passed: an offer expires (K7), any other lease lapses (K5). Null when none is due.
declare
    at timestamptz;
    due record;
    c hall.claim;
begin
    select k.id, f.id as fr_id into due
        from hall.claim k join hall.financing_request f on f.id = k.fr_id
        where k.deadline <= hall.hall_now() and not f.is_suspended
        order by k.deadline limit 1 for no key update of f skip locked;
    if not found then return null; end if;
    select * into strict c from hall.claim where id = due.id for no key update;
    at := hall.hall_now();
    if c.deadline is null or c.deadline > at then return 'late'; end if;  -- somebody was quicker between the two reads
    c := hall.move_claim(c.id, case c.state when 'offered' then 'K7' else 'K5' end,
        case c.state when 'offered' then 'expired' else 'lapsed' end, 'system', at,
        jsonb_build_object('due', hall.iso(c.deadline)));
    perform hall.claim_is_over(c.fr_id, 'system', at, c.state);
    return 'claim ' || c.state;
end $$;

create function hall.sweep_business() returns text language plpgsql as $$
-- One claim before its offer whose institution is suspended (rejected) or whose outlet is closed (released), both K6: the
-- enterprise does not wait for a bank that may not offer. An offer that was made, and what follows it, goes on. One at a
-- time and not in the act itself, which would hold the feed back and take its locks against their order.
declare
    at timestamptz;
    idle record;
    c hall.claim;
begin
    select k.id, place.is_suspended into idle
        from (select id, false as is_suspended from hall.outlet where is_closed
                union all select o.id, true from hall.institution i join hall.outlet o on o.institution_id = i.id
                    where i.is_suspended) as place
            join hall.claim k on k.outlet_id = place.id and k.state in ('held', 'contacted')
            join hall.financing_request f on f.id = k.fr_id
        where not f.is_suspended
        order by k.claimed_at, place.is_suspended desc limit 1 for no key update of f skip locked;
    if not found then return null; end if;
    select * into strict c from hall.claim where id = idle.id for no key update;
    at := hall.hall_now();
    if c.state not in ('held', 'contacted') then return 'late'; end if;
    c := hall.move_claim(c.id, 'K6', case when idle.is_suspended then 'rejected' else 'released' end, 'system', at,
        jsonb_build_object('why', case when idle.is_suspended then 'institution-suspended' else 'outlet-closed' end));
    perform hall.claim_is_over(c.fr_id, 'system', at, c.state);
    return 'claim ' || c.state;
end $$;

create function hall.sweep_round() returns text language plpgsql as $$
-- One open round that has closed without a winner: the next one, or the case manager (T10, T11).
declare
    at timestamptz;
    r hall.round;
    fr hall.financing_request;
begin
    select k.* into r from hall.round k join hall.financing_request f on f.id = k.fr_id
        where k.state = 'open' and k.closes_at <= hall.hall_now() and not f.is_suspended
        order by k.closes_at limit 1 for no key update of k skip locked;
    if not found then return null; end if;
    fr := hall.locked_request(r.fr_id);
    at := hall.hall_now();
    if fr.is_suspended then return 'late'; end if;
    perform hall.end_live_round(fr.id, at);
    if fr.state = 'broadcast' then
        perform hall.go_on_or_assist(fr, 'T10', 'T11', 'system', at, jsonb_build_object('due', hall.iso(r.closes_at)));
    end if;
    return 'round closed';
end $$;

create function hall.sweep_request() returns text language plpgsql as $$
-- One request whose own deadline has passed: drafts and quotes expire (T3); a signed facility without a drawdown and a
-- case that nobody took lie before a supervisor, without a move.
declare
    at timestamptz;
    fr hall.financing_request;
begin
    select * into fr from hall.financing_request where deadline <= hall.hall_now() and not is_suspended
        order by deadline limit 1 for no key update skip locked;
    if not found then return null; end if;
    at := hall.hall_now();
    if fr.state in ('draft', 'quoted') then
        perform hall.move_request(fr.id, 'T3', 'EXPIRED', 'system', at, jsonb_build_object('due', hall.iso(fr.deadline)));
        return 'request expired';
    end if;
    perform hall.open_case(case fr.state when 'signed' then 'no-drawdown' else 'overdue-' || fr.state end, 'fr/' || fr.id,
        'the deadline of ' || hall.iso(fr.deadline) || ' passed in state ' || fr.state, at);
    update hall.financing_request set deadline = null where id = fr.id;
    return 'case opened';
end $$;

create function hall.sweep() returns text language plpgsql security definer set search_path = hall, pg_temp as $$
-- Fires one deadline and says which, or null when nothing is due. Each call is its own transaction.
begin
    perform set_config('hall.role', 'system', true);
    return coalesce(hall.sweep_claim(), hall.sweep_business(), hall.sweep_round(), hall.sweep_request(),
        hall.sweep_facility());
end $$;

create function hall.recompute_provisional(p_year integer) returns integer language plpgsql as $$
-- S6: the calendar of a year has arrived, so deadlines set by weekdays are set anew from where they began to count.
declare
    changed integer := 0;
    more integer;
begin
    update hall.financing_request set deadline = due, deadline_is_provisional = not hall.calendar_knows(due)
        from (select id as fr_id, hall.add_working_minutes(deadline_from, deadline_minutes) as due
            from hall.financing_request where deadline_is_provisional and deadline is not null) as anew
        where id = anew.fr_id;
    get diagnostics changed = row_count;
    update hall.claim set deadline = due, deadline_is_provisional = not hall.calendar_knows(due)
        from (select id as claim_id, hall.add_working_minutes(deadline_from, deadline_minutes) as due
            from hall.claim where deadline_is_provisional and deadline is not null) as anew
        where id = anew.claim_id;
    get diagnostics more = row_count;
    return changed + more;
end $$;

revoke execute on function hall.sweep() from public;
revoke execute on function hall.once(text, text, text, text, bytea, text, jsonb, jsonb, text, text) from public;
revoke execute on function hall.seen(text, text, text, text, bytea) from public;
grant execute on function hall.sweep(), hall.once(text, text, text, text, bytea, text, jsonb, jsonb, text, text),
    hall.seen(text, text, text, text, bytea) to jifen_service;
