-- Deadlines (P4, S3): every non-final state has one, and any number of sweepers may fire them.

-- A fault of one row must not stop every later deadline: it is caught, kept here, shown to a person, and tried again later.
create table hall.stuck_deadline (
    subject text primary key check (subject ~ '^(claim|idle-claim|round|fr|facility|drawdown|revocation|case|event)/'),
    attempts integer not null default 1 check (attempts > 0),
    stuck_since timestamptz not null,
    retry_at timestamptz not null,
    sqlstate text not null check (sqlstate ~ '^[0-9A-Z]{5}$'),
    message text not null
);
comment on table hall.stuck_deadline is 'deadlines whose firing raised a fault that waiting does not cure; a case deadline-stuck is open for each until it is fired, or is due no longer';
comment on column hall.stuck_deadline.message is 'the fault''s own sentence without what it may quote of a row';

create function hall.is_transient(p_sqlstate text) returns boolean language sql immutable as $$
    -- Not the row's fault: a lost connection, a conflict, no resources, a lock not had, the server or its operator.
    select left(p_sqlstate, 2) in ('08', '40', '53', '55', '57')
$$;

create function hall.waits_stuck(p_subject text) returns boolean language sql volatile as $$
    select exists (select 1 from hall.stuck_deadline where subject = p_subject and retry_at > hall.hall_now())
$$;

create function hall.stick(p_subject text, p_sqlstate text, p_message text) returns text language plpgsql as $$
-- Keeps a fault and puts the next try off: 5 s after the first, then twice as long each time, an hour at most.
declare at timestamptz := hall.hall_now();
begin
    insert into hall.stuck_deadline as s (subject, stuck_since, retry_at, sqlstate, message)
        values (p_subject, at, at + interval '5 s', p_sqlstate, hall.plain_fault(p_sqlstate, p_message))
        on conflict (subject) do update set attempts = s.attempts + 1,
            retry_at = at + least(interval '5 s' * 2 ^ least(s.attempts, 10), interval '1 hour'),
            sqlstate = excluded.sqlstate, message = excluded.message;
    perform hall.open_case('deadline-stuck', p_subject, 'its deadline could not be fired: SQLSTATE ' || p_sqlstate, at);
    return 'stuck ' || p_subject || ' ' || p_sqlstate;
end $$;

create function hall.unstick(p_subject text, p_note text) returns void language plpgsql as $$
begin
    delete from hall.stuck_deadline where subject = p_subject;
    if found then perform hall.close_case('deadline-stuck', p_subject, 'system', p_note, hall.hall_now()); end if;
end $$;

create function hall.fire(p_subject text) returns text language plpgsql strict as $$
-- Fires the deadline of one due row (null: of none), which the caller has locked. What a row's own fault had changed is
-- undone, and the lock stays; a transient fault goes up as it came.
declare
    id text := split_part(p_subject, '/', 2);
    fired text;
    fault text;
    said text;
begin
    -- Nobody called, so the events of one deadline have a trace of their own.
    perform set_config('hall.traceparent', '00-' || replace(gen_random_uuid()::text, '-', '') || '-'
        || left(replace(gen_random_uuid()::text, '-', ''), 16) || '-00', true);
    begin
        case split_part(p_subject, '/', 1)
            when 'claim' then fired := hall.fire_claim(id);
            when 'idle-claim' then fired := hall.fire_idle_claim(id);
            when 'round' then fired := hall.fire_round(id, split_part(p_subject, '/', 3)::integer);
            when 'fr' then fired := hall.fire_request(id);
            when 'facility' then fired := hall.fire_facility(id);
            when 'drawdown' then fired := hall.fire_drawdown(id);
            when 'revocation' then fired := hall.fire_revocation(id);
            when 'case' then fired := hall.fire_case(id);
            when 'event' then fired := hall.fire_event(id::uuid);
        end case;
    exception when others or assert_failure then
        get stacked diagnostics fault = returned_sqlstate, said = message_text;
        if hall.is_transient(fault) then raise; end if;
        return hall.stick(p_subject, fault, said);
    end;
    perform hall.unstick(p_subject, 'swept: ' || fired);
    return fired;
end $$;

