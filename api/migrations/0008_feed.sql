-- The hall's feed: events get their place in it after commit, by one sequencer, which also publishes the cards and
-- opens the gates; what outlets subscribe to, and how far each client has read.

alter table hall.event add column no bigint generated always as identity;
comment on column hall.event.no is 'order of the events of one transaction; across transactions it says nothing, since it is not given out in commit order';
create index event_transaction on hall.event (transaction_id, no);

-- ---------------------------------------------------------------------------------------------------------------- feed

create table hall.feed (
    tenant text not null,
    sequence bigint not null check (sequence > 0),
    epoch integer not null check (epoch > 0),
    event_id uuid not null unique references hall.event,
    published_at timestamptz not null,
    body text not null,
    type text not null,
    subject text not null,
    uscc text,
    portal text,
    institution_id text,
    outlet_no integer,
    audience integer[],
    primary key (tenant, sequence)
);
comment on table hall.feed is 'body is the CloudEvent as every subscriber gets it, frozen; the sequence goes on over epochs and has no gaps (V2)';
comment on column hall.feed.portal is 'the portal''s client that speaks for the enterprise uscc';
comment on column hall.feed.outlet_no is 'whose claim it tells of; a client bound to one outlet reads no other of its institution';
comment on column hall.feed.audience is 'numbers of the outlets at work of the round that it tells of, or of all outlets of the institution; null: it concerns neither, or its card is hidden';
create index feed_time on hall.feed (tenant, published_at, sequence);
create index feed_enterprise on hall.feed (uscc, sequence) where uscc is not null;
create index feed_portal on hall.feed (portal, sequence) where portal is not null;
create index feed_institution on hall.feed (institution_id, sequence) where institution_id is not null;
create index feed_outlet on hall.feed (outlet_no, sequence) where outlet_no is not null;
call hall.append_only('hall.feed');

create table hall.feed_state (
    tenant text primary key,
    epoch integer not null default 1,
    head bigint not null default 0,
    published_below xid8 not null default '0',
    published_at timestamptz not null default hall.hall_now(),
    unfinished xid8,
    unfinished_after bigint,
    constraint a_place_in_the_unfinished check ((unfinished is null) = (unfinished_after is null))
);
comment on column hall.feed_state.published_below is 'every event of a transaction below it is in the feed';
comment on column hall.feed_state.unfinished is 'a transaction with more events than one pass publishes: those up to the number unfinished_after are in the feed, the others come next';
insert into hall.feed_state (tenant) values ('default');

create table hall.unpublishable (
    event_id uuid primary key references hall.event,
    sqlstate text not null check (sqlstate ~ '^[0-9A-Z]{5}$'),
    message text not null,
    at timestamptz not null,
    handled_at timestamptz
);
comment on table hall.unpublishable is 'events whose publication raised a fault of their own: in the feed they are without data, for the enterprise alone; the sweeper brings each before a person';
comment on column hall.unpublishable.message is 'the fault''s own sentence without what it may quote of a row';
create index unpublishable_open on hall.unpublishable (at) where handled_at is null;

create view hall.unpublished as
    select e.* from hall.event e where not exists (select 1 from hall.feed f where f.event_id = e.id);

create function hall.open_announced_round(p_fr text, p_n integer, p_at timestamptz) returns void language plpgsql as $$
-- F1: the gate opens so long after publication, and not before people work. Gates that wait for the morning are spread
-- over its first seconds, or all that came in a night would close at one instant too (S3). The round's lock is held.
declare
    ready timestamptz := p_at + make_interval(secs => hall.setting('gate_ms') / 1000.0);
    opens timestamptz := ready;
begin
    if hall.setting('gate_waits_for_working_time') = 1 then opens := hall.next_working_time(ready); end if;
    if opens > ready then
        opens := opens + make_interval(secs => mod(abs(hashtext(p_fr || '/' || p_n)::bigint),
            1 + hall.setting('gate_spread_ms')) / 1000.0);
    end if;
    update hall.round set state = 'open', published_at = p_at, opens_at = opens,
            closes_at = hall.add_working_minutes(opens, hall.setting('round_minutes'))
        where fr_id = p_fr and n = p_n and state = 'announced';
