-- The exposure ledger (hall.md §5): what an enterprise may owe, what is spoken for, what is drawn. Balances are never
-- written by hand: an entry of the journal moves them (L2), and the CHECKs below refuse an entry that would over-lend.

create function hall.today() returns date language sql volatile as $$
    -- The day in China: days of contracts and of money are Chinese days.
    select (hall.hall_now() at time zone 'Asia/Shanghai')::date
$$;

create function hall.start_of(p_day date) returns timestamptz language sql immutable as $$
    select p_day::timestamp at time zone 'Asia/Shanghai'
$$;

create function hall.seconds_left_today() returns integer language sql volatile as $$
    select ceil(extract(epoch from hall.start_of(hall.today() + 1) - hall.hall_now()))::integer
$$;

-- ------------------------------------------------------------------------------------------------------------ balances

create table hall.exposure (
    uscc hall.uscc primary key references hall.enterprise,
    tenant text not null default 'default',
    limit_fen hall.fen not null default 0,
    limit_target_fen hall.fen,
    pending_fen hall.fen not null default 0,
    committed_fen hall.fen not null default 0,
    drawn_fen hall.fen not null default 0,
    over_limit_fen hall.fen not null default 0,
    unbound_committed_fen hall.fen not null default 0,
    unbound_drawn_fen hall.fen not null default 0,
    constraint never_over_lend check (pending_fen + committed_fen + drawn_fen <= limit_fen),
    constraint a_target_lies_below_the_limit check (limit_target_fen < limit_fen)
);
comment on column hall.exposure.limit_fen is 'the greatest of the limits of its schemes: what the enterprise may owe in all';
comment on column hall.exposure.limit_target_fen is 'a lower limit that waits until the amounts fit (L6); null: none waits';
comment on column hall.exposure.over_limit_fen is 'reported money beyond what was authorised (L4b); outside the CHECK, never without a case';
comment on column hall.exposure.unbound_drawn_fen is 'under products that do not bind to the quote (L8)';

create table hall.scheme_limit (
    uscc hall.uscc not null references hall.exposure,
    scheme text not null,
    limit_fen hall.fen not null,
    expires_at timestamptz not null,
    primary key (uscc, scheme)
);
comment on table hall.scheme_limit is 'the latest quote of each scheme whose quote binds (L1): a request may reserve what its own scheme leaves free, all else that the enterprise owes counted';

create table hall.exposure_share (
    uscc hall.uscc not null references hall.exposure,
    institution_id text not null,
    pending_fen hall.fen not null default 0,
    committed_fen hall.fen not null default 0,
    drawn_fen hall.fen not null default 0,
    over_limit_fen hall.fen not null default 0,
    unbound_committed_fen hall.fen not null default 0,
    unbound_drawn_fen hall.fen not null default 0,
    primary key (uscc, institution_id)
);
comment on table hall.exposure_share is 'the same amounts by institution; - for what is not attributed to one yet';

create table hall.reservation (
    id text primary key,
    fr_id text not null references hall.financing_request,
    round integer not null,
    uscc hall.uscc not null references hall.exposure,
    amount_fen hall.fen not null check (amount_fen > 0),
    institution_id text references hall.institution,
    counts_in_limit boolean not null,
    state text not null default 'pending' check (state in ('pending', 'committed', 'voided')),
    made_at timestamptz not null,
    resolved_at timestamptz,
    unique (fr_id, round),
    foreign key (fr_id, round) references hall.round,
    constraint resolved_once check ((state = 'pending') = (resolved_at is null))
);
comment on column hall.reservation.counts_in_limit is 'false: the guard only informs, and the amount did not fit; it stands outside the limit (L8)';
create unique index one_pending_reservation on hall.reservation (fr_id) where state = 'pending';
create index reservation_enterprise on hall.reservation (uscc, made_at);

-- ---------------------------------------------------------------------------------------------------------- facilities