create function hall.fire_claim(p_id text) returns text language plpgsql as $$
-- A claim whose deadline has passed: an offer expires (K7), any other lease lapses (K5). The request's lock is held.
declare
    at timestamptz;
    c hall.claim;
begin
    select * into strict c from hall.claim where id = p_id for no key update;
    at := hall.hall_now();
    if c.deadline is null or c.deadline > at then return 'late'; end if;  -- somebody was quicker between the two reads
    c := hall.move_claim(c.id, case c.state when 'offered' then 'K7' else 'K5' end,
        case c.state when 'offered' then 'expired' else 'lapsed' end, 'system', at,
        jsonb_build_object('due', c.deadline));  -- to the microsecond: I16 and I17 compare it
    perform hall.claim_is_over(c.fr_id, 'system', at, c.state);
    return 'claim ' || c.state;
end $$;

create function hall.sweep_claim() returns text language plpgsql as $$
-- Fires the claim due first; null when none is due.
declare due text;
begin
    select k.id into due
        from hall.claim k join hall.financing_request f on f.id = k.fr_id
        where k.deadline <= (select hall.hall_now()) and not f.is_suspended and not hall.waits_stuck('claim/' || k.id)
        order by k.deadline limit 1 for no key update of f skip locked;
    return hall.fire('claim/' || due);
end $$;

create function hall.fire_idle_claim(p_id text) returns text language plpgsql as $$
-- A claim before its offer whose institution is suspended (rejected) or whose outlet is closed (released), both K6: the
-- enterprise does not wait for a bank that may not offer. An offer that was made, and what follows it, goes on. The
-- request's lock is held.
declare
    at timestamptz;
    c hall.claim;
    is_suspended boolean;
    is_closed boolean;
begin
    select * into strict c from hall.claim where id = p_id for no key update;
    select i.is_suspended, o.is_closed into strict is_suspended, is_closed
        from hall.outlet o join hall.institution i on i.id = o.institution_id where o.id = c.outlet_id;
    at := hall.hall_now();
    if c.state not in ('held', 'contacted') or not (is_suspended or is_closed) then return 'late'; end if;
    c := hall.move_claim(c.id, 'K6', case when is_suspended then 'rejected' else 'released' end, 'system', at,
        jsonb_build_object('why', case when is_suspended then 'institution-suspended' else 'outlet-closed' end));
    perform hall.claim_is_over(c.fr_id, 'system', at, c.state);
    return 'claim ' || c.state;
end $$;

create function hall.sweep_idle_claim() returns text language plpgsql as $$
-- Ends one such claim; null when there is none. One at a time and not in the act that suspends, which would hold the feed
-- back and take its locks against their order.
declare due text;
begin
    select k.id into due
        from (select id from hall.outlet where is_closed
                 union select o.id from hall.institution i join hall.outlet o on o.institution_id = i.id
                     where i.is_suspended) as place
            join hall.claim k on k.outlet_id = place.id and k.state in ('held', 'contacted')
            join hall.financing_request f on f.id = k.fr_id
        where not f.is_suspended and not hall.waits_stuck('idle-claim/' || k.id)
        order by k.claimed_at limit 1 for no key update of f skip locked;
    return hall.fire('idle-claim/' || due);
end $$;

create function hall.fire_round(p_fr text, p_n integer) returns text language plpgsql as $$
-- An open round that has closed without a winner: the next one, or the case manager (T10, T11). Its lock is held.
declare
    at timestamptz;
    closed_at timestamptz;
    fr hall.financing_request;
begin
    select closes_at into strict closed_at from hall.round where fr_id = p_fr and n = p_n;
    fr := hall.locked_request(p_fr);
    at := hall.hall_now();
    if fr.is_suspended then return 'late'; end if;
    perform hall.end_live_round(fr.id, at);
    if fr.state = 'broadcast' then
        perform hall.go_on_or_assist(fr, 'T10', 'T11', 'system', at, jsonb_build_object('due', closed_at));
    end if;
    return 'round closed';
end $$;