end $$;

create function hall.at_work(p_outlets integer[]) returns integer[] language plpgsql stable as $$
-- Those of the outlets that see cards: not closed, and of an institution that is not suspended.
declare
    idle integer[] := array(select no from hall.outlet where is_closed
        union all select o.no from hall.institution i join hall.outlet o on o.institution_id = i.id where i.is_suspended);
begin
    if not p_outlets && idle then return p_outlets; end if;
    return array(
        select no from unnest(p_outlets) with ordinality as one (no, place) where no <> all (idle) order by place);
end $$;

create function hall.append_to_feed(p_events uuid[], p_head bigint, p_epoch integer, p_at timestamptz) returns void
language plpgsql as $$
-- Publishes these events in this order behind the place p_head. A card that is hidden by now (request suspended, round
-- closed before it was published) reaches the enterprise alone; a suspended request that is resumed shows its card
-- again, or for the first time.
declare
    hidden text[];  -- read once, so that a gate opens if and only if its card is shown
begin
    select coalesce(array_agg(q.id), '{}') into hidden from hall.financing_request q where q.is_suspended
        and q.id in (select e.audience_fr from hall.event e where e.id = any (p_events));
    perform hall.open_announced_round(e.audience_fr, e.audience_round, p_at) from hall.event e
        where e.id = any (p_events) and e.type in ('fin.request.broadcast.v1', 'fin.request.resumed.v1')
            and e.audience_fr <> all (hidden);
    insert into hall.feed (tenant, sequence, epoch, event_id, published_at, type, subject, uscc, portal, institution_id,
            outlet_no, audience, body)
        select e.tenant, p_head + one.place, p_epoch, e.id, p_at, e.type, e.subject, e.uscc, firm.portal,
            e.institution_id, coalesce(o.no, closed.no),
            case when e.subject = 'institution/' || e.institution_id then hall.outlets_of(e.institution_id, null)
                when card.is_told and not card.is_shown then null else hall.at_work(shown.audience) end,
            (jsonb_build_object('specversion', '1.0', 'id', e.id, 'source', '/tenants/' || e.tenant,
                'type', e.type, 'subject', e.subject, 'time', hall.iso(e.at), 'datacontenttype', 'application/json',
                'dataschema', '/schemas/' || e.type, 'stream', 'hall', 'epoch', p_epoch::text,
                'sequence', lpad((p_head + one.place)::text, 20, '0'), 'subjectsequence', e.subject_sequence::text,
                'actor', e.actor_role, 'data', case when card.is_told and card.is_shown and shown.state = 'open'
                    then e.data || jsonb_build_object('card', shown.card, 'card_version', shown.card_version,
                        'opens_at', hall.iso(shown.opens_at), 'closes_at', hall.iso(shown.closes_at))
                    else e.data end)
                || case when e.traceparent is null then '{}' else jsonb_build_object('traceparent', e.traceparent) end)::text
        from unnest(p_events) with ordinality as one (id, place) join hall.event e on e.id = one.id
            left join hall.round shown on shown.fr_id = e.audience_fr and shown.n = e.audience_round
            cross join lateral (select shown.published_at is not null and e.audience_fr <> all (hidden) as is_shown,
                e.type in ('fin.request.broadcast.v1', 'fin.request.resumed.v1') as is_told) as card
            left join hall.enterprise firm on firm.uscc = e.uscc
            left join hall.facility f on f.id = e.data ->> 'facility_id'
            left join hall.claim c on c.id = coalesce(e.data ->> 'claim_id', f.claim_id) and c.institution_id = e.institution_id
            left join hall.outlet o on o.id = c.outlet_id
            left join hall.outlet closed on closed.id = e.data ->> 'outlet_id'
        order by one.place;
end $$;

create function hall.plain_fault(p_sqlstate text, p_message text) returns text language sql immutable as $$
    -- A fault's sentence without what it may quote of a row: one of class 22 quotes the value that was wrong, and any may
    -- name an enterprise.
    select left(regexp_replace(
        case when p_sqlstate like '22%' then regexp_replace(p_message, '"[^"]*"?', '"…"', 'g') else p_message end,
        '[0-9A-Z]{18}', '…', 'g'), 500)
