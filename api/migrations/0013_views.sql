-- Who reaches what of a request (hall.md §11, A7): one function says how far, and every reading of a request asks it.

create function hall.holds(p_actor jsonb, c hall.claim, p_at timestamptz default hall.hall_now()) returns boolean
language sql volatile as $$
    -- Whether a claim is the actor's and lives: over is over, swept or not (X2), by the clock that stands in a suspension.
    select hall.is_live(c.state) and coalesce(c.institution_id = p_actor ->> 'institution', false)
        and c.outlet_id = coalesce(p_actor ->> 'outlet', c.outlet_id)
        and coalesce((select suspended_at from hall.financing_request where id = c.fr_id), p_at) < c.deadline
$$;

create function hall.holds_claim(p_actor jsonb, p_uscc text) returns boolean language sql volatile as $$
    -- Whether the actor is a "claiming-institution" of an enterprise's consent.
    select exists (select 1 from hall.claim c join hall.financing_request r on r.id = c.fr_id
        where r.uscc = p_uscc and hall.holds(p_actor, c))
$$;

create function hall.held_request(
    p_actor jsonb, p_uscc text, out fr hall.financing_request, out at timestamptz
) language plpgsql as $$
-- The request of the actor's latest live claim on an enterprise, null if there is none, and an instant at which the claim
-- lived. Who is shown the enterprise's data keeps the request's lock until he has it, and no claim ends meanwhile (X2).
declare found_one text;
begin
    loop
        select r.id into found_one from hall.claim c join hall.financing_request r on r.id = c.fr_id
            where r.uscc = p_uscc and hall.holds(p_actor, c) order by c.claimed_at desc limit 1;
        fr := null;
        if found_one is not null then
            select * into strict fr from hall.financing_request where id = found_one for share;
        end if;
        at := hall.hall_now();
        exit when found_one is null
            or exists (select 1 from hall.claim c where c.fr_id = found_one and hall.holds(p_actor, c, at));
    end loop;
end $$;

create function hall.reach(p_actor jsonb, fr hall.financing_request, p_at timestamptz default hall.hall_now())
returns text language sql stable as $$
    -- 'whole': the enterprise's side and the case manager while he has it; 'holder': the bank of a live claim; 'card': a
    -- bank in the audience of the latest published round; null: the request does not exist for the caller.
    select case
        when hall.may_intake(p_actor, fr) then 'whole'
        when p_actor ->> 'role' = 'case-manager' and fr.state = 'assisted' then 'whole'
        when p_actor ->> 'institution' is null then null
        when exists (select 1 from hall.claim c where c.fr_id = fr.id and hall.holds(p_actor, c, p_at)) then 'holder'
        when not fr.is_suspended and exists (
            select 1 from hall.round r join hall.outlet o on o.no = any (r.audience) and not o.is_closed
                join hall.institution i on i.id = o.institution_id and not i.is_suspended
            where r.fr_id = fr.id and r.n = fr.round_no and r.published_at is not null
                and o.institution_id = p_actor ->> 'institution'
                and o.id = coalesce(p_actor ->> 'outlet', o.id)) then 'card'
    end
$$;

create function hall.look_at_request(p_actor jsonb, p_id text) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- The request as far as the actor reaches; null where it does not exist for it. What names the enterprise is shown to the
-- holder of a claim under a consent alone, each look logged; without one the answer says what is withheld and why. The case
-- manager's look is logged too.
declare
    fr hall.financing_request;
    latest hall.round;
    reach text;
    consent text;
    view jsonb;
    at timestamptz;
