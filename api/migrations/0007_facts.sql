-- Facts as the contracts hold them, the decisions made from them, limit quotes, consents, and the log of who looked.

-- A long load writes in several transactions; one flag at its end makes the whole batch count.
create table hall.fact_batch (
    id bigint generated always as identity primary key,
    source_label text not null,
    fingerprint bytea not null check (length(fingerprint) = 32),
    made_by text not null,
    made_at timestamptz not null default hall.hall_now(),
    report jsonb not null default '{}',
    visible_at timestamptz
);
comment on table hall.fact_batch is 'rows of a batch count from visible_at on; a batch without it was interrupted and never counts';
comment on column hall.fact_batch.fingerprint is 'SHA-256 of what was delivered, so that the same delivery counts once';
create unique index one_visible_batch_a_delivery on hall.fact_batch (fingerprint) where visible_at is not null;

-- One table a source, a column a field of its contract: data_contracts/sources.py is the only declaration, and a test
-- compares. When a row came and from whom is its batch's.
create table hall.fact_enterprises (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    name text not null,
    established_on date not null,
    zone_entered_on date,
    industry_code text not null,
    district text not null,
    employees bigint,
    revenue_fen bigint,
    total_assets_fen bigint,
    taxpayer_type text,
    registration_status text not null,
    group_id text,
    primary key (batch_id, line)
);
create index fact_enterprises_enterprise on hall.fact_enterprises (uscc);
create index fact_enterprises_group on hall.fact_enterprises (group_id) where group_id is not null;

create table hall.fact_qualifications (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    tag text not null,
    level text,
    granted_on date not null,
    valid_to date not null,
    primary key (batch_id, line)
);
create index fact_qualifications_enterprise on hall.fact_qualifications (uscc);

create table hall.fact_financial_statements (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    period_end date not null,
    item text not null,
    value_fen bigint not null,
    audited boolean not null,
    primary key (batch_id, line)
);
create index fact_financial_statements_enterprise on hall.fact_financial_statements (uscc);

create table hall.fact_social_insurance (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    month date not null,
    headcount bigint not null,
    base_fen bigint not null,
    arrears_fen bigint not null,
    primary key (batch_id, line)
);
create index fact_social_insurance_enterprise on hall.fact_social_insurance (uscc);

create table hall.fact_innovation_indicators (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    year bigint not null,
    indicator_id text not null,
    value bigint,
    unit text not null,
    state text not null,
    primary key (batch_id, line)
);
create index fact_innovation_indicators_enterprise on hall.fact_innovation_indicators (uscc);

create table hall.fact_tax_filings (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    period_from date not null,
    period_to date not null,
    tax_kind text not null,
    declared_sales_fen bigint not null,
    tax_fen bigint not null,
    refund_fen bigint not null,
    paid_on date,
    late_days bigint not null,
    arrears_fen bigint not null,
    primary key (batch_id, line)
);
create index fact_tax_filings_enterprise on hall.fact_tax_filings (uscc);

create table hall.fact_taxpayer_ratings (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    year bigint not null,
    grade text not null,
    primary key (batch_id, line)
);
create index fact_taxpayer_ratings_enterprise on hall.fact_taxpayer_ratings (uscc);

create table hall.fact_invoices (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    direction text not null,
    invoice_no text not null,
    counterparty_id text not null,
    issued_on date not null,
    net_fen bigint not null,
    tax_fen bigint not null,
    gross_fen bigint not null,
    is_void boolean not null,
    red_of text,
    primary key (batch_id, line)
);
create index fact_invoices_enterprise on hall.fact_invoices (uscc);

create table hall.fact_debts (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    lender_id text not null,
    debt_id text not null,
    as_of date not null,
    kind text not null,
    balance_fen bigint not null,
    limit_fen bigint not null,
    overdue_days bigint not null,
    five_class text not null,
    opened_on date not null,
    closed_on date,
    primary key (batch_id, line)
);
create index fact_debts_enterprise on hall.fact_debts (uscc);

create table hall.fact_public_records (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    kind text not null,
    listed_on date not null,
    removed_on date,
    primary key (batch_id, line)
);
create index fact_public_records_enterprise on hall.fact_public_records (uscc);

create table hall.fact_loan_outcomes (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    lender_id text not null,
    loan_id text not null,
    opened_on date not null,
    term_months bigint not null,
    amount_fen bigint,
    defaulted boolean not null,
    defaulted_on date,
    observed_until date not null,
    loss_fen bigint,
    primary key (batch_id, line)
);
create index fact_loan_outcomes_enterprise on hall.fact_loan_outcomes (uscc);