$$;

create function hall.append_bare(
    p_event uuid, p_place bigint, p_epoch integer, p_at timestamptz, p_sqlstate text, p_message text
) returns void language sql as $$
    -- Gives an event that cannot be published as it is its place all the same, without data, for the enterprise alone or
    -- for nobody: the feed has no gap (V2) and nobody waits for it.
    insert into hall.feed (tenant, sequence, epoch, event_id, published_at, type, subject, uscc, portal, body)
        select e.tenant, p_place, p_epoch, e.id, p_at, e.type, e.subject, e.uscc, firm.portal,
            jsonb_build_object('specversion', '1.0', 'id', e.id, 'source', '/tenants/' || e.tenant, 'type', e.type,
                'subject', e.subject, 'time', hall.iso(e.at), 'stream', 'hall', 'epoch', p_epoch::text,
                'sequence', lpad(p_place::text, 20, '0'), 'subjectsequence', e.subject_sequence::text,
                'actor', e.actor_role)::text
        from hall.event e left join hall.enterprise firm on firm.uscc = e.uscc where e.id = p_event;
    insert into hall.unpublishable (event_id, sqlstate, message, at)
        values (p_event, p_sqlstate, hall.plain_fault(p_sqlstate, p_message), p_at)
$$;

create function hall.publish(p_events uuid[], p_head bigint, p_epoch integer, p_at timestamptz) returns integer
language plpgsql as $$
-- Publishes these events as append_to_feed does, and says how many could not be: one that raises a fault of its own
-- (found by halving, each half undone as a whole when it fails) holds no other up. A transient fault goes up as it came.
declare
    half integer := cardinality(p_events) / 2;
    fault text;
    said text;
begin
    begin
        perform hall.append_to_feed(p_events, p_head, p_epoch, p_at);
        return 0;
    exception when others or assert_failure then
        get stacked diagnostics fault = returned_sqlstate, said = message_text;
        if hall.is_transient(fault) then raise; end if;
    end;
    if half = 0 then
        perform hall.append_bare(p_events[1], p_head + 1, p_epoch, p_at, fault, said);
        return 1;
    end if;
    return hall.publish(p_events[:half], p_head, p_epoch, p_at)
        + hall.publish(p_events[half + 1:], p_head + half, p_epoch, p_at);
end $$;

create function hall.follows_unpublished(p_transaction xid8, p_chosen xid8[]) returns boolean language sql volatile as $$
    -- Whether another transaction's event comes before one of this transaction's, of the same subject, and is neither
    -- told yet nor chosen to be told before it.
    select exists (
        select 1 from hall.event e join hall.event before on before.subject = e.subject
            and before.subject_sequence = e.subject_sequence - 1 and before.transaction_id <> e.transaction_id
        where e.transaction_id = p_transaction and before.transaction_id <> all (p_chosen)
            and not exists (select 1 from hall.feed f where f.event_id = before.id))
$$;

create function hall.sequence_feed(
    p_tenant text, p_limit integer, p_portion integer default 5000,
    out leads boolean, out published integer, out epoch integer, out head bigint, out waiting boolean, out lag_ms bigint,
    out unpublishable integer
) language plpgsql security definer set search_path = hall, pg_temp as $$
-- One pass of the sequencer: publishes about p_limit events, if no other process is at it. A transaction's events stay
-- together, up to p_portion of them; the rest of a greater one comes with the passes that follow, before anything else.
-- Only transactions below the snapshot's xmin are read: all of them have ended, so none can appear later with a lower
-- place (V2). Among them transactions go by their last event, since who waited for another's lock wrote after it though
-- its transaction id may be the lower one; and who wrote after one that is not below the xmin yet, or not wholly told,
-- waits with it (V4). `waiting`: events are left, for the next pass or for a transaction that is still running;
-- `unpublishable`: how many of the published could not be as they are (see hall.publish).
declare
    standing record;
    lower_edge xid8;
    upper_edge xid8;  -- null: none
    moment timestamptz;
    portion integer := greatest(p_limit, p_portion);
    one record;
    chosen xid8[] := '{}';
    due uuid[] := '{}';
