-- Financing requests, their rounds, the claims on them, the offers made: tables, the guard of their state machines, and
-- the events that every transition leaves behind.

create table hall.financing_request (
    id text primary key,
    tenant text not null default 'default',
    uscc hall.uscc not null references hall.enterprise,
    registered_by text not null,
    scheme text not null,
    quote_binds boolean not null,
    amount_fen hall.fen not null check (amount_fen > 0),
    term_months integer not null check (term_months between 1 and 120),
    purpose text not null,
    industry_section text check (industry_section ~ '^[A-T]$'),
    district text,
    is_first_loan boolean,
    wishes text[] not null default '{}' check (cardinality(wishes) <= 3),
    consent_id text,
    quote_id text,
    quote_fen hall.fen,
    quote_expires_at timestamptz,
    round_no integer not null default -1 check (round_no >= -1),
    fence_last bigint not null default 0 check (fence_last >= 0),
    is_suspended boolean not null default false,
    suspended_at timestamptz,
    is_under_appeal boolean not null default false,
    -- every table with a state machine has these
    state text not null,
    version integer not null default 1,
    edge text not null,
    moved_at timestamptz not null,
    moved_by text not null,
    reason jsonb not null default '{}',
    deadline timestamptz,
    deadline_from timestamptz,
    deadline_minutes bigint,
    deadline_is_provisional boolean not null default false,
    created_at timestamptz not null default hall.hall_now()
);
comment on column hall.financing_request.round_no is 'the round announced last; -1 before the first, 0 for the one of the products or institutions wished for';
comment on column hall.financing_request.deadline_minutes is 'working minutes from deadline_from, kept where the deadline counts working time, so that a new calendar can recompute it (S6)';

create function hall.is_final(p_state text) returns boolean language sql immutable as $$
    select p_state in ('INELIGIBLE', 'WITHDRAWN', 'EXPIRED', 'DECLINED', 'CLOSED', 'CANCELLED')
$$;
create function hall.seeks_a_bank(p_state text) returns boolean language sql immutable as $$
    -- A draft does not yet; once signed it does no longer, and the next need or a renewal is a request of its own.
    select p_state in ('submitted', 'screened', 'quoted', 'broadcast', 'claimed', 'offered', 'accepted', 'assisted')
$$;
-- I23: one open request per enterprise, scheme and purpose.
create unique index one_open_request on hall.financing_request (tenant, uscc, scheme, purpose)
    where hall.seeks_a_bank(state);
create index request_deadline on hall.financing_request (deadline) where deadline is not null;
create index request_enterprise on hall.financing_request (uscc, created_at);

create table hall.request_source (
    fr_id text not null references hall.financing_request,
    no integer not null check (no > 0),
    channel text not null,
    channel_ref text not null,
    amount_fen hall.fen not null,
    term_months integer not null,
    first_loan boolean,
    received_at timestamptz not null default hall.hall_now(),
    received_by text not null,
    primary key (fr_id, no)
);
comment on table hall.request_source is 'every channel that brought the request and what it said; a second channel with the same need joins the first request';

create table hall.round (
    fr_id text not null references hall.financing_request,
    n integer not null check (n >= 0),
    mode text not null default 'first_come' check (mode = 'first_come'),
    slots integer not null default 1 check (slots > 0),
    taken integer not null default 0 check (taken >= 0),
    state text not null default 'announced' check (state in ('announced', 'open', 'taken', 'closed')),
    audience integer[] not null,
    audience_sha256 bytea not null,
    card jsonb not null,
    card_version integer not null,
    announced_at timestamptz not null,
    published_at timestamptz,
    opens_at timestamptz,
    closes_at timestamptz,
    ended_at timestamptz,
    primary key (fr_id, n),
    constraint never_more_winners_than_slots check (taken <= slots),
    constraint open_is_published check (state in ('announced', 'closed') or (opens_at is not null and closes_at > opens_at))
);
create index round_closing on hall.round (closes_at) where state = 'open';
create index round_live on hall.round (state) where state in ('announced', 'open');

