-- The acts of those who take part: institutions, outlets and officers are added by an administrator; institutions are
-- suspended by two, outlets closed and officers ended by the institution too; products are proposed and approved by two of
-- an institution, enterprises registered by whoever speaks for them. And what the door keeps to itself.

create table hall.secret (
    name text primary key,
    value bytea not null check (length(value) >= 32)
);
comment on table hall.secret is 'keys made here, once, at random; cursors: signs the cursors of paged lists';
-- gen_random_uuid is as random as the server can be; two have 244 random bits.
insert into hall.secret (name, value)
    values ('cursors', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

create function hall.forget_expired() returns void language plpgsql security definer set search_path = hall, pg_temp as $$
-- Tokens and assertions go a day after their end, answers by the policy's days (I6). In portions, so that no call waits;
-- by the true time, which tokens live by.
begin
    delete from hall.access_token where token_sha256 in (
        select token_sha256 from hall.access_token where expires_at < clock_timestamp() - interval '1 day' limit 20000);
    delete from hall.assertion_seen where (client_id, jti) in (
        select client_id, jti from hall.assertion_seen where expires_at < clock_timestamp() - interval '1 day' limit 20000);
    delete from hall.idempotency where id in (
        select id from hall.idempotency
            where created_at < hall.hall_now() - make_interval(days => hall.setting('idempotency_days')::integer) limit 20000);
end $$;
create index idempotency_age on hall.idempotency (created_at);
create index access_token_end on hall.access_token (expires_at);
create index assertion_seen_end on hall.assertion_seen (expires_at);

-- -------------------------------------------------------------------------------- institutions, outlets and officers

create function hall.act_add_institution(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
declare made hall.institution;
begin
    perform hall.begin_act(p_actor);
    insert into hall.institution (id, tenant, name, size_class, hold_cap, daily_claim_cap)
        values (hall.new_id('in'), p_actor ->> 'tenant', p_args ->> 'name', p_args ->> 'size_class',
            coalesce((p_args ->> 'hold_cap')::integer, hall.setting('hold_cap_institution')),
            coalesce((p_args ->> 'daily_claim_cap')::integer, hall.setting('daily_claim_cap')))
        on conflict (tenant, name) do nothing returning * into made;
    if not found then perform hall.refuse('already-exists', '{"member": "name"}'); end if;
    return jsonb_build_object('status', 201, 'body', jsonb_build_object('id', made.id, 'name', made.name,
        'size_class', made.size_class, 'hold_cap', made.hold_cap, 'daily_claim_cap', made.daily_claim_cap,
        'is_suspended', made.is_suspended));
end $$;

create function hall.outlet_json(o hall.outlet) returns jsonb language sql immutable as $$
    select jsonb_build_object('id', o.id, 'no', o.no, 'institution_id', o.institution_id, 'name', o.name,
        'district', o.district, 'hold_cap', o.hold_cap, 'is_closed', o.is_closed)
$$;

create function hall.officer_json(o hall.officer) returns jsonb language sql immutable as $$
    select jsonb_build_object('id', o.id, 'outlet_id', o.outlet_id, 'name', o.name, 'hold_cap', o.hold_cap,
        'is_gone', o.is_gone)
$$;

create function hall.act_add_outlet(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
declare made hall.outlet;
begin
    perform hall.begin_act(p_actor);
    perform 1 from hall.institution where id = p_args ->> 'institution_id';
    if not found then perform hall.refuse('not-found'); end if;
    insert into hall.outlet (id, institution_id, name, district, hold_cap)
        values (hall.new_id('ol'), p_args ->> 'institution_id', p_args ->> 'name', p_args ->> 'district',
            coalesce((p_args ->> 'hold_cap')::integer, hall.setting('hold_cap_outlet')))
        on conflict (institution_id, name) do nothing returning * into made;
    if not found then perform hall.refuse('already-exists', '{"member": "name"}'); end if;
    return jsonb_build_object('status', 201, 'body', hall.outlet_json(made));
end $$;

create function hall.act_add_officer(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
declare made hall.officer;
begin
    perform hall.begin_act(p_actor);
    if (hall.locked_outlet(p_actor, p_args)).is_closed then
        perform hall.refuse('illegal-transition', '{"state": "closed"}');
    end if;
    insert into hall.officer (id, outlet_id, name, hold_cap)
        values (hall.new_id('oc'), p_args ->> 'outlet_id', p_args ->> 'name',
            coalesce((p_args ->> 'hold_cap')::integer, hall.setting('hold_cap_officer')))
        returning * into made;
    return jsonb_build_object('status', 201, 'body', hall.officer_json(made));
end $$;

-- --------------------------------------------------------------------------------------- suspended, closed and gone

create function hall.order_institution(o hall.approval) returns jsonb language plpgsql as $$
-- Suspends an institution or lifts it, under the lock of its counter: no claim begins behind it. New business stands still
-- at once; its claims before an offer are ended by the sweeper, and what it owes or is owed goes on.
declare
    stood boolean;
    wanted boolean := o.kind = 'suspend';
begin
    perform 1 from hall.quota where owner = o.institution_id for no key update;
    select is_suspended into strict stood from hall.institution where id = o.institution_id for no key update;
    if stood = wanted then perform hall.refuse('illegal-transition', jsonb_build_object('state', case when stood then 'suspended' else 'running' end, 'suspended', stood)); end if;
    update hall.institution set is_suspended = wanted, suspended_at = case when wanted then hall.hall_now() end
        where id = o.institution_id;
    perform hall.emit('institution/' || o.institution_id,
        case when wanted then 'fin.institution.suspended.v1' else 'fin.institution.resumed.v1' end,
        jsonb_build_object('institution_id', o.institution_id, 'order_no', o.order_no), p_institution => o.institution_id);
    return jsonb_build_object('status', 200, 'body', jsonb_build_object('approval_id', o.id, 'kind', o.kind,
        'institution_id', o.institution_id, 'is_suspended', wanted));
end $$;

create function hall.locked_outlet(p_actor jsonb, p_args jsonb) returns hall.outlet language plpgsql as $$
-- The outlet under the lock of its institution's counter, for an administrator and for the institution's own.
declare place hall.outlet;
begin
    perform 1 from hall.quota where owner = p_args ->> 'institution_id' for no key update;
    select o.* into place from hall.outlet o join hall.institution i on i.id = o.institution_id
        where o.id = p_args ->> 'outlet_id' and i.id = p_args ->> 'institution_id' and i.tenant = p_actor ->> 'tenant'
            and i.id = coalesce(p_actor ->> 'institution', i.id)
        for no key update of o;
    if not found then perform hall.refuse('not-found'); end if;
    return place;
end $$;

create function hall.act_close_outlet(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- For good. Its claims before an offer are given back by the sweeper; its offers, facilities and reports go on.
declare place hall.outlet;
begin
    perform hall.begin_act(p_actor);
    place := hall.locked_outlet(p_actor, p_args);
    if place.is_closed then perform hall.refuse('illegal-transition', '{"state": "closed"}'); end if;
    update hall.outlet set is_closed = true, closed_at = hall.hall_now(), closed_by = p_actor ->> 'client',
            closing_note = p_args ->> 'note'
        where id = place.id returning * into place;
    perform hall.emit('outlet/' || place.id, 'fin.outlet.closed.v1',
        jsonb_build_object('institution_id', place.institution_id, 'outlet_id', place.id),
        p_institution => place.institution_id);
    return jsonb_build_object('status', 200, 'body', hall.outlet_json(place));
end $$;

create function hall.act_end_officer(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- For good: no claim names him any more. Claims that do are the outlet's and stay with it.
declare
    place hall.outlet;
    who hall.officer;
begin
    perform hall.begin_act(p_actor);
    place := hall.locked_outlet(p_actor, p_args);
    select * into who from hall.officer where id = p_args ->> 'officer_id' and outlet_id = place.id for no key update;
    if not found then perform hall.refuse('not-found'); end if;
    if who.is_gone then perform hall.refuse('illegal-transition', '{"state": "ended"}'); end if;
    update hall.officer set is_gone = true, gone_at = hall.hall_now(), gone_by = p_actor ->> 'client',
            going_note = p_args ->> 'note'
        where id = who.id returning * into who;
    perform hall.emit('officer/' || who.id, 'fin.officer.gone.v1',
        jsonb_build_object('institution_id', place.institution_id, 'outlet_id', place.id, 'officer_id', who.id),
        p_institution => place.institution_id);
    return jsonb_build_object('status', 200, 'body', hall.officer_json(who));
end $$;

-- ----------------------------------------------------------------------------------------------------------- products

create function hall.product_json(p hall.product) returns jsonb language sql stable as $$
    select jsonb_build_object('id', p.id, 'version', p.version, 'institution_id', p.institution_id, 'name', p.name,
        'category', p.category, 'min_fen', p.min_fen, 'max_fen', p.max_fen, 'terms', p.terms,
        'status', case when p.withdrawn_at is not null then 'withdrawn' when p.approved_at is not null then 'offered'
            else 'proposed' end,
        'created_at', hall.iso(p.created_at), 'approved_at', hall.iso(p.approved_at),
        'withdrawn_at', hall.iso(p.withdrawn_at))
$$;

create function hall.act_propose_product(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- A product of its own, or the next version of one that the institution has.
declare
    inst text := p_actor ->> 'institution';
    wanted text := p_args ->> 'product_id';
    made hall.product;
begin
    perform hall.begin_act(p_actor);
    -- Versions follow each other: one proposal at a time for an institution.
    perform pg_advisory_xact_lock(hashtextextended('products ' || inst, 0));
    if wanted is not null then
        perform 1 from hall.product where id = wanted and institution_id = inst;
        if not found then perform hall.refuse('not-found'); end if;
    end if;
    wanted := coalesce(wanted, hall.new_id('pr'));
    insert into hall.product (id, version, institution_id, name, category, min_fen, max_fen, terms, proposed_by)
        values (wanted, 1 + coalesce((select max(version) from hall.product where id = wanted), 0), inst,
            p_args ->> 'name', p_args ->> 'category', (p_args ->> 'min_fen')::bigint, (p_args ->> 'max_fen')::bigint,
            p_args -> 'terms', p_actor ->> 'client')
        returning * into made;
    return jsonb_build_object('status', 201, 'body', hall.product_json(made));
end $$;

create function hall.act_approve_product(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- Four eyes: another client of the institution than the one that proposed. The version before is withdrawn with it.
declare approved hall.product;
begin
    perform hall.begin_act(p_actor);
    select * into approved from hall.product where id = p_args ->> 'product_id'
        and version = (p_args ->> 'version')::integer and institution_id = p_actor ->> 'institution' for no key update;
    if not found then perform hall.refuse('not-found'); end if;
    if approved.approved_at is not null or approved.withdrawn_at is not null then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', hall.product_json(approved) ->> 'status'));
    end if;
    if approved.proposed_by = p_actor ->> 'client' then perform hall.refuse('four-eyes-required'); end if;
    update hall.product set withdrawn_at = hall.hall_now()
        where id = approved.id and version < approved.version and withdrawn_at is null;
    update hall.product set approved_at = hall.hall_now(), approved_by = p_actor ->> 'client'
        where id = approved.id and version = approved.version returning * into approved;
    return jsonb_build_object('status', 200, 'body', hall.product_json(approved));
end $$;

create function hall.act_withdraw_product(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- No new claim is made under it; claims already made go on.
declare withdrawn hall.product;
begin
    perform hall.begin_act(p_actor);
    update hall.product set withdrawn_at = coalesce(withdrawn_at, hall.hall_now())
        where id = p_args ->> 'product_id' and version = (p_args ->> 'version')::integer
            and institution_id = p_actor ->> 'institution'
        returning * into withdrawn;
    if not found then perform hall.refuse('not-found'); end if;
    return jsonb_build_object('status', 200, 'body', hall.product_json(withdrawn));
end $$;

-- -------------------------------------------------------------------------------------------------------- enterprises

create function hall.may_enter(p_actor jsonb, e hall.enterprise) returns boolean language sql stable as $$
    -- A clerk writes down a firm that he registered, until it speaks for itself: by a portal, by a client of its own, or by
    -- a need that was submitted.
    select p_actor ->> 'role' = 'clerk' and e.entered_by = p_actor ->> 'client' and e.portal is null
        and not exists (select 1 from hall.client where role = 'enterprise' and uscc = e.uscc)
        and not exists (select 1 from hall.financing_request where uscc = e.uscc and state <> 'draft')
$$;

create function hall.act_register_enterprise(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- By the enterprise itself, by a portal, or by a clerk. Whoever speaks for it brings its details up to date; a portal takes
-- up a firm that no portal speaks for yet, and cannot take it from another.
declare
    me text := p_actor ->> 'client';
    known hall.enterprise;
    kept hall.enterprise;
    is_new boolean;
begin
    perform hall.begin_act(p_actor);
    if p_actor ->> 'role' = 'enterprise' and p_actor ->> 'uscc' <> p_args ->> 'uscc' then
        perform hall.refuse('not-found');
    end if;
    insert into hall.enterprise (uscc, tenant, name, entered_by)
        values (p_args ->> 'uscc', p_actor ->> 'tenant', p_args ->> 'name', me) on conflict do nothing;
    is_new := found;
    select * into strict known from hall.enterprise where uscc = p_args ->> 'uscc' for no key update;
    if not (case p_actor ->> 'role' when 'enterprise' then true when 'portal' then coalesce(known.portal, me) = me
            else hall.may_enter(p_actor, known) end) then
        perform hall.refuse('already-exists', '{"member": "uscc"}');
    end if;
    update hall.enterprise set name = p_args ->> 'name', contact_name = p_args ->> 'contact_name',
            contact_phone = p_args ->> 'contact_phone', industry_section = p_args ->> 'industry_section',
            district = p_args ->> 'district', portal = case p_actor ->> 'role' when 'portal' then me else portal end
        where uscc = known.uscc returning * into kept;
    return jsonb_build_object('status', case when is_new then 201 else 200 end, 'body', jsonb_build_object(
        'uscc', kept.uscc, 'name', kept.name, 'contact_name', kept.contact_name, 'contact_phone', kept.contact_phone,
        'industry_section', kept.industry_section, 'district', kept.district, 'created_at', hall.iso(kept.created_at)));
end $$;

revoke execute on function hall.forget_expired() from public;
grant execute on function hall.forget_expired() to jifen_service;
grant insert on hall.access_token, hall.assertion_seen to jifen_service;