begin
    published := 0;
    unpublishable := 0;
    leads := pg_try_advisory_xact_lock(5202608, hashtext(p_tenant));
    if not leads then return; end if;
    select s.*, pg_snapshot_xmin(pg_current_snapshot()) as horizon into strict standing
        from hall.feed_state s where s.tenant = p_tenant;
    epoch := standing.epoch;
    head := standing.head;
    lower_edge := standing.published_below;
    upper_edge := standing.horizon;
    if standing.horizon < standing.published_below then
        -- Transaction ids began anew: this is a copy of the database in another cluster. All that the copy had not yet
        -- published comes at once; a new epoch tells subscribers that their places mean nothing here.
        epoch := epoch + 1;
        lower_edge := '0';
        upper_edge := null;
        standing.unfinished := null;
        standing.unfinished_after := null;
    end if;
    if standing.unfinished is null then
        for one in select e.transaction_id as id, array_agg(e.id order by e.no) as ids from hall.unpublished e
                where e.tenant = p_tenant and e.transaction_id >= lower_edge
                    and (e.transaction_id < upper_edge or upper_edge is null)
                group by e.transaction_id order by max(e.no) loop
            exit when published > 0 and upper_edge is not null and published + cardinality(one.ids) > p_limit;
            continue when hall.follows_unpublished(one.id, chosen);
            if cardinality(one.ids) > portion and upper_edge is not null then
                standing.unfinished := one.id;
                standing.unfinished_after := 0;
                exit;
            end if;
            chosen := chosen || one.id;
            due := due || one.ids;
            published := cardinality(due);
        end loop;
    end if;
    if standing.unfinished is not null then
        select array_agg(e.id order by e.no), max(e.no), count(*) into due, standing.unfinished_after, published
            from (select id, no from hall.event
                where transaction_id = standing.unfinished and no > standing.unfinished_after and tenant = p_tenant
                order by no limit portion) as e;
    end if;
    -- Every lock is taken before the time is read: after it nothing waits, so no gate opens before its card is out.
    perform 1 from hall.round r where r.state = 'announced' and (r.fr_id, r.n) in (
            select e.audience_fr, e.audience_round from hall.event e where e.id = any (due))
        order by r.fr_id, r.n for no key update;
    moment := hall.hall_now();
    if published > 0 then unpublishable := hall.publish(due, head, epoch, moment); end if;
    head := head + published;
    select min(e.at) as at into one from (select at from hall.event
        where transaction_id = standing.unfinished and no > standing.unfinished_after order by no limit 1) as e;
    if one.at is null then
        standing.unfinished := null;
        standing.unfinished_after := null;
    end if;
    if published > 0 or epoch > standing.epoch then  -- an idle pass writes nothing
        if standing.unfinished is null then
            lower_edge := coalesce((
                select e.transaction_id from hall.unpublished e where e.tenant = p_tenant and e.transaction_id >= lower_edge
                    and e.transaction_id < upper_edge order by e.transaction_id limit 1), standing.horizon);
        end if;
        update hall.feed_state s set epoch = sequence_feed.epoch, head = sequence_feed.head, published_at = moment,
                published_below = lower_edge, unfinished = standing.unfinished, unfinished_after = standing.unfinished_after
            where s.tenant = p_tenant;
        perform pg_notify('hall_feed', epoch || '.' || head);
    end if;
    if standing.unfinished is not null then  -- not counted anew at each portion: the oldest left is most likely this
        waiting := true;
        lag_ms := ceil(extract(epoch from moment - one.at) * 1000)::bigint;
        return;
    end if;
    select count(*) > 0, coalesce(ceil(extract(epoch from moment - min(e.at)) * 1000), 0)::bigint into waiting, lag_ms
        from hall.unpublished e where e.tenant = p_tenant and e.transaction_id >= lower_edge;
end $$;

create function hall.begin_epoch(p_tenant text) returns integer language sql as $$
    -- For the operator who took the database back to an earlier time: places given out since then mean nothing now.
    update hall.feed_state set epoch = epoch + 1 where tenant = p_tenant returning epoch
$$;

-- ------------------------------------------------------------------------------------------------ audience of a round

