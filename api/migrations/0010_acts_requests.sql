-- The request's machine (hall.md §3): intake, submission, broadcast, withdrawal, the case manager's moves, four eyes.
-- Locks are taken in one order everywhere: round, request, claim, quota, facility, exposure (C2).

-- -------------------------------------------------------------------------------------------------- moving and finding

create function hall.locked_request(p_id text) returns hall.financing_request language plpgsql as $$
declare fr hall.financing_request;
begin
    select * into fr from hall.financing_request where id = p_id for no key update;
    if not found then perform hall.refuse('not-found'); end if;
    return fr;
end $$;

create function hall.expect_version(p_actual integer, p_expected integer) returns void language plpgsql as $$
begin
    if p_expected is distinct from p_actual then
        perform hall.refuse('stale-version', jsonb_build_object('version', p_actual));
    end if;
end $$;

create function hall.expect_state(p_state text, variadic p_allowed text[]) returns void language plpgsql as $$
begin
    if not p_state = any (p_allowed) then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', p_state));
    end if;
end $$;

create function hall.expect_running(fr hall.financing_request) returns void language plpgsql as $$
-- T21: while an order suspends a request its clocks stand, and nothing moves but to its end.
begin
    if fr.is_suspended then perform hall.refuse('request-suspended'); end if;
end $$;

create function hall.move_request(
    p_id text, p_edge text, p_to text, p_by text, p_at timestamptz, p_reason jsonb default '{}',
    p_working_minutes bigint default null, p_deadline timestamptz default null
) returns hall.financing_request language plpgsql as $$
-- The deadline is p_deadline, or so many working minutes after p_at, or none.
declare
    due timestamptz := coalesce(p_deadline, hall.add_working_minutes(p_at, p_working_minutes));
    moved hall.financing_request;
begin
    update hall.financing_request set state = p_to, version = version + 1, edge = p_edge, moved_at = p_at, moved_by = p_by,
            reason = p_reason, deadline = due, deadline_minutes = p_working_minutes,
            deadline_from = case when p_working_minutes is not null then p_at end,
            deadline_is_provisional = p_working_minutes is not null and not hall.calendar_knows(due)
        where id = p_id returning * into moved;
    return moved;
end $$;

create function hall.move_claim(
    p_id text, p_edge text, p_to text, p_by text, p_at timestamptz, p_reason jsonb default '{}',
    p_working_minutes bigint default null, p_deadline timestamptz default null
) returns hall.claim language plpgsql as $$
-- A final state ends the claim: no deadline, ended_at set. Leaving `held` gives the hold back to the quota (H1).
declare
    due timestamptz := coalesce(p_deadline, hall.add_working_minutes(p_at, p_working_minutes));
    is_end boolean := p_to in ('done', 'released', 'lapsed', 'declined', 'superseded', 'rejected', 'expired');
    was hall.claim;
    moved hall.claim;
begin
    select * into strict was from hall.claim where id = p_id for no key update;
    update hall.claim set state = p_to, version = version + 1, edge = p_edge, moved_at = p_at, moved_by = p_by,
            reason = p_reason, deadline = case when not is_end then due end, deadline_minutes = p_working_minutes,
            deadline_from = case when p_working_minutes is not null then p_at end,
            deadline_is_provisional = not is_end and p_working_minutes is not null and not hall.calendar_knows(due),
            contacted_at = coalesce(contacted_at, case when p_to = 'contacted' then p_at end),
            ended_at = case when is_end then p_at end
        where id = p_id returning * into moved;
    if was.state = 'held' then
        perform 1 from hall.quota where owner = was.institution_id for no key update;
        update hall.quota set held = held - 1 where owner in (was.institution_id, was.outlet_id, was.officer_id);
    end if;
    return moved;
end $$;

create function hall.is_live(p_state text) returns boolean language sql immutable as $$
    select p_state in ('held', 'contacted', 'offered', 'accepted')
$$;

-- -------------------------------------------------------------------------------------------------------------- rounds

create function hall.card_of(fr hall.financing_request) returns jsonb language sql stable as $$
    -- What every bank of the audience sees before a claim: nothing that names the enterprise or its exact amount (§11).
    select jsonb_build_object('amount_band', hall.amount_band_of(fr.amount_fen), 'term_months', fr.term_months,
        'purpose', fr.purpose, 'scheme', fr.scheme, 'quote_binds', fr.quote_binds,
        'industry_section', fr.industry_section, 'district', fr.district, 'first_loan', fr.is_first_loan)
