-- What enterprises say: appeals 申诉 against decisions about them, and ratings 评价 of how banks treated them.

-- Reason codes, so that nobody needs words to be counted; data of the code (hall_policy.yaml) as the tables of 0002.
create table hall.appeal_reason (
    name text primary key check (name ~ '^[a-z-]+$'),
    title_zh text not null,
    title_en text not null
);
create table hall.rating_reason (
    name text primary key check (name ~ '^[a-z-]+$'),
    title_zh text not null,
    title_en text not null
);

-- ------------------------------------------------------------------------------------------------------------ appeals

create table hall.appeal (
    id text primary key,
    tenant text not null default 'default',
    uscc hall.uscc not null references hall.enterprise,
    quote_id text references hall.limit_quote,
    fr_id text references hall.financing_request,
    claim_id text references hall.claim,
    concerns text[] not null,
    reason text not null,
    text text not null check (length(text) between 1 and 1000),
    contact_minutes bigint not null check (contact_minutes > 0),
    opinion_minutes bigint not null check (opinion_minutes >= contact_minutes),
    case_id text not null unique references hall.hall_case,
    opened_by text not null,
    opened_at timestamptz not null,
    constraint against_one_decision check (num_nonnulls(quote_id, fr_id, claim_id) = 1)
);
comment on table hall.appeal is 'open until it has an opinion; its case has the clock, and lets one appeal against a decision be open';
comment on column hall.appeal.concerns is 'the requests that are under appeal while it is open';
comment on column hall.appeal.text is 'the enterprise''s own words: in no event, case, log or stored answer';
comment on column hall.appeal.contact_minutes is 'like opinion_minutes working minutes from opened_at, as the settings were then';
create index appeal_enterprise on hall.appeal (uscc, id);
call hall.append_only('hall.appeal');

create table hall.appeal_contact (
    appeal_id text not null references hall.appeal,
    no integer not null,
    at timestamptz not null,
    method text not null check (method in ('visit', 'call', 'video', 'message')),
    recorded_by text not null,
    primary key (appeal_id, no)
);
call hall.append_only('hall.appeal_contact');

create table hall.appeal_opinion (
    appeal_id text primary key references hall.appeal,
    outcome text not null check (outcome in ('upheld', 'partly', 'dismissed')),
    note text not null,
    given_by text not null,
    given_at timestamptz not null
);
comment on table hall.appeal_opinion is 'what the case manager found; the decision appealed against stands as it was written';
call hall.append_only('hall.appeal_opinion');

create function hall.appealed(a hall.appeal) returns text language sql stable as $$
    -- The decision as the subject of a case. That a request is ineligible was decided with its quote, and is one decision.
    select coalesce('quote/' || coalesce(a.quote_id, (select quote_id from hall.financing_request where id = a.fr_id)),
        'fr/' || a.fr_id, 'claim/' || a.claim_id)
$$;

create function hall.is_open(a hall.appeal) returns boolean language sql stable as $$
    select not exists (select 1 from hall.appeal_opinion o where o.appeal_id = a.id)
$$;

create function hall.mark_appeals(a hall.appeal) returns void language sql as $$
    -- Sets the flag of the requests that an appeal concerns, whose locks are held: another one may still be open.
    update hall.financing_request f set is_under_appeal = exists (
            select 1 from hall.appeal other where other.uscc = a.uscc and f.id = any (other.concerns) and hall.is_open(other))
        where f.id = any (a.concerns)
$$;

create function hall.lock_appeal(a hall.appeal) returns void language plpgsql as $$
-- One at a time of an enterprise, and none beside an act that goes from one facility of it to another, which takes their
-- requests in its own order (C2); then the requests in the order of their ids.
declare concerned text;
begin
    perform pg_advisory_xact_lock(hashtextextended('facilities ' || a.uscc, 0));
    foreach concerned in array a.concerns loop
        perform hall.locked_request(concerned);
    end loop;
