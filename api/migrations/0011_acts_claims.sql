-- The claim's machine (hall.md §3, §4): the grab, contact, offer, release, rejection, acceptance.

-- Counters exist from the first day of their owner, so that a claim finds a row to lock.
create function hall.make_quota() returns trigger language plpgsql as $$
begin
    insert into hall.quota (owner, institution_id)
        select new.id, case tg_argv[0]
            when 'institution' then new.id
            when 'outlet' then to_jsonb(new) ->> 'institution_id'
            else (select institution_id from hall.outlet where id = to_jsonb(new) ->> 'outlet_id') end;
    return null;
end $$;
create trigger make_quota after insert on hall.institution for each row execute function hall.make_quota('institution');
create trigger make_quota after insert on hall.outlet for each row execute function hall.make_quota('outlet');
create trigger make_quota after insert on hall.officer for each row execute function hall.make_quota('officer');

create function hall.take_hold(p_institution text, p_outlet text, p_officer text, p_at timestamptz) returns integer
language plpgsql as $$
-- H1, H2 under the lock of the institution's counter; returns the institution's cap at this moment (kept on the claim).
declare
    today date := (p_at at time zone 'Asia/Shanghai')::date;
    caps record;
    used record;
begin
    perform 1 from hall.quota where owner = p_institution for no key update;
    select i.hold_cap as institution, o.hold_cap as outlet, f.hold_cap as officer, i.daily_claim_cap as daily,
            i.is_suspended, o.is_closed, f.is_gone into caps
        from hall.institution i join hall.outlet o on o.id = p_outlet left join hall.officer f on f.id = p_officer
        where i.id = p_institution;
    -- Seen before without this lock: who suspends, closes or ends takes it too, so no claim begins behind them.
    if caps.is_suspended then perform hall.refuse('institution-suspended'); end if;
    if caps.is_closed then perform hall.refuse('not-found'); end if;
    if caps.is_gone then
        perform hall.refuse('validation', '{"errors": [{"pointer": "/officer_id", "rule": "an officer of the outlet"}]}');
    end if;
    select max(held) filter (where owner = p_institution) as institution, max(held) filter (where owner = p_outlet) as outlet,
            max(held) filter (where owner = p_officer) as officer,
            max(claims_that_day) filter (where owner = p_institution and day = today) as daily into used
        from hall.quota where owner in (p_institution, p_outlet, p_officer);
    if used.institution >= caps.institution then perform hall.refuse('hold-cap-reached', '{"of": "institution"}'); end if;
    if used.outlet >= caps.outlet then perform hall.refuse('hold-cap-reached', '{"of": "outlet"}'); end if;
    if used.officer >= caps.officer then perform hall.refuse('hold-cap-reached', '{"of": "officer"}'); end if;
    if used.daily >= caps.daily then
        perform hall.refuse('daily-claim-cap', jsonb_build_object('retry_after_seconds', hall.seconds_left_today()));
    end if;
    update hall.quota set held = held + 1,
            claims_that_day = case when day = today then claims_that_day else 0 end + 1, day = today
        where owner in (p_institution, p_outlet, p_officer);
    return caps.institution;
end $$;

create function hall.is_out_of_validity(p_terms jsonb) returns boolean language sql volatile as $$
    select coalesce(hall.today() < (p_terms ->> 'valid_from')::date, false)
        or coalesce(hall.today() > (p_terms ->> 'valid_to')::date, false)
$$;

create function hall.validity(p_terms jsonb) returns jsonb language sql immutable as $$
    select jsonb_build_object('valid_from', p_terms -> 'valid_from', 'valid_to', p_terms -> 'valid_to')
$$;