$$;

create function hall.announce_round(
    p_id text, p_n integer, p_edge text, p_by text, p_at timestamptz, p_reason jsonb default '{}'
) returns hall.financing_request language plpgsql as $$
-- Announces round p_n, or the first after it that reaches anybody; the last one is announced even if it reaches nobody.
-- The sequencer publishes the card and opens the gate (F1).
declare
    fr hall.financing_request;
    n integer := p_n;
    reached integer[];
begin
    loop
        reached := hall.audience(p_id, n);
        exit when cardinality(reached) > 0 or n >= hall.setting('rounds');
        n := n + 1;
    end loop;
    select * into strict fr from hall.financing_request where id = p_id;
    insert into hall.round (fr_id, n, audience, audience_sha256, card, card_version, announced_at)
        values (p_id, n, reached, sha256(convert_to(array_to_string(reached, ','), 'UTF8')), hall.card_of(fr),
            fr.version + 1, p_at);
    update hall.financing_request set round_no = n where id = p_id;
    return hall.move_request(p_id, p_edge, 'broadcast', p_by, p_at, p_reason);
end $$;

create function hall.lock_live_round(p_fr text) returns void language sql as $$
    select 1 from hall.round where fr_id = p_fr and state in ('announced', 'open') for no key update
$$;

create function hall.end_live_round(p_fr text, p_at timestamptz) returns void language plpgsql as $$
-- Closes the request's live round, if any, and tells its audience that the card is gone, if it is out: nobody hears of one
-- that he was not shown. The round's lock is held.
declare ended hall.round;
begin
    update hall.round set state = 'closed', ended_at = p_at where fr_id = p_fr and state in ('announced', 'open')
        returning * into ended;
    if found then
        perform hall.emit('fr/' || p_fr, 'fin.round.closed.v1', jsonb_build_object('fr_id', p_fr, 'round', ended.n),
            p_fr => case when ended.published_at is not null then p_fr end,
            p_round => case when ended.published_at is not null then ended.n end);
    end if;
end $$;

create function hall.with_latest_quote(
    fr hall.financing_request, p_is_free boolean default false
) returns hall.financing_request language plpgsql stable as $$
-- The request under the latest quote of its scheme, while no bank builds on the one before (a new quote is free): by its
-- state, or p_is_free, since its last live claim has just ended.
declare latest hall.limit_quote;
begin
    if p_is_free or fr.state in ('quoted', 'broadcast', 'assisted') then
        select * into latest from hall.limit_quote where uscc = fr.uscc and scheme = fr.scheme
            order by made_at desc, id desc limit 1;
        if found and latest.id is distinct from fr.quote_id then
            fr.quote_id := latest.id;
            fr.quote_fen := latest.limit_fen;
            fr.quote_expires_at := latest.expires_at;
        end if;
    end if;
    return fr;
end $$;

create function hall.renew_quote(
    fr hall.financing_request, p_is_free boolean default false
) returns hall.financing_request language plpgsql as $$
-- Takes the latest quote into the request, whose lock is held.
declare renewed hall.financing_request := hall.with_latest_quote(fr, p_is_free);
begin
    if renewed.quote_id is distinct from fr.quote_id then
        update hall.financing_request f set quote_id = renewed.quote_id, quote_fen = renewed.quote_fen,
            quote_expires_at = renewed.quote_expires_at where f.id = fr.id returning * into renewed;
    end if;
    return renewed;
end $$;

create function hall.why_no_round(fr hall.financing_request, p_at timestamptz) returns text language plpgsql as $$
-- Why nobody could win a round of this request now; null: somebody could. The code of a problem. The request's lock is
-- held; the consent's is kept until the round is announced.
begin
    return case
        when hall.kept_consent(fr, p_at, null) is null then hall.why_request_withheld(fr)
        when fr.quote_binds and p_at >= coalesce(fr.quote_expires_at, '-infinity') then 'quote-expired'
        when fr.quote_binds and (fr.amount_fen > coalesce(fr.quote_fen, 0) or hall.setting('guard_informs_only') = 0
            and fr.amount_fen > coalesce((select hall.room(e, fr.scheme) from hall.exposure e where e.uscc = fr.uscc), 0))
            then 'over-limit' end;