begin
    select * into fr from hall.financing_request where id = p_id;
    if not found then return null; end if;
    reach := hall.reach(p_actor, fr);
    if reach = 'holder' then
        -- Again behind the lock that every end of the claim takes (X2).
        select * into strict fr from hall.financing_request where id = p_id for share;
        at := hall.hall_now();
        reach := hall.reach(p_actor, fr, at);
    end if;
    if reach is null then return null; end if;
    select * into latest from hall.round where fr_id = fr.id and n = fr.round_no;
    view := jsonb_build_object('fr_id', fr.id, 'reach', reach, 'round', case when latest.n is not null then
        jsonb_build_object('n', latest.n, 'state', latest.state, 'opens_at', hall.iso(latest.opens_at),
            'closes_at', hall.iso(latest.closes_at), 'card_version', latest.card_version) end);
    if reach = 'card' then
        -- Losers see the card until the round has ended, and then only that it has.
        return case when latest.state in ('announced', 'open') then view || jsonb_build_object('card', latest.card) else view end;
    end if;
    if reach = 'holder' then
        consent := hall.kept_consent(fr, at, p_actor ->> 'institution');
        perform hall.log_access(p_actor, fr.uscc, 'request', 'financing', consent,
            case when consent is null then hall.why_request_withheld(fr) end, at);
        if consent is null then
            return view || jsonb_build_object('withheld', hall.why_request_withheld(fr), 'card', latest.card,
                'state', fr.state, 'version', fr.version, 'deadline', hall.iso(fr.deadline), 'suspended', fr.is_suspended);
        end if;
    end if;
    if p_actor ->> 'role' = 'case-manager' then
        perform hall.log_access(p_actor, fr.uscc, 'request', 'assistance', null);
    end if;
    fr := hall.with_latest_quote(fr);
    view := view || jsonb_build_object('uscc', fr.uscc, 'state', fr.state, 'version', fr.version, 'scheme', fr.scheme,
        'quote_binds', fr.quote_binds, 'amount_fen', fr.amount_fen, 'term_months', fr.term_months, 'purpose', fr.purpose,
        'first_loan', fr.is_first_loan, 'quote_id', fr.quote_id, 'quote_fen', fr.quote_fen,
        'quote_expires_at', hall.iso(fr.quote_expires_at), 'deadline', hall.iso(fr.deadline),
        'deadline_is_provisional', fr.deadline_is_provisional, 'suspended', fr.is_suspended,
        'created_at', hall.iso(fr.created_at));
    if reach = 'whole' then
        view := view || jsonb_build_object('wishes', to_jsonb(fr.wishes), 'under_appeal', fr.is_under_appeal, 'sources', (
            select jsonb_agg(jsonb_build_object('channel', channel, 'channel_ref', channel_ref, 'amount_fen', amount_fen,
                'term_months', term_months, 'first_loan', first_loan, 'received_at', hall.iso(received_at)) order by no)
            from hall.request_source where fr_id = fr.id), 'claims', (
            select coalesce(jsonb_agg(hall.claim_row(c) order by c.claimed_at), '[]') from hall.claim c where c.fr_id = fr.id));
    end if;
    return view;
end $$;

create function hall.claim_row(c hall.claim) returns jsonb language sql stable as $$
    select jsonb_build_object('claim_id', c.id, 'fr_id', c.fr_id, 'round', c.round, 'institution_id', c.institution_id,
        'outlet_id', c.outlet_id, 'officer_id', c.officer_id, 'product_id', c.product_id || '@' || c.product_version,
        'fence', c.fence, 'state', c.state, 'version', c.version, 'claimed_at', hall.iso(c.claimed_at),
        'contacted_at', hall.iso(c.contacted_at), 'ended_at', hall.iso(c.ended_at), 'lease_until', hall.iso(c.deadline),
        'deadline_is_provisional', c.deadline_is_provisional, 'extensions', c.extensions,
        'first_opinion_due', hall.iso(case when c.state = 'contacted'
            then hall.add_working_minutes(c.contacted_at, hall.setting('first_opinion_minutes')) end))
$$;

create function hall.claim_view(p_actor jsonb, p_id text) returns jsonb language plpgsql stable as $$
declare
    c hall.claim;
    fr hall.financing_request;
begin
    select * into c from hall.claim where id = p_id;
    if not found then return null; end if;
    select * into strict fr from hall.financing_request where id = c.fr_id;
    if (c.institution_id = p_actor ->> 'institution' and c.outlet_id = coalesce(p_actor ->> 'outlet', c.outlet_id))
            or hall.acts_for(p_actor, fr.uscc) then
        return hall.claim_row(c);
    end if;
    return null;
end $$;

create function hall.offer_row(o hall.offer, c hall.claim) returns jsonb language sql stable as $$
    -- The offer and how its claim stands: what is behind `sha256` in the body is not part of what was hashed.
    select hall.offer_body(o) || jsonb_build_object('claim_state', c.state,
        'live_until', hall.iso(case when c.state = 'offered' then c.deadline end))
$$;

create function hall.offer_view(p_actor jsonb, p_id text) returns jsonb language sql stable as $$
    select hall.offer_row(o, c) from hall.offer o
        join hall.financing_request f on f.id = o.fr_id join hall.claim c on c.id = o.claim_id
    where o.id = p_id and (hall.acts_for(p_actor, f.uscc)
        or o.institution_id = p_actor ->> 'institution' and c.outlet_id = coalesce(p_actor ->> 'outlet', c.outlet_id))
$$;

create function hall.offers_view(p_actor jsonb, p_fr text) returns jsonb language sql stable as $$
    select coalesce((select jsonb_agg(hall.offer_row(o, c) order by o.annual_cost_bp, o.amount_fen desc)
        from hall.offer o join hall.claim c on c.id = o.claim_id where o.fr_id = f.id), '[]')
    from hall.financing_request f where f.id = p_fr and hall.acts_for(p_actor, f.uscc)
$$;