create table hall.claim (
    id text primary key,
    tenant text not null default 'default',
    fr_id text not null,
    round integer not null,
    slot integer not null check (slot > 0),
    institution_id text not null references hall.institution,
    outlet_id text not null,
    officer_id text,
    product_id text not null,
    product_version integer not null,
    fence bigint not null check (fence > 0),
    hold_cap integer not null,
    claimed_at timestamptz not null,
    contacted_at timestamptz,
    ended_at timestamptz,
    extensions integer not null default 0 check (extensions between 0 and 1),
    cause uuid,
    state text not null,
    version integer not null default 1,
    edge text not null,
    moved_at timestamptz not null,
    moved_by text not null,
    reason jsonb not null default '{}',
    deadline timestamptz,
    deadline_from timestamptz,
    deadline_minutes bigint,
    deadline_is_provisional boolean not null default false,
    foreign key (fr_id, round) references hall.round,
    foreign key (institution_id, outlet_id) references hall.outlet (institution_id, id),
    foreign key (outlet_id, officer_id) references hall.officer (outlet_id, id),
    foreign key (product_id, product_version) references hall.product,
    constraint one_winner_a_slot unique (fr_id, round, slot),
    constraint fences_are_not_reused unique (fr_id, fence),
    constraint an_ended_claim_has_no_deadline check (
        (ended_at is not null) = (state in ('done', 'released', 'lapsed', 'declined', 'superseded', 'rejected', 'expired'))
        and (ended_at is null or deadline is null))
);
create index claim_deadline on hall.claim (deadline) where deadline is not null;
create index claim_institution on hall.claim (institution_id, claimed_at);
create index claim_before_its_offer on hall.claim (outlet_id) where state in ('held', 'contacted');

create table hall.fenced_write (
    id bigint generated always as identity primary key,
    claim_id text not null references hall.claim,
    fence bigint not null,
    act text not null,
    at timestamptz not null
);
comment on table hall.fenced_write is 'each write that an outlet made under its fence; an invariant compares it with the life of the claim (I4)';

create table hall.contact (
    claim_id text not null references hall.claim,
    no integer not null,
    at timestamptz not null,
    method text not null check (method in ('visit', 'call', 'video', 'message')),
    proof_sha256 bytea not null check (length(proof_sha256) = 32),
    primary key (claim_id, no)
);

create table hall.offer (
    id text primary key,
    claim_id text not null unique references hall.claim,
    fr_id text not null references hall.financing_request,
    institution_id text not null references hall.institution,
    amount_fen hall.fen not null check (amount_fen > 0),
    rate_basis text not null check (rate_basis in ('LPR1Y', 'LPR5Y', 'fixed')),
    basis_bp integer not null check (basis_bp between 0 and 10000),
    spread_bp integer not null check (spread_bp between -10000 and 10000),
    line_months integer not null check (line_months between 1 and 120),
    draw_months integer not null check (draw_months between 1 and 120),
    repayment text not null,
    is_revolving boolean not null,
    fees jsonb not null,
    prepayment_fee_bp integer check (prepayment_fee_bp between 0 and 10000),
    cleared text[] not null default '{}',
    conditions text[] not null,
    above_quote_reason text,
    annual_cost_bp integer not null check (annual_cost_bp >= 0),
    valid_until timestamptz not null,
    made_at timestamptz not null,
    sha256 bytea not null check (length(sha256) = 32),
    constraint a_draw_fits_the_line check (draw_months <= line_months)
);

create table hall.approval (
    id text primary key,
    kind text not null check (kind in ('cancel', 'suspend', 'resume')),
    fr_id text references hall.financing_request,
    institution_id text references hall.institution,
    order_no text not null,
    note text not null,
    proposed_by text not null,
    proposed_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > proposed_at),
    approved_by text,
    approved_at timestamptz,
    constraint four_eyes check (approved_by is null or approved_by <> proposed_by),
    constraint of_one_subject check (num_nonnulls(fr_id, institution_id) = 1),
    constraint no_institution_is_cancelled check (kind <> 'cancel' or fr_id is not null)
);
comment on table hall.approval is 'orders that two administrators give: of a request (T19, T21), or of an institution (suspend, resume)';