create table hall.facility (
    id text primary key,
    tenant text not null default 'default',
    fr_id text not null references hall.financing_request,
    claim_id text not null unique references hall.claim,
    offer_id text not null unique references hall.offer,
    institution_id text not null references hall.institution,
    uscc hall.uscc not null references hall.exposure,
    ceiling_fen hall.fen not null check (ceiling_fen > 0),
    line_fen hall.fen not null,
    committed_fen hall.fen not null default 0,
    drawn_fen hall.fen not null default 0,
    over_limit_fen hall.fen not null default 0,
    is_revolving boolean not null,
    counts_in_limit boolean not null,
    contract_no text not null,
    document_sha256 bytea not null check (length(document_sha256) = 32),
    annual_rate_bp integer not null check (annual_rate_bp between 0 and 20000),
    signed_on date not null,
    line_ends_on date not null,
    is_line_over boolean not null default false,
    first_loan boolean,
    first_loan_evidence_sha256 bytea check (length(first_loan_evidence_sha256) = 32),
    renewed_from text unique references hall.facility,
    cause uuid,
    state text not null,
    version integer not null default 1,
    edge text not null,
    moved_at timestamptz not null,
    moved_by text not null,
    reason jsonb not null default '{}',
    deadline timestamptz,
    created_at timestamptz not null default hall.hall_now(),
    constraint contract_number_is_used_once unique (institution_id, contract_no),
    constraint a_line_lasts check (line_ends_on > signed_on),
    constraint a_line_is_at_most_the_ceiling check (line_fen <= ceiling_fen),
    constraint never_more_than_the_ceiling check (committed_fen + drawn_fen <= ceiling_fen),
    constraint first_loan_has_evidence check ((first_loan is null) = (first_loan_evidence_sha256 is null))
);
comment on column hall.facility.ceiling_fen is 'as signed; line_fen is what the bank leaves open of it now';
comment on column hall.facility.deadline is 'counts days of the calendar, so that no new calendar of working days changes it';
comment on column hall.facility.is_line_over is 'nothing more may be drawn: the line ended, or the facility did';
create index facility_enterprise on hall.facility (uscc);
create index facility_deadline on hall.facility (deadline) where deadline is not null;

create table hall.bank_reference (
    institution_id text not null references hall.institution,
    bank_ref text not null check (length(bank_ref) between 1 and 64),
    kind text not null check (kind in ('drawdown', 'repayment', 'correction')),
    facility_id text not null references hall.facility,
    at timestamptz not null,
    primary key (institution_id, bank_ref)
);
comment on table hall.bank_reference is 'the bank''s own reference of a movement, unique for ever (I6)';
call hall.append_only('hall.bank_reference');

create table hall.drawdown (
    id text primary key,
    facility_id text not null references hall.facility,
    institution_id text not null,
    amount_fen hall.fen not null check (amount_fen > 0),
    asked_by text not null check (asked_by in ('enterprise', 'institution')),
    state text not null check (state in ('asked', 'confirmed', 'withdrawn', 'lapsed', 'refused')),
    bank_ref text,
    drawn_on date,
    refused_for text,
    asked_at timestamptz not null,
    due_at timestamptz,
    due_from timestamptz,
    due_minutes bigint,
    due_is_provisional boolean not null default false,
    resolved_at timestamptz,
    resolved_by text,
    cause uuid,
    foreign key (institution_id, bank_ref) references hall.bank_reference,
    unique (institution_id, bank_ref),
    constraint confirmed_money_has_its_reference check ((state = 'confirmed') = (bank_ref is not null and drawn_on is not null)),
    constraint resolved_once check ((state = 'asked') = (resolved_at is null))
);
comment on column hall.drawdown.due_minutes is 'working minutes from due_from (S6)';
comment on column hall.drawdown.due_from is 'when a suspension ended, from where the rest counts; null: asked_at';
comment on column hall.drawdown.state is 'withdrawn: by the enterprise; lapsed: its line ended before an answer';
comment on column hall.drawdown.asked_by is 'institution: it reported money that had moved already';
create index drawdown_facility on hall.drawdown (facility_id);
create index drawdown_due on hall.drawdown (due_at) where state = 'asked';

create table hall.repayment (
    id text primary key,
    facility_id text not null references hall.facility,
    institution_id text not null,
    amount_fen hall.fen not null check (amount_fen > 0),
    paid_by text not null check (paid_by in ('enterprise', 'guarantor')),
    bank_ref text not null,
    repaid_on date not null,
    at timestamptz not null,
    reported_by text not null,
    cause uuid,
    foreign key (institution_id, bank_ref) references hall.bank_reference,
    unique (institution_id, bank_ref)
);
create index repayment_facility on hall.repayment (facility_id);
call hall.append_only('hall.repayment');