create function hall.sweep_round() returns text language plpgsql as $$
-- Fires the open round due first; null when none is due.
declare due text;
begin
    select 'round/' || k.fr_id || '/' || k.n into due
        from hall.round k join hall.financing_request f on f.id = k.fr_id
        where k.state = 'open' and k.closes_at <= (select hall.hall_now()) and not f.is_suspended
            and not hall.waits_stuck('round/' || k.fr_id || '/' || k.n)
        order by k.closes_at limit 1 for no key update of k skip locked;
    return hall.fire(due);
end $$;

create function hall.fire_request(p_id text) returns text language plpgsql as $$
-- A request whose own deadline has passed: drafts and quotes expire (T3), unless the enterprise has a newer quote; a
-- signed facility without a drawdown and a case that nobody took lie before a supervisor, without a move. Its lock is held.
declare
    at timestamptz := hall.hall_now();
    fr hall.financing_request;
    opened text;
begin
    select * into strict fr from hall.financing_request where id = p_id;
    fr := hall.renew_quote(fr);
    if fr.state = 'quoted' and fr.quote_expires_at > at then
        update hall.financing_request set deadline = quote_expires_at where id = fr.id;
        return 'quote renewed';
    end if;
    if fr.state in ('draft', 'quoted') then
        perform hall.move_request(fr.id, 'T3', 'EXPIRED', 'system', at, jsonb_build_object('due', fr.deadline));
        return 'request expired';
    end if;
    opened := hall.open_case(case fr.state when 'signed' then 'no-drawdown' else fr.state end, 'fr/' || fr.id,
        'the deadline of ' || hall.iso(fr.deadline) || ' passed in state ' || fr.state, at);
    if fr.state = 'assisted' then
        -- Its case stands since then, and would be overdue at the same instant: it is one, and the supervisor's.
        update hall.hall_case set lamp = 'red', overdue_at = at, due_is_provisional = false
            where id = opened and overdue_at is null;
    end if;
    update hall.financing_request set deadline = null where id = fr.id;
    return 'case opened';
end $$;

create function hall.sweep_request() returns text language plpgsql as $$
-- Fires the request due first; null when none is due.
declare due text;
begin
    select id into due from hall.financing_request
        where deadline <= (select hall.hall_now()) and not is_suspended and not hall.waits_stuck('fr/' || id)
        order by deadline limit 1 for no key update skip locked;
    return hall.fire('fr/' || due);
end $$;

create function hall.fire_revocation(p_consent text) returns text language plpgsql as $$
-- A revocation that not everybody acknowledged in time lies before a person. The lock of its wait is held.
begin
    delete from hall.awaited_acknowledgement where consent_id = p_consent;
    perform hall.open_case('revocation-unacknowledged', 'consent/' || p_consent,
        'not acknowledged in time by ' || array_to_string(hall.unacknowledged(p_consent), ', '), hall.hall_now(), 'yellow');
    return 'revocation unacknowledged';
end $$;

create function hall.fire_case(p_id text) returns text language plpgsql as $$
-- A case that nobody closed in time lies before the supervisor. Its lock is held.
begin
    if hall.fire_appeal_case(p_id) then return 'appeal not contacted'; end if;
    update hall.hall_case set lamp = 'red', overdue_at = hall.hall_now(), due_is_provisional = false where id = p_id;
    return 'case overdue';
end $$;

create function hall.request_of(p_subject text) returns text language sql stable as $$
    -- The request that the subject of a case belongs to, whose suspension stops its clock unless it is an appeal's; null: to
    -- none.
    select case split_part(p_subject, '/', 1)
        when 'fr' then split_part(p_subject, '/', 2)
        when 'round' then split_part(p_subject, '/', 2)
        when 'claim' then (select fr_id from hall.claim where id = split_part(p_subject, '/', 2))
        when 'idle-claim' then (select fr_id from hall.claim where id = split_part(p_subject, '/', 2))
        when 'facility' then (select fr_id from hall.facility where id = split_part(p_subject, '/', 2))
        when 'drawdown' then (select f.fr_id from hall.drawdown d join hall.facility f on f.id = d.facility_id
            where d.id = split_part(p_subject, '/', 2))
        end
$$;