create function hall.wrong_product(goods hall.product, p_card jsonb) returns jsonb language sql volatile as $$
    -- The broken rules of a claim with a product that cannot serve the card. It is given the card and not the request, so
    -- no refusal tells more of the request than the card does (§11); what either leaves open refuses nothing.
    select coalesce(jsonb_agg(jsonb_build_object('pointer', '/product_id', 'rule', rule) || bound), '[]')
    from (select goods.terms as t, goods.terms -> 'eligibility' as whom, p_card ->> 'district' as district,
            -- A band's code tells its edges in 10,000 CNY, also on a card that is older than the policy's bands.
            split_part(p_card ->> 'amount_band', '-', 1)::bigint * 1000000 as band_from_fen,
            nullif(split_part(p_card ->> 'amount_band', '-', 2), 'up')::bigint * 1000000 as band_below_fen) as seen,
        lateral (values
            (hall.is_out_of_validity(t), 'valid today', hall.validity(t)),
            (goods.max_fen < band_from_fen or goods.min_fen >= band_below_fen, 'has an amount within the band of the card',
                jsonb_build_object('min_fen', goods.min_fen, 'max_fen', goods.max_fen)),
            ((p_card ->> 'term_months')::integer > (t ->> 'line_months')::integer, 'lasts as long as the card asks',
                jsonb_build_object('line_months', t -> 'line_months')),
            (goods.category = 'first-loan' and not (p_card ->> 'first_loan')::boolean, 'for a first loan, and this is none',
                '{"category": "first-loan"}'),
            (jsonb_array_length(whom -> 'districts') > 0 and district is not null and not exists (
                -- 350200 stands for all of its city, 350000 for its province (GB/T 2260).
                select from jsonb_array_elements_text(whom -> 'districts') as area
                where starts_with(district, regexp_replace(area, '(0000|00)$', ''))), 'for the district of the card',
                jsonb_build_object('districts', whom -> 'districts')),
            (whom -> 'industry_sections_excluded' ? (p_card ->> 'industry_section'), 'for the industry of the card',
                jsonb_build_object('industry_sections_excluded', whom -> 'industry_sections_excluded'))
        ) as broken (is_so, rule, bound)
    where is_so
$$;