create table hall.fact_feeds (
    batch_id bigint not null,
    line bigint not null,
    uscc hall.uscc not null,
    known_on date not null,
    supplier text not null,
    source text not null,
    direction text,
    period_from date not null,
    period_to date not null,
    row_count bigint not null,
    total_fen bigint,
    primary key (batch_id, line)
);
create index fact_feeds_enterprise on hall.fact_feeds (uscc);
create table hall.fact_doubt (
    batch_id bigint not null references hall.fact_batch,
    uscc hall.uscc not null,
    source text not null,
    direction text,
    known_on date
);
comment on table hall.fact_doubt is 'whose feed a quarantined row makes incomplete, from known_on on; null: always';
create index fact_doubt_enterprise on hall.fact_doubt (uscc);

create table hall.fact_quarantine (
    batch_id bigint not null references hall.fact_batch,
    source text not null,
    line bigint not null,
    rules text[] not null check (cardinality(rules) > 0),
    row jsonb not null,
    primary key (batch_id, source, line)
);
comment on table hall.fact_quarantine is 'delivered rows that broke rules of their contract, as they came: nothing is lost';

create function hall.refuse_rows_of_visible_batch() returns trigger language plpgsql as $$
-- Once a statement and not once a row: COPY brings tens of thousands of rows at a time.
begin
    if exists (
        select 1 from (select distinct batch_id from added) a left join hall.fact_batch b on b.id = a.batch_id
        where b.id is null or b.visible_at is not null
    ) then
        raise exception 'rows are added to a batch that is being loaded, and to no other' using errcode = 'restrict_violation';
    end if;
    return null;
end $$;

do $$
declare name text;
begin
    for name in
        select c.relname from pg_catalog.pg_class c
        where c.relnamespace = 'hall'::regnamespace and c.relkind = 'r' and c.relname ~ '^fact_' and c.relname <> 'fact_batch'
    loop
        call hall.append_only(format('hall.%I', name)::regclass);
        execute format('create trigger only_while_loading after insert on hall.%I referencing new table as added '
            'for each statement execute function hall.refuse_rows_of_visible_batch()', name);
        execute format('create view hall.%I as select f.* from hall.%I f '
            'join hall.fact_batch b on b.id = f.batch_id and b.visible_at is not null',
            replace(name, 'fact_', 'visible_'), name);
        execute format('grant select on hall.%I, hall.%I to jifen_service', name, replace(name, 'fact_', 'visible_'));
        if name <> 'fact_quarantine' then execute format('grant insert on hall.%I to jifen_service', name); end if;
    end loop;
end $$;

create function hall.show_batch(p_batch bigint) returns bigint
language plpgsql security definer set search_path = hall, pg_temp as $$
-- Makes a batch count, or gives the batch that brought the same before. The registry's own words name enterprises.
declare
    fresh hall.fact_batch;
    known bigint;
begin
    select * into strict fresh from hall.fact_batch where id = p_batch for no key update;
    perform pg_advisory_xact_lock(hashtextextended('fact_batch:' || encode(fresh.fingerprint, 'hex'), 0));
    select id into known from hall.fact_batch where fingerprint = fresh.fingerprint and visible_at is not null;
    if found then return known; end if;
    update hall.fact_batch set visible_at = hall.hall_now() where id = p_batch;
    insert into hall.enterprise as e (uscc, name, industry_section, district)
        select distinct on (f.uscc) f.uscc, f.name, left(f.industry_code, 1), f.district
        from hall.fact_enterprises f join hall.fact_batch b on b.id = f.batch_id and b.visible_at is not null
        where f.supplier <> 'applicant'
            and f.uscc in (select n.uscc from hall.fact_enterprises n where n.batch_id = p_batch)
        order by f.uscc, f.known_on desc
        on conflict (uscc) do update
            set name = excluded.name, industry_section = excluded.industry_section, district = excluded.district
            where (e.name, e.industry_section, e.district)
                is distinct from (excluded.name, excluded.industry_section, excluded.district);
    return p_batch;
end $$;

create function hall.may_deliver(p_actor jsonb, p_uscc text) returns boolean language plpgsql stable as $$
-- Whether the actor may bring facts of an enterprise: it speaks for it, writes it down, or is the platform's own source.
begin
    return hall.acts_for(p_actor, p_uscc) or exists (select 1 from hall.enterprise e where e.uscc = p_uscc
        and (p_actor ->> 'role' = 'scoring' or hall.may_enter(p_actor, e)));
end $$;