create function hall.sweep_case() returns text language plpgsql as $$
-- Fires the unacknowledged revocation due first, else the case due first; null when none is due.
declare due text;
begin
    select consent_id into due from hall.awaited_acknowledgement
        where due_at <= (select hall.hall_now()) and not hall.waits_stuck('revocation/' || consent_id)
        order by due_at limit 1 for update skip locked;
    if found then return hall.fire('revocation/' || due); end if;
    select id into due from hall.hall_case
        where due_at <= (select hall.hall_now()) and closed_at is null and overdue_at is null
            and (kind = 'appeal' or not exists (
                select 1 from hall.financing_request f where f.id = hall.request_of(subject) and f.is_suspended))
            and not hall.waits_stuck('case/' || id)
        order by due_at limit 1 for no key update skip locked;
    return hall.fire('case/' || due);
end $$;

create function hall.fire_event(p_id uuid) returns text language plpgsql as $$
-- Brings an event that could not be published before a person. Was it the card of a round that is not shown since, the
-- round is closed and the request goes to the case manager: no bank can see what it could claim. Its row's lock is held.
declare
    moment timestamptz;
    told record;
    fr hall.financing_request;
begin
    select u.at, u.sqlstate, e.type, e.subject, e.audience_fr, e.audience_round into strict told
        from hall.unpublishable u join hall.event e on e.id = u.event_id where u.event_id = p_id;
    if told.type in ('fin.request.broadcast.v1', 'fin.request.resumed.v1') then
        perform 1 from hall.round where fr_id = told.audience_fr and n = told.audience_round for no key update;
        fr := hall.locked_request(told.audience_fr);
        moment := hall.hall_now();
        if fr.is_suspended then return 'late'; end if;
        if fr.state = 'broadcast' and exists (select 1 from hall.round where fr_id = fr.id and n = told.audience_round
                and state in ('announced', 'open') and coalesce(published_at, told.at) <= told.at) then
            perform hall.end_live_round(fr.id, moment);
            perform hall.move_request(fr.id, 'T11', 'assisted', 'system', moment,
                jsonb_build_object('hindrance', 'card-unpublishable'), hall.setting('assisted_minutes'));
            perform hall.open_case('assisted', 'fr/' || fr.id, 'its card could not be published', moment);
        end if;
    end if;
    moment := hall.hall_now();
    perform hall.open_case('event-unpublishable', 'event/' || p_id,
        told.type || ' of ' || told.subject || ' is in the feed without its data: SQLSTATE ' || told.sqlstate, moment);
    update hall.unpublishable set handled_at = moment where event_id = p_id;
    return 'event unpublishable';
end $$;

create function hall.sweep_event() returns text language plpgsql as $$
-- Brings one event that could not be published before a person; null when there is none. Not in the sequencer's pass, which
-- waits for no request.
declare due uuid;
begin
    select u.event_id into due
        from hall.unpublishable u join hall.event e on e.id = u.event_id
            left join hall.financing_request f on f.id = e.audience_fr
        where u.handled_at is null and not coalesce(f.is_suspended, false) and not hall.waits_stuck('event/' || u.event_id)
        order by u.at limit 1 for update of u skip locked;
    return hall.fire('event/' || due);
end $$;

create function hall.is_due(p_subject text) returns boolean language sql volatile as $$
    select coalesce(hall.hall_now() >= case split_part(p_subject, '/', 1)
        when 'claim' then (select deadline from hall.claim where id = split_part(p_subject, '/', 2))
        when 'idle-claim' then (select '-infinity'::timestamptz from hall.claim k
            join hall.outlet o on o.id = k.outlet_id join hall.institution i on i.id = o.institution_id
            where k.id = split_part(p_subject, '/', 2) and k.state in ('held', 'contacted')
                and (o.is_closed or i.is_suspended))
        when 'round' then (select closes_at from hall.round where fr_id = split_part(p_subject, '/', 2)
            and n = split_part(p_subject, '/', 3)::integer and state = 'open')
        when 'fr' then (select deadline from hall.financing_request where id = split_part(p_subject, '/', 2))
        when 'facility' then (select deadline from hall.facility where id = split_part(p_subject, '/', 2))
        when 'drawdown' then (select due_at from hall.drawdown where id = split_part(p_subject, '/', 2) and state = 'asked')
        when 'revocation' then (select due_at from hall.awaited_acknowledgement
            where consent_id = split_part(p_subject, '/', 2))
        when 'case' then (select due_at from hall.hall_case
            where id = split_part(p_subject, '/', 2) and closed_at is null and overdue_at is null)
        when 'event' then (select at from hall.unpublishable
            where event_id = split_part(p_subject, '/', 2)::uuid and handled_at is null)
        end, false)