end $$;

create function hall.expect_round_possible(fr hall.financing_request, p_at timestamptz) returns void language plpgsql as $$
-- T8, T20: a round that somebody could win now; where the quote binds, with what the limit has left for it.
declare why text := hall.why_no_round(fr, p_at);
begin
    if why is not null then
        perform hall.refuse(why, case why when 'quote-expired' then
                jsonb_build_object('quote_expires_at', hall.iso(fr.quote_expires_at))
            when 'over-limit' then jsonb_build_object('quote_fen', fr.quote_fen, 'available_fen', hall.available(fr.uscc))
            else '{}' end);
    end if;
end $$;

create function hall.go_on_or_assist(
    fr hall.financing_request, p_next_edge text, p_assist_edge text, p_by text, p_at timestamptz, p_reason jsonb default '{}'
) returns void language plpgsql as $$
-- The next round while rounds are left and somebody could win it, else to the case manager (T10, T11, T13). No claim lives.
declare
    standing hall.financing_request := hall.renew_quote(fr, true);
    why text := hall.why_no_round(standing, p_at);
begin
    if why is null and standing.round_no < hall.setting('rounds') then
        perform hall.announce_round(fr.id, standing.round_no + 1, p_next_edge, p_by, p_at, p_reason);
    else
        perform hall.move_request(fr.id, p_assist_edge, 'assisted', p_by, p_at,
            p_reason || case when why is null then '{}' else jsonb_build_object('hindrance', why) end,
            hall.setting('assisted_minutes'));
        perform hall.open_case('assisted', 'fr/' || fr.id,
            coalesce('no further round: ' || why, 'no bank took the request in its rounds'), p_at);
    end if;
end $$;

create function hall.end_claims(
    p_fr text, p_edge text, p_to text, p_by text, p_at timestamptz, p_reason jsonb, p_except text default null
) returns void language plpgsql as $$
declare live text;
begin
    for live in select id from hall.claim where fr_id = p_fr and hall.is_live(state) and id is distinct from p_except
            order by id loop
        perform hall.move_claim(live, p_edge, p_to, p_by, p_at, p_reason);
    end loop;
end $$;

-- --------------------------------------------------------------------------------------------------------------- acts

create function hall.keep_source(p_fr text, p_args jsonb, p_by text) returns void language sql as $$
    -- What a channel said of the need; the same word twice is kept once. One intake at a time for one enterprise.
    insert into hall.request_source (fr_id, no, channel, channel_ref, amount_fen, term_months, first_loan, received_by)
        select p_fr, 1 + (select count(*) from hall.request_source where fr_id = p_fr), p_args ->> 'channel',
            p_args ->> 'channel_ref', (p_args ->> 'amount_fen')::bigint, (p_args ->> 'term_months')::integer,
            (p_args ->> 'first_loan')::boolean, p_by
        where not exists (select 1 from hall.request_source s where s.fr_id = p_fr
            and (s.channel, s.channel_ref, s.amount_fen, s.term_months)
                = (p_args ->> 'channel', p_args ->> 'channel_ref', (p_args ->> 'amount_fen')::bigint,
                    (p_args ->> 'term_months')::integer)
            and s.first_loan is not distinct from (p_args ->> 'first_loan')::boolean)
$$;

