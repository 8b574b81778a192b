-- The ledger's functions and the facility's machine (hall.md §3, §5): reservations, signing, money drawn and repaid as the
-- banks report it, corrections, status, reconciliation. Locks: round, request, claim, quota, facility, exposure (C2).

-- --------------------------------------------------------------------------------------------------------------- cases

create function hall.open_case(p_kind text, p_subject text, p_note text, p_at timestamptz, p_lamp text default 'red', p_minutes bigint default null)
returns text language plpgsql as $$
-- The open case of this kind and subject, made if there is none; a person has the time of an assisted request for it.
declare made text;
begin
    loop
        insert into hall.hall_case (id, kind, subject, lamp, note, opened_at, due_at, due_minutes, due_is_provisional)
            select hall.new_id('ca'), p_kind, p_subject, p_lamp, p_note, p_at, due, minutes, not hall.calendar_knows(due)
                from coalesce(p_minutes, hall.setting('assisted_minutes')) as minutes,
                    hall.add_working_minutes(p_at, minutes) as due
            on conflict (kind, subject) where closed_at is null do nothing returning id into made;
        exit when made is not null;
        select id into made from hall.hall_case where kind = p_kind and subject = p_subject and closed_at is null;
        exit when made is not null;  -- else somebody closed it between the two
    end loop;
    return made;
end $$;

create function hall.close_case(p_kind text, p_subject text, p_by text, p_note text, p_at timestamptz) returns void
language sql as $$
    update hall.hall_case set closed_at = p_at, closed_by = p_by, closing_note = p_note
        where kind = p_kind and subject = p_subject and closed_at is null
$$;

create function hall.case_body(k hall.hall_case) returns jsonb language sql stable as $$
    select jsonb_build_object('case_id', k.id, 'kind', k.kind, 'subject', k.subject, 'lamp', k.lamp, 'note', k.note,
        'opened_at', hall.iso(k.opened_at), 'due_at', hall.iso(k.due_at),
        'due_is_provisional', k.due_is_provisional, 'overdue_at', hall.iso(k.overdue_at), 'closed_at', hall.iso(k.closed_at),
        'closed_by', k.closed_by, 'closing_note', k.closing_note)
$$;