$$;

create function hall.sweep_stuck() returns text language plpgsql as $$
-- Forgets a stuck deadline that somebody's act made void in the meantime; null when there is none.
declare gone text;
begin
    select subject into gone from hall.stuck_deadline
        where retry_at <= (select hall.hall_now()) and not hall.is_due(subject)
        order by retry_at limit 1 for update skip locked;
    if not found then return null; end if;
    perform hall.unstick(gone, 'due no longer');
    return 'due no longer';
end $$;

create function hall.sweep(p_first integer default 0) returns text
language plpgsql security definer set search_path = hall, pg_temp as $$
-- Fires one deadline and says which, or null when nothing is due; 'stuck <subject> <sqlstate>' for one that could not be
-- fired. Each call is its own transaction. p_first, counted on from call to call, is the kind that is looked for first, so
-- that many of one kind that are due at once let the others have their turn.
declare
    kinds constant integer := 8;
    fired text;
begin
    perform set_config('hall.role', 'system', true);
    for i in 0 .. kinds - 1 loop
        case (p_first + i) % kinds
            when 0 then fired := hall.sweep_claim();
            when 1 then fired := hall.sweep_round();
            when 2 then fired := hall.sweep_request();
            when 3 then fired := hall.sweep_facility();
            when 4 then fired := hall.sweep_idle_claim();
            when 5 then fired := hall.sweep_event();
            when 6 then fired := hall.sweep_case();
            when 7 then fired := hall.sweep_stuck();
        end case;
        if fired is not null then return fired; end if;
    end loop;
    return null;
end $$;

create function hall.recompute_provisional() returns integer language plpgsql as $$
-- S6: the calendar of a year has arrived, so what was set by weekdays is set anew from where it began to count, and how
-- many that were is told. Acts go on meanwhile: each row is reckoned from its own columns as they are when it is locked,
-- and what an act set by weekdays in that moment is found the next time. A round's gate and an offer's validity stay: they
-- were published, and parties rely on them.
declare
    changed integer;
    total integer;
begin
    update hall.financing_request set deadline = hall.add_working_minutes(deadline_from, deadline_minutes),
            deadline_is_provisional = not hall.calendar_knows(hall.add_working_minutes(deadline_from, deadline_minutes))
        where deadline_is_provisional and deadline is not null and hall.calendar_knows(deadline);
    get diagnostics total = row_count;
    update hall.claim set deadline = hall.add_working_minutes(deadline_from, deadline_minutes),
            deadline_is_provisional = not hall.calendar_knows(hall.add_working_minutes(deadline_from, deadline_minutes))
        where deadline_is_provisional and deadline is not null and hall.calendar_knows(deadline);
    get diagnostics changed = row_count;
    total := total + changed;
    update hall.drawdown set due_at = hall.add_working_minutes(coalesce(due_from, asked_at), due_minutes),
            due_is_provisional = not hall.calendar_knows(
                hall.add_working_minutes(coalesce(due_from, asked_at), due_minutes))
        where due_is_provisional and state = 'asked' and hall.calendar_knows(due_at);
    get diagnostics changed = row_count;
    total := total + changed;
    update hall.hall_case set due_at = hall.add_working_minutes(coalesce(due_from, opened_at), due_minutes),
            due_is_provisional = not hall.calendar_knows(
                hall.add_working_minutes(coalesce(due_from, opened_at), due_minutes))
        where due_is_provisional and closed_at is null and hall.calendar_knows(due_at);
    get diagnostics changed = row_count;
    return total + changed;
end $$;

revoke execute on function hall.sweep(integer) from public;
revoke execute on function hall.once(text, text, text, text, bytea, text, jsonb, jsonb, text, text, text) from public;
revoke execute on function hall.seen(text, text, text, text, bytea) from public;
grant execute on function hall.sweep(integer), hall.once(text, text, text, text, bytea, text, jsonb, jsonb, text, text, text),
    hall.seen(text, text, text, text, bytea) to jifen_service;