create table hall.correction (
    id bigint generated always as identity primary key,
    facility_id text not null references hall.facility,
    institution_id text not null,
    corrects text not null,
    bank_ref text not null,
    amount_fen hall.fen not null,
    note text not null,
    at timestamptz not null,
    reported_by text not null,
    cause uuid,
    foreign key (institution_id, corrects) references hall.bank_reference (institution_id, bank_ref),
    foreign key (institution_id, bank_ref) references hall.bank_reference,
    unique (institution_id, bank_ref)
);
comment on table hall.correction is 'what a drawdown or repayment should have said (L5): the latest counts; 0: it never was';
create index correction_corrects on hall.correction (institution_id, corrects);
call hall.append_only('hall.correction');

create index drawdown_day on hall.drawdown (institution_id, drawn_on) where state = 'confirmed';
create index repayment_day on hall.repayment (institution_id, repaid_on);
create view hall.money_moved as
    -- Each movement of money as it is known today, corrections counted.
    select m.facility_id, m.institution_id, m.kind, m.bank_ref, m.day, m.paid_by,
        coalesce((select c.amount_fen from hall.correction c
            where c.institution_id = m.institution_id and c.corrects = m.bank_ref order by c.id desc limit 1),
            m.amount_fen)::bigint as amount_fen
    from (select facility_id, institution_id, 'drawdown' as kind, bank_ref, drawn_on as day, amount_fen, null as paid_by
            from hall.drawdown where state = 'confirmed'
        union all
        select facility_id, institution_id, 'repayment', bank_ref, repaid_on, amount_fen, paid_by from hall.repayment) m;

create table hall.first_loan (
    facility_id text not null references hall.facility,
    no integer not null check (no > 0),
    uscc hall.uscc not null references hall.enterprise,
    institution_id text not null references hall.institution,
    evidence_sha256 bytea not null check (length(evidence_sha256) = 32),
    counted_at timestamptz not null,
    withdrawn_at timestamptz check (withdrawn_at >= counted_at),
    primary key (facility_id, no)
);
comment on table hall.first_loan is '首贷, the bank''s statement with its evidence, while money is known to have moved under it';
comment on column hall.first_loan.withdrawn_at is 'corrections say that no money ever moved (L5); a row is never changed otherwise';
create unique index a_first_loan_is_counted_once on hall.first_loan (uscc) where withdrawn_at is null;

create function hall.only_withdraw() returns trigger language plpgsql as $$
begin
    if tg_op <> 'UPDATE' or old.withdrawn_at is not null or new.withdrawn_at is null
            or to_jsonb(new) - 'withdrawn_at' <> to_jsonb(old) - 'withdrawn_at' then
        raise exception 'a first loan is counted and withdrawn, and nothing else' using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger only_withdraw before update or delete on hall.first_loan for each row execute function hall.only_withdraw();
create trigger never_truncate before truncate on hall.first_loan for each statement execute function hall.refuse_change();
alter table hall.first_loan enable always trigger only_withdraw;
alter table hall.first_loan enable always trigger never_truncate;

create table hall.facility_report (
    id bigint generated always as identity primary key,
    facility_id text not null references hall.facility,
    as_of date not null,
    state text not null,
    days_past_due integer not null check (days_past_due between 0 and 36500),
    five_class text not null check (five_class in ('normal', 'special-mention', 'substandard', 'doubtful', 'loss')),
    restructured boolean not null,
    line_fen hall.fen,
    written_off_fen hall.fen,
    at timestamptz not null,
    reported_by text not null,
    cause uuid
);
comment on column hall.facility_report.restructured is 'restructured because the enterprise is in distress';
create index facility_report_facility on hall.facility_report (facility_id, as_of, id);
call hall.append_only('hall.facility_report');

-- ------------------------------------------------------------------------------------------------------------- journal