create table hall.subscription (
    outlet_id text primary key references hall.outlet,
    districts text[] not null default '{}',
    industry_sections text[] not null default '{}',
    amount_bands text[] not null default '{}',
    purposes text[] not null default '{}',
    schemes text[] not null default '{}',
    max_term_months integer check (max_term_months > 0),
    first_loans_only boolean not null default false,
    version integer not null default 1 check (version > 0),
    updated_at timestamptz not null,
    updated_by text not null
);
comment on table hall.subscription is 'the cards an outlet wants before the last round; an empty list lets everything pass, a list lets nothing unknown pass';

create function hall.wanted(s hall.subscription, fr hall.financing_request) returns boolean
language plpgsql stable as $$
begin
    return coalesce((s.districts = '{}' or fr.district = any (s.districts))
        and (s.industry_sections = '{}' or fr.industry_section = any (s.industry_sections))
        and (s.amount_bands = '{}' or hall.amount_band_of(fr.amount_fen) = any (s.amount_bands))
        and (s.purposes = '{}' or fr.purpose = any (s.purposes))
        and (s.schemes = '{}' or fr.scheme = any (s.schemes))
        and (s.max_term_months is null or fr.term_months <= s.max_term_months)
        and (not s.first_loans_only or fr.is_first_loan), false);
end $$;

create function hall.audience(p_fr text, p_round integer) returns integer[] language sql stable as $$
-- Numbers of the outlets that round p_round would reach, in order. Round 0: the institutions wished for, by name or by
-- a product; 1: subscribers in the request's district; 2: subscribers anywhere; the last, and any after it: everybody.
-- Never one whose institution is suspended, or cools down after lapsing or releasing the round before (H5), or that no
-- consent of the enterprise names.
    select coalesce(array_agg(o.no order by o.no), '{}')
    from hall.financing_request fr
        cross join lateral (select hall.request_recipients(fr, hall.hall_now()) as named offset 0) consented
        join hall.outlet o on not o.is_closed
        join hall.institution i on i.id = o.institution_id and not i.is_suspended and i.tenant = fr.tenant
        left join hall.subscription s on s.outlet_id = o.id
    where fr.id = p_fr and hall.names_recipient(consented.named, i.id, true)
        and case
            when p_round = 0 then i.id = any (fr.wishes)
                or exists (select 1 from hall.product p where p.id = any (fr.wishes) and p.institution_id = i.id)
            when p_round >= least(3, hall.setting('rounds')) then true
            when p_round = 1 then o.district = fr.district and hall.wanted(s, fr)
            else hall.wanted(s, fr)
        end
        and not exists (
            select 1 from hall.claim c where c.fr_id = fr.id and c.institution_id = i.id
                and c.state in ('lapsed', 'released')
                and c.round = (select max(r.n) from hall.round r where r.fr_id = fr.id and r.n < p_round))
$$;

create function hall.put_subscription(p_actor jsonb, p_args jsonb) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- The version names what the caller replaces; null: there is none yet.
declare
    place hall.outlet;
    made hall.subscription;
    standing integer;
    wrong jsonb;