end $$;

create function hall.why_no_appeal(a hall.appeal) returns text language sql stable as $$
    -- The state in which the decision cannot be appealed against; null: it can. A quote that a newer one of its scheme has
    -- replaced binds nobody. A claim is appealed against where its bank declined, a request where a hard rule failed (T5).
    select case
        when a.quote_id is not null then (select 'superseded' from hall.limit_quote mine join hall.limit_quote newer
            on newer.uscc = mine.uscc and newer.scheme = mine.scheme and (newer.made_at, newer.id) > (mine.made_at, mine.id)
            where mine.id = a.quote_id limit 1)
        when a.fr_id is not null then (select nullif(state, 'INELIGIBLE') from hall.financing_request where id = a.fr_id)
        else (select nullif(state, 'declined') from hall.claim where id = a.claim_id) end
$$;

create function hall.act_open_appeal(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- Nothing of the decision changes by it. The case of the decision, which can be open once, gives the clocks.
declare
    a hall.appeal;
    hindrance text;
    standing text;
begin
    perform hall.begin_act(p_actor);
    a := jsonb_populate_record(null::hall.appeal, p_args);
    a.id := hall.new_id('al');
    a.tenant := p_actor ->> 'tenant';
    if a.quote_id is not null then
        select uscc into a.uscc from hall.limit_quote where id = a.quote_id;
        a.concerns := array(select id from hall.financing_request where quote_id = a.quote_id and uscc = a.uscc order by id);
    else
        select f.uscc, array(select r.id from hall.financing_request r where r.uscc = f.uscc
                and (r.id = f.id or a.fr_id is not null and r.quote_id = f.quote_id) order by r.id)
            into a.uscc, a.concerns from hall.financing_request f
            where f.id = coalesce(a.fr_id, (select fr_id from hall.claim where id = a.claim_id));
    end if;
    if a.uscc is null or not hall.acts_for(p_actor, a.uscc) then perform hall.refuse('not-found'); end if;
    if not exists (select 1 from hall.appeal_reason where name = a.reason) then
        perform hall.refuse_wrong('[{"pointer": "/reason", "rule": "names an appeal reason of hall_policy.yaml"}]');
    end if;
    perform hall.lock_appeal(a);
    a.opened_at := hall.hall_now();
    hindrance := hall.why_no_appeal(a);
    if hindrance is not null then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', hindrance));
    end if;
    a.contact_minutes := hall.setting('appeal_contact_minutes');
    a.opinion_minutes := hall.setting('appeal_opinion_minutes');
    a.opened_by := p_actor ->> 'client';
    a.case_id := hall.open_case('appeal', hall.appealed(a), 'appeal ' || a.id || ': ' || a.reason, a.opened_at, 'green',
        a.contact_minutes);
    select id into standing from hall.appeal where case_id = a.case_id;
    if found then perform hall.refuse('duplicate-request', jsonb_build_object('existing', standing)); end if;
    insert into hall.appeal select a.*;
    perform hall.mark_appeals(a);
    perform hall.tell_appeal(a, 'fin.appeal.opened.v1');
    return jsonb_build_object('status', 201, 'body', hall.appeal_row(a));
end $$;

create function hall.tell_appeal(a hall.appeal, p_type text) returns void language sql as $$
    -- To the enterprise alone, and thin: neither its text nor the case manager's note.
    select hall.emit('appeal/' || a.id, p_type, jsonb_build_object('appeal_id', a.id, 'against', hall.appealed(a),
        'outcome', (select outcome from hall.appeal_opinion where appeal_id = a.id)), p_uscc => a.uscc)
$$;

create function hall.open_appeal(p_id text) returns hall.appeal language plpgsql as $$
-- An appeal that is open, under its locks.
declare a hall.appeal;
begin
    select * into a from hall.appeal where id = p_id;
    if not found then perform hall.refuse('not-found'); end if;
    perform hall.lock_appeal(a);
    if not hall.is_open(a) then perform hall.refuse('illegal-transition', '{"state": "closed"}'); end if;
    return a;
end $$;

create function hall.await_opinion(a hall.appeal, p_lamp text) returns void language sql as $$
    -- The case's clock goes on to the opinion; a lamp that is red already stays so.
    update hall.hall_case set lamp = p_lamp, due_at = due, due_minutes = a.opinion_minutes,
            due_is_provisional = not hall.calendar_knows(due)
        from hall.add_working_minutes(a.opened_at, a.opinion_minutes) as due
        where id = a.case_id and overdue_at is null
$$;

create function hall.act_contact_appellant(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- The case manager reached the enterprise; a further contact is recorded and moves nothing.
declare
    a hall.appeal := hall.open_appeal(p_args ->> 'appeal_id');
    at timestamptz := hall.hall_now();
    no integer := 1 + (select count(*) from hall.appeal_contact c where c.appeal_id = a.id);
begin
    perform hall.begin_act(p_actor);
    insert into hall.appeal_contact (appeal_id, no, at, method, recorded_by)
        values (a.id, no, at, p_args ->> 'method', p_actor ->> 'client');
    if no = 1 then
        perform hall.await_opinion(a, case when at >= hall.add_working_minutes(a.opened_at, a.contact_minutes)
            then 'yellow' else 'green' end);
        perform hall.tell_appeal(a, 'fin.appeal.contacted.v1');
    end if;
    return jsonb_build_object('status', 200, 'body', hall.appeal_row(a));
end $$;

create function hall.act_give_opinion(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- Ends the appeal and its case. Upholding one changes no decision: the enterprise quotes or applies anew.
declare
    a hall.appeal := hall.open_appeal(p_args ->> 'appeal_id');
    at timestamptz := hall.hall_now();
begin
    perform hall.begin_act(p_actor);
    insert into hall.appeal_opinion (appeal_id, outcome, note, given_by, given_at)
        values (a.id, p_args ->> 'outcome', p_args ->> 'note', p_actor ->> 'client', at);
    perform hall.close_case('appeal', hall.appealed(a), p_actor ->> 'client', p_args ->> 'outcome', at);
    perform hall.mark_appeals(a);
    perform hall.tell_appeal(a, 'fin.appeal.closed.v1');
    return jsonb_build_object('status', 200, 'body', hall.appeal_row(a));
end $$;

create function hall.fire_appeal_case(p_case text) returns boolean language plpgsql as $$
-- Whether a case was due because nobody had contacted the appellant: it turns yellow and waits for the opinion.
declare a hall.appeal;
begin
    select q.* into a from hall.appeal q join hall.hall_case k on k.id = q.case_id
        where k.id = p_case and k.lamp = 'green'
            and not exists (select 1 from hall.appeal_contact c where c.appeal_id = q.id);
    if not found then return false; end if;
    perform hall.await_opinion(a, 'yellow');
    return true;
end $$;

create function hall.appeal_row(a hall.appeal) returns jsonb language sql stable as $$
    -- What a list or the answer of an act shows: no words of anybody.
    select jsonb_build_object('appeal_id', a.id, 'against', hall.appealed(a), 'quote_id', a.quote_id, 'fr_id', a.fr_id,
        'claim_id', a.claim_id, 'reason', a.reason, 'state', case when o.appeal_id is null then 'open' else 'closed' end,
        'lamp', k.lamp, 'case_id', a.case_id, 'opened_at', hall.iso(a.opened_at),
        'contact_due', hall.iso(hall.add_working_minutes(a.opened_at, a.contact_minutes)),
        'opinion_due', hall.iso(due), 'due_is_provisional', not hall.calendar_knows(due),
        'contacts', (select coalesce(jsonb_agg(jsonb_build_object('at', hall.iso(c.at), 'method', c.method) order by c.no), '[]')
            from hall.appeal_contact c where c.appeal_id = a.id),
        'outcome', o.outcome, 'closed_at', hall.iso(o.given_at))
    from hall.hall_case k left join hall.appeal_opinion o on o.appeal_id = a.id,
        hall.add_working_minutes(a.opened_at, a.opinion_minutes) as due
    where k.id = a.case_id
$$;

create function hall.look_at_appeal(p_actor jsonb, p_id text) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- Whole for the enterprise's side; for the case manager while it is open, with whom to call and what was decided, each look
-- logged. Null: it does not exist for the caller.
declare
    a hall.appeal;
    shown jsonb;
begin
    select * into a from hall.appeal where id = p_id;
    if not found then return null; end if;
    shown := hall.appeal_row(a) || jsonb_build_object('uscc', a.uscc, 'text', a.text,
        'note', (select note from hall.appeal_opinion where appeal_id = a.id));
    if hall.acts_for(p_actor, a.uscc) then return shown; end if;
    if p_actor ->> 'role' <> 'case-manager' or not hall.is_open(a) then return null; end if;
    perform hall.log_access(p_actor, a.uscc, 'appeal', 'assistance', null);
    return shown || (select jsonb_build_object('appellant', jsonb_build_object('name', e.name, 'contact_name', e.contact_name,
            'contact_phone', e.contact_phone)) from hall.enterprise e where e.uscc = a.uscc)
        || jsonb_build_object('decision', jsonb_build_object(
            'quote', hall.quote_body(coalesce(a.quote_id, (select quote_id from hall.financing_request where id = a.fr_id))),
            'claim', (select hall.claim_row(c) || jsonb_build_object('declined_for', c.reason ->> 'code')
                from hall.claim c where c.id = a.claim_id)));
end $$;

-- ------------------------------------------------------------------------------------------------------------ ratings

create table hall.rating (
    id text primary key,
    tenant text not null default 'default',
    claim_id text not null references hall.claim,
    uscc hall.uscc not null references hall.enterprise,
    institution_id text not null,
    outlet_id text not null,
    stars integer not null check (stars between 1 and 5),
    reasons text[] not null check (cardinality(reasons) <= 5),
    rated_by text not null,
    rated_at timestamptz not null,
    constraint one_rating_a_claim unique (claim_id),
    foreign key (institution_id, outlet_id) references hall.outlet (institution_id, id)
);
comment on table hall.rating is 'how a bank treated an enterprise under a claim; no words, so no personal data';
create index rating_institution on hall.rating (institution_id, outlet_id, rated_at);
create index rating_enterprise on hall.rating (uscc, id);
call hall.append_only('hall.rating');

create function hall.rating_row(r hall.rating) returns jsonb language sql stable as $$
    select jsonb_build_object('rating_id', r.id, 'claim_id', r.claim_id, 'uscc', r.uscc, 'institution_id', r.institution_id,
        'outlet_id', r.outlet_id, 'stars', r.stars, 'reasons', to_jsonb(r.reasons), 'rated_at', hall.iso(r.rated_at))
$$;

create function hall.act_rate_claim(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- Once, by the enterprise, for a claim under which the bank spoke with it.
declare
    c hall.claim;
    fr hall.financing_request;
    r hall.rating;
begin
    perform hall.begin_act(p_actor);
    select * into c from hall.claim where id = p_args ->> 'claim_id';
    if not found then perform hall.refuse('not-found'); end if;
    fr := hall.locked_request(c.fr_id);
    if not hall.acts_for(p_actor, fr.uscc) then perform hall.refuse('not-found'); end if;
    perform hall.refuse_wrong(coalesce((
        select jsonb_agg(jsonb_build_object('pointer', '/reasons/' || (n - 1), 'rule', 'names a rating reason of hall_policy.yaml')
            order by n)
        from jsonb_array_elements_text(p_args -> 'reasons') with ordinality as named (reason, n)
        where not exists (select 1 from hall.rating_reason where name = named.reason)), '[]'));
    select * into strict c from hall.claim where id = c.id;
    if c.contacted_at is null then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', c.state));
    end if;
    insert into hall.rating (id, claim_id, uscc, institution_id, outlet_id, stars, reasons, rated_by, rated_at)
        values (hall.new_id('rt'), c.id, fr.uscc, c.institution_id, c.outlet_id, (p_args ->> 'stars')::integer,
            array(select distinct jsonb_array_elements_text(p_args -> 'reasons') order by 1), p_actor ->> 'client',
            hall.hall_now())
        on conflict (claim_id) do nothing returning * into r;
    if not found then perform hall.refuse('already-exists'); end if;
    perform hall.emit('rating/' || r.id, 'fin.rating.given.v1',
        jsonb_build_object('rating_id', r.id, 'claim_id', r.claim_id), p_uscc => r.uscc);
    return jsonb_build_object('status', 201, 'body', hall.rating_row(r));
end $$;

create function hall.rating_groups(p_institution text)
returns table (outlet_id text, month date, members text[]) language plpgsql stable as $$
-- The ratings of an institution in the groups in which anybody may see them, each of so many enterprises that none can be
-- told: an outlet's month, once it is over, or else (outlet null) what such small months of all outlets came to by the end
-- of a month. Every rating is in one group at most and stays in it, and all that is shown is a sum of whole groups: the
-- difference of any two answers is one too.
declare
    enough constant bigint := hall.setting('ratings_shown_from');
    -- A minute after the month, when what was rated in it has been committed.
    over constant timestamptz := date_trunc('month', (hall.hall_now() - interval '1 minute') at time zone 'Asia/Shanghai')
        at time zone 'Asia/Shanghai';
    cell record;
    small_month date;
    small text[] := '{}';
    small_firms text[] := '{}';
begin
    for cell in
        select r.outlet_id as place, date_trunc('month', r.rated_at at time zone 'Asia/Shanghai')::date as month,
            array_agg(r.id) as ids, array_agg(distinct r.uscc::text) as firms
        from hall.rating r where r.institution_id = p_institution
            and r.rated_at < over
        group by 1, 2 order by 2, 1
    loop
        if cell.month <> small_month and cardinality(small_firms) >= enough then
            outlet_id := null; month := small_month; members := small;
            return next;
            small := '{}'; small_firms := '{}';
        end if;
        if cardinality(cell.firms) >= enough then
            outlet_id := cell.place; month := cell.month; members := cell.ids;
            return next;
        else
            small := small || cell.ids;
            small_firms := array(select distinct unnest(small_firms || cell.firms));
            small_month := cell.month;
        end if;
    end loop;
    if cardinality(small_firms) >= enough then
        outlet_id := null; month := small_month; members := small;
        return next;
    end if;
end $$;

create function hall.rating_totals(p_members text[]) returns jsonb language sql stable as $$
    -- `stars_hundredths`: the average in hundredths of a star, rounded down (no floats on the wire).
    select jsonb_build_object('ratings', count(*), 'stars_hundredths', sum(stars) * 100 / nullif(count(*), 0),
        'reasons', (select coalesce(jsonb_object_agg(reason, named), '{}') from (
            select reason, count(*) as named from hall.rating one, unnest(one.reasons) as reason
            where one.id = any (p_members) group by reason) as counted))
    from hall.rating where id = any (p_members)
$$;

-- Written by acts alone; the service reads.
revoke insert, update, delete on hall.appeal_reason, hall.rating_reason, hall.appeal, hall.appeal_contact,
    hall.appeal_opinion, hall.rating from jifen_service;
grant select on hall.appeal_reason, hall.rating_reason, hall.appeal, hall.appeal_contact, hall.appeal_opinion, hall.rating
    to jifen_service;
revoke execute on function hall.look_at_appeal(jsonb, text) from public;
grant execute on function hall.look_at_appeal(jsonb, text) to jifen_service;