create table hall.journal (
    id bigint generated always as identity primary key,
    uscc hall.uscc not null references hall.exposure,
    kind text not null check (kind in ('reserve', 'attribute', 'void', 'commit', 'drawdown', 'repayment', 'correction',
        'line')),
    from_account text not null check (from_account in ('free', 'pending', 'committed', 'drawn', 'over_limit',
        'unbound_committed', 'unbound_drawn')),
    from_institution text not null default '-',
    to_account text not null check (to_account in ('free', 'pending', 'committed', 'drawn', 'over_limit',
        'unbound_committed', 'unbound_drawn')),
    to_institution text not null default '-',
    amount_fen hall.fen not null check (amount_fen > 0),
    reservation_id text references hall.reservation,
    facility_id text references hall.facility,
    fr_id text references hall.financing_request,
    reference text,
    corrects bigint references hall.journal,
    at timestamptz not null,
    cause uuid,
    constraint legs_differ check ((from_account, from_institution) <> (to_account, to_institution)),
    constraint nobody_holds_the_free check (
        (from_account <> 'free' or from_institution = '-') and (to_account <> 'free' or to_institution = '-'))
);
comment on table hall.journal is 'one entry moves one amount from one account to another (L2)';
comment on column hall.journal.reference is 'the bank''s reference of the movement that the entry books';
create index journal_enterprise on hall.journal (uscc, id);
create index journal_facility on hall.journal (facility_id, id) where facility_id is not null;
create index journal_reservation on hall.journal (reservation_id) where reservation_id is not null;
call hall.append_only('hall.journal');

create function hall.moved(entry hall.journal, p_account text, p_institution text default null) returns bigint
language sql immutable as $$
    -- What an entry adds to an account of the enterprise, or of one institution's share of it.
    select entry.amount_fen
        * ((entry.to_account = p_account and entry.to_institution = coalesce(p_institution, entry.to_institution))::integer
        - (entry.from_account = p_account and entry.from_institution = coalesce(p_institution, entry.from_institution))::integer)
$$;

create function hall.book() returns trigger language plpgsql as $$
-- The only writer of balances: applies an entry to the enterprise, to the shares, to the facility. A waiting lower limit
-- takes force with the entry that makes the amounts fit (L6).
declare
    held hall.exposure;
    fits boolean;
    share text;
begin
    select * into strict held from hall.exposure where uscc = new.uscc for no key update;
    fits := coalesce(held.limit_target_fen >= held.pending_fen + hall.moved(new, 'pending') + held.committed_fen
        + hall.moved(new, 'committed') + held.drawn_fen + hall.moved(new, 'drawn'), false);
    update hall.exposure e set
            pending_fen = e.pending_fen + hall.moved(new, 'pending'),
            committed_fen = e.committed_fen + hall.moved(new, 'committed'),
            drawn_fen = e.drawn_fen + hall.moved(new, 'drawn'),
            over_limit_fen = e.over_limit_fen + hall.moved(new, 'over_limit'),
            unbound_committed_fen = e.unbound_committed_fen + hall.moved(new, 'unbound_committed'),
            unbound_drawn_fen = e.unbound_drawn_fen + hall.moved(new, 'unbound_drawn'),
            limit_fen = case when fits then e.limit_target_fen else e.limit_fen end,
            limit_target_fen = case when not fits then e.limit_target_fen end
        where e.uscc = new.uscc;
    for share in select distinct holder from (values (new.from_account, new.from_institution), (new.to_account, new.to_institution))
            as leg (account, holder) where account <> 'free' order by holder loop
        insert into hall.exposure_share (uscc, institution_id) values (new.uscc, share) on conflict do nothing;
        update hall.exposure_share s set
                pending_fen = s.pending_fen + hall.moved(new, 'pending', share),
                committed_fen = s.committed_fen + hall.moved(new, 'committed', share),
                drawn_fen = s.drawn_fen + hall.moved(new, 'drawn', share),
                over_limit_fen = s.over_limit_fen + hall.moved(new, 'over_limit', share),
                unbound_committed_fen = s.unbound_committed_fen + hall.moved(new, 'unbound_committed', share),
                unbound_drawn_fen = s.unbound_drawn_fen + hall.moved(new, 'unbound_drawn', share)
            where s.uscc = new.uscc and s.institution_id = share;
    end loop;
    if new.facility_id is not null then
        update hall.facility f set
                committed_fen = f.committed_fen + hall.moved(new, 'committed') + hall.moved(new, 'unbound_committed'),
                drawn_fen = f.drawn_fen + hall.moved(new, 'drawn') + hall.moved(new, 'unbound_drawn'),
                over_limit_fen = f.over_limit_fen + hall.moved(new, 'over_limit')
            where f.id = new.facility_id;
    end if;
    return null;
end $$;

create trigger book after insert on hall.journal for each row execute function hall.book();
alter table hall.journal enable always trigger book;