begin
    perform hall.refuse_under_maintenance();
    select * into place from hall.outlet where id = p_args ->> 'outlet_id' and not is_closed
        and institution_id = p_actor ->> 'institution' and id = coalesce(p_actor ->> 'outlet', id) for no key update;
    if not found then perform hall.refuse('not-found'); end if;
    select version into standing from hall.subscription where outlet_id = place.id;
    if standing is distinct from (p_args ->> 'version')::integer then
        perform hall.refuse('stale-version', jsonb_build_object('version', standing));
    end if;
    made := jsonb_populate_record(null::hall.subscription, p_args);
    select jsonb_agg(jsonb_build_object('pointer', pointer, 'rule', rule)) into wrong from (
        select '/amount_bands/' || i - 1, 'names a band of the hall'
            from unnest(made.amount_bands) with ordinality as one (name, i)
            where not exists (select 1 from hall.amount_band where code = name)
        union all select '/purposes/' || i - 1, 'names a purpose of the hall'
            from unnest(made.purposes) with ordinality as one (name, i)
            where not exists (select 1 from hall.purpose p where p.name = one.name)
        union all select '/schemes/' || i - 1, 'names a scheme of the hall'
            from unnest(made.schemes) with ordinality as one (name, i)
            where not exists (select 1 from hall.scheme s where s.name = one.name)
    ) as rules (pointer, rule);
    if wrong is not null then perform hall.refuse('validation', jsonb_build_object('errors', wrong)); end if;
    insert into hall.subscription as s (outlet_id, districts, industry_sections, amount_bands, purposes, schemes,
            max_term_months, first_loans_only, updated_at, updated_by)
        values (place.id, made.districts, made.industry_sections, made.amount_bands, made.purposes, made.schemes,
            made.max_term_months, made.first_loans_only, hall.hall_now(), p_actor ->> 'client')
        on conflict (outlet_id) do update set districts = excluded.districts,
            industry_sections = excluded.industry_sections, amount_bands = excluded.amount_bands,
            purposes = excluded.purposes, schemes = excluded.schemes, max_term_months = excluded.max_term_months,
            first_loans_only = excluded.first_loans_only, version = s.version + 1, updated_at = excluded.updated_at,
            updated_by = excluded.updated_by;
    return hall.subscription_view(p_actor, place.id);
end $$;

create function hall.subscription_view(p_actor jsonb, p_outlet text) returns jsonb language sql stable as $$
    select to_jsonb(s) - 'updated_by' || jsonb_build_object('updated_at', hall.iso(s.updated_at))
    from hall.subscription s join hall.outlet o on o.id = s.outlet_id
    where o.id = p_outlet and o.institution_id = p_actor ->> 'institution'
        and o.id = coalesce(p_actor ->> 'outlet', o.id)
$$;

-- --------------------------------------------------------------------------------------------- who reads what, so far

create function hall.outlets_of(p_institution text, p_outlet text) returns integer[] language sql stable as $$
    -- Numbers of the outlets that a reader stands for: of its institution, or the one that it is bound or narrowed to.
    select array_agg(no) from hall.outlet
    where institution_id = p_institution and id = coalesce(p_outlet, id)
$$;

create function hall.reads(
    f hall.feed, p_outlets integer[], p_institution text, p_uscc text, p_portal text
) returns boolean language sql immutable as $$
    -- p_institution: of a reader who stands for all its outlets, else null.
    select coalesce(f.audience && p_outlets, false) or coalesce(f.outlet_no = any (p_outlets), false)
        or coalesce(f.institution_id = p_institution, false) or coalesce(f.uscc = p_uscc, false)
        or coalesce(f.portal = p_portal, false)
$$;

create function hall.own_places(
    p_tenant text, p_outlets integer[], p_institution text, p_uscc text, p_portal text,
    p_after bigint, p_before bigint, p_limit integer
) returns setof bigint language sql stable as $$
    -- The first places between these two, neither included, that hall.reads grants, in order. Each way to be entitled but
    -- the last goes by an index of its own, so that an enterprise does not walk through everybody's events. Cards are come
    -- upon in order: nearly all institutions get nearly all of them.
    select sequence from (
        (select sequence from hall.feed where uscc = p_uscc and tenant = p_tenant
            and sequence > p_after and sequence < p_before order by sequence limit p_limit)
        union (select sequence from hall.feed where portal = p_portal and tenant = p_tenant
            and sequence > p_after and sequence < p_before order by sequence limit p_limit)
        union (select sequence from hall.feed where institution_id = p_institution and tenant = p_tenant
            and sequence > p_after and sequence < p_before order by sequence limit p_limit)
        union (select f.sequence from unnest(p_outlets) as one (no) cross join lateral (
                select sequence from hall.feed where outlet_no = one.no and tenant = p_tenant
                    and sequence > p_after and sequence < p_before order by sequence limit p_limit) as f)
        union (select sequence from hall.feed where p_outlets is not null and tenant = p_tenant and audience && p_outlets
            and sequence > p_after and sequence < p_before order by sequence limit p_limit)
    ) as own order by sequence limit p_limit
$$;