create function hall.act_close_case(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- By a person, who says what was done. Cases that tell of a state stay open while it lasts: what ends it closes them.
declare
    k hall.hall_case;
    ended_by text;
begin
    perform hall.begin_act(p_actor);
    select * into k from hall.hall_case where id = p_args ->> 'case_id' for no key update;
    if not found then perform hall.refuse('not-found'); end if;
    if k.closed_at is not null then perform hall.refuse('illegal-transition', '{"state": "closed"}'); end if;
    ended_by := case k.kind when 'appeal' then 'opinion' when 'deadline-stuck' then 'deadline'
        when 'reconciliation' then 'reconciliation' end;
    if ended_by is not null then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', 'open', 'ended_by', ended_by));
    end if;
    update hall.hall_case set closed_at = hall.hall_now(), closed_by = p_actor ->> 'client', closing_note = p_args ->> 'note'
        where id = k.id returning * into k;
    return jsonb_build_object('status', 200, 'body', hall.case_body(k));
end $$;

-- ------------------------------------------------------------------------------------------------ limit and reservation

create function hall.locked_exposure(p_uscc text) returns hall.exposure language plpgsql as $$
-- No key update: a row that refers to this one and changes twice in a transaction shares its key lock, and two who hold
-- that and then want all of it would wait for each other.
declare held hall.exposure;
begin
    insert into hall.exposure (uscc) values (p_uscc) on conflict do nothing;
    select * into strict held from hall.exposure where uscc = p_uscc for no key update;
    return held;
end $$;

create function hall.set_limit(p_uscc text, p_scheme text, p_limit_fen bigint, p_expires_at timestamptz) returns void
language plpgsql as $$
-- L1, L6: the latest quote of a scheme is its limit, and the greatest of them what the enterprise may owe in all; one below
-- what is spoken for waits until the amounts fit under it.
declare
    held hall.exposure := hall.locked_exposure(p_uscc);
    greatest_fen bigint;
    fits boolean;
begin
    insert into hall.scheme_limit (uscc, scheme, limit_fen, expires_at) values (p_uscc, p_scheme, p_limit_fen, p_expires_at)
        on conflict (uscc, scheme) do update set limit_fen = excluded.limit_fen, expires_at = excluded.expires_at;
    select max(limit_fen) into strict greatest_fen from hall.scheme_limit where uscc = p_uscc;
    fits := held.pending_fen + held.committed_fen + held.drawn_fen <= greatest_fen;
    update hall.exposure set limit_fen = case when fits then greatest_fen else limit_fen end,
            limit_target_fen = case when not fits then greatest_fen end
        where uscc = p_uscc;
end $$;

create function hall.room(held hall.exposure, p_scheme text) returns bigint language sql stable as $$
    -- What a request of the scheme may still reserve while its quote lasts: its scheme's limit, and at most the
    -- enterprise's, a waiting lower one already (L6), less all that is spoken for under any scheme and what stands outside
    -- the limit (L4b, L8). So no scheme lifts what another may lend.
    select greatest(least(coalesce(held.limit_target_fen, held.limit_fen),
            coalesce((select limit_fen from hall.scheme_limit where uscc = held.uscc and scheme = p_scheme), 0))
        - held.pending_fen - held.committed_fen - held.drawn_fen - held.over_limit_fen - held.unbound_committed_fen
        - held.unbound_drawn_fen, 0)
$$;

create function hall.available(p_uscc text) returns bigint language sql volatile as $$
    -- The most that a new request may reserve under any scheme: nothing where all quotes have expired (L1).
    select coalesce(max(hall.room(e, s.scheme)), 0)
    from hall.exposure e join hall.scheme_limit s on s.uscc = e.uscc
    where e.uscc = p_uscc and s.expires_at > hall.hall_now()
$$;

create function hall.reserve(fr hall.financing_request, p_round integer) returns void language plpgsql as $$
-- L3: the reservation of a request, made by its first claim. Who is refused learns no amount: it holds no claim yet.
declare
    held hall.exposure;
    fits boolean;
    made text;
begin
    if not fr.quote_binds or exists (select 1 from hall.reservation where fr_id = fr.id and state = 'pending') then
        return;
    end if;
    held := hall.locked_exposure(fr.uscc);
    fits := fr.amount_fen <= hall.room(held, fr.scheme) and coalesce(hall.hall_now() < fr.quote_expires_at, false);
    if not fits and hall.setting('guard_informs_only') = 0 then perform hall.refuse('over-limit'); end if;
    insert into hall.reservation (id, fr_id, round, uscc, amount_fen, counts_in_limit, made_at)
        values (hall.new_id('rs'), fr.id, p_round, fr.uscc, fr.amount_fen, fits, hall.hall_now()) returning id into made;
    if fits then
        insert into hall.journal (uscc, kind, from_account, to_account, amount_fen, reservation_id, fr_id, at, cause)
            values (fr.uscc, 'reserve', 'free', 'pending', fr.amount_fen, made, fr.id, hall.hall_now(), hall.cause());
    end if;
end $$;

create function hall.pending_reservation(p_fr text) returns hall.reservation language sql volatile as $$
    select r from hall.reservation r where fr_id = p_fr and state = 'pending' for no key update
$$;

create function hall.move_pending(
    r hall.reservation, p_kind text, p_to_account text, p_to_institution text, p_amount bigint, p_facility text default null
) returns void language plpgsql as $$
begin
    if p_amount > 0 and r.counts_in_limit then
        insert into hall.journal (uscc, kind, from_account, from_institution, to_account, to_institution, amount_fen,
                reservation_id, facility_id, fr_id, at, cause)
            values (r.uscc, p_kind, 'pending', coalesce(r.institution_id, '-'), p_to_account, p_to_institution, p_amount,
                r.id, p_facility, r.fr_id, hall.hall_now(), hall.cause());
    end if;
end $$;

create function hall.attribute_reservation(p_fr text, p_institution text, p_amount bigint) returns void
language plpgsql as $$
-- L3: the accepted offer names the institution, and its amount, which is never above the one reserved (K3).
declare r hall.reservation := hall.pending_reservation(p_fr);
begin
    if r.id is null then return; end if;
    if p_amount > r.amount_fen then raise exception 'an offer for % above its reservation was accepted', p_fr; end if;
    perform hall.locked_exposure(r.uscc);
    perform hall.move_pending(r, 'attribute', 'free', '-', r.amount_fen - p_amount);
    perform hall.move_pending(r, 'attribute', 'pending', p_institution, p_amount);
    update hall.reservation set amount_fen = p_amount, institution_id = p_institution where id = r.id;
end $$;

create function hall.void_reservation(p_fr text) returns void language plpgsql as $$
declare r hall.reservation := hall.pending_reservation(p_fr);
begin
    if r.id is null then return; end if;
    perform hall.locked_exposure(r.uscc);
    perform hall.move_pending(r, 'void', 'free', '-', r.amount_fen);
    update hall.reservation set state = 'voided', resolved_at = hall.hall_now() where id = r.id;
    perform hall.emit('exposure/' || r.uscc, 'fin.reservation.voided.v1',
        jsonb_build_object('fr_id', p_fr, 'round', r.round, 'amount_fen', r.amount_fen), p_uscc => r.uscc);
end $$;

create function hall.commit_reservation(p_fr text, p_facility text, p_institution text, p_amount bigint, p_counts boolean)
returns void language plpgsql as $$
-- L3, L8: at signing. A facility that counts in the limit takes its amount out of the request's reservation, any other
-- stands apart.
declare
    r hall.reservation := hall.pending_reservation(p_fr);
    owing text := (select uscc from hall.financing_request where id = p_fr);
begin
    perform hall.locked_exposure(owing);
    if p_counts and (r.id is null or not r.counts_in_limit or p_amount > r.amount_fen) then
        raise exception 'facility % of % is not covered by a reservation', p_facility, p_fr;
    end if;
    if p_counts then
        perform hall.move_pending(r, 'commit', 'free', '-', r.amount_fen - p_amount);
        perform hall.move_pending(r, 'commit', 'committed', p_institution, p_amount, p_facility);
    else
        insert into hall.journal (uscc, kind, from_account, to_account, to_institution, amount_fen, reservation_id,
                facility_id, fr_id, at, cause)
            values (owing, 'commit', 'free', 'unbound_committed', p_institution, p_amount, r.id, p_facility, p_fr,
                hall.hall_now(), hall.cause());
    end if;
    update hall.reservation set state = 'committed', resolved_at = hall.hall_now(), institution_id = p_institution
        where id = r.id;
end $$;

-- ------------------------------------------------------------------------------------------------ balances of a facility

create function hall.book_balances(
    f hall.facility, p_committed bigint, p_drawn bigint, p_over bigint, p_kind text, p_at timestamptz, p_reference text,
    p_corrects bigint
) returns void language plpgsql as $$
-- The journal entries between what the facility's accounts hold and what they should. Entries that take from the limit
-- come last, so that no entry passes it on the way.
declare
    prefix text := case when f.counts_in_limit then '' else 'unbound_' end;
    change jsonb := jsonb_build_object('committed', p_committed - f.committed_fen, 'drawn', p_drawn - f.drawn_fen,
        'over_limit', p_over - f.over_limit_fen,
        'free', f.committed_fen + f.drawn_fen + f.over_limit_fen - p_committed - p_drawn - p_over);
    step record;
    amount bigint;
begin
    for step in select * from (values ('committed', 'drawn'), ('drawn', 'committed'), ('committed', 'over_limit'),
            ('drawn', 'over_limit'), ('committed', 'free'), ('drawn', 'free'), ('over_limit', 'drawn'),
            ('over_limit', 'committed'), ('over_limit', 'free'), ('free', 'over_limit'), ('free', 'drawn'),
            ('free', 'committed')) as way (source, target) loop
        amount := least(-(change ->> step.source)::bigint, (change ->> step.target)::bigint);
        continue when amount <= 0;
        change := change || jsonb_build_object(step.source, (change ->> step.source)::bigint + amount,
            step.target, (change ->> step.target)::bigint - amount);
        insert into hall.journal (uscc, kind, from_account, from_institution, to_account, to_institution, amount_fen,
                facility_id, fr_id, reference, corrects, at, cause)
            select f.uscc, p_kind, case when step.source in ('committed', 'drawn') then prefix else '' end || step.source,
                case step.source when 'free' then '-' else f.institution_id end,
                case when step.target in ('committed', 'drawn') then prefix else '' end || step.target,
                case step.target when 'free' then '-' else f.institution_id end,
                amount, f.id, f.fr_id, p_reference, p_corrects, p_at, hall.cause();
    end loop;
end $$;

create function hall.square(
    p_facility text, p_kind text, p_at timestamptz, p_reference text default null, p_corrects bigint default null
) returns hall.facility language plpgsql as $$
-- Brings the balances of a facility in line with the money known to have moved, in whatever order its reports came (L4).
-- A revolving line is open again for what was repaid, a term loan is not. What was drawn beyond the line goes to
-- over_limit (L4b); what is in `drawn` once stays there when the line is cut. Nothing that grows takes more room than its
-- scheme's limit leaves beside all that others hold meanwhile, inside the limit and outside.
declare
    f hall.facility;
    held hall.exposure;
    sums record;
    owing bigint;
    line bigint;
    drawn bigint;
    committed bigint;
    own bigint;
    room bigint;
begin
    select * into strict f from hall.facility where id = p_facility for no key update;
    held := hall.locked_exposure(f.uscc);
    select coalesce(sum(amount_fen) filter (where kind = 'drawdown'), 0)::bigint as drawn,
            coalesce(sum(amount_fen) filter (where kind = 'repayment'), 0)::bigint as repaid,
            min(day) filter (where kind = 'drawdown' and amount_fen > 0) as drawn_from,
            min(day) filter (where kind = 'repayment' and amount_fen > 0) as repaid_from into sums
        from hall.money_moved where facility_id = f.id;
    owing := greatest(sums.drawn - sums.repaid, 0);
    line := case when f.is_line_over then 0 else f.line_fen end;
    drawn := least(owing, greatest(f.drawn_fen,
        case when f.is_revolving then line else least(sums.drawn, line) - sums.repaid end));
    committed := greatest(line - case when f.is_revolving then owing else sums.drawn end, 0);
    if f.counts_in_limit then
        own := f.committed_fen + f.drawn_fen;
        room := greatest(own, least(coalesce(held.limit_target_fen, held.limit_fen), (
                select s.limit_fen from hall.scheme_limit s join hall.financing_request r on r.scheme = s.scheme
                where s.uscc = f.uscc and r.id = f.fr_id))
            - (held.pending_fen + held.committed_fen + held.drawn_fen + held.over_limit_fen + held.unbound_committed_fen
                + held.unbound_drawn_fen - own - f.over_limit_fen));
        drawn := least(drawn, room);
        committed := least(committed, room - drawn);
    end if;
    perform hall.book_balances(f, committed, drawn, owing - drawn, p_kind, p_at, p_reference, p_corrects);
    if owing - drawn > f.over_limit_fen then
        perform hall.open_case('over-limit', 'facility/' || f.id,
            'the bank reports money beyond what was authorised: ' || owing - drawn || ' fen', p_at);
    end if;
    if sums.repaid > sums.drawn then
        perform hall.open_case('repaid-more-than-due', 'facility/' || f.id,
            'repayments pass drawdowns by ' || sums.repaid - sums.drawn || ' fen; a drawdown may not be reported yet', p_at,
            'yellow');
    else
        perform hall.close_case('repaid-more-than-due', 'facility/' || f.id, 'system', 'drawdowns cover repayments', p_at);
    end if;
    if f.is_line_over then perform hall.end_asked_drawdowns(f, p_at); end if;
    if owing = 0 then
        perform hall.close_case('owed-after-the-end', 'facility/' || f.id, 'system', 'nothing is owed', p_at);
    end if;
    if sums.repaid_from < sums.drawn_from then
        perform hall.open_case('repaid-before-drawn', 'facility/' || f.id, 'money was repaid on ' || sums.repaid_from
            || ', before the first drawdown on ' || sums.drawn_from || '; a drawdown may not be reported yet', p_at, 'yellow');
    else
        perform hall.close_case('repaid-before-drawn', 'facility/' || f.id, 'system', 'the days are in order', p_at);
    end if;
    select * into strict f from hall.facility where id = p_facility;
    return f;
end $$;

create function hall.outstanding(f hall.facility) returns bigint language sql immutable as $$
    select f.drawn_fen + f.over_limit_fen
$$;

-- ---------------------------------------------------------------------------------------------------------- the machine

create function hall.facility_due(f hall.facility, p_state text, p_at timestamptz) returns timestamptz
language sql stable as $$
    -- The next look: a status report that is due, or the end of the line with one more day for reports of its last. What is
    -- still owed after a loss or a compensation is looked at once a year, until it is recovered or written off.
    select case when p_state = 'settled' then null
        when p_state in ('written_off', 'compensated') and hall.outstanding(f) = 0 then null else least(
        case when p_state in ('active', 'frozen', 'reduced', 'written_off', 'compensated') then p_at + make_interval(days => hall.setting('review_days')::integer)
            when p_state in ('overdue', 'renewed') then p_at + make_interval(days => hall.setting('status_report_days')::integer)
            end,
        case when not f.is_line_over then hall.start_of(f.line_ends_on + 2) end) end
$$;

create function hall.move_facility(p_id text, p_to text, p_by text, p_at timestamptz, p_reason jsonb default '{}')
returns hall.facility language plpgsql as $$
-- The edge is the one that leads there (S1). An end of the facility ends its line.
declare
    f hall.facility;
    way text;
begin
    select * into strict f from hall.facility where id = p_id for no key update;
    select number into way from hall.edge where machine = 'facility' and from_state = f.state and to_state = p_to;
    if not found then perform hall.refuse('illegal-transition', jsonb_build_object('state', f.state)); end if;
    f.is_line_over := f.is_line_over or p_to in ('renewed', 'settled', 'written_off', 'compensated');
    update hall.facility set state = p_to, version = version + 1, edge = way, moved_at = p_at, moved_by = p_by,
            reason = p_reason, is_line_over = f.is_line_over, deadline = hall.facility_due(f, p_to, p_at)
        where id = p_id returning * into f;
    return f;
end $$;

create function hall.close_if_done(p_facility text, p_by text, p_at timestamptz) returns void language plpgsql as $$
-- T17: nothing is owed and the facility has ended.
declare f hall.facility;
begin
    select * into strict f from hall.facility where id = p_facility;
    if hall.outstanding(f) = 0 and f.state in ('written_off', 'compensated') then
        update hall.facility set deadline = null where id = f.id;
    end if;
    if hall.outstanding(f) = 0 and f.state in ('settled', 'written_off', 'compensated') then
        perform hall.close_case('status-overdue', 'facility/' || f.id, p_by, 'no report is awaited any more', p_at);
    end if;
    if hall.outstanding(f) = 0 and f.state in ('settled', 'written_off', 'compensated')
            and (select state from hall.financing_request where id = f.fr_id) in ('signed', 'active') then
        perform hall.move_request(f.fr_id, 'T17', 'CLOSED', p_by, p_at, jsonb_build_object('facility_id', f.id));
        perform hall.close_case('no-drawdown', 'fr/' || f.fr_id, p_by, 'the line has ended', p_at);
    end if;
end $$;

create function hall.serves(p_actor jsonb, f hall.facility) returns boolean language sql stable as $$
    -- Whether the facility is the actor's: its institution, and its outlet where the client is bound to one.
    select coalesce(f.institution_id = p_actor ->> 'institution', false) and (p_actor ->> 'outlet' is null
        or p_actor ->> 'outlet' = (select outlet_id from hall.claim where id = f.claim_id))
$$;

create function hall.locked_facility(
    p_actor jsonb, p_id text, p_with_others boolean default false
) returns hall.facility language plpgsql as $$
-- The facility under the locks of its request and itself, for its institution and the enterprise's side; it does not
-- exist for anybody else. An act that will lock other facilities of the enterprise too says so: of such acts one works at
-- a time, since no order of theirs could be kept (C2).
declare f hall.facility;
begin
    select * into f from hall.facility where id = p_id;
    if not found or not (hall.serves(p_actor, f) or hall.acts_for(p_actor, f.uscc)) then
        perform hall.refuse('not-found');
    end if;
    if p_with_others then perform pg_advisory_xact_lock(hashtextextended('facilities ' || f.uscc, 0)); end if;
    perform hall.locked_request(f.fr_id);
    select * into strict f from hall.facility where id = p_id for no key update;
    return f;
end $$;

create function hall.facility_body(f hall.facility) returns jsonb language sql stable as $$
    select jsonb_build_object('facility_id', f.id, 'fr_id', f.fr_id, 'claim_id', f.claim_id, 'offer_id', f.offer_id,
        'institution_id', f.institution_id, 'uscc', f.uscc, 'state', f.state, 'version', f.version,
        'ceiling_fen', f.ceiling_fen, 'line_fen', f.line_fen, 'committed_fen', f.committed_fen, 'drawn_fen', f.drawn_fen,
        'over_limit_fen', f.over_limit_fen, 'outstanding_fen', hall.outstanding(f), 'revolving', f.is_revolving,
        'counts_in_limit', f.counts_in_limit, 'contract_no', f.contract_no, 'document_sha256', encode(f.document_sha256, 'hex'),
        'annual_rate_bp', f.annual_rate_bp, 'signed_on', f.signed_on, 'line_ends_on', f.line_ends_on,
        'line_over', f.is_line_over, 'first_loan', f.first_loan, 'renewed_from', f.renewed_from,
        'deadline', hall.iso(f.deadline))
$$;

create function hall.facility_view(p_actor jsonb, p_id text) returns jsonb language plpgsql stable as $$
-- The facility with its money and reports, for its institution and the enterprise's side; null for everybody else.
declare f hall.facility;
begin
    select * into f from hall.facility where id = p_id;
    if not found or not (hall.serves(p_actor, f) or hall.acts_for(p_actor, f.uscc)) then
        return null;
    end if;
    return hall.facility_body(f) || jsonb_build_object(
        'drawdowns', (select coalesce(jsonb_agg(hall.drawdown_body(d) order by d.asked_at, d.id), '[]')
            from hall.drawdown d where d.facility_id = f.id),
        'repayments', (select coalesce(jsonb_agg(hall.repayment_body(r) order by r.at, r.id), '[]')
            from hall.repayment r where r.facility_id = f.id),
        'corrections', (select coalesce(jsonb_agg(jsonb_build_object('corrects', c.corrects, 'bank_ref', c.bank_ref,
            'amount_fen', c.amount_fen, 'note', c.note, 'at', hall.iso(c.at)) order by c.id), '[]')
            from hall.correction c where c.facility_id = f.id),
        'status', (select jsonb_build_object('as_of', s.as_of, 'state', s.state, 'days_past_due', s.days_past_due,
            'five_class', s.five_class, 'restructured', s.restructured)
            from hall.facility_report s where s.facility_id = f.id order by s.as_of desc, s.id desc limit 1));
end $$;

create function hall.wrong_day(p_pointer text, p_day date, f hall.facility) returns jsonb language sql volatile as $$
    -- The broken rules of a day on which money moved, or of which a bank speaks.
    select coalesce(jsonb_agg(jsonb_build_object('pointer', p_pointer, 'rule', rule)), '[]') from (values
        (p_day > hall.today(), 'not in the future'),
        (p_day < f.signed_on, 'not before the day of signing')) as broken (is_so, rule) where is_so
$$;

create function hall.refuse_wrong(p_wrong jsonb) returns void language plpgsql as $$
begin
    if jsonb_array_length(p_wrong) > 0 then
        perform hall.refuse('validation', jsonb_build_object('errors', p_wrong));
    end if;
end $$;

create function hall.tell_money(f hall.facility, p_type text, p_data jsonb) returns void language sql as $$
    select hall.emit('facility/' || f.id, p_type, jsonb_build_object('facility_id', f.id, 'fr_id', f.fr_id) || p_data,
        p_uscc => f.uscc, p_institution => f.institution_id)
$$;

-- -------------------------------------------------------------------------------------------------------------- signing

create function hall.renew_facility(p_actor jsonb, p_old text, p_uscc text, p_by text, p_at timestamptz, p_new text)
returns void language plpgsql as $$
-- F8: the old facility's line is closed to make room; it is settled once nothing is owed on it.
declare old hall.facility;
begin
    select * into old from hall.facility where id = p_old and uscc = p_uscc and institution_id = p_actor ->> 'institution';
    if found then
        perform hall.locked_request(old.fr_id);
        select * into strict old from hall.facility where id = p_old for no key update;
    end if;
    if old.id is null or old.id = p_new or old.state not in ('active', 'reduced', 'overdue') then
        perform hall.refuse('validation', '{"errors": [{"pointer": "/renewed_from", "rule": "a facility of yours with this enterprise that may be renewed"}]}');
    end if;
    if exists (select 1 from hall.facility where renewed_from = old.id) then
        perform hall.refuse('validation', '{"errors": [{"pointer": "/renewed_from", "rule": "a facility that no other renews"}]}');
    end if;
    perform hall.move_facility(old.id, 'renewed', p_by, p_at, jsonb_build_object('renewed_by', p_new));
    perform hall.square(old.id, 'line', p_at);
    perform hall.end_line_if_settled(old.id, p_by, p_at);
    perform hall.close_if_done(old.id, p_by, p_at);
end $$;

create function hall.wrong_signing(taken hall.offer, p_signed_on date, p_ends_on date) returns jsonb
language sql volatile as $$
    select coalesce(jsonb_agg(jsonb_build_object('pointer', pointer, 'rule', rule)), '[]') from (values
        (p_signed_on > hall.today(), '/signed_on', 'not in the future'),
        (p_signed_on < (taken.made_at at time zone 'Asia/Shanghai')::date, '/signed_on', 'not before the offer'),
        (p_ends_on <= p_signed_on, '/line_ends_on', 'after the day of signing'),
        (p_ends_on > p_signed_on + make_interval(months => taken.line_months), '/line_ends_on',
            'within the line term of the offer')) as broken (is_so, pointer, rule) where is_so
$$;

create function hall.act_sign_facility(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- T15, K8, F1: the institution reports the signing; the reservation becomes a commitment (L3).
declare
    mine hall.claim := hall.own_claim(p_actor, p_args ->> 'claim_id', p_args ->> 'renewed_from' is not null);
    at timestamptz := hall.hall_now();
    me text := p_actor ->> 'client';
    made text := hall.new_id('fa');
    taken hall.offer;
    fr hall.financing_request;
    covered boolean;
    f hall.facility;
begin
    perform hall.begin_act(p_actor);
    perform hall.expect_fence(mine, (p_args ->> 'fence')::bigint, 'sign', at);
    perform hall.expect_state(mine.state, 'accepted');
    select * into strict taken from hall.offer where claim_id = mine.id;
    select * into strict fr from hall.financing_request where id = mine.fr_id;
    perform hall.refuse_wrong(hall.wrong_signing(taken, (p_args ->> 'signed_on')::date, (p_args ->> 'line_ends_on')::date));
    if p_args ->> 'renewed_from' is not null then
        perform hall.renew_facility(p_actor, p_args ->> 'renewed_from', fr.uscc, me, at, made);
    end if;
    perform hall.locked_exposure(fr.uscc);
    covered := fr.quote_binds
        and coalesce((select counts_in_limit from hall.reservation where fr_id = fr.id and state = 'pending'), false);
    begin
        insert into hall.facility (id, fr_id, claim_id, offer_id, institution_id, uscc, ceiling_fen, line_fen, is_revolving,
                counts_in_limit, contract_no, document_sha256, annual_rate_bp, signed_on, line_ends_on, renewed_from, cause, state,
                edge, moved_at, moved_by, deadline)
            values (made, fr.id, mine.id, taken.id, mine.institution_id, fr.uscc, taken.amount_fen, taken.amount_fen,
                taken.is_revolving, covered, p_args ->> 'contract_no', decode(p_args ->> 'document_sha256', 'hex'),
                taken.basis_bp + taken.spread_bp, (p_args ->> 'signed_on')::date, (p_args ->> 'line_ends_on')::date,
                p_args ->> 'renewed_from', hall.cause(), 'signed', 'F1', at, me,
                hall.start_of((p_args ->> 'line_ends_on')::date + 2));
    exception when unique_violation then
        perform hall.refuse('contract-number-reused');
    end;
    perform hall.commit_reservation(fr.id, made, mine.institution_id, taken.amount_fen, covered);
    perform hall.move_claim(mine.id, 'K8', 'done', me, at, jsonb_build_object('facility_id', made));
    perform hall.move_request(fr.id, 'T15', 'signed', me, at, jsonb_build_object('facility_id', made),
        hall.setting('first_drawdown_minutes'));
    select * into strict f from hall.facility where id = made;
    return jsonb_build_object('status', 201, 'body', hall.facility_body(f));
end $$;

create function hall.cancel_signed_facility(p_fr text, p_by text, p_at timestamptz) returns void language plpgsql as $$
-- T19: an undrawn facility ends with its request, and its commitment goes back.
declare signed text := (select id from hall.facility where fr_id = p_fr and state = 'signed');
begin
    if signed is null then return; end if;
    perform hall.move_facility(signed, 'settled', p_by, p_at, '{"why": "cancelled"}');
    perform hall.square(signed, 'line', p_at);
end $$;

-- ---------------------------------------------------------------------------------------------------------------- money

create function hall.take_reference(f hall.facility, p_ref text, p_kind text, p_at timestamptz) returns void
language plpgsql as $$
-- I6: a bank's reference is used once, for ever.
begin
    insert into hall.bank_reference (institution_id, bank_ref, kind, facility_id, at)
        values (f.institution_id, p_ref, p_kind, f.id, p_at) on conflict do nothing;
    if not found then perform hall.refuse('bank-ref-reused', jsonb_build_object('bank_ref', p_ref)); end if;
end $$;

create function hall.drawdown_body(d hall.drawdown) returns jsonb language sql stable as $$
    select jsonb_build_object('drawdown_id', d.id, 'facility_id', d.facility_id, 'state', d.state,
        'amount_fen', d.amount_fen, 'asked_by', d.asked_by, 'bank_ref', d.bank_ref, 'drawn_on', d.drawn_on,
        'refused_for', d.refused_for, 'asked_at', hall.iso(d.asked_at), 'due_at', hall.iso(d.due_at),
        'due_is_provisional', d.due_is_provisional)
$$;

create function hall.repayment_body(r hall.repayment) returns jsonb language sql stable as $$
    select jsonb_build_object('repayment_id', r.id, 'facility_id', r.facility_id, 'amount_fen', r.amount_fen,
        'paid_by', r.paid_by, 'bank_ref', r.bank_ref, 'repaid_on', r.repaid_on, 'at', hall.iso(r.at))
$$;

create function hall.money_answer(p_status integer, f hall.facility, p_body jsonb) returns jsonb language sql stable as $$
    select jsonb_build_object('status', p_status, 'body', p_body || jsonb_build_object('facility', jsonb_build_object(
        'state', f.state, 'version', f.version, 'committed_fen', f.committed_fen, 'drawn_fen', f.drawn_fen,
        'over_limit_fen', f.over_limit_fen, 'outstanding_fen', hall.outstanding(f))))
$$;

create function hall.act_ask_drawdown(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L4: the authorisation of a drawdown; what is asked and unanswered is not asked a second time.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    left_fen bigint;
    d hall.drawdown;
begin
    perform hall.begin_act(p_actor);
    if not hall.acts_for(p_actor, f.uscc) then perform hall.refuse('not-found'); end if;
    perform hall.expect_state(f.state, 'signed', 'active', 'reduced');
    if f.is_line_over or hall.today() > f.line_ends_on then perform hall.refuse('illegal-transition', jsonb_build_object('state', f.state, 'line', 'ended')); end if;
    if (select is_suspended from hall.financing_request where id = f.fr_id) then perform hall.refuse('request-suspended'); end if;
    left_fen := greatest(f.committed_fen
        - (select coalesce(sum(amount_fen), 0) from hall.drawdown where facility_id = f.id and state = 'asked'), 0);
    if (p_args ->> 'amount_fen')::bigint > left_fen then
        perform hall.refuse('over-facility', jsonb_build_object('available_fen', left_fen));
    end if;
    insert into hall.drawdown (id, facility_id, institution_id, amount_fen, asked_by, state, asked_at, due_at, due_minutes,
            due_is_provisional, cause)
        select hall.new_id('dd'), f.id, f.institution_id, (p_args ->> 'amount_fen')::bigint, 'enterprise', 'asked', at, due,
                minutes, not hall.calendar_knows(due), hall.cause()
            from hall.setting('first_opinion_minutes') as minutes, hall.add_working_minutes(at, minutes) as due
        returning * into d;
    perform hall.tell_money(f, 'fin.drawdown.asked.v1',
        jsonb_build_object('drawdown_id', d.id, 'amount_fen', d.amount_fen, 'due_at', hall.iso(d.due_at)));
    return hall.money_answer(201, f, hall.drawdown_body(d));
end $$;

create function hall.begin_use(f hall.facility, p_args jsonb, p_by text, p_at timestamptz) returns void
language plpgsql as $$
-- F2, T16: with the first money the bank states whether it is the enterprise's first loan 首贷; see hall.count_first_loan.
declare
    proof bytea := decode(p_args ->> 'evidence_sha256', 'hex');
begin
    if f.state <> 'signed' then return; end if;
    if p_args ->> 'first_loan' is null or proof is null then
        perform hall.refuse('validation', '{"errors": [
            {"pointer": "/first_loan", "rule": "stated with the first drawdown"},
            {"pointer": "/evidence_sha256", "rule": "hash of the evidence, stated with the first drawdown"}]}');
    end if;
    update hall.facility set first_loan = (p_args ->> 'first_loan')::boolean, first_loan_evidence_sha256 = proof where id = f.id;
    perform hall.move_facility(f.id, 'active', p_by, p_at);
    perform hall.move_request(f.fr_id, 'T16', 'active', p_by, p_at, jsonb_build_object('facility_id', f.id));
    perform hall.close_case('no-drawdown', 'fr/' || f.fr_id, p_by, 'drawn', p_at);
end $$;

create function hall.count_first_loan(p_facility text, p_at timestamptz) returns void language plpgsql as $$
-- A first loan counts while money is known to have moved under it, and once an enterprise: a second bank's statement stays
-- on its facility and goes to a person. Corrections (L5) may take the money away and bring it back.
declare
    f hall.facility;
    other text;
    has_moved boolean;
    is_counted boolean;
begin
    select * into strict f from hall.facility where id = p_facility for no key update;
    if f.first_loan is not true then return; end if;
    has_moved := exists (
        select 1 from hall.money_moved where facility_id = f.id and kind = 'drawdown' and amount_fen > 0);
    is_counted := exists (select 1 from hall.first_loan where facility_id = f.id and withdrawn_at is null);
    if is_counted and not has_moved then
        update hall.first_loan set withdrawn_at = p_at where facility_id = f.id and withdrawn_at is null;
        perform hall.tell_money(f, 'fin.first-loan.withdrawn.v1', '{}');
        for other in select id from hall.facility where uscc = f.uscc and first_loan and id <> f.id order by signed_on, id loop
            perform hall.count_first_loan(other, p_at);
        end loop;
    elsif has_moved and not is_counted then
        insert into hall.first_loan (facility_id, no, uscc, institution_id, evidence_sha256, counted_at)
            values (f.id, 1 + (select count(*) from hall.first_loan l where l.facility_id = f.id), f.uscc, f.institution_id,
                f.first_loan_evidence_sha256, p_at) on conflict (uscc) where withdrawn_at is null do nothing;
        if found then
            perform hall.tell_money(f, 'fin.first-loan.counted.v1', '{}');
            perform hall.close_case('first-loan-stated-twice', 'facility/' || f.id, 'system', 'the other was withdrawn', p_at);
        elsif not exists (
                select 1 from hall.hall_case where kind = 'first-loan-stated-twice' and subject = 'facility/' || f.id) then
            perform hall.open_case('first-loan-stated-twice', 'facility/' || f.id,
                'another facility of the enterprise is its first loan already', p_at, 'yellow');
        end if;
    end if;
end $$;

create function hall.act_confirm_drawdown(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L4: the institution paid what was asked.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    d hall.drawdown;
begin
    perform hall.begin_act(p_actor);
    select * into d from hall.drawdown where id = p_args ->> 'drawdown_id' and facility_id = f.id for no key update;
    if not found or f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    perform hall.expect_state(d.state, 'asked');
    perform hall.refuse_wrong(hall.wrong_day('/drawn_on', (p_args ->> 'drawn_on')::date, f));
    perform hall.take_reference(f, p_args ->> 'bank_ref', 'drawdown', at);
    perform hall.begin_use(f, p_args, p_actor ->> 'client', at);
    update hall.drawdown set state = 'confirmed', bank_ref = p_args ->> 'bank_ref', drawn_on = (p_args ->> 'drawn_on')::date,
            due_at = null, due_is_provisional = false, resolved_at = at, resolved_by = p_actor ->> 'client'
        where id = d.id returning * into d;
    f := hall.square(f.id, 'drawdown', at, d.bank_ref);
    perform hall.count_first_loan(f.id, at);
    perform hall.close_case('drawdown-unanswered', 'drawdown/' || d.id, p_actor ->> 'client', 'paid', at);
    perform hall.tell_money(f, 'fin.drawdown.confirmed.v1', jsonb_build_object('drawdown_id', d.id,
        'amount_fen', d.amount_fen, 'bank_ref', d.bank_ref, 'over_limit_fen', f.over_limit_fen));
    return hall.money_answer(200, f, hall.drawdown_body(d));
end $$;

create function hall.act_report_drawdown(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L4b: the money has moved already, so its amount is never refused.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    d hall.drawdown;
begin
    perform hall.begin_act(p_actor);
    if f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    perform hall.refuse_wrong(hall.wrong_day('/drawn_on', (p_args ->> 'drawn_on')::date, f));
    perform hall.take_reference(f, p_args ->> 'bank_ref', 'drawdown', at);
    perform hall.begin_use(f, p_args, p_actor ->> 'client', at);
    insert into hall.drawdown (id, facility_id, institution_id, amount_fen, asked_by, state, bank_ref, drawn_on, asked_at,
            resolved_at, resolved_by, cause)
        values (hall.new_id('dd'), f.id, f.institution_id, (p_args ->> 'amount_fen')::bigint, 'institution', 'confirmed',
            p_args ->> 'bank_ref', (p_args ->> 'drawn_on')::date, at, at, p_actor ->> 'client', hall.cause())
        returning * into d;
    f := hall.square(f.id, 'drawdown', at, d.bank_ref);
    perform hall.count_first_loan(f.id, at);
    perform hall.tell_money(f, 'fin.drawdown.confirmed.v1', jsonb_build_object('drawdown_id', d.id,
        'amount_fen', d.amount_fen, 'bank_ref', d.bank_ref, 'over_limit_fen', f.over_limit_fen));
    return hall.money_answer(201, f, hall.drawdown_body(d));
end $$;

create function hall.end_asked_drawdown(
    f hall.facility, p_drawdown text, p_state text, p_by text, p_at timestamptz, p_reason text default null
) returns hall.drawdown language plpgsql as $$
-- Refused by the bank, withdrawn by the enterprise, or lapsed with its line: nothing was paid, and the amount is free again.
declare d hall.drawdown;
begin
    update hall.drawdown set state = p_state, refused_for = p_reason, due_at = null, due_is_provisional = false,
            resolved_at = p_at, resolved_by = p_by
        where id = p_drawdown returning * into strict d;
    perform hall.close_case('drawdown-unanswered', 'drawdown/' || d.id, p_by, p_state, p_at);
    perform hall.tell_money(f, 'fin.drawdown.' || p_state || '.v1', jsonb_build_object('drawdown_id', d.id,
        'amount_fen', d.amount_fen) || case when p_reason is null then '{}' else jsonb_build_object('reason', p_reason) end);
    return d;
end $$;

create function hall.end_asked_drawdowns(f hall.facility, p_at timestamptz) returns void language plpgsql as $$
-- A line that is over pays nothing more that was asked.
declare asked text;
begin
    for asked in select id from hall.drawdown where facility_id = f.id and state = 'asked' order by id loop
        perform hall.end_asked_drawdown(f, asked, 'lapsed', 'system', p_at);
    end loop;
end $$;

create function hall.act_refuse_drawdown(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    d hall.drawdown;
begin
    perform hall.begin_act(p_actor);
    select * into d from hall.drawdown where id = p_args ->> 'drawdown_id' and facility_id = f.id for no key update;
    if not found or f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    perform hall.expect_state(d.state, 'asked');
    d := hall.end_asked_drawdown(f, d.id, 'refused', p_actor ->> 'client', at, p_args ->> 'reason');
    return hall.money_answer(200, f, hall.drawdown_body(d));
end $$;

create function hall.act_withdraw_drawdown(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- The enterprise takes back what it asked, as long as the bank has not answered.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    d hall.drawdown;
begin
    perform hall.begin_act(p_actor);
    select * into d from hall.drawdown where id = p_args ->> 'drawdown_id' and facility_id = f.id for no key update;
    if not found or not hall.acts_for(p_actor, f.uscc) then perform hall.refuse('not-found'); end if;
    perform hall.expect_state(d.state, 'asked');
    d := hall.end_asked_drawdown(f, d.id, 'withdrawn', p_actor ->> 'client', at);
    return hall.money_answer(200, f, hall.drawdown_body(d));
end $$;

create function hall.note_repayment(
    f hall.facility, p_amount bigint, p_ref text, p_day date, p_paid_by text, p_by text, p_at timestamptz
) returns hall.repayment language plpgsql as $$
declare r hall.repayment;
begin
    perform hall.take_reference(f, p_ref, 'repayment', p_at);
    insert into hall.repayment (id, facility_id, institution_id, amount_fen, paid_by, bank_ref, repaid_on, at, reported_by, cause)
        values (hall.new_id('rp'), f.id, f.institution_id, p_amount, p_paid_by, p_ref, p_day, p_at, p_by, hall.cause())
        returning * into r;
    f := hall.square(f.id, 'repayment', p_at, r.bank_ref);
    perform hall.tell_money(f, 'fin.repayment.reported.v1', jsonb_build_object('repayment_id', r.id,
        'amount_fen', r.amount_fen, 'paid_by', r.paid_by, 'bank_ref', r.bank_ref, 'outstanding_fen', hall.outstanding(f)));
    return r;
end $$;

create function hall.act_report_repayment(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L4: never refused for its amount. What passes the debt stands until a drawdown covers it, in a case.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id');
    at timestamptz := hall.hall_now();
    r hall.repayment;
begin
    perform hall.begin_act(p_actor);
    if f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    perform hall.refuse_wrong(hall.wrong_day('/repaid_on', (p_args ->> 'repaid_on')::date, f));
    r := hall.note_repayment(f, (p_args ->> 'amount_fen')::bigint, p_args ->> 'bank_ref', (p_args ->> 'repaid_on')::date,
        'enterprise', p_actor ->> 'client', at);
    perform hall.end_line_if_settled(f.id, p_actor ->> 'client', at);
    perform hall.close_if_done(f.id, p_actor ->> 'client', at);
    select * into strict f from hall.facility where id = f.id;
    return hall.money_answer(201, f, hall.repayment_body(r));
end $$;

create function hall.end_line_if_settled(p_facility text, p_by text, p_at timestamptz) returns void language plpgsql as $$
-- F9: nothing is owed and nothing may be drawn any more.
declare f hall.facility;
begin
    select * into strict f from hall.facility where id = p_facility;
    if f.is_line_over and hall.outstanding(f) = 0 and f.state in ('active', 'frozen', 'reduced', 'overdue', 'renewed') then
        perform hall.move_facility(f.id, 'settled', p_by, p_at);
    end if;
end $$;

create function hall.act_correct(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L5: a new entry says what a drawdown or repayment should have said; 0: it never was. Nothing is edited.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id', true);
    at timestamptz := hall.hall_now();
    wrong hall.bank_reference;
begin
    perform hall.begin_act(p_actor);
    select * into wrong from hall.bank_reference where institution_id = p_actor ->> 'institution'
        and bank_ref = p_args ->> 'corrects' and facility_id = f.id;
    if not found or f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    if wrong.kind = 'correction' then
        perform hall.refuse('validation', '{"errors": [{"pointer": "/corrects", "rule": "names a drawdown or repayment; a later correction of it replaces an earlier one"}]}');
    end if;
    if f.first_loan then
        -- Another may be the first loan then: it is locked before the exposure (C2).
        perform 1 from hall.facility where uscc = f.uscc and id <> f.id order by id for no key update;
    end if;
    perform hall.take_reference(f, p_args ->> 'bank_ref', 'correction', at);
    insert into hall.correction (facility_id, institution_id, corrects, bank_ref, amount_fen, note, at, reported_by, cause)
        values (f.id, f.institution_id, wrong.bank_ref, p_args ->> 'bank_ref', (p_args ->> 'amount_fen')::bigint,
            p_args ->> 'note', at, p_actor ->> 'client', hall.cause());
    f := hall.square(f.id, 'correction', at, p_args ->> 'bank_ref',
        (select min(id) from hall.journal where facility_id = f.id and reference = wrong.bank_ref));
    perform hall.count_first_loan(f.id, at);
    perform hall.end_line_if_settled(f.id, p_actor ->> 'client', at);
    perform hall.close_if_done(f.id, p_actor ->> 'client', at);
    select * into strict f from hall.facility where id = f.id;
    if f.state = 'settled' and hall.outstanding(f) > 0 then
        perform hall.open_case('owed-after-the-end', 'facility/' || f.id, 'a correction shows money owed on a settled facility', at);
    end if;
    perform hall.tell_money(f, 'fin.ledger.corrected.v1', jsonb_build_object('corrects', wrong.bank_ref,
        'bank_ref', p_args ->> 'bank_ref', 'amount_fen', (p_args ->> 'amount_fen')::bigint, 'outstanding_fen', hall.outstanding(f)));
    return hall.money_answer(201, f, jsonb_build_object('facility_id', f.id, 'corrects', wrong.bank_ref,
        'bank_ref', p_args ->> 'bank_ref', 'amount_fen', (p_args ->> 'amount_fen')::bigint));
end $$;

-- --------------------------------------------------------------------------------------------------------------- status

create function hall.wrong_status(p_args jsonb, f hall.facility) returns jsonb language sql volatile as $$
    -- Every broken rule of a status report at once.
    with said as (select p_args ->> 'state' as state, (p_args ->> 'days_past_due')::integer as days,
        (p_args ->> 'as_of')::date as as_of, (p_args ->> 'line_fen')::bigint as line,
        (p_args ->> 'compensated_fen')::bigint as paid)
    select hall.wrong_day('/as_of', as_of, f) || coalesce(jsonb_agg(jsonb_build_object('pointer', pointer, 'rule', rule))
        filter (where is_so), '[]')
    from said, lateral (values
        (as_of < (select max(r.as_of) from hall.facility_report r where r.facility_id = f.id), '/as_of',
            'not before the latest report'),
        (state = 'overdue' and days = 0, '/days_past_due', 'above 0 when overdue'),
        (state in ('active', 'frozen', 'reduced', 'settled') and days > 0, '/state', 'overdue while days are past due'),
        (state = 'reduced' and line is null and f.line_fen = f.ceiling_fen, '/line_fen', 'named when the line is reduced'),
        (line is not null and state not in ('reduced', 'active'), '/line_fen', 'named only with reduced or active'),
        (state = 'reduced' and line >= f.ceiling_fen, '/line_fen', 'below the ceiling as signed'),
        (line > f.ceiling_fen, '/line_fen', 'at most the ceiling as signed'),
        ((p_args ->> 'written_off_fen' is not null) <> (state = 'written_off'), '/written_off_fen', 'named if and only if written off'),
        ((paid is not null) <> (state = 'compensated' and f.state <> 'compensated'), '/compensated_fen',
            'named with the report that a guarantor paid'),
        ((paid is not null) <> (p_args ->> 'bank_ref' is not null), '/bank_ref', 'named with the compensation'),
        (p_args ->> 'renewed_from' <> f.renewed_from, '/renewed_from', 'the facility that was named before')
    ) as rules (is_so, pointer, rule) group by as_of
$$;

create function hall.act_report_status(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- The bank says how the facility stands. Its state moves along the machine's edges; another report of the same state only
-- puts the next one off. What was owed stays owed when it is written off; what a guarantor paid is repaid.
declare
    f hall.facility := hall.locked_facility(p_actor, p_args ->> 'facility_id', p_args ->> 'renewed_from' is not null);
    at timestamptz := hall.hall_now();
    me text := p_actor ->> 'client';
    said text := p_args ->> 'state';
    was text := f.state;
begin
    perform hall.begin_act(p_actor);
    if f.institution_id is distinct from p_actor ->> 'institution' then perform hall.refuse('not-found'); end if;
    perform hall.refuse_wrong(hall.wrong_status(p_args, f));
    if said = 'settled' and hall.outstanding(f) > 0 then
        perform hall.refuse('illegal-transition', jsonb_build_object('state', f.state, 'outstanding_fen', hall.outstanding(f)));
    end if;
    insert into hall.facility_report (facility_id, as_of, state, days_past_due, five_class, restructured, line_fen,
            written_off_fen, at, reported_by, cause)
        values (f.id, (p_args ->> 'as_of')::date, said, (p_args ->> 'days_past_due')::integer, p_args ->> 'five_class',
            (p_args ->> 'restructured')::boolean, (p_args ->> 'line_fen')::bigint, (p_args ->> 'written_off_fen')::bigint,
            at, me, hall.cause());
    if said <> was then
        if said = 'renewed' or (said = 'active' and was = 'signed') then
            -- F2 needs money (T16) and F8 the new facility, not a word.
            perform hall.refuse('illegal-transition', jsonb_build_object('state', was));
        end if;
        f := hall.move_facility(f.id, said, me, at, jsonb_build_object('as_of', p_args ->> 'as_of'));
    else
        update hall.facility set deadline = hall.facility_due(f, said, at) where id = f.id;
    end if;
    update hall.facility set line_fen = coalesce((p_args ->> 'line_fen')::bigint,
            case when said = 'active' and was = 'reduced' then ceiling_fen else line_fen end) where id = f.id;
    if p_args ->> 'renewed_from' is not null and f.renewed_from is null then
        perform hall.renew_facility(p_actor, p_args ->> 'renewed_from', f.uscc, me, at, f.id);
        update hall.facility set renewed_from = p_args ->> 'renewed_from' where id = f.id;
    end if;
    if p_args ->> 'compensated_fen' is not null then
        perform hall.note_repayment(f, (p_args ->> 'compensated_fen')::bigint, p_args ->> 'bank_ref',
            (p_args ->> 'as_of')::date, 'guarantor', me, at);
    end if;
    f := hall.square(f.id, 'line', at);
    perform hall.close_case('status-overdue', 'facility/' || f.id, me, 'status reported', at);
    perform hall.tell_money(f, 'fin.facility.reported.v1', jsonb_build_object('as_of', p_args ->> 'as_of', 'state', f.state,
        'days_past_due', (p_args ->> 'days_past_due')::integer, 'five_class', p_args ->> 'five_class'));
    perform hall.close_if_done(f.id, me, at);
    return jsonb_build_object('status', 200, 'body', hall.facility_body(f));
end $$;

create function hall.fire_drawdown(p_id text) returns text language plpgsql as $$
-- A drawdown that nobody answered lies before a person. Its lock is held.
begin
    update hall.drawdown set due_at = null, due_is_provisional = false where id = p_id;
    perform hall.open_case('drawdown-unanswered', 'drawdown/' || p_id, 'the bank neither paid nor refused in time',
        hall.hall_now(), 'yellow');
    return 'drawdown unanswered';
end $$;

create function hall.fire_facility(p_id text) returns text language plpgsql as $$
-- A facility whose deadline has passed: its line ended, or a status report is due. What is not drawn at the end of the
-- line goes back to the limit. The request's lock is held.
declare
    at timestamptz;
    f hall.facility;
begin
    select * into strict f from hall.facility where id = p_id for no key update;
    at := hall.hall_now();
    if f.deadline is null or f.deadline > at then return 'late'; end if;
    if f.is_line_over or at < hall.start_of(f.line_ends_on + 2) then
        perform hall.open_case('status-overdue', 'facility/' || f.id,
            'no report of the bank since ' || hall.iso(f.moved_at) || ' or later', at);
        update hall.facility set deadline = hall.facility_due(f, f.state, at) where id = f.id;
        return 'status overdue';
    end if;
    f.is_line_over := true;
    update hall.facility set is_line_over = true, deadline = hall.facility_due(f, f.state, at) where id = f.id;
    f := hall.square(f.id, 'line', at);
    if f.state = 'signed' then
        perform hall.move_facility(f.id, 'settled', 'system', at, '{"why": "the line ended undrawn"}');
        perform hall.open_case('line-ended-undrawn', 'fr/' || f.fr_id, 'the signed line ended without a drawdown', at, 'yellow');
    end if;
    perform hall.end_line_if_settled(f.id, 'system', at);
    perform hall.close_if_done(f.id, 'system', at);
    return 'line ended';
end $$;

create function hall.sweep_facility() returns text language plpgsql as $$
-- Fires the facility due first, else the drawdown due first; null when none is due.
declare due text;
begin
    select a.id into due from hall.facility a join hall.financing_request r on r.id = a.fr_id
        where a.deadline <= (select hall.hall_now()) and not r.is_suspended and not hall.waits_stuck('facility/' || a.id)
        order by a.deadline limit 1 for no key update of r skip locked;
    if found then return hall.fire('facility/' || due); end if;
    select w.id into due from hall.drawdown w join hall.facility a on a.id = w.facility_id
            join hall.financing_request r on r.id = a.fr_id
        where w.state = 'asked' and w.due_at <= (select hall.hall_now()) and not r.is_suspended
            and not hall.waits_stuck('drawdown/' || w.id)
        order by w.due_at limit 1 for no key update of w skip locked;
    return hall.fire('drawdown/' || due);
end $$;

-- ------------------------------------------------------------------------------------------------------- reconciliation

create function hall.compared(
    p_institution text, p_lines jsonb, p_from date, p_to date, p_after text, p_through text
) returns jsonb language sql stable as $$
    -- The institution's lines against our records of the same references, and our records of these days and of the
    -- references behind p_after up to and with p_through (in the order of bytes; null: no bound) that it does not list;
    -- of those no more than a call takes, and one.
    with listed as materialized (
        select * from jsonb_to_recordset(p_lines) as l (bank_ref text, contract_no text, kind text, amount_fen bigint)
    ), unlisted as materialized (
        select m.bank_ref, m.kind, m.amount_fen, f.contract_no
        from hall.money_moved m join hall.facility f on f.id = m.facility_id
        where m.institution_id = p_institution and m.day >= p_from and m.day <= p_to
            and (p_after is null or m.bank_ref collate "C" > p_after)
            and (p_through is null or m.bank_ref collate "C" <= p_through)
            and m.bank_ref not in (select bank_ref from listed)
        limit 1001
    )
    select coalesce(jsonb_agg(to_jsonb(r)), '[]') from (
        select l.bank_ref, l.contract_no, l.kind, l.amount_fen as theirs_fen, ours.contract_no as ours_contract_no,
            ours.kind as ours_kind, ours.amount_fen as ours_fen, case
                when ours.bank_ref is null then 'missing-here'
                when ours.kind <> l.kind or ours.contract_no <> l.contract_no then 'record-differs'
                when ours.amount_fen <> l.amount_fen then 'amount-differs'
                else 'equal' end as result
        from listed l left join lateral (
            select m.bank_ref, m.kind, m.amount_fen, f.contract_no
            from hall.money_moved m join hall.facility f on f.id = m.facility_id
            where m.institution_id = p_institution and m.bank_ref = l.bank_ref) as ours on true
        union all select bank_ref, contract_no, kind, null, contract_no, kind, amount_fen,
            case amount_fen when 0 then 'equal' else 'missing-there' end from unlisted
    ) as r
$$;

create function hall.told_difference(p_line jsonb) returns text language sql immutable as $$
    -- Both sides of a difference, for the person who looks at its case.
    select concat_ws('; ', p_line ->> 'result',
        'theirs: ' || (p_line ->> 'kind') || ' of ' || (p_line ->> 'theirs_fen') || ' fen, contract '
            || (p_line ->> 'contract_no'),
        'ours: ' || (p_line ->> 'ours_kind') || ' of ' || (p_line ->> 'ours_fen') || ' fen, contract '
            || (p_line ->> 'ours_contract_no'))
$$;

create function hall.act_reconcile(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- L7: the institution's list of a span of days against ours; each difference is a case until a later list agrees. The
-- list is of the whole institution, so a client bound to one outlet has none. While this transaction writes, nothing is
-- published (V2): it writes whole sets, reckons one due time, and is bounded on both sides.
declare
    at timestamptz;
    bank text := p_actor ->> 'institution';
    made text := hall.new_id('rc');
    prefix text := 'bank-ref/' || bank || '/';
    minutes bigint := hall.setting('assisted_minutes');
    due timestamptz;
    is_provisional boolean;
    results jsonb;
    agreed text[];
    lines jsonb;
begin
    perform hall.begin_act(p_actor);
    if bank is null or p_actor ->> 'outlet' is not null then perform hall.refuse('not-found'); end if;
    results := hall.compared(bank, p_args -> 'lines', (p_args ->> 'from')::date, (p_args ->> 'to')::date,
        p_args ->> 'after_ref', p_args ->> 'through_ref');
    if jsonb_array_length(results) - jsonb_array_length(p_args -> 'lines') > 1000 then
        perform hall.refuse('validation', jsonb_build_object('errors', jsonb_build_array(jsonb_build_object(
            'pointer', '/through_ref', 'rule',
            'with the days and after_ref names a part that holds at most 1000 records of ours beside those listed'))));
    end if;
    agreed := array(  -- not in the statements below, which would unfold the lines for every case
        select prefix || (l ->> 'bank_ref') from jsonb_array_elements(results) as l where l ->> 'result' = 'equal');
    perform 1 from hall.hall_case where kind = 'reconciliation' and closed_at is null and subject = any (agreed)
        order by subject for no key update;
    at := hall.hall_now();  -- behind the locks: no case is closed before it was opened
    due := hall.add_working_minutes(at, minutes);
    is_provisional := not hall.calendar_knows(due);
    insert into hall.reconciliation (id, institution_id, day_from, day_to, after_ref, through_ref, differences, at,
            reported_by, cause)
        select made, bank, (p_args ->> 'from')::date, (p_args ->> 'to')::date, p_args ->> 'after_ref',
            p_args ->> 'through_ref', count(*) filter (where l ->> 'result' <> 'equal'), at, p_actor ->> 'client',
            hall.cause() from jsonb_array_elements(results) as l;
    update hall.hall_case set closed_at = at, closed_by = p_actor ->> 'client', closing_note = 'agrees in ' || made
        where kind = 'reconciliation' and closed_at is null and subject = any (agreed);
    insert into hall.hall_case (id, kind, subject, lamp, note, opened_at, due_at, due_minutes, due_is_provisional)
        select hall.new_id('ca'), 'reconciliation', prefix || (l ->> 'bank_ref'), 'yellow', hall.told_difference(l), at,
            due, minutes, is_provisional
        from jsonb_array_elements(results) as l where l ->> 'result' <> 'equal' order by l ->> 'bank_ref'
        on conflict (kind, subject) where closed_at is null do nothing;
    with kept as (
        insert into hall.reconciliation_line (reconciliation_id, bank_ref, contract_no, kind, theirs_fen, ours_contract_no,
                ours_kind, ours_fen, result, case_id)
            select made, l.bank_ref, l.contract_no, l.kind, l.theirs_fen, l.ours_contract_no, l.ours_kind, l.ours_fen,
                l.result, case when l.result <> 'equal' then (select k.id from hall.hall_case k
                    where k.kind = 'reconciliation' and k.subject = prefix || l.bank_ref and k.closed_at is null) end
            from jsonb_to_recordset(results) as l (bank_ref text, contract_no text, kind text, theirs_fen bigint,
                    ours_contract_no text, ours_kind text, ours_fen bigint, result text)
            returning *)
    select coalesce(jsonb_agg(jsonb_build_object('bank_ref', bank_ref, 'contract_no', contract_no, 'kind', kind,
        'theirs_fen', theirs_fen, 'ours_contract_no', ours_contract_no, 'ours_kind', ours_kind,
        'ours_fen', ours_fen, 'result', result, 'case_id', case_id) order by bank_ref), '[]') into lines from kept;
    return jsonb_build_object('status', 201, 'body', jsonb_build_object('reconciliation_id', made,
        'differences', (select differences from hall.reconciliation where id = made), 'lines', lines));
end $$;

-- ------------------------------------------------------------------------------------------------------------- exposure

create function hall.amounts(p_pending bigint, p_committed bigint, p_drawn bigint, p_over bigint, p_unbound_committed bigint,
    p_unbound_drawn bigint) returns jsonb language sql immutable as $$
    select jsonb_build_object('pending_fen', p_pending, 'committed_fen', p_committed, 'drawn_fen', p_drawn,
        'over_limit_fen', p_over, 'unbound_committed_fen', p_unbound_committed, 'unbound_drawn_fen', p_unbound_drawn)
$$;

create function hall.look_at_exposure(p_actor jsonb, p_uscc text) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- §11: itemised for the enterprise's side; totals for the holder of a live claim under the consent of its request, each
-- look logged; nothing for anybody else.
declare
    held record;
    consent text;
begin
    if not exists (select 1 from hall.enterprise where uscc = p_uscc) then return null; end if;
    if hall.acts_for(p_actor, p_uscc) then return hall.exposure_items(p_uscc); end if;
    select * into strict held from hall.held_request(p_actor, p_uscc);
    if (held.fr).id is null then return null; end if;
    consent := hall.kept_consent(held.fr, held.at, p_actor ->> 'institution');
    perform hall.log_access(p_actor, p_uscc, 'exposure', 'financing', consent,
        case when consent is null then hall.why_request_withheld(held.fr) end, held.at);
    if consent is null then return jsonb_build_object('withheld', hall.why_request_withheld(held.fr)); end if;
    return hall.exposure_totals(p_uscc);
end $$;

create function hall.exposure_totals(p_uscc text) returns jsonb language plpgsql volatile as $$
declare e hall.exposure;
begin
    select * into e from hall.exposure where uscc = p_uscc;
    return jsonb_build_object('uscc', p_uscc, 'available_fen', hall.available(p_uscc),
            'guard', case hall.setting('guard_informs_only') when 0 then 'refuses' else 'informs-only' end)
        || hall.amounts(coalesce(e.pending_fen, 0), coalesce(e.committed_fen, 0), coalesce(e.drawn_fen, 0),
            coalesce(e.over_limit_fen, 0), coalesce(e.unbound_committed_fen, 0), coalesce(e.unbound_drawn_fen, 0));
end $$;

create function hall.exposure_items(p_uscc text) returns jsonb language sql volatile as $$
    select hall.exposure_totals(p_uscc) || jsonb_build_object(
        'limit_fen', coalesce((select limit_fen from hall.exposure where uscc = p_uscc), 0),
        'limit_target_fen', (select limit_target_fen from hall.exposure where uscc = p_uscc),
        'limits', (select coalesce(jsonb_agg(jsonb_build_object('scheme', s.scheme, 'limit_fen', s.limit_fen,
            'expires_at', hall.iso(s.expires_at), 'available_fen',
            case when s.expires_at > hall.hall_now() then hall.room(e, s.scheme) else 0 end) order by s.scheme), '[]')
            from hall.scheme_limit s join hall.exposure e on e.uscc = s.uscc where s.uscc = p_uscc),
        'institutions', (select coalesce(jsonb_agg(jsonb_build_object('institution_id', nullif(s.institution_id, '-'))
            || hall.amounts(s.pending_fen, s.committed_fen, s.drawn_fen, s.over_limit_fen, s.unbound_committed_fen,
                s.unbound_drawn_fen) order by s.institution_id), '[]') from hall.exposure_share s
            where s.uscc = p_uscc and (s.institution_id <> '-' or s.pending_fen > 0)),
        'reservations', (select coalesce(jsonb_agg(jsonb_build_object('fr_id', r.fr_id, 'round', r.round,
            'amount_fen', r.amount_fen, 'institution_id', r.institution_id, 'counts_in_limit', r.counts_in_limit,
            'state', r.state, 'made_at', hall.iso(r.made_at), 'resolved_at', hall.iso(r.resolved_at))
            order by r.made_at, r.id), '[]') from hall.reservation r where r.uscc = p_uscc),
        'facilities', (select coalesce(jsonb_agg(hall.facility_body(f) order by f.signed_on, f.id), '[]')
            from hall.facility f where f.uscc = p_uscc))
$$;

revoke execute on function hall.look_at_exposure(jsonb, text) from public;
grant execute on function hall.look_at_exposure(jsonb, text) to jifen_service;
