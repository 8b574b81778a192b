-- What each side finds of its own without knowing a number: its requests, claims and facilities, and the orders that wait
-- for a second pair of eyes. Ids are uuid7, so that the order of ids is the order in which things came to be.

create index request_by_id_of_enterprise on hall.financing_request (uscc, id);
-- Most claims and lines of a bank have ended: the open ones are found without a walk past the others.
create index claim_by_id_of_institution on hall.claim (institution_id, id);
create index live_claim_by_id_of_institution on hall.claim (institution_id, id) where hall.is_live(state);
create index facility_by_id_of_institution on hall.facility (institution_id, id);
create index open_facility_by_id_of_institution on hall.facility (institution_id, id)
    where state not in ('settled', 'written_off', 'compensated') or drawn_fen + over_limit_fen > 0;
create index facility_by_id_of_enterprise on hall.facility (uscc, id);
create index draft_by_clerk on hall.financing_request (registered_by, id) where state = 'draft';
create index order_open on hall.approval (id) where approved_at is null;

create function hall.spoken_for(p_actor jsonb) returns setof text language sql stable as $$
    -- The enterprises that the actor speaks for, as hall.acts_for says of each.
    select p_actor ->> 'uscc' where p_actor ->> 'role' = 'enterprise'
    union all select uscc from hall.enterprise where p_actor ->> 'role' = 'portal' and portal = p_actor ->> 'client'
$$;

create function hall.own_requests(p_actor jsonb, p_is_open boolean, p_after text, p_most integer) returns setof jsonb
language sql stable as $$
    -- Requests of the enterprise's side, and the drafts that a clerk entered; p_is_open: only those that have not ended.
    select jsonb_build_object('fr_id', f.id, 'uscc', f.uscc, 'state', f.state, 'version', f.version, 'scheme', f.scheme,
        'amount_fen', f.amount_fen, 'term_months', f.term_months, 'purpose', f.purpose,
        'round', case when f.round_no >= 0 then f.round_no end, 'quote_fen', f.quote_fen,
        'deadline', hall.iso(f.deadline), 'suspended', f.is_suspended, 'created_at', hall.iso(f.created_at))
    from (
        select mine.* from hall.spoken_for(p_actor) as own (code) cross join lateral (
            select * from hall.financing_request r
            where r.uscc = own.code and r.id > p_after and not (p_is_open and hall.is_final(r.state))
            order by r.id limit p_most) as mine
        union all (
            select * from hall.financing_request r
            where p_actor ->> 'role' = 'clerk' and r.registered_by = p_actor ->> 'client' and r.state = 'draft'
                and r.id > p_after
            order by r.id limit p_most)
    ) as f
    order by f.id limit p_most
$$;

create function hall.own_claims(p_actor jsonb, p_is_open boolean, p_after text, p_most integer) returns setof jsonb
language sql stable as $$
    select hall.claim_row(c) from (
        (select * from hall.claim one where p_is_open and hall.is_live(one.state)
            and one.institution_id = p_actor ->> 'institution'
            and one.outlet_id = coalesce(p_actor ->> 'outlet', one.outlet_id)
            and one.id > p_after order by one.id limit p_most)
        union all (select * from hall.claim one where not p_is_open
            and one.institution_id = p_actor ->> 'institution'
            and one.outlet_id = coalesce(p_actor ->> 'outlet', one.outlet_id)
            and one.id > p_after order by one.id limit p_most)
    ) as c order by c.id
$$;

create function hall.own_facilities(p_actor jsonb, p_is_open boolean, p_after text, p_most integer) returns setof jsonb
language sql stable as $$
    -- p_is_open: those that have not ended, and those written off or compensated on which money is owed all the same.
    select hall.facility_body(f)
    from (
        select mine.* from hall.spoken_for(p_actor) as own (code) cross join lateral (
            select * from hall.facility one
            where one.uscc = own.code and one.id > p_after
                and (not p_is_open or one.state not in ('settled', 'written_off', 'compensated')
                    or one.drawn_fen + one.over_limit_fen > 0)
            order by one.id limit p_most) as mine
        union all (
            select * from hall.facility one
            where p_is_open and (one.state not in ('settled', 'written_off', 'compensated')
                    or one.drawn_fen + one.over_limit_fen > 0)
                and one.institution_id = p_actor ->> 'institution' and hall.serves(p_actor, one) and one.id > p_after
            order by one.id limit p_most)
        union all (
            select * from hall.facility one
            where not p_is_open and one.institution_id = p_actor ->> 'institution' and hall.serves(p_actor, one)
                and one.id > p_after
            order by one.id limit p_most)
    ) as f
    order by f.id limit p_most
$$;

create function hall.orders(p_is_open boolean, p_after text, p_most integer) returns setof jsonb
language sql volatile as $$
    -- p_is_open: only those that may still be approved.
    select jsonb_build_object('approval_id', a.id, 'kind', a.kind, 'fr_id', a.fr_id, 'institution_id', a.institution_id,
        'order_no', a.order_no, 'note', a.note, 'proposed_by', a.proposed_by, 'proposed_at', hall.iso(a.proposed_at),
        'expires_at', hall.iso(a.expires_at), 'approved_by', a.approved_by, 'approved_at', hall.iso(a.approved_at),
        'state', case when a.approved_at is not null then 'approved'
            when hall.hall_now() >= a.expires_at then 'expired' else 'proposed' end)
    from (
        (select * from hall.approval one
            where p_is_open and one.approved_at is null and hall.hall_now() < one.expires_at and one.id > p_after
            order by one.id limit p_most)
        union all (select * from hall.approval one where not p_is_open and one.id > p_after order by one.id limit p_most)
    ) as a order by a.id
$$;