-- ------------------------------------------------------------------------------------------------- history and events

create table hall.event (
    id uuid primary key default hall.uuid7(),
    tenant text not null default 'default',
    subject text not null,
    subject_sequence bigint not null check (subject_sequence > 0),
    type text not null check (type ~ '^fin\.[a-z.-]+\.v[0-9]+$'),
    at timestamptz not null,
    actor_role text not null,
    data jsonb not null,
    uscc text,
    institution_id text,
    audience_fr text,
    audience_round integer,
    traceparent text check (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'),
    transaction_id xid8 not null default pg_current_xact_id(),
    unique (subject, subject_sequence),
    foreign key (audience_fr, audience_round) references hall.round (fr_id, n)
);
comment on table hall.event is 'outbox: written with the change it tells of; who may read it is uscc (that enterprise), institution_id (that institution) and the audience of a round';
comment on column hall.event.traceparent is 'W3C trace context of the call or of the deadline whose transaction wrote it; none where a round''s audience reads it';
call hall.append_only('hall.event');

create table hall.history (
    machine text not null,
    subject_id text not null,
    seq integer not null check (seq > 0),
    from_state text not null,
    to_state text not null,
    edge text not null,
    actor_role text not null,
    client_id text,
    reason jsonb not null,
    decided_at timestamptz not null,
    cause uuid,
    event_id uuid not null unique references hall.event,
    primary key (machine, subject_id, seq),
    foreign key (machine, edge, from_state, to_state) references hall.edge (machine, number, from_state, to_state)
);
call hall.append_only('hall.history');
call hall.append_only('hall.fenced_write');
call hall.append_only('hall.contact');
call hall.append_only('hall.offer');
call hall.append_only('hall.request_source');

create function hall.emit(
    p_subject text, p_type text, p_data jsonb, p_uscc text default null, p_institution text default null,
    p_fr text default null, p_round integer default null
) returns uuid language plpgsql as $$
-- The caller holds the row lock of the subject, so the count of its events is its own (V1). An event for a round's
-- audience has no trace: a caller that uses one twice would be known again by whoever must not know it.
declare made uuid;
begin
    insert into hall.event (subject, subject_sequence, type, at, actor_role, data, uscc, institution_id,
            audience_fr, audience_round, traceparent)
        values (p_subject,
            1 + coalesce((select max(subject_sequence) from hall.event where subject = p_subject), 0),
            p_type, hall.hall_now(), coalesce(nullif(current_setting('hall.role', true), ''), 'system'), p_data,
            p_uscc, p_institution, p_fr, p_round,
            case when p_fr is null then nullif(current_setting('hall.traceparent', true), '') end)
        returning id into made;
    return made;
end $$;

create function hall.check_move() returns trigger language plpgsql as $$
-- S1: only the edges of machines.yaml exist. A transition counts the version up by one; any other update keeps the state.
declare before_state text := '-';
begin
    if tg_op = 'UPDATE' then
        if new.version = old.version then
            if new.state <> old.state or new.edge <> old.edge then
                raise exception '% % moves from % to % without a new version', tg_argv[0], old.id, old.state, new.state;
            end if;
            return new;
        end if;
        before_state := old.state;
    end if;
    if new.version <> (case tg_op when 'UPDATE' then old.version else 0 end) + 1 then
        raise exception '% %: version % does not follow', tg_argv[0], new.id, new.version;
    end if;
    if not exists (select 1 from hall.edge where machine = tg_argv[0] and number = new.edge
            and from_state = before_state and to_state = new.state) then
        raise exception '% % has no edge % from % to %', tg_argv[0], new.id, new.edge, before_state, new.state
            using errcode = 'JF002';
    end if;
    return new;
end $$;

create function hall.keep_history(
    p_machine text, p_id text, p_seq integer, p_from text, p_to text, p_edge text, p_by text, p_reason jsonb,
    p_at timestamptz, p_event uuid
) returns void language sql as $$
    insert into hall.history (machine, subject_id, seq, from_state, to_state, edge, actor_role, client_id, reason,
            decided_at, cause, event_id)
        values (p_machine, p_id, p_seq, p_from, p_to, p_edge,
            coalesce(nullif(current_setting('hall.role', true), ''), 'system'), p_by, p_reason, p_at, hall.cause(), p_event)
$$;

create function hall.tell_request() returns trigger language plpgsql as $$
declare
    before_state text := '-';
    told uuid;
    shown hall.round;
begin
    if tg_op = 'UPDATE' then
        if new.version = old.version then return null; end if;
        before_state := old.state;
    end if;
    if new.state = 'broadcast' then
        -- The card itself; the sequencer adds when the gate opens and the round closes.
        select * into strict shown from hall.round where fr_id = new.id and n = new.round_no;
        told := hall.emit('fr/' || new.id, 'fin.request.broadcast.v1',
            jsonb_build_object('fr_id', new.id, 'round', new.round_no, 'card_version', shown.card_version, 'card', shown.card),
            p_uscc => new.uscc, p_fr => new.id, p_round => new.round_no);
    else
        told := hall.emit('fr/' || new.id, 'fin.request.' || lower(new.state) || '.v1',
            jsonb_build_object('fr_id', new.id, 'from', before_state, 'state', new.state, 'version', new.version,
                'deadline', hall.iso(new.deadline)),
            p_uscc => new.uscc);
    end if;
    perform hall.keep_history('request', new.id, new.version, before_state, new.state, new.edge, new.moved_by, new.reason,
        new.moved_at, told);
    return null;
end $$;

create function hall.tell_claim() returns trigger language plpgsql as $$
declare
    before_state text := '-';
    told uuid;
begin
    if tg_op = 'UPDATE' then
        if new.version = old.version then return null; end if;
        before_state := old.state;
    end if;
    told := hall.emit('claim/' || new.id, 'fin.claim.' || new.state || '.v1',
        jsonb_build_object('claim_id', new.id, 'fr_id', new.fr_id, 'round', new.round, 'fence', new.fence,
            'outlet_id', new.outlet_id, 'from', before_state, 'state', new.state, 'deadline', hall.iso(new.deadline)),
        p_uscc => (select uscc from hall.financing_request where id = new.fr_id), p_institution => new.institution_id);
    perform hall.keep_history('claim', new.id, new.version, before_state, new.state, new.edge, new.moved_by, new.reason,
        new.moved_at, told);
    return null;
end $$;

create function hall.iso(p_at timestamptz) returns text language sql immutable as $$
    -- RFC 3339 in UTC with milliseconds (G4)
    select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

create trigger check_move before insert or update on hall.financing_request
    for each row execute function hall.check_move('request');
create trigger tell after insert or update on hall.financing_request
    for each row execute function hall.tell_request();
create trigger check_move before insert or update on hall.claim
    for each row execute function hall.check_move('claim');
create trigger tell after insert or update on hall.claim
    for each row execute function hall.tell_claim();

create function hall.begin_act(p_actor jsonb) returns void language sql as $$
    -- Who acts, for the rows that triggers write.
    select set_config('hall.role', p_actor ->> 'role', true)
$$;

create function hall.acts_for(p_actor jsonb, p_uscc text) returns boolean language sql stable as $$
    -- Whether the actor speaks for the enterprise: itself, or the portal that took it up.
    select case p_actor ->> 'role'
        when 'enterprise' then p_actor ->> 'uscc' = p_uscc
        when 'portal' then exists (
            select 1 from hall.enterprise where uscc = p_uscc and portal = p_actor ->> 'client')
        else false end
$$;

grant select on hall.financing_request, hall.request_source, hall.round, hall.claim, hall.fenced_write, hall.contact,
    hall.offer, hall.approval, hall.event, hall.history to jifen_service;