create function hall.own_place_before(
    p_tenant text, p_outlets integer[], p_institution text, p_uscc text, p_portal text, p_before bigint
) returns bigint language plpgsql stable as $$
-- The last place before this one that hall.reads grants; 0: there is none. Which cards reached an outlet is looked for
-- last, and only as far back as the others leave open.
declare
    named bigint := coalesce(greatest(
        (select sequence from hall.feed where uscc = p_uscc and tenant = p_tenant and sequence < p_before
            order by sequence desc limit 1),
        (select sequence from hall.feed where portal = p_portal and tenant = p_tenant and sequence < p_before
            order by sequence desc limit 1),
        (select sequence from hall.feed where institution_id = p_institution and tenant = p_tenant
            and sequence < p_before order by sequence desc limit 1),
        (select max(f.sequence) from unnest(p_outlets) as one (no) cross join lateral (
            select sequence from hall.feed where outlet_no = one.no and tenant = p_tenant and sequence < p_before
                order by sequence desc limit 1) as f)), 0);
begin
    if p_outlets is null then return named; end if;
    return coalesce((select sequence from hall.feed where tenant = p_tenant and audience && p_outlets
        and sequence > named and sequence < p_before order by sequence desc limit 1), named);
end $$;

create table hall.poll_cursor (
    client_id text primary key references hall.client,
    acknowledged_through bigint not null
);
comment on column hall.poll_cursor.acknowledged_through is 'every event for the client up to this place of the feed is acknowledged';

create table hall.event_ack (
    client_id text not null references hall.client,
    sequence bigint not null,
    acknowledged_at timestamptz not null,
    error text,
    primary key (client_id, sequence)
);
comment on column hall.event_ack.error is 'the code by which the client says that it could not use the event; it is not sent again';
call hall.append_only('hall.event_ack');

create function hall.acknowledge(
    p_client text, p_outlets integer[], p_institution text, p_uscc text, p_portal text, p_ids uuid[], p_errors text[]
) returns integer language plpgsql security definer set search_path = hall, pg_temp as $$
-- Keeps what a client acknowledges of its own events (p_errors beside p_ids, null: all is well), moves its cursor on,
-- and says how many were new. A client that polls for the first time begins with what was published since it exists, as
-- far back as the feed resumes.
declare
    me hall.client;
    through bigint;
    reached bigint;
    head bigint;
    own bigint[];
    waits bigint;
    kept integer;
begin
    select * into strict me from hall.client where id = p_client;
    select acknowledged_through into through from hall.poll_cursor where client_id = me.id for no key update;
    if not found then
        insert into hall.poll_cursor (client_id, acknowledged_through)
            select me.id, coalesce((
                select f.sequence from hall.feed f
                -- The volatile clock is asked once, in a subselect, so that the index serves.
                where f.tenant = me.tenant and f.published_at < (select greatest(me.created_at,
                    hall.hall_now() - make_interval(days => hall.setting('retention_days')::integer)))
                order by f.published_at desc, f.sequence desc limit 1), 0)
            on conflict do nothing;
        select acknowledged_through into strict through from hall.poll_cursor where client_id = me.id for no key update;
    end if;
    insert into hall.event_ack (client_id, sequence, acknowledged_at, error)
        select me.id, f.sequence, hall.hall_now(), max(one.error)
        from unnest(p_ids, p_errors) as one (id, error) join hall.feed f on f.event_id = one.id
        where f.tenant = me.tenant and f.sequence > through
            and hall.reads(f, p_outlets, p_institution, p_uscc, p_portal)
        group by f.sequence
        on conflict do nothing;
    get diagnostics kept = row_count;
    select max(f.sequence) into head from hall.feed f where f.tenant = me.tenant;
    reached := through;
    loop
        own := array(select hall.own_places(
            me.tenant, p_outlets, p_institution, p_uscc, p_portal, reached, head + 1, 100));
        select min(place) into waits from unnest(own) as one (place)
            where not exists (select 1 from hall.event_ack a where a.client_id = me.id and a.sequence = place);
        reached := coalesce(waits - 1, case when cardinality(own) < 100 then head else own[100] end, 0);
        exit when waits is not null or cardinality(own) < 100;
    end loop;
    update hall.poll_cursor set acknowledged_through = reached
        where client_id = me.id and acknowledged_through < reached;
    return kept;
end $$;