create function hall.act_grab(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- K1, T9. Exactly one success per (request, round, slot): the guarded update of the locked round, the unique slot, and the
-- unique fence each refuse a second one (C1).
declare
    at timestamptz;
    inst text := p_actor ->> 'institution';
    place hall.outlet;
    shown hall.round;
    fr hall.financing_request;
    goods hall.product;
    wrong jsonb;
    made hall.claim;
    cap integer;
    now_taken integer;
begin
    perform hall.begin_act(p_actor);
    select * into place from hall.outlet where id = p_args ->> 'outlet_id' and institution_id = inst and not is_closed;
    select * into shown from hall.round where fr_id = p_args ->> 'fr_id' and n = (p_args ->> 'round')::integer;
    if place.id is null or shown.fr_id is null or not place.no = any (shown.audience)
            or place.id <> coalesce(p_actor ->> 'outlet', place.id) then
        perform hall.refuse('not-found');  -- C6
    end if;
    if (select is_suspended from hall.institution where id = inst) then perform hall.refuse('institution-suspended'); end if;
    if shown.state in ('announced', 'open') then  -- a round that has ended needs no lock: it never comes back
        select * into shown from hall.round where fr_id = shown.fr_id and n = shown.n for no key update;
    end if;
    at := hall.hall_now();
    if shown.state = 'announced' and (select is_suspended from hall.financing_request where id = shown.fr_id) then
        perform hall.refuse('not-found');  -- T21: the card is hidden
    end if;
    if shown.state = 'taken' then
        if hall.could_have_won(p_actor, p_args, shown, at) then
            perform hall.note_attempt(p_actor, shown, place.id, at);
        end if;
        return jsonb_build_object('refused', 'grab-lost', 'members', jsonb_build_object('round', shown.n,
            'next_round_possible', case when shown.n < hall.setting('rounds') then 'unknown' else 'false' end));
    end if;
    if shown.state = 'closed' or at >= shown.closes_at then
        perform hall.refuse('round-closed', jsonb_build_object('round', shown.n));
    end if;
    if shown.state = 'announced' or at < shown.opens_at then
        perform hall.refuse('gate-not-open', jsonb_build_object('opens_at', hall.iso(shown.opens_at),
            'retry_after_ms', coalesce(ceil(extract(epoch from shown.opens_at - at) * 1000)::bigint,
                hall.setting('gate_ms'))));
    end if;
    perform hall.expect_version(shown.card_version, (p_args ->> 'card_version')::integer);
    select * into goods from hall.product where id = p_args ->> 'product_id' and institution_id = inst
        and version = (p_args ->> 'product_version')::integer and approved_at is not null and withdrawn_at is null;
    wrong := case when found then hall.wrong_product(goods, shown.card)
        else '[{"pointer": "/product_id", "rule": "a product in force of yours"}]' end;
    -- H1 caps the officer too, so where there are officers one of them holds the claim.
    if (p_args ->> 'officer_id' is not null or exists (select 1 from hall.officer where outlet_id = place.id and not is_gone))
            and not exists (select 1 from hall.officer
                where id = p_args ->> 'officer_id' and outlet_id = place.id and not is_gone) then
        wrong := wrong || '{"pointer": "/officer_id", "rule": "an officer of the outlet"}'::jsonb;
    end if;
    perform hall.refuse_wrong(wrong);
    if exists (select 1 from hall.claim where fr_id = shown.fr_id and institution_id = inst and state in ('lapsed', 'released')
            and round = (select max(n) from hall.round where fr_id = shown.fr_id and n < shown.n)) then
        perform hall.refuse('cool-down', jsonb_build_object('round', shown.n));  -- H5
    end if;
    fr := hall.locked_request(shown.fr_id);
    if fr.is_suspended then perform hall.refuse('not-found'); end if;
    if hall.request_consent(fr, at, inst) is null then perform hall.refuse(hall.why_request_withheld(fr)); end if;
    cap := hall.take_hold(inst, place.id, p_args ->> 'officer_id', at);
    fr := hall.renew_quote(fr);
    perform hall.reserve(fr, shown.n);
    at := hall.hall_now();  -- the last lock is taken: a claim begins when nobody else's can have begun before it (I14)
    update hall.round set taken = taken + 1, state = case when taken + 1 = slots then 'taken' else state end,
            ended_at = case when taken + 1 = slots then at end
        where fr_id = shown.fr_id and n = shown.n and state = 'open' and at >= opens_at and at < closes_at and taken < slots
        returning taken into now_taken;
    if not found then perform hall.refuse('round-closed', jsonb_build_object('round', shown.n)); end if;
    update hall.financing_request set fence_last = fence_last + 1 where id = fr.id;
    insert into hall.claim (id, fr_id, round, slot, institution_id, outlet_id, officer_id, product_id, product_version, fence,
            hold_cap, claimed_at, cause, state, edge, moved_at, moved_by, deadline, deadline_from, deadline_minutes,
            deadline_is_provisional)
        select hall.new_id('cl'), fr.id, shown.n, now_taken, inst, place.id, p_args ->> 'officer_id', goods.id, goods.version,
            fr.fence_last + 1, cap, at, hall.cause(), 'held', 'K1', at, p_actor ->> 'client', due, at,
            hall.setting('contact_minutes'), not hall.calendar_knows(due)
        from hall.add_working_minutes(at, hall.setting('contact_minutes')) as due
        returning * into made;
    perform hall.emit('fr/' || fr.id, 'fin.round.taken.v1', jsonb_build_object('fr_id', fr.id, 'round', shown.n),
        p_fr => fr.id, p_round => shown.n);
    if fr.state = 'broadcast' then perform hall.move_request(fr.id, 'T9', 'claimed', p_actor ->> 'client', at); end if;
    perform hall.note_attempt(p_actor, shown, place.id, at);
    return jsonb_build_object('status', 201, 'body', jsonb_build_object('claim_id', made.id, 'fr_id', fr.id,
        'round', shown.n, 'fence', made.fence, 'state', made.state, 'lease_until', hall.iso(made.deadline),
        'deadline_contact', hall.iso(made.deadline)));
end $$;

-- ------------------------------------------------------------------------------------------------- writes under a fence

create function hall.own_claim(
    p_actor jsonb, p_claim text, p_with_others boolean default false
) returns hall.claim language plpgsql as $$
-- The claim under the locks of its request and itself; somebody else's does not exist for the caller. p_with_others: the
-- act goes on to another facility of the enterprise; see hall.locked_facility.
declare mine hall.claim;
begin
    select * into mine from hall.claim where id = p_claim;
    if not found or mine.institution_id is distinct from p_actor ->> 'institution'
            or mine.outlet_id <> coalesce(p_actor ->> 'outlet', mine.outlet_id) then
        perform hall.refuse('not-found');
    end if;
    if p_with_others then
        perform pg_advisory_xact_lock(hashtextextended('facilities ' || uscc, 0))
            from hall.financing_request where id = mine.fr_id;
    end if;
    perform hall.locked_request(mine.fr_id);
    select * into strict mine from hall.claim where id = p_claim for no key update;
    return mine;
end $$;

create function hall.expect_fence(mine hall.claim, p_fence bigint, p_act text, p_at timestamptz) returns void
language plpgsql as $$
-- C3: a write needs the live claim's own fence; after the lease nothing is written, swept or not.
begin
    if p_fence is not distinct from mine.fence and mine.ended_at is null
            and (select is_suspended from hall.financing_request where id = mine.fr_id) then
        perform hall.refuse('request-suspended');  -- before the deadline is asked: it stands still
    end if;
    if p_fence is distinct from mine.fence or mine.ended_at is not null or p_at >= mine.deadline then
        perform hall.refuse('stale-fence', jsonb_build_object('fence', mine.fence, 'state', mine.state));
    end if;
    insert into hall.fenced_write (claim_id, fence, act, at) values (mine.id, p_fence, p_act, p_at);
end $$;

create function hall.expect_business(mine hall.claim) returns void language plpgsql as $$
-- New business ends with the outlet and stands still with the institution; the sweeper ends the claim (K6).
begin
    if (select is_suspended from hall.institution where id = mine.institution_id) then
        perform hall.refuse('institution-suspended');
    end if;
    if (select is_closed from hall.outlet where id = mine.outlet_id) then
        perform hall.refuse('stale-fence', jsonb_build_object('fence', mine.fence, 'state', mine.state));
    end if;
end $$;

create function hall.claim_answer(p_status integer, c hall.claim) returns jsonb language sql stable as $$
    select jsonb_build_object('status', p_status, 'body', jsonb_build_object('claim_id', c.id, 'fr_id', c.fr_id,
        'round', c.round, 'fence', c.fence, 'state', c.state, 'version', c.version, 'lease_until', hall.iso(c.deadline)))
$$;

create function hall.claim_is_over(p_fr text, p_by text, p_at timestamptz, p_why text) returns void language plpgsql as $$
-- T13: when the last live claim has ended, the reservation goes back and the next round is announced.
declare fr hall.financing_request;
begin
    if exists (select 1 from hall.claim where fr_id = p_fr and hall.is_live(state)) then return; end if;
    select * into strict fr from hall.financing_request where id = p_fr;
    perform hall.void_reservation(fr.id);
    perform hall.go_on_or_assist(fr, 'T13', 'T13', p_by, p_at, jsonb_build_object('why', p_why));
end $$;

create function hall.act_contact_enterprise(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- K2, with a proof; a further contact under the same claim is recorded and moves nothing.
declare
    mine hall.claim := hall.own_claim(p_actor, p_args ->> 'claim_id');
    at timestamptz := hall.hall_now();
begin
    perform hall.begin_act(p_actor);
    perform hall.expect_fence(mine, (p_args ->> 'fence')::bigint, 'contact', at);
    perform hall.expect_state(mine.state, 'held', 'contacted');
    perform hall.expect_business(mine);
    insert into hall.contact (claim_id, no, at, method, proof_sha256)
        values (mine.id, 1 + (select count(*) from hall.contact c where c.claim_id = mine.id), at, p_args ->> 'method',
            decode(p_args ->> 'proof_sha256', 'hex'));
    if mine.state = 'held' then
        mine := hall.move_claim(mine.id, 'K2', 'contacted', p_actor ->> 'client', at,
            p_working_minutes => hall.setting('offer_minutes'));
    end if;
    return hall.claim_answer(200, mine);
end $$;

create function hall.act_agree_extension(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- H3, K2: the enterprise agrees to one extension of the time for an offer, after a recorded contact.
declare
    at timestamptz;
    fr hall.financing_request;
    c hall.claim;
begin
    perform hall.begin_act(p_actor);
    select * into c from hall.claim where id = p_args ->> 'claim_id';
    if not found then perform hall.refuse('not-found'); end if;
    fr := hall.locked_request(c.fr_id);
    if not hall.acts_for(p_actor, fr.uscc) then perform hall.refuse('not-found'); end if;
    select * into strict c from hall.claim where id = c.id for no key update;
    at := hall.hall_now();
    perform hall.expect_running(fr);
    if c.extensions > 0 then perform hall.refuse('extension-used'); end if;
    if c.state <> 'contacted' or at >= c.deadline then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', c.state));
    end if;
    -- Counted from where the deadline itself was, which a new calendar may move (S6).
    update hall.claim set extensions = 1, deadline = due, deadline_from = coalesce(c.deadline_from, c.deadline),
            deadline_minutes = coalesce(c.deadline_minutes, 0) + hall.setting('offer_extension_minutes'),
            deadline_is_provisional = not hall.calendar_knows(due)
        from hall.add_working_minutes(c.deadline, hall.setting('offer_extension_minutes')) as due
        where id = c.id returning hall.claim.* into c;
    perform hall.emit('claim/' || c.id, 'fin.claim.extended.v1',
        jsonb_build_object('claim_id', c.id, 'deadline', hall.iso(c.deadline)), p_uscc => fr.uscc,
        p_institution => c.institution_id);
    return hall.claim_answer(200, c);
end $$;

create function hall.act_give_up_claim(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- K6 by the outlet: released, or declined with a reason code. Only who spoke with the enterprise declines: it does not
-- cool down (H5), so a claim that was merely held back from others is released.
declare
    mine hall.claim := hall.own_claim(p_actor, p_args ->> 'claim_id');
    at timestamptz := hall.hall_now();
begin
    perform hall.begin_act(p_actor);
    perform hall.expect_fence(mine, (p_args ->> 'fence')::bigint, p_args ->> 'to', at);
    perform hall.expect_state(mine.state, 'contacted', 'offered', case p_args ->> 'to' when 'released' then 'held' else 'contacted' end);
    mine := hall.move_claim(mine.id, 'K6', p_args ->> 'to', p_actor ->> 'client', at,
        jsonb_build_object('code', p_args ->> 'reason'));
    perform hall.claim_is_over(mine.fr_id, p_actor ->> 'client', at, mine.state);
    return hall.claim_answer(200, mine);
end $$;

create function hall.act_reject_claim(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- K6 by the enterprise: it may turn a bank away and go back to broadcast without penalty.
declare
    at timestamptz;
    fr hall.financing_request;
    c hall.claim;
begin
    perform hall.begin_act(p_actor);
    select * into c from hall.claim where id = p_args ->> 'claim_id';
    if not found then perform hall.refuse('not-found'); end if;
    fr := hall.locked_request(c.fr_id);
    if not hall.acts_for(p_actor, fr.uscc) then perform hall.refuse('not-found'); end if;
    select * into strict c from hall.claim where id = c.id for no key update;
    at := hall.hall_now();
    perform hall.expect_state(c.state, 'held', 'contacted', 'offered');
    perform hall.expect_running(fr);
    c := hall.move_claim(c.id, 'K6', 'rejected', p_actor ->> 'client', at, jsonb_build_object('code', p_args ->> 'reason'));
    perform hall.claim_is_over(fr.id, p_actor ->> 'client', at, 'rejected');
    return hall.claim_answer(200, c);
end $$;

-- ------------------------------------------------------------------------------------------------------------- offers

create function hall.annual_cost_bp(p_rate_bp integer, p_fees_fen bigint, p_amount_fen bigint, p_months integer)
returns integer language sql immutable as $$
    -- Simple yearly cost: the rate plus all fees spread over the term of a draw, rounded up.
    select p_rate_bp + ceil(p_fees_fen::numeric * 10000 * 12 / (p_amount_fen::numeric * p_months))::integer
$$;

create function hall.conditions_of(fr hall.financing_request) returns text[] language sql stable as $$
    -- What the quote's decision left to the bank to clear before it offers, such as pbc_report.
    select coalesce((select array(select jsonb_array_elements_text(d.content -> 'answer' -> 'conditions'))
        from hall.limit_quote q join hall.decision d on d.id = q.decision_id
        where q.id = fr.quote_id and jsonb_typeof(d.content -> 'answer' -> 'conditions') = 'array'), '{}')
$$;

create function hall.wrong_offer(goods hall.product, fr hall.financing_request, p_args jsonb) returns jsonb
language sql volatile as $$
    -- The broken rules of an offer: those of every offer, and what the version of the product claimed with states (K3).
    -- What the product leaves open binds nothing. A version that was withdrawn since the claim binds as before.
    select coalesce(jsonb_agg(jsonb_build_object('pointer', pointer, 'rule', rule) || bound), '[]')
    from (select goods.terms as t, (p_args ->> 'amount_fen')::bigint as amount,
            (p_args ->> 'basis_bp')::integer + (p_args ->> 'spread_bp')::integer as rate,
            (select sum((fee ->> 'amount_fen')::bigint) from jsonb_array_elements(p_args -> 'fees') as fee) as fees_fen) as made,
        lateral (values
            (amount not between goods.min_fen and goods.max_fen, '/amount_fen', 'within the product claimed with',
                jsonb_build_object('min_fen', goods.min_fen, 'max_fen', goods.max_fen)),
            (fr.quote_binds and amount > fr.amount_fen, '/amount_fen',
                'not above the amount asked where the quote binds', '{}'),
            (not fr.quote_binds and amount > fr.quote_fen and p_args ->> 'above_quote_reason' is null,
                '/above_quote_reason', 'demanded above the reference quote', '{}'),
            (fees_fen > amount, '/fees', 'together not above the amount', '{}'),
            (rate < 0, '/spread_bp', 'basis and spread together are not below 0', '{}'),
            (p_args ->> 'rate_basis' <> t -> 'rate' ->> 'basis', '/rate_basis', 'the basis of the product''s rate',
                jsonb_build_object('basis', t -> 'rate' -> 'basis')),
            (rate < (t -> 'rate' ->> 'from_bp')::integer or rate > (t -> 'rate' ->> 'to_bp')::integer, '/spread_bp',
                'basis and spread together within the product''s rate',
                jsonb_build_object('from_bp', t -> 'rate' -> 'from_bp', 'to_bp', t -> 'rate' -> 'to_bp')),
            ((p_args ->> 'line_months')::integer > (t ->> 'line_months')::integer, '/line_months',
                'not above the product''s line', jsonb_build_object('line_months', t -> 'line_months')),
            ((p_args ->> 'draw_months')::integer > (t ->> 'draw_months')::integer, '/draw_months',
                'not above the product''s draw', jsonb_build_object('draw_months', t -> 'draw_months')),
            (jsonb_typeof(t -> 'repayments') = 'array' and not t -> 'repayments' ? (p_args ->> 'repayment'),
                '/repayment', 'a way of repaying that the product has',
                jsonb_build_object('repayments', t -> 'repayments')),
            ((p_args ->> 'revolving')::boolean <> (t ->> 'is_revolving')::boolean, '/revolving', 'as the product is',
                jsonb_build_object('is_revolving', t -> 'is_revolving')),
            ((p_args ->> 'prepayment_fee_bp')::integer > (t ->> 'prepayment_fee_bp')::integer, '/prepayment_fee_bp',
                'not above the product''s', jsonb_build_object('prepayment_fee_bp', t -> 'prepayment_fee_bp')),
            (hall.is_out_of_validity(t), '', 'made while the product is valid', hall.validity(t))
        ) as broken (is_so, pointer, rule, bound)
    where is_so
$$;

create function hall.act_make_offer(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- K3, and T12 for the first live offer. Immutable; its hash, which both sides can compute from the offer's members, is what
-- the enterprise accepts.
declare
    mine hall.claim := hall.own_claim(p_actor, p_args ->> 'claim_id');
    at timestamptz := hall.hall_now();
    fr hall.financing_request;
    goods hall.product;
    amount bigint := (p_args ->> 'amount_fen')::bigint;
    rate integer := (p_args ->> 'basis_bp')::integer + (p_args ->> 'spread_bp')::integer;
    fees_fen bigint := coalesce((select sum((fee ->> 'amount_fen')::bigint) from jsonb_array_elements(p_args -> 'fees') fee), 0);
    prepayment_bp integer;
    still_open text[];
    valid timestamptz;
    made hall.offer;
begin
    perform hall.begin_act(p_actor);
    perform hall.expect_fence(mine, (p_args ->> 'fence')::bigint, 'offer', at);
    perform hall.expect_state(mine.state, 'contacted');
    perform hall.expect_business(mine);
    select * into strict fr from hall.financing_request where id = mine.fr_id;
    still_open := array(select condition from unnest(hall.conditions_of(fr)) as condition
        where not p_args -> 'cleared' ? condition order by condition);
    if cardinality(still_open) > 0 then
        perform hall.refuse('conditions-open', jsonb_build_object('conditions', to_jsonb(still_open)));
    end if;
    select * into strict goods from hall.product where id = mine.product_id and version = mine.product_version;
    perform hall.refuse_wrong(hall.wrong_offer(goods, fr, p_args));
    prepayment_bp := coalesce(p_args ->> 'prepayment_fee_bp', goods.terms ->> 'prepayment_fee_bp')::integer;
    valid := hall.add_working_minutes(at, hall.setting('offer_valid_minutes'));
    made := jsonb_populate_record(null::hall.offer, '{"cleared": [], "conditions": []}' || p_args);  -- named as the columns
    made.id := hall.new_id('of');
    made.claim_id := mine.id;
    made.fr_id := fr.id;
    made.institution_id := mine.institution_id;
    made.prepayment_fee_bp := prepayment_bp;
    made.is_revolving := (p_args ->> 'revolving')::boolean;
    made.annual_cost_bp := hall.annual_cost_bp(rate, fees_fen, amount, made.draw_months);
    made.valid_until := date_trunc('milliseconds', valid);
    made.made_at := date_trunc('milliseconds', at);
    made.sha256 := sha256(convert_to(hall.jcs(hall.offer_body(made) - 'sha256'), 'UTF8'));
    insert into hall.offer select made.*;
    mine := hall.move_claim(mine.id, 'K3', 'offered', p_actor ->> 'client', at, jsonb_build_object('offer_id', made.id),
        p_working_minutes => hall.setting('offer_valid_minutes'));
    if fr.state = 'claimed' then perform hall.move_request(fr.id, 'T12', 'offered', p_actor ->> 'client', at); end if;
    return jsonb_build_object('status', 201, 'body', hall.offer_body(made));
end $$;

create function hall.offer_body(o hall.offer) returns jsonb language sql stable as $$
    select jsonb_build_object('offer_id', o.id, 'claim_id', o.claim_id, 'fr_id', o.fr_id, 'institution_id', o.institution_id,
        'amount_fen', o.amount_fen, 'rate_basis', o.rate_basis, 'basis_bp', o.basis_bp, 'spread_bp', o.spread_bp,
        'annual_rate_bp', o.basis_bp + o.spread_bp, 'annual_cost_bp', o.annual_cost_bp, 'line_months', o.line_months,
        'draw_months', o.draw_months, 'repayment', o.repayment, 'revolving', o.is_revolving, 'fees', o.fees,
        'prepayment_fee_bp', o.prepayment_fee_bp, 'cleared', to_jsonb(o.cleared), 'conditions', to_jsonb(o.conditions),
        'above_quote_reason', o.above_quote_reason, 'valid_until', hall.iso(o.valid_until), 'made_at', hall.iso(o.made_at), 'sha256', encode(o.sha256, 'hex'))
$$;

create function hall.act_accept_offer(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T14, K4: the offer of the hash shown; every other live claim is superseded, the reservation becomes this bank's.
declare
    at timestamptz;
    taken hall.offer;
    fr hall.financing_request;
    c hall.claim;
    me text := p_actor ->> 'client';
begin
    perform hall.begin_act(p_actor);
    select * into taken from hall.offer where id = p_args ->> 'offer_id';
    if not found then perform hall.refuse('not-found'); end if;
    fr := hall.locked_request(taken.fr_id);
    if not hall.acts_for(p_actor, fr.uscc) then perform hall.refuse('not-found'); end if;
    select * into strict c from hall.claim where id = taken.claim_id for no key update;
    at := hall.hall_now();
    perform hall.expect_version(fr.version, (p_args ->> 'version')::integer);
    if encode(taken.sha256, 'hex') <> p_args ->> 'sha256' then perform hall.refuse('hash-mismatch'); end if;
    perform hall.expect_running(fr);
    if c.state = 'expired' or (c.state = 'offered' and at >= c.deadline) then
        perform hall.refuse('offer-expired', jsonb_build_object('valid_until', hall.iso(taken.valid_until)));
    end if;
    perform hall.expect_state(c.state, 'offered');
    perform hall.expect_state(fr.state, 'offered');
    perform hall.end_claims(fr.id, 'K4', 'superseded', me, at, jsonb_build_object('offer_id', taken.id), c.id);
    perform hall.move_claim(c.id, 'K4', 'accepted', me, at, jsonb_build_object('offer_id', taken.id),
        p_working_minutes => hall.setting('signing_minutes'));
    perform hall.attribute_reservation(fr.id, c.institution_id, taken.amount_fen);
    fr := hall.move_request(fr.id, 'T14', 'accepted', me, at, jsonb_build_object('offer_id', taken.id));
    return jsonb_build_object('status', 200, 'body', jsonb_build_object('fr_id', fr.id, 'state', fr.state,
        'version', fr.version, 'offer_id', taken.id, 'claim_id', c.id));
end $$;