-- ----------------------------------------------------------------------------------------------- cases, reconciliation

create table hall.hall_case (
    id text primary key,
    tenant text not null default 'default',
    kind text not null check (kind ~ '^[a-z-]+$'),
    subject text not null,
    lamp text not null check (lamp in ('red', 'yellow', 'green')),
    note text not null,
    opened_at timestamptz not null,
    due_at timestamptz not null,
    due_from timestamptz,
    due_minutes bigint not null,
    due_is_provisional boolean not null,
    overdue_at timestamptz,
    closed_at timestamptz,
    closed_by text,
    closing_note text,
    constraint closed_by_somebody check ((closed_at is null) = (closed_by is null))
);
comment on table hall.hall_case is 'what a person must look at; one open case of a kind and subject';
comment on column hall.hall_case.due_minutes is 'working minutes from due_from (S6)';
comment on column hall.hall_case.due_from is 'when a suspension ended, from where the rest counts; null: opened_at';
create unique index one_open_case on hall.hall_case (kind, subject) where closed_at is null;
comment on column hall.hall_case.overdue_at is 'when nobody had closed it in time and its lamp turned red; from then on it lies before the supervisor';
create index case_opened on hall.hall_case (opened_at, id);
create index case_due on hall.hall_case (due_at) where closed_at is null and overdue_at is null;

create table hall.reconciliation (
    id text primary key,
    institution_id text not null references hall.institution,
    day_from date not null,
    day_to date not null check (day_to >= day_from),
    after_ref text,
    through_ref text,
    differences integer not null check (differences >= 0),
    at timestamptz not null,
    reported_by text not null,
    cause uuid
);
comment on column hall.reconciliation.after_ref is 'with through_ref: of which references the list is, in the order of bytes, the first bound not counted; null: of all';
create table hall.reconciliation_line (
    reconciliation_id text not null references hall.reconciliation,
    bank_ref text not null,
    contract_no text not null,
    kind text not null check (kind in ('drawdown', 'repayment')),
    ours_contract_no text,
    ours_kind text check (ours_kind in ('drawdown', 'repayment')),
    theirs_fen hall.fen,
    ours_fen hall.fen,
    result text not null check (result in ('equal', 'missing-here', 'missing-there', 'amount-differs', 'record-differs')),
    case_id text references hall.hall_case,
    primary key (reconciliation_id, bank_ref),
    constraint a_difference_has_a_case check ((result = 'equal') = (case_id is null)),
    constraint ours_is_whole check (num_nulls(ours_contract_no, ours_kind, ours_fen) in (0, 3))
);
comment on table hall.reconciliation_line is 'the institution''s list against ours, line by line (L7)';
comment on column hall.reconciliation_line.contract_no is 'like kind as the institution lists it; as we have it where its list lacks the line';
call hall.append_only('hall.reconciliation');
call hall.append_only('hall.reconciliation_line');

-- ------------------------------------------------------------------------------------------------------------- machine

create function hall.tell_facility() returns trigger language plpgsql as $$
declare
    before_state text := '-';
    told uuid;
begin
    if tg_op = 'UPDATE' then
        if new.version = old.version then return null; end if;
        before_state := old.state;
    end if;
    told := hall.emit('facility/' || new.id, 'fin.facility.' || replace(new.state, '_', '-') || '.v1',
        jsonb_build_object('facility_id', new.id, 'fr_id', new.fr_id, 'from', before_state, 'state', new.state,
            'version', new.version, 'deadline', hall.iso(new.deadline)),
        p_uscc => new.uscc, p_institution => new.institution_id);
    perform hall.keep_history('facility', new.id, new.version, before_state, new.state, new.edge, new.moved_by, new.reason,
        new.moved_at, told);
    return null;
end $$;

create trigger check_move before insert or update on hall.facility
    for each row execute function hall.check_move('facility');
create trigger tell after insert or update on hall.facility
    for each row execute function hall.tell_facility();

-- Every row here is written by an act; the service only reads.
revoke insert, update, delete on hall.exposure, hall.scheme_limit, hall.exposure_share, hall.reservation, hall.facility, hall.bank_reference,
    hall.drawdown, hall.repayment, hall.correction, hall.first_loan, hall.facility_report, hall.journal, hall.hall_case,
    hall.reconciliation, hall.reconciliation_line from jifen_service;