create table hall.read_position (
    client_id text not null references hall.client,
    outlet_id text not null,
    means text not null check (means in ('stream', 'poll', 'snapshot')),
    sequence bigint not null,
    at timestamptz not null,
    primary key (client_id, outlet_id, means)
) with (fillfactor = 70);
comment on table hall.read_position is 'the last place of the feed that was handed to a client, kept every few seconds; outlet_id is empty for a client that stands for all its outlets';

create function hall.keep_positions(p_clients text[], p_outlets text[], p_means text[], p_sequences bigint[])
returns void language sql security definer set search_path = hall, pg_temp as $$
    insert into hall.read_position as p (client_id, outlet_id, means, sequence, at)
        select client, outlet, means, max(sequence), hall.hall_now()
        from unnest(p_clients, p_outlets, p_means, p_sequences) as one (client, outlet, means, sequence)
        group by client, outlet, means order by client, outlet, means
        on conflict (client_id, outlet_id, means) do update set sequence = excluded.sequence, at = excluded.at
            where p.sequence < excluded.sequence
$$;

create function hall.receipts_view(p_fr text, p_round integer) returns jsonb language sql stable as $$
-- By institution, how far the card of a round came: `queued` since it is in the feed; `sent` to a client of its own;
-- `acknowledged` by one that polls; `seen` in a hall that was read since, or by a claim. Null: there is no such round.
    select jsonb_build_object('fr_id', r.fr_id, 'round', r.n, 'published_at', hall.iso(r.published_at),
        'institutions', coalesce((
            select jsonb_agg(jsonb_build_object('institution_id', reached.institution_id,
                'outlets', cardinality(reached.ids),
                'queued', card.sequence is not null,
                'sent', exists (select 1 from hall.read_position p join hall.client c on c.id = p.client_id
                    where c.institution_id = reached.institution_id and p.sequence >= card.sequence
                        and p.outlet_id = any (array_append(reached.ids, ''))),
                'acknowledged', exists (select 1 from hall.client c
                    left join hall.poll_cursor k on k.client_id = c.id
                    left join hall.event_ack a on a.client_id = c.id and a.sequence = card.sequence
                    where c.institution_id = reached.institution_id
                        and coalesce(c.outlet_id, '') = any (array_append(reached.ids, ''))
                        and (a.sequence is not null and a.error is null
                            or a.sequence is null and k.acknowledged_through >= card.sequence)),
                'seen', exists (select 1 from hall.read_position p join hall.client c on c.id = p.client_id
                        where c.institution_id = reached.institution_id and p.means = 'snapshot'
                            and p.sequence >= card.sequence and p.outlet_id = any (array_append(reached.ids, '')))
                    or exists (select 1 from hall.claim c where c.fr_id = r.fr_id and c.round = r.n
                        and c.institution_id = reached.institution_id))
                order by reached.institution_id)
            from (select o.institution_id, array_agg(o.id) as ids from hall.outlet o where o.no = any (r.audience)
                group by o.institution_id) as reached), '[]'))
    from hall.round r left join lateral (
        select max(f.sequence) as sequence from hall.event e join hall.feed f on f.event_id = e.id
        where e.subject = 'fr/' || r.fr_id and e.audience_round = r.n and f.audience is not null
            and e.type in ('fin.request.broadcast.v1', 'fin.request.resumed.v1')) as card on true
    where r.fr_id = p_fr and r.n = p_round
$$;

revoke execute on function hall.sequence_feed(text, integer, integer), hall.begin_epoch(text),
    hall.put_subscription(jsonb, jsonb), hall.keep_positions(text[], text[], text[], bigint[]),
    hall.acknowledge(text, integer[], text, text, text, uuid[], text[]) from public;
grant execute on function hall.sequence_feed(text, integer, integer), hall.put_subscription(jsonb, jsonb),
    hall.keep_positions(text[], text[], text[], bigint[]),
    hall.acknowledge(text, integer[], text, text, text, uuid[], text[]) to jifen_service;
grant select on hall.feed, hall.feed_state, hall.unpublished, hall.unpublishable, hall.subscription, hall.poll_cursor, hall.event_ack,
    hall.read_position to jifen_service;