create function hall.act_draft_request(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T1. A need that another channel already brought joins that request, and what it said is kept with its source. While the
-- request is a draft, the enterprise's own word goes before a list's.
declare
    at timestamptz := hall.hall_now();
    applicant text := p_args ->> 'uscc';
    scheme hall.scheme;
    company hall.enterprise;
    wrong jsonb := '[]';
    standing hall.financing_request;
    made text;
begin
    perform hall.begin_act(p_actor);
    select * into company from hall.enterprise where uscc = applicant;
    if not found or not (hall.acts_for(p_actor, applicant) or p_actor ->> 'role' = 'clerk') then
        perform hall.refuse('not-found');
    end if;
    select * into scheme from hall.scheme where name = p_args ->> 'scheme';
    if not found then
        wrong := wrong || '{"pointer": "/scheme", "rule": "names a scheme of hall_policy.yaml"}'::jsonb;
    end if;
    if not exists (select 1 from hall.channel where name = p_args ->> 'channel') then
        wrong := wrong || '{"pointer": "/channel", "rule": "names a channel of hall_policy.yaml"}'::jsonb;
    end if;
    if not exists (select 1 from hall.purpose where name = p_args ->> 'purpose') then
        wrong := wrong || '{"pointer": "/purpose", "rule": "names a purpose of hall_policy.yaml"}'::jsonb;
    end if;
    if jsonb_array_length(wrong) > 0 then perform hall.refuse('validation', jsonb_build_object('errors', wrong)); end if;

    -- One intake at a time for one enterprise, so that two channels cannot both miss the other.
    perform pg_advisory_xact_lock(hashtextextended('intake ' || applicant, 0));
    select * into standing from hall.financing_request f
        where f.uscc = applicant and f.scheme = p_args ->> 'scheme' and f.purpose = p_args ->> 'purpose'
            and (state = 'draft' or hall.seeks_a_bank(state)) order by created_at limit 1;
    if found then standing := hall.locked_request(standing.id); end if;
    if standing.state = 'draft' or hall.seeks_a_bank(standing.state) then  -- still: it may have ended before the lock
        perform hall.keep_source(standing.id, p_args, p_actor ->> 'client');
        if standing.state = 'draft' and hall.acts_for(p_actor, applicant) then
            -- And it is its own from now on: a clerk does not submit what he has not seen.
            update hall.financing_request set registered_by = p_actor ->> 'client',
                    amount_fen = (p_args ->> 'amount_fen')::bigint, term_months = (p_args ->> 'term_months')::integer,
                    is_first_loan = coalesce((p_args ->> 'first_loan')::boolean, is_first_loan)
                where id = standing.id returning * into standing;
        end if;
        return jsonb_build_object('status', 200, 'body', jsonb_build_object('fr_id', standing.id, 'joined', true)
            || case when hall.may_intake(p_actor, standing) then jsonb_build_object('state', standing.state,
                'version', standing.version, 'amount_fen', standing.amount_fen, 'term_months', standing.term_months)
                else '{}' end);
    end if;
    made := hall.new_id('fr');
    insert into hall.financing_request (id, uscc, registered_by, scheme, quote_binds, amount_fen, term_months, purpose,
            industry_section, district, is_first_loan, state, edge, moved_at, moved_by, deadline)
        values (made, applicant, p_actor ->> 'client', scheme.name, scheme.quote_binds, (p_args ->> 'amount_fen')::bigint,
            (p_args ->> 'term_months')::integer, p_args ->> 'purpose', company.industry_section, company.district,
            (p_args ->> 'first_loan')::boolean, 'draft', 'T1', at, p_actor ->> 'client',
            at + make_interval(days => hall.setting('draft_days')::integer));
    perform hall.keep_source(made, p_args, p_actor ->> 'client');
    return jsonb_build_object('status', 201, 'body', jsonb_build_object('fr_id', made, 'joined', false, 'state', 'draft',
        'version', 1, 'amount_fen', (p_args ->> 'amount_fen')::bigint, 'term_months', (p_args ->> 'term_months')::integer));
end $$;

create function hall.may_intake(p_actor jsonb, fr hall.financing_request) returns boolean language sql stable as $$
    -- The enterprise's side; a clerk only for what he entered himself, and until it is submitted.
    select hall.acts_for(p_actor, fr.uscc)
        or (p_actor ->> 'role' = 'clerk' and fr.registered_by = p_actor ->> 'client' and fr.state = 'draft')
$$;

create function hall.act_submit_request(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T2, T4 and T6 (or T5, T7) with the decision that scoring made, in one transaction (S4).
declare
    at timestamptz;
    fr hall.financing_request;
    me text := p_actor ->> 'client';
    outcome text := p_args ->> 'outcome';
    quoted_fen bigint := (p_args ->> 'limit_fen')::bigint;
    expires timestamptz;
    decision text;
    quote text;
    broken text[];
begin
    perform hall.begin_act(p_actor);
    fr := hall.locked_request(p_args ->> 'fr_id');
    at := hall.hall_now();
    if not hall.may_intake(p_actor, fr) then perform hall.refuse('not-found'); end if;
    perform hall.expect_version(fr.version, (p_args ->> 'version')::integer);
    perform hall.expect_state(fr.state, 'draft');
    perform hall.expect_running(fr);
    select hall.broken_for_request(c, at) into broken from hall.consent c
        where c.id = p_args ->> 'consent_id' and c.uscc = fr.uscc;
    if not found then broken := '{is one of the enterprise}'; end if;
    if cardinality(broken) > 0 then
        perform hall.refuse('consent-missing', jsonb_build_object('broken', to_jsonb(broken)));
    end if;
    update hall.financing_request set consent_id = p_args ->> 'consent_id' where id = fr.id;
    begin
        perform hall.move_request(fr.id, 'T2', 'submitted', me, at);
    exception when unique_violation then
        perform hall.refuse('duplicate-request', jsonb_build_object('existing', (
            select f.id from hall.financing_request f where f.tenant = fr.tenant and f.uscc = fr.uscc
                and f.scheme = fr.scheme and f.purpose = fr.purpose and f.id <> fr.id and hall.seeks_a_bank(f.state))));
    end;
    decision := hall.keep_decision(fr.uscc, p_args -> 'decision', p_args ->> 'decision_text', me);
    perform hall.expect_latest(fr.uscc, fr.scheme, (p_args #>> '{decision,answer,as_of}')::date, p_args ->> 'facts_mark');
    expires := at + make_interval(days => hall.setting('quote_days')::integer);
    quote := hall.keep_quote(fr.uscc, fr.scheme, decision, outcome, quoted_fen, expires);
    select q.expires_at into strict expires from hall.limit_quote q where q.id = quote;  -- the same decision keeps its quote
    update hall.financing_request f set quote_id = quote, quote_fen = quoted_fen,
        quote_expires_at = expires where id = fr.id;
    if outcome = 'ineligible' then
        fr := hall.move_request(fr.id, 'T5', 'INELIGIBLE', me, at, jsonb_build_object('decision_id', decision));
    else
        perform hall.move_request(fr.id, 'T4', 'screened', me, at, jsonb_build_object('decision_id', decision));
        if not fr.quote_binds or (outcome = 'eligible' and quoted_fen > 0) then
            fr := hall.move_request(fr.id, 'T6', 'quoted', me, at, p_deadline => expires);
        else
            fr := hall.move_request(fr.id, 'T7', 'assisted', me, at, jsonb_build_object('outcome', outcome),
                hall.setting('assisted_minutes'));
            perform hall.open_case('assisted', 'fr/' || fr.id, 'the quote needs a person: ' || outcome, at);
        end if;
    end if;
    return jsonb_build_object('status', 200, 'body', jsonb_build_object('fr_id', fr.id, 'state', fr.state,
        'version', fr.version, 'outcome', outcome, 'quote_id', quote, 'quote_fen', quoted_fen,
        'quote_expires_at', hall.iso(expires), 'decision_id', decision, 'reasons', p_args -> 'reasons'));
end $$;

create function hall.act_broadcast_request(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T8: the enterprise confirms the amount and may name up to three products or institutions, which come first (round 0).
declare
    at timestamptz;
    fr hall.financing_request;
    amount bigint := (p_args ->> 'amount_fen')::bigint;
    named text[] := array(select jsonb_array_elements_text(coalesce(p_args -> 'wishes', '[]')));
    unknown jsonb;
begin
    perform hall.begin_act(p_actor);
    fr := hall.locked_request(p_args ->> 'fr_id');
    at := hall.hall_now();
    if not hall.acts_for(p_actor, fr.uscc) then perform hall.refuse('not-found'); end if;
    perform hall.expect_version(fr.version, (p_args ->> 'version')::integer);
    perform hall.expect_state(fr.state, 'quoted');
    perform hall.expect_running(fr);
    select jsonb_agg(jsonb_build_object('pointer', '/wishes/' || (i - 1), 'rule', 'names an institution or a product'))
        into unknown from unnest(named) with ordinality as wish (named_id, i)
        where not exists (select 1 from hall.institution where id = wish.named_id)
            and not exists (select 1 from hall.product where id = wish.named_id and approved_at is not null);
    if unknown is not null then perform hall.refuse('validation', jsonb_build_object('errors', unknown)); end if;
    fr := hall.renew_quote(fr);
    fr.amount_fen := amount;
    perform hall.expect_round_possible(fr, at);
    update hall.financing_request set amount_fen = amount, wishes = named where id = fr.id;
    fr := hall.announce_round(fr.id, case cardinality(named) when 0 then 1 else 0 end, 'T8', p_actor ->> 'client', at);
    return jsonb_build_object('status', 200, 'body', jsonb_build_object('fr_id', fr.id, 'state', fr.state,
        'version', fr.version, 'round', fr.round_no));
end $$;

create function hall.act_withdraw_request(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T18: any time before signing; live claims end as rejected by the enterprise, and the reservation goes back.
declare
    at timestamptz;
    fr hall.financing_request;
    me text := p_actor ->> 'client';
begin
    perform hall.begin_act(p_actor);
    perform hall.lock_live_round(p_args ->> 'fr_id');
    fr := hall.locked_request(p_args ->> 'fr_id');
    at := hall.hall_now();
    if not hall.may_intake(p_actor, fr) then perform hall.refuse('not-found'); end if;
    perform hall.expect_version(fr.version, (p_args ->> 'version')::integer);
    perform hall.expect_state(fr.state, 'draft', 'submitted', 'screened', 'quoted', 'broadcast', 'claimed', 'offered',
        'accepted', 'assisted');
    perform hall.end_live_round(fr.id, at);
    perform hall.end_claims(fr.id, 'K6', 'rejected', me, at, '{"why": "withdrawn"}');
    perform hall.void_reservation(fr.id);
    fr := hall.move_request(fr.id, 'T18', 'WITHDRAWN', me, at, jsonb_build_object('note', p_args ->> 'note'));
    perform hall.close_case('assisted', 'fr/' || fr.id, me, 'withdrawn', at);
    return jsonb_build_object('status', 200, 'body',
        jsonb_build_object('fr_id', fr.id, 'state', fr.state, 'version', fr.version));
end $$;

create function hall.act_assist_request(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T20: the case manager broadcasts once more, to everybody, or declines with a note. With the enterprise he may have agreed
-- on a lower amount.
declare
    at timestamptz;
    fr hall.financing_request;
    me text := p_actor ->> 'client';
begin
    perform hall.begin_act(p_actor);
    fr := hall.locked_request(p_args ->> 'fr_id');
    at := hall.hall_now();
    perform hall.expect_version(fr.version, (p_args ->> 'version')::integer);
    perform hall.expect_state(fr.state, 'assisted');
    perform hall.expect_running(fr);
    if p_args ->> 'to' = 'broadcast' then
        if (p_args ->> 'amount_fen')::bigint > fr.amount_fen then
            perform hall.refuse('validation', '{"errors": [{"pointer": "/amount_fen", "rule": "not above the amount asked"}]}');
        end if;
        fr := hall.renew_quote(fr);
        fr.amount_fen := coalesce((p_args ->> 'amount_fen')::bigint, fr.amount_fen);
        perform hall.expect_round_possible(fr, at);
        update hall.financing_request set amount_fen = fr.amount_fen where id = fr.id;
        fr := hall.announce_round(fr.id, greatest(fr.round_no + 1, hall.setting('rounds')::integer), 'T20', me, at,
            jsonb_build_object('note', p_args ->> 'note'));
    else
        fr := hall.move_request(fr.id, 'T20', 'DECLINED', me, at, jsonb_build_object('note', p_args ->> 'note'));
    end if;
    perform hall.close_case('assisted', 'fr/' || fr.id, me, p_args ->> 'note', at);
    return jsonb_build_object('status', 200, 'body',
        jsonb_build_object('fr_id', fr.id, 'state', fr.state, 'version', fr.version));
end $$;

-- ----------------------------------------------------------------------------------------------------------- four eyes

create function hall.act_propose_order(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- Of a request (T19, T21) or of an institution, first pair of eyes: nothing changes yet.
declare
    made text := hall.new_id('ap');
    at timestamptz := hall.hall_now();
    expires timestamptz := at + make_interval(days => hall.setting('approval_days')::integer);
begin
    perform hall.begin_act(p_actor);
    if p_args ->> 'institution_id' is null then
        perform hall.locked_request(p_args ->> 'fr_id');
    elsif not exists (select 1 from hall.institution
            where id = p_args ->> 'institution_id' and tenant = p_actor ->> 'tenant') then
        perform hall.refuse('not-found');
    end if;
    insert into hall.approval (id, kind, fr_id, institution_id, order_no, note, proposed_by, proposed_at,
            expires_at)
        values (made, p_args ->> 'kind', p_args ->> 'fr_id', p_args ->> 'institution_id', p_args ->> 'order_no',
            p_args ->> 'note', p_actor ->> 'client', at, expires);
    return jsonb_build_object('status', 201, 'body',
        jsonb_build_object('approval_id', made, 'expires_at', hall.iso(expires)));
end $$;

create function hall.act_approve_order(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- The second pair of eyes carries the order out. A suspended request: its card is hidden and all its clocks stand still.
declare
    at timestamptz;
    proposal hall.approval;
    fr hall.financing_request;
    hidden integer;
    me text := p_actor ->> 'client';
begin
    perform hall.begin_act(p_actor);
    select * into proposal from hall.approval where id = p_args ->> 'approval_id';
    if not found then perform hall.refuse('not-found'); end if;
    if proposal.fr_id is not null then
        perform hall.lock_live_round(proposal.fr_id);
        fr := hall.locked_request(proposal.fr_id);
    end if;
    select * into proposal from hall.approval where id = proposal.id for no key update;
    at := hall.hall_now();
    if proposal.approved_at is not null then perform hall.refuse('illegal-transition', '{"state": "approved"}'); end if;
    if proposal.proposed_by = me then perform hall.refuse('four-eyes-required'); end if;
    if at >= proposal.expires_at then
        perform hall.refuse('approval-expired', jsonb_build_object('expires_at', hall.iso(proposal.expires_at)));
    end if;
    update hall.approval set approved_by = me, approved_at = at where id = proposal.id;
    if proposal.institution_id is not null then return hall.order_institution(proposal); end if;
    if proposal.kind = 'cancel' then
        perform hall.expect_state(fr.state, 'draft', 'submitted', 'screened', 'quoted', 'broadcast', 'claimed', 'offered',
            'accepted', 'assisted', 'signed');
        perform hall.end_live_round(fr.id, at);
        perform hall.end_claims(fr.id, 'K6', 'rejected', me, at, '{"why": "cancelled"}');
        perform hall.void_reservation(fr.id);
        if fr.state = 'signed' then perform hall.cancel_signed_facility(fr.id, me, at); end if;
        fr := hall.move_request(fr.id, 'T19', 'CANCELLED', me, at,
            jsonb_build_object('order_no', proposal.order_no, 'approval_id', proposal.id));
        perform hall.close_case(kind, 'fr/' || fr.id, me, 'cancelled', at) from unnest('{assisted,no-drawdown}'::text[]) as kind;
    elsif proposal.kind = 'suspend' then
        if fr.is_suspended or hall.is_final(fr.state) then
            perform hall.refuse('illegal-transition', jsonb_build_object('state', fr.state, 'suspended', fr.is_suspended));
        end if;
        update hall.financing_request set is_suspended = true, suspended_at = at where id = fr.id;
        -- The card is shown again when the order is lifted, and its gate opens anew behind that (F1).
        update hall.round set state = 'announced', published_at = null, opens_at = null, closes_at = null
            where fr_id = fr.id and state = 'open' returning n into hidden;
        perform hall.tell_suspension(fr, 'fin.request.suspended.v1', hidden);
    else
        if not fr.is_suspended then perform hall.refuse('illegal-transition', jsonb_build_object('state', fr.state, 'suspended', false)); end if;
        perform hall.start_clocks(fr, at);
        perform hall.tell_suspension(fr, 'fin.request.resumed.v1',
            (select n from hall.round where fr_id = fr.id and state in ('announced', 'open')));
    end if;
    return jsonb_build_object('status', 200, 'body', jsonb_build_object('approval_id', proposal.id, 'fr_id', fr.id,
        'kind', proposal.kind, 'state', fr.state, 'version', fr.version));
end $$;

create function hall.tell_suspension(fr hall.financing_request, p_type text, p_round integer) returns void language sql as $$
    -- p_round: whose card is hidden, or shown (again); null: none is.
    select hall.emit('fr/' || fr.id, p_type, jsonb_build_object('fr_id', fr.id, 'round', p_round), p_uscc => fr.uscc,
        p_fr => case when p_round is not null then fr.id end, p_round => p_round)
$$;

create function hall.resumed(
    p_stood_from timestamptz, p_due timestamptz, p_at timestamptz, out minutes bigint, out at timestamptz
) language sql stable as $$
    -- The working minutes that were left when the clock stood still, and when they are over from p_at on.
    select rest, hall.add_working_minutes(p_at, rest) from hall.working_minutes_between(p_stood_from, p_due) as rest
$$;

create function hall.start_clocks(fr hall.financing_request, p_at timestamptz) returns void language plpgsql as $$
-- T21: every clock goes on with what was left of it when it stood still: working time with the working time, days with the
-- days. What was set during the suspension has lost nothing before that. An offer's own day stays as it was signed and
-- hashed: its life is the claim's deadline. A quote grows old meanwhile (a new one is free), the end of a line is the
-- contract's, and an appeal's promises are the hall's own.
begin
    update hall.financing_request f set is_suspended = false, suspended_at = null, deadline = due.at,
            deadline_from = case when due.minutes is not null then p_at end, deadline_minutes = due.minutes,
            deadline_is_provisional = due.minutes is not null and not hall.calendar_knows(due.at)
        from (select minutes, case when minutes is null then fr.deadline + (p_at - greatest(fr.suspended_at, fr.moved_at))
                else hall.add_working_minutes(p_at, minutes) end as at
            from (select case when fr.deadline_minutes is not null then hall.working_minutes_between(
                greatest(fr.suspended_at, fr.moved_at), fr.deadline) end as minutes) as rest) as due
        where f.id = fr.id;
    update hall.claim c set deadline = due.at, deadline_from = p_at, deadline_minutes = due.minutes,
            deadline_is_provisional = not hall.calendar_knows(due.at)
        from hall.claim k, lateral hall.resumed(greatest(fr.suspended_at, k.moved_at), k.deadline, p_at) as due
        where c.id = k.id and k.fr_id = fr.id and k.deadline is not null;
    -- Lines before cases, as hall.act_correct locks them (C2). Each lock first, and then what is left: a row that another
    -- changes meanwhile would get what was left of its former clock.
    perform 1 from hall.facility where fr_id = fr.id order by id for no key update;
    update hall.facility f set deadline = case when f.is_line_over then due.at
            else least(due.at, hall.start_of(f.line_ends_on + 2)) end
        from (select a.id, a.deadline + (p_at - greatest(fr.suspended_at, a.moved_at, (
                select max(r.at) from hall.facility_report r where r.facility_id = a.id))) as at
            from hall.facility a where a.fr_id = fr.id and a.deadline is not null) as due
        where f.id = due.id;
    perform 1 from hall.drawdown d join hall.facility a on a.id = d.facility_id where a.fr_id = fr.id and d.state = 'asked'
        order by d.id for no key update of d;
    update hall.drawdown d set due_at = due.at, due_from = p_at, due_minutes = due.minutes,
            due_is_provisional = not hall.calendar_knows(due.at)
        from hall.drawdown w join hall.facility a on a.id = w.facility_id,
            lateral hall.resumed(greatest(fr.suspended_at, w.asked_at), w.due_at, p_at) as due
        where d.id = w.id and a.fr_id = fr.id and w.state = 'asked' and w.due_at is not null;
    perform 1 from hall.hall_case k where k.kind <> 'appeal' and hall.request_of(k.subject) = fr.id and k.closed_at is null
        order by k.id for no key update;
    update hall.hall_case c set due_at = due.at, due_from = p_at, due_minutes = due.minutes,
            due_is_provisional = not hall.calendar_knows(due.at)
        from hall.hall_case k, lateral hall.resumed(greatest(fr.suspended_at, k.opened_at), k.due_at, p_at) as due
        where c.id = k.id and k.kind <> 'appeal' and hall.request_of(k.subject) = fr.id and k.closed_at is null
            and k.overdue_at is null;
end $$;