create function hall.act_deliver_facts(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- One enterprise's rows, parted by the contracts before; p_args: uscc, fingerprint, good, quarantined, doubts, report.
declare
    about text := p_args ->> 'uscc';
    batch bigint;
    counts bigint;
    name text;
    delivered jsonb;
begin
    perform hall.begin_act(p_actor);
    if not hall.may_deliver(p_actor, about) then perform hall.refuse('not-found'); end if;
    insert into hall.fact_batch (source_label, fingerprint, made_by, report)
        values ('enterprises/' || about, decode(p_args ->> 'fingerprint', 'hex'), p_actor ->> 'client', p_args -> 'report')
        returning id into batch;
    for name, delivered in select * from jsonb_each(p_args -> 'good') loop
        execute format('insert into hall.%1$I select filled.* from jsonb_array_elements($1) with ordinality as one (given, n), '
            'jsonb_populate_record(null::hall.%1$I, one.given || jsonb_build_object(''batch_id'', $2, ''line'', one.n)) as filled',
            'fact_' || name) using delivered, batch;
    end loop;
    insert into hall.fact_quarantine (batch_id, source, line, rules, row)
        select batch, bad.source, bad.line, bad.rules, bad.row
        from jsonb_to_recordset(p_args -> 'quarantined') as bad (source text, line bigint, rules text[], row jsonb);
    insert into hall.fact_doubt (batch_id, uscc, source, direction, known_on)
        select batch, doubt.uscc, doubt.source, doubt.direction, doubt.known_on
        from jsonb_to_recordset(p_args -> 'doubts') as doubt (uscc text, source text, direction text, known_on date);
    counts := hall.show_batch(batch);
    return jsonb_build_object('status', 200, 'body', (select report from hall.fact_batch where id = counts)
        || jsonb_build_object('batch_id', counts, 'delivered_before', counts <> batch));
end $$;

-- ---------------------------------------------------------------------------------------------------------- decisions

create table hall.rulebook (
    version text primary key,
    policy text not null,
    ruleset text,
    size_classes text not null
);
comment on table hall.rulebook is 'the texts behind a policy version, so that a decision can be made again after the files changed';
call hall.append_only('hall.rulebook');

create table hall.decision (
    id text primary key check (id ~ '^d[0-9a-f]{24}$'),
    uscc hall.uscc not null references hall.enterprise,
    as_of date not null,
    outcome text not null check (outcome in ('eligible', 'refer', 'ineligible')),
    limit_fen hall.fen not null check (limit_fen = 0 or outcome = 'eligible'),
    model_version text not null,
    policy_version text not null references hall.rulebook,
    input_hash text not null check (input_hash ~ '^[0-9a-f]{64}$'),
    asked_by text not null,
    decided_at timestamptz not null,
    content jsonb not null,
    text text not null
);
comment on column hall.decision.content is 'answer, feature row with its types and hash, terms of the limit, and what the decision was made with';
comment on column hall.decision.text is 'the answer as canonical bytes: what jifen replay must give again';
create index decision_enterprise on hall.decision (uscc, decided_at);
call hall.append_only('hall.decision');

create table hall.limit_quote (
    id text primary key,
    uscc hall.uscc not null references hall.enterprise,
    scheme text not null,
    decision_id text not null references hall.decision,
    outcome text not null,
    limit_fen hall.fen not null,
    made_at timestamptz not null,
    expires_at timestamptz not null check (expires_at > made_at)
);
create index limit_quote_enterprise on hall.limit_quote (uscc, made_at desc);
call hall.append_only('hall.limit_quote');

create function hall.quotes_left_today(p_uscc text) returns bigint language sql volatile as $$
    -- API6: fresh decisions of an enterprise on one day; the same facts are the same decision and cost nothing.
    select hall.setting('quotes_per_day') - count(*) from hall.decision
    where uscc = p_uscc and decided_at >= hall.start_of(hall.today())
$$;

create function hall.keep_decision(p_uscc text, p_decision jsonb, p_text text, p_asked_by text) returns text
language plpgsql as $$
declare
    answer jsonb := p_decision -> 'answer';
    at timestamptz;
begin
    if answer ->> 'uscc' is distinct from p_uscc or p_text::jsonb is distinct from answer then
        raise exception 'a decision about another enterprise, or its text says otherwise' using errcode = 'data_exception';
    end if;
    -- Two requests may have decided the same at the same time, and a cap is counted by one at a time.
    perform pg_advisory_xact_lock(hashtextextended('decision:' || p_uscc, 0));
    if exists (select 1 from hall.decision where id = answer ->> 'decision_id') then return answer ->> 'decision_id'; end if;
    if hall.quotes_left_today(p_uscc) <= 0 then
        perform hall.refuse('quote-cap', jsonb_build_object('retry_after_seconds', hall.seconds_left_today()));
    end if;
    at := hall.hall_now();
    insert into hall.rulebook (version, policy, ruleset, size_classes)
        select answer ->> 'policy_version', book ->> 'policy', book ->> 'ruleset', book ->> 'size_classes'
        from (select p_decision -> 'rulebook' as book) one
        on conflict (version) do nothing;
    insert into hall.decision (id, uscc, as_of, outcome, limit_fen, model_version, policy_version, input_hash, asked_by,
            decided_at, content, text)
        values (answer ->> 'decision_id', p_uscc, (answer ->> 'as_of')::date, answer ->> 'outcome',
            (answer ->> 'limit_fen')::bigint, answer ->> 'model_version', answer ->> 'policy_version',
            answer ->> 'input_hash', p_asked_by, at, p_decision - 'rulebook', p_text);
    return answer ->> 'decision_id';
end $$;

create function hall.facts_mark(p_uscc text) returns text language sql stable as $$
    -- Which visible batches tell of an enterprise; equal marks are equal facts, since a batch never changes. The rows of its
    -- group's other members count as far as its features read them (api.facts.PEERS).
    with own_group as (select group_id from hall.visible_enterprises where uscc = p_uscc and group_id is not null),
        members as (select p_uscc as uscc
            union select uscc from hall.visible_enterprises where group_id in (select group_id from own_group)),
        told as (
        select batch_id from hall.visible_enterprises where uscc in (select uscc from members)
        union select batch_id from hall.visible_debts where uscc in (select uscc from members)
        union select batch_id from hall.visible_qualifications where uscc = p_uscc
        union select batch_id from hall.visible_financial_statements where uscc = p_uscc
        union select batch_id from hall.visible_social_insurance where uscc = p_uscc
        union select batch_id from hall.visible_innovation_indicators where uscc = p_uscc
        union select batch_id from hall.visible_tax_filings where uscc = p_uscc
        union select batch_id from hall.visible_taxpayer_ratings where uscc = p_uscc
        union select batch_id from hall.visible_invoices where uscc = p_uscc
        union select batch_id from hall.visible_public_records where uscc = p_uscc
        union select batch_id from hall.visible_loan_outcomes where uscc = p_uscc
        union select batch_id from hall.visible_feeds where uscc = p_uscc
        union select batch_id from hall.visible_doubt where uscc = p_uscc)
    select encode(sha256(convert_to(coalesce(string_agg(batch_id::text, ',' order by batch_id), ''), 'UTF8')), 'hex')
    from told
$$;

create function hall.expect_latest(p_uscc text, p_scheme text, p_as_of date, p_mark text) returns void
language plpgsql as $$
-- A decision is kept only while it is the latest that could be made: of the facts as they are, and of no day before that
-- of the standing quote. Else an older one that took longer would raise a limit again that news had lowered. The lock of
-- hall.keep_decision is held.
begin
    if hall.facts_mark(p_uscc) is distinct from p_mark or p_as_of < (
            select d.as_of from hall.limit_quote q join hall.decision d on d.id = q.decision_id
            where q.uscc = p_uscc and q.scheme = p_scheme order by q.made_at desc, q.id desc limit 1) then
        raise exception 'the facts have changed since they were read' using errcode = 'JF003';
    end if;
end $$;

create function hall.keep_quote(
    p_uscc text, p_scheme text, p_decision_id text, p_outcome text, p_limit_fen bigint, p_expires_at timestamptz
) returns text language plpgsql as $$
-- The latest quote, if it tells of the same decision, else a new one. Where the scheme's quote binds it is its limit (L1).
declare
    latest hall.limit_quote;
    quote text;
begin
    select * into latest from hall.limit_quote where uscc = p_uscc and scheme = p_scheme order by made_at desc, id desc limit 1;
    if latest.decision_id = p_decision_id then return latest.id; end if;
    quote := hall.new_id('lq');
    insert into hall.limit_quote (id, uscc, scheme, decision_id, outcome, limit_fen, made_at, expires_at)
        values (quote, p_uscc, p_scheme, p_decision_id, p_outcome, p_limit_fen, hall.hall_now(), p_expires_at);
    if (select quote_binds from hall.scheme where name = p_scheme) then
        perform hall.set_limit(p_uscc, p_scheme, p_limit_fen, p_expires_at);
    end if;
    return quote;
end $$;

create function hall.quote_body(p_quote text) returns jsonb language plpgsql stable as $$
-- What the enterprise is told; the conditional limit and what is missing are for it and not for banks.
begin
    return (select jsonb_build_object('quote_id', q.id, 'uscc', q.uscc, 'scheme', q.scheme, 'quote_binds', s.quote_binds,
        'decision_id', d.id, 'outcome', q.outcome, 'limit_fen', q.limit_fen,
        'conditional_limit_fen', d.content -> 'answer' -> 'conditional_limit_fen',
        'conditions', d.content -> 'answer' -> 'conditions', 'rate_bp', d.content -> 'answer' -> 'rate_bp',
        'score', d.content -> 'answer' -> 'score', 'grade', d.content -> 'answer' -> 'grade',
        'binding', d.content -> 'answer' -> 'binding',
        'reasons', (d.content -> 'answer' ->> 'reasons')::jsonb, 'missing_feeds', d.content -> 'answer' -> 'missing_feeds',
        'as_of', d.as_of, 'made_at', hall.iso(q.made_at), 'expires_at', hall.iso(q.expires_at),
        'model_version', d.model_version, 'policy_version', d.policy_version, 'input_hash', d.input_hash)
    from hall.limit_quote q join hall.decision d on d.id = q.decision_id join hall.scheme s on s.name = q.scheme
    where q.id = p_quote);
end $$;

create function hall.act_quote(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- p_args: uscc, scheme, decision, text, facts_mark; the engine decided before the transaction began.
declare
    kept text;
    made hall.decision;
    quote text;
begin
    perform hall.begin_act(p_actor);
    if not (hall.acts_for(p_actor, p_args ->> 'uscc') or p_actor ->> 'role' = 'scoring') then
        perform hall.refuse('not-found');
    end if;
    kept := hall.keep_decision(p_args ->> 'uscc', p_args -> 'decision', p_args ->> 'text', p_actor ->> 'client');
    select * into strict made from hall.decision where id = kept;
    perform hall.expect_latest(made.uscc, p_args ->> 'scheme', made.as_of, p_args ->> 'facts_mark');
    quote := hall.keep_quote(made.uscc, p_args ->> 'scheme', made.id, made.outcome, made.limit_fen,
        hall.hall_now() + make_interval(days => hall.setting('quote_days')::integer));
    return jsonb_build_object('status', 201, 'body', hall.quote_body(quote));
end $$;

-- ----------------------------------------------------------------------------------------------------------- consents

create table hall.consent (
    id text primary key,
    uscc hall.uscc not null references hall.enterprise,
    signer text not null,
    method text not null check (method in ('ca-signature', 'face-check', 'sms-code', 'paper')),
    evidence_sha256 bytea not null check (length(evidence_sha256) = 32),
    purpose text not null,
    data_sets text[] not null check (cardinality(data_sets) > 0 and data_sets <@ array['limit', 'facts', 'report']),
    recipients text[] not null check (cardinality(recipients) > 0),
    valid_from timestamptz not null,
    valid_to timestamptz not null check (valid_to > valid_from),
    one_time boolean not null,
    receipt_sha256 bytea not null check (length(receipt_sha256) = 32),
    given_by text not null,
    given_at timestamptz not null
);
create index consent_enterprise on hall.consent (uscc, given_at);
call hall.append_only('hall.consent');

create table hall.consent_revocation (
    consent_id text primary key references hall.consent,
    revoked_by text not null,
    revoked_at timestamptz not null,
    acknowledge_by timestamptz not null
);
call hall.append_only('hall.consent_revocation');

create table hall.revocation_notice (
    consent_id text not null references hall.consent_revocation,
    institution_id text not null references hall.institution,
    primary key (consent_id, institution_id)
);
comment on table hall.revocation_notice is 'who was told of a revocation and must acknowledge it';
call hall.append_only('hall.revocation_notice');

create table hall.awaited_acknowledgement (
    consent_id text primary key references hall.consent_revocation,
    due_at timestamptz not null
);
comment on table hall.awaited_acknowledgement is 'revocations whose time to be acknowledged runs; the last acknowledgement or the sweeper takes the row away';
create index awaited_acknowledgement_due on hall.awaited_acknowledgement (due_at);

create table hall.revocation_acknowledged (
    consent_id text not null,
    institution_id text not null,
    acknowledged_by text not null,
    acknowledged_at timestamptz not null,
    primary key (consent_id, institution_id),
    foreign key (consent_id, institution_id) references hall.revocation_notice
);
call hall.append_only('hall.revocation_acknowledged');

create table hall.access_log (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    client_id text not null,
    institution_id text,
    uscc text not null,
    what text not null,
    purpose text not null,
    consent_id text references hall.consent,
    withheld text,
    constraint shown_only_under_a_consent check (institution_id is null or withheld is not null or consent_id is not null)
);
comment on column hall.access_log.withheld is 'why nothing was shown; null: it was';
comment on column hall.access_log.uscc is 'as it was asked for: it may be nobody''s';
create index access_log_enterprise on hall.access_log (uscc, id);
create index access_log_consent on hall.access_log (consent_id) where consent_id is not null;
call hall.append_only('hall.access_log');

create function hall.names_recipient(p_recipients text[], p_institution text, p_holds_claim boolean) returns boolean
language sql immutable as $$
    select p_institution = any (p_recipients) or (p_holds_claim and 'claiming-institution' = any (p_recipients))
$$;

create function hall.consent_for(
    p_uscc text, p_institution text, p_data_set text, p_purpose text, p_holds_claim boolean,
    p_at timestamptz default hall.hall_now()
) returns text language plpgsql volatile as $$
-- The consent under which an institution may look, or null. It is locked until the look is over, and what became of it
-- before that is asked behind the lock: a revocation comes after the look or is seen. One that is used up by a single look
-- comes last, and of two looks at once only one is the first. Whoever looks must log it: the log is what uses it up.
declare
    found_one hall.consent;
begin
    for found_one in
        select * from hall.consent c
        where c.uscc = p_uscc and p_data_set = any (c.data_sets) and c.purpose = p_purpose
            and p_at >= c.valid_from and p_at < c.valid_to
            and hall.names_recipient(c.recipients, p_institution, p_holds_claim)
            and not exists (select 1 from hall.consent_revocation r where r.consent_id = c.id)
        order by c.one_time, c.valid_to desc, c.id
    loop
        if found_one.one_time then
            perform 1 from hall.consent where id = found_one.id for no key update;
            continue when exists (select 1 from hall.access_log
                where consent_id = found_one.id and institution_id = p_institution and withheld is null);
        else
            perform 1 from hall.consent where id = found_one.id for share;
        end if;
        continue when exists (select 1 from hall.consent_revocation where consent_id = found_one.id);
        return found_one.id;
    end loop;
    return null;
end $$;

create function hall.why_withheld(
    p_uscc text, p_institution text, p_data_set text, p_purpose text, p_holds_claim boolean
) returns text language sql stable as $$
    select case when exists (
        select 1 from hall.consent c join hall.consent_revocation r on r.consent_id = c.id
        where c.uscc = p_uscc and p_data_set = any (c.data_sets) and c.purpose = p_purpose
            and hall.names_recipient(c.recipients, p_institution, p_holds_claim)
    ) then 'consent-revoked' else 'consent-missing' end
$$;

create function hall.broken_for_request(c hall.consent, p_at timestamptz) returns text[] language sql stable as $$
    -- What a consent lacks to carry a financing request: banks look one after the other, and see at least the quote.
    select array_remove(array[
        case when c.purpose <> 'financing' then 'is for the purpose financing' end,
        case when c.one_time then 'is not used up by one look' end,
        case when not 'limit' = any (c.data_sets) then 'allows the data set limit' end,
        case when p_at < c.valid_from then 'has begun' end,
        case when p_at >= c.valid_to then 'is not over' end,
        case when exists (select 1 from hall.consent_revocation r where r.consent_id = c.id) then 'is not revoked' end], null)
$$;

create function hall.request_consent(
    fr hall.financing_request, p_at timestamptz, p_institution text default null
) returns text language sql stable as $$
    -- The consent under which a request is shown to an institution, or to any: the one that it was submitted with, else
    -- another of the enterprise that allows as much; null: there is none.
    select c.id from hall.consent c
    where c.uscc = fr.uscc and cardinality(hall.broken_for_request(c, p_at)) = 0
        and (p_institution is null or hall.names_recipient(c.recipients, p_institution, true))
    order by c.id = fr.consent_id desc nulls last, c.valid_to desc, c.id limit 1
$$;

create function hall.kept_consent(fr hall.financing_request, p_at timestamptz, p_institution text) returns text
language plpgsql as $$
-- hall.request_consent for a look: locked until the look is over, and asked again behind the lock, as in hall.consent_for.
declare
    kept text := hall.request_consent(fr, p_at, p_institution);
begin
    while kept is not null loop
        perform 1 from hall.consent where id = kept for share;
        exit when kept = hall.request_consent(fr, p_at, p_institution);
        kept := hall.request_consent(fr, p_at, p_institution);
    end loop;
    return kept;
end $$;

create function hall.request_recipients(fr hall.financing_request, p_at timestamptz) returns text[] language sql stable as $$
    -- Whom the consents of a request name, together; null: there is no consent.
    select array_agg(distinct named.recipient) from hall.consent c cross join unnest(c.recipients) as named (recipient)
    where c.uscc = fr.uscc and cardinality(hall.broken_for_request(c, p_at)) = 0
$$;

create function hall.why_request_withheld(fr hall.financing_request) returns text language sql stable as $$
    select case when exists (select 1 from hall.consent_revocation where consent_id = fr.consent_id)
        then 'consent-revoked' else 'consent-missing' end
$$;

create function hall.log_access(
    p_actor jsonb, p_uscc text, p_what text, p_purpose text, p_consent text, p_withheld text default null,
    p_at timestamptz default hall.hall_now()
) returns void language sql volatile as $$
    -- p_at: the instant as of which it was decided what is shown.
    insert into hall.access_log (at, client_id, institution_id, uscc, what, purpose, consent_id, withheld)
        values (p_at, p_actor ->> 'client', p_actor ->> 'institution', p_uscc, p_what, p_purpose, p_consent, p_withheld)
$$;

create function hall.look_at_limits(p_actor jsonb, p_usccs text[], p_purpose text, p_scheme text default null)
returns setof jsonb language plpgsql security definer set search_path = hall, pg_temp as $$
-- One line an enterprise, in the order asked: its latest limit under the scheme, or why it is withheld. Where no scheme
-- is asked for, one in force goes before one that is over, and one that binds before one that does not. Each look is
-- logged, and made in the order of the enterprises, whose locks so are taken in one order by everybody.
declare
    bank text := p_actor ->> 'institution';
    lines jsonb[] := array_fill(null::jsonb, array[cardinality(p_usccs)]);
    about record;
    held record;
    consent text;
    holds boolean;
    shown jsonb;
begin
    if p_scheme is not null and not exists (select 1 from hall.scheme where name = p_scheme) then
        perform hall.refuse('validation', '{"errors": [{"pointer": "/scheme", "rule": "unknown-scheme"}]}');
    end if;
    for about in select uscc, no from unnest(p_usccs) with ordinality as asked (uscc, no) order by uscc, no loop
        select * into strict held from hall.held_request(p_actor, about.uscc);
        holds := (held.fr).id is not null;
        consent := hall.consent_for(about.uscc, bank, 'limit', p_purpose, holds, held.at);
        if consent is null then
            shown := jsonb_build_object('uscc', about.uscc, 'withheld',
                hall.why_withheld(about.uscc, bank, 'limit', p_purpose, holds));
        else
            select jsonb_build_object('quote_id', q.id, 'scheme', q.scheme, 'quote_binds', s.quote_binds,
                    'outcome', q.outcome, 'limit_fen', q.limit_fen, 'conditions', d.content -> 'answer' -> 'conditions', 'made_at', hall.iso(q.made_at),
                    'expires_at', hall.iso(q.expires_at), 'is_live', q.expires_at > hall.hall_now(),
                    'decision_id', d.id, 'model_version', d.model_version, 'policy_version', d.policy_version)
                into shown
                from hall.limit_quote q join hall.decision d on d.id = q.decision_id
                    join hall.scheme s on s.name = q.scheme
                where q.uscc = about.uscc and q.scheme = coalesce(p_scheme, q.scheme)
                order by q.expires_at > hall.hall_now() desc, s.quote_binds desc, q.made_at desc, q.id desc limit 1;
            shown := jsonb_build_object('uscc', about.uscc, 'consent_id', consent, 'limit', shown);
        end if;
        perform hall.log_access(p_actor, about.uscc, 'limit', p_purpose, consent, shown ->> 'withheld', held.at);
        lines[about.no] := shown;
    end loop;
    return query select unnest(lines);
end $$;

create function hall.consent_body(p_consent text) returns jsonb language sql stable as $$
    select jsonb_build_object('consent_id', c.id, 'uscc', c.uscc, 'signer', c.signer, 'method', c.method,
        'evidence_sha256', encode(c.evidence_sha256, 'hex'), 'purpose', c.purpose, 'data_sets', c.data_sets,
        'recipients', c.recipients, 'from', hall.iso(c.valid_from), 'to', hall.iso(c.valid_to), 'one_time', c.one_time,
        'receipt_sha256', encode(c.receipt_sha256, 'hex'), 'given_at', hall.iso(c.given_at),
        'revoked_at', hall.iso(r.revoked_at), 'acknowledge_by', hall.iso(r.acknowledge_by),
        'acknowledgements', coalesce((
            select jsonb_agg(jsonb_build_object('institution_id', n.institution_id, 'acknowledged_at',
                hall.iso(a.acknowledged_at)) order by n.institution_id)
            from hall.revocation_notice n left join hall.revocation_acknowledged a using (consent_id, institution_id)
            where n.consent_id = c.id), '[]'))
    from hall.consent c left join hall.consent_revocation r on r.consent_id = c.id
    where c.id = p_consent
$$;

create function hall.act_give_consent(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
declare
    consent text := hall.new_id('co');
    given hall.consent;
    wrong jsonb;
begin
    perform hall.begin_act(p_actor);
    if not hall.acts_for(p_actor, p_args ->> 'uscc') then perform hall.refuse('not-found'); end if;
    given := jsonb_populate_record(null::hall.consent, p_args - 'evidence_sha256' - 'receipt_sha256');
    given.given_at := hall.hall_now();
    select jsonb_agg(jsonb_build_object('pointer', fault.pointer, 'rule', fault.rule)) into wrong from (
        select '/recipients/' || (no - 1) as pointer, 'no institution has this id' as rule
            from unnest(given.recipients) with ordinality as named (id, no)
            where id <> 'claiming-institution' and not exists (select 1 from hall.institution i where i.id = named.id)
        union all
        select '/to', 'is over already' where given.valid_to <= given.given_at
    ) fault;
    if wrong is not null then perform hall.refuse('validation', jsonb_build_object('errors', wrong)); end if;
    insert into hall.consent (id, uscc, signer, method, evidence_sha256, purpose, data_sets, recipients, valid_from,
            valid_to, one_time, receipt_sha256, given_by, given_at)
        values (consent, given.uscc, given.signer, given.method, decode(p_args ->> 'evidence_sha256', 'hex'), given.purpose,
            given.data_sets, given.recipients, coalesce(given.valid_from, given.given_at), given.valid_to, given.one_time,
            decode(p_args ->> 'receipt_sha256', 'hex'), p_actor ->> 'client', given.given_at);
    return jsonb_build_object('status', 201, 'body', hall.consent_body(consent));
end $$;

create function hall.act_revoke_consent(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- From this transaction on nobody looks under the consent. Who could have looked is told, and must acknowledge. A request
-- that no other consent carries leaves the hall; a claim goes on, and its holder sees no more of the enterprise.
declare
    given hall.consent;
    at timestamptz;
    due timestamptz;
    told text;
    shown text;
    fr hall.financing_request;
begin
    perform hall.begin_act(p_actor);
    select * into given from hall.consent where id = p_args ->> 'consent_id' and uscc = p_args ->> 'uscc';
    if not found or not hall.acts_for(p_actor, given.uscc) then perform hall.refuse('not-found'); end if;
    -- Whoever is about to announce a round of a request of the enterprise holds its lock: after it, the round is seen here.
    for shown in select id from hall.financing_request where uscc = given.uscc and hall.seeks_a_bank(state) order by id loop
        perform hall.lock_live_round(shown);
        perform hall.locked_request(shown);
    end loop;
    -- And one of a request that was made since has kept the consent, or waits for it and sees that it is revoked.
    perform 1 from hall.consent where id = given.id for no key update;
    if exists (select 1 from hall.consent_revocation where consent_id = given.id) then
        return jsonb_build_object('status', 200, 'body', hall.consent_body(given.id));
    end if;
    at := hall.hall_now();
    due := at + make_interval(mins => hall.setting('consent_ack_minutes')::integer);
    insert into hall.consent_revocation (consent_id, revoked_by, revoked_at, acknowledge_by)
        values (given.id, p_actor ->> 'client', at, due);
    for told in
        select i.id from hall.institution i
        where i.id = any (given.recipients)
            or 'claiming-institution' = any (given.recipients) and (hall.holds_claim(jsonb_build_object('institution', i.id), given.uscc)
                or exists (select 1 from hall.access_log a where a.consent_id = given.id and a.institution_id = i.id))
        order by i.id
    loop
        insert into hall.revocation_notice (consent_id, institution_id) values (given.id, told);
        perform hall.emit('consent/' || given.id, 'fin.consent.revoked.v1',
            jsonb_build_object('consent_id', given.id, 'purpose', given.purpose, 'data_sets', given.data_sets,
                'revoked_at', hall.iso(at), 'acknowledge_by', hall.iso(due)),
            p_uscc => given.uscc, p_institution => told);
    end loop;
    insert into hall.awaited_acknowledgement (consent_id, due_at)
        select given.id, due where exists (select 1 from hall.revocation_notice where consent_id = given.id);
    for shown in select id from hall.financing_request where uscc = given.uscc and state = 'broadcast' order by id loop
        perform hall.lock_live_round(shown);
        fr := hall.locked_request(shown);
        if fr.state = 'broadcast' and hall.request_consent(fr, at) is null then
            perform hall.end_live_round(fr.id, at);
            perform hall.go_on_or_assist(fr, 'T10', 'T11', p_actor ->> 'client', at, jsonb_build_object('why', 'consent-revoked'));
        end if;
    end loop;
    return jsonb_build_object('status', 200, 'body', hall.consent_body(given.id));
end $$;

create function hall.unacknowledged(p_consent text) returns text[] language sql volatile as $$
    -- Institutions that were told of a revocation and have not acknowledged it.
    select coalesce(array_agg(n.institution_id order by n.institution_id), '{}')
    from hall.revocation_notice n left join hall.revocation_acknowledged a using (consent_id, institution_id)
    where n.consent_id = p_consent and a.consent_id is null
$$;

create function hall.act_acknowledge_revocation(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- The last acknowledgement ends the wait, and closes the case if it came too late.
begin
    perform hall.begin_act(p_actor);
    if not exists (select 1 from hall.revocation_notice
            where consent_id = p_args ->> 'consent_id' and institution_id = p_actor ->> 'institution') then
        perform hall.refuse('not-found');
    end if;
    -- Of two at once each would miss the other's, and nobody would be the last.
    perform 1 from hall.consent where id = p_args ->> 'consent_id' for no key update;
    insert into hall.revocation_acknowledged (consent_id, institution_id, acknowledged_by, acknowledged_at)
        values (p_args ->> 'consent_id', p_actor ->> 'institution', p_actor ->> 'client', hall.hall_now())
        on conflict (consent_id, institution_id) do nothing;
    if hall.unacknowledged(p_args ->> 'consent_id') = '{}' then
        delete from hall.awaited_acknowledgement where consent_id = p_args ->> 'consent_id';
        perform hall.close_case('revocation-unacknowledged', 'consent/' || (p_args ->> 'consent_id'),
            p_actor ->> 'client', 'acknowledged by all', hall.hall_now());
    end if;
    return jsonb_build_object('status', 200, 'body', (
        select jsonb_build_object('consent_id', consent_id, 'acknowledged_at', hall.iso(acknowledged_at))
        from hall.revocation_acknowledged
        where consent_id = p_args ->> 'consent_id' and institution_id = p_actor ->> 'institution'));
end $$;

-- The service brings rows of a batch itself, by COPY; everything else here it does through acts.
grant select on hall.fact_batch, hall.rulebook, hall.decision, hall.limit_quote, hall.consent, hall.consent_revocation,
    hall.revocation_notice, hall.revocation_acknowledged, hall.access_log to jifen_service;
grant insert (source_label, fingerprint, made_by, report) on hall.fact_batch to jifen_service;
revoke execute on function hall.show_batch(bigint), hall.look_at_limits(jsonb, text[], text, text) from public;
grant execute on function hall.show_batch(bigint), hall.look_at_limits(jsonb, text[], text, text) to jifen_service;