create function hall.history_view(p_actor jsonb, p_fr text) returns jsonb language sql stable as $$
    select (select jsonb_agg(jsonb_build_object('machine', h.machine, 'id', h.subject_id, 'seq', h.seq, 'from', h.from_state,
            'to', h.to_state, 'edge', h.edge, 'actor', h.actor_role, 'at', hall.iso(h.decided_at))
            order by h.decided_at, h.machine desc, h.seq)
        from hall.history h where (h.machine = 'request' and h.subject_id = f.id)
            or (h.machine = 'claim' and h.subject_id in (select id from hall.claim where fr_id = f.id)))
    from hall.financing_request f where f.id = p_fr and hall.acts_for(p_actor, f.uscc)
$$;

create function hall.look_at_dossier(p_actor jsonb, p_claim text) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- Who the enterprise is, what it asks, its decision: for the holder of a live claim (X2: the end of the claim ends it),
-- under the request's consent. Without a consent for the report that part is withheld, and so are the feature values in it
-- unless the consent for the report names the facts as well; the answer says so. Each look is logged.
declare
    c hall.claim;
    fr hall.financing_request;
    at timestamptz;
    given text;
    report_consent text;
    facts_consent text;
    shown jsonb;
begin
    select * into c from hall.claim where id = p_claim;
    if not found or not hall.holds(p_actor, c) then return null; end if;
    -- Again behind the lock that every end of the claim takes.
    select * into strict fr from hall.financing_request where id = c.fr_id for share;
    select * into strict c from hall.claim where id = p_claim;
    at := hall.hall_now();
    if not hall.holds(p_actor, c, at) then return null; end if;
    given := hall.kept_consent(fr, at, c.institution_id);
    if given is null then
        perform hall.log_access(p_actor, fr.uscc, 'dossier', 'financing', null, hall.why_request_withheld(fr), at);
        return jsonb_build_object('withheld', hall.why_request_withheld(fr));
    end if;
    report_consent := hall.consent_for(fr.uscc, c.institution_id, 'report', 'financing', true, at);
    -- One consent carries the look at the report: of two that could, the one that names the facts as well.
    facts_consent := (select id from hall.consent where id = report_consent and 'facts' = any (data_sets));
    if report_consent is not null and facts_consent is null then
        facts_consent := hall.consent_for(fr.uscc, c.institution_id, 'facts', 'financing', true, at);
        facts_consent := (select id from hall.consent where id = facts_consent and 'report' = any (data_sets));
        report_consent := coalesce(facts_consent, report_consent);
    end if;
    select jsonb_build_object('claim_id', c.id, 'fr_id', fr.id, 'uscc', e.uscc, 'name', e.name,
            'contact_name', e.contact_name, 'contact_phone', e.contact_phone, 'industry_section', e.industry_section,
            'district', e.district, 'amount_fen', fr.amount_fen, 'quote_fen', fr.quote_fen, 'term_months', fr.term_months,
            'purpose', fr.purpose, 'conditions', to_jsonb(hall.conditions_of(fr)), 'exposure', hall.exposure_totals(e.uscc),
            'watermark', c.institution_id || ' ' || coalesce(report_consent, given) || ' ' || hall.iso(at))
        into shown from hall.enterprise e where e.uscc = fr.uscc;
    if report_consent is null then
        shown := shown || '{"withheld_parts": [{"part": "report", "why": "consent-missing"}]}';
    else
        shown := shown || jsonb_build_object('withheld_parts', case when facts_consent is null
            then '[{"part": "facts", "why": "consent-missing"}]'::jsonb else '[]'::jsonb end, 'report', (
            -- what a bank may read of the decision: never what the limit would be if missing facts were clean
            select jsonb_build_object('decision_id', d.id, 'as_of', d.as_of, 'outcome', d.outcome, 'limit_fen', d.limit_fen,
                'score', d.content -> 'answer' -> 'score', 'grade', d.content -> 'answer' -> 'grade',
                'conditions', d.content -> 'answer' -> 'conditions',
                'reasons', (d.content -> 'answer' ->> 'reasons')::jsonb, 'model_version', d.model_version,
                'policy_version', d.policy_version) || case when facts_consent is null then '{}'::jsonb
                else jsonb_build_object('features', d.content -> 'features') end
            from hall.limit_quote q join hall.decision d on d.id = q.decision_id where q.id = fr.quote_id));
    end if;
    perform hall.log_access(p_actor, fr.uscc, 'dossier', 'financing', coalesce(report_consent, given), null, at);
    return shown;
end $$;

revoke execute on function hall.look_at_dossier(jsonb, text), hall.look_at_request(jsonb, text) from public;
grant execute on function hall.look_at_dossier(jsonb, text), hall.look_at_request(jsonb, text) to jifen_service;
