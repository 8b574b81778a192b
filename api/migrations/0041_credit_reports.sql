-- Credit reports 信用报告: a limit quote frozen with all that it rests on, under a number that nobody can guess, so that whoever
-- is handed one can ask whether it stands.

create table hall.credit_report (
    id text primary key check (id ~ '^cr_[0-9a-f]{32}$'),
    quote_id text not null unique references hall.limit_quote,
    uscc hall.uscc not null references hall.enterprise,
    content jsonb not null,
    enterprise_part jsonb not null,
    sha256 bytea not null,
    issued_by text not null,
    issued_at timestamptz not null,
    valid_until timestamptz not null check (valid_until > issued_at),
    constraint hash_is_of_the_content check (sha256 = sha256(convert_to(hall.jcs(content), 'UTF8'))),
    constraint content_binds_the_enterprise_part check (content ->> 'enterprise_part_sha256'
        = encode(sha256(convert_to(hall.jcs(enterprise_part), 'UTF8')), 'hex'))
);
comment on column hall.credit_report.id is 'the number: 122 random bits and no time, unlike other ids, since it opens the public verification';
comment on column hall.credit_report.enterprise_part is 'what no bank is shown: the limit if what is missing turns out clean; salted, or its hash would be guessed';
call hall.append_only('hall.credit_report');

create table hall.credit_report_look (
    report_id text not null references hall.credit_report,
    n integer not null check (n > 0),
    access_id bigint not null unique references hall.access_log,
    primary key (report_id, n)
);
comment on table hall.credit_report_look is 'n is the view number in the watermark, by which a copy is traced to its look';
call hall.append_only('hall.credit_report_look');

create function hall.report_content(
    p_report text, q hall.limit_quote, p_args jsonb, p_own_sha256 text, p_at timestamptz
) returns jsonb language sql stable as $$
    -- p_args: the days that each feed had to cover, and the ruleset's version; both follow from the decision's day and policy.
    select jsonb_build_object('report_id', p_report, 'issued_at', hall.iso(p_at), 'valid_until', hall.iso(q.expires_at),
        'uscc', q.uscc, 'name', e.name, 'scheme', q.scheme, 'quote_binds', s.quote_binds, 'quote_id', q.id,
        'quoted_at', hall.iso(q.made_at), 'decision_id', d.id, 'as_of', d.as_of, 'outcome', q.outcome,
        'limit_fen', q.limit_fen, 'conditions', a -> 'conditions', 'rate_bp', a -> 'rate_bp', 'score', a -> 'score',
        'grade', a -> 'grade', 'innovation_points_hundredths', round((a ->> 'innovation_points')::numeric * 100)::bigint,
        'own_word_points_bp', d.content -> 'features' -> 'points_own_word_bp', 'binding', a -> 'binding',
        'reasons', (a ->> 'reasons')::jsonb, 'feeds', (
            select jsonb_agg(fed || jsonb_build_object('state', d.content -> 'features' -> ((fed ->> 'feed') || '_feed')) order by n)
            from jsonb_array_elements(p_args -> 'feeds') with ordinality as one (fed, n)),
        'model_version', d.model_version, 'policy_version', d.policy_version,
        'policy_sha256', encode(sha256(convert_to(b.policy, 'UTF8')), 'hex'), 'ruleset_version', p_args -> 'ruleset_version',
        'ruleset_sha256', encode(sha256(convert_to(b.ruleset, 'UTF8')), 'hex'), 'input_sha256', d.input_hash,
        'enterprise_part_sha256', p_own_sha256)
    from hall.decision d cross join lateral (select d.content -> 'answer' as a) as answer
        join hall.rulebook b on b.version = d.policy_version join hall.scheme s on s.name = q.scheme
        join hall.enterprise e on e.uscc = q.uscc
    where d.id = q.decision_id
$$;

create function hall.credit_report_state(r hall.credit_report) returns text language sql volatile as $$
    -- A later quote of the scheme takes the place of this one for good, whatever becomes of it.
    select case when hall.hall_now() >= r.valid_until then 'expired'
        when exists (select 1 from hall.limit_quote later where later.uscc = q.uscc and later.scheme = q.scheme
            and (later.made_at, later.id) > (q.made_at, q.id)) then 'superseded'
        else 'valid' end
    from hall.limit_quote q where q.id = r.quote_id
$$;

create function hall.credit_report_body(r hall.credit_report) returns jsonb language sql volatile as $$
    select jsonb_build_object('report_id', r.id, 'state', hall.credit_report_state(r), 'sha256', encode(r.sha256, 'hex'),
        'content', r.content)
$$;

create function hall.act_issue_credit_report(p_actor jsonb, p_args jsonb) returns jsonb language plpgsql as $$
-- One report a quote: asked for again it is the same. p_args: quote_id, feeds, ruleset_version.
declare
    q hall.limit_quote;
    made hall.credit_report;
begin
    perform hall.begin_act(p_actor);
    select * into q from hall.limit_quote where id = p_args ->> 'quote_id';
    if not found or not hall.acts_for(p_actor, q.uscc) then perform hall.refuse('not-found'); end if;
    perform 1 from hall.limit_quote where id = q.id for no key update;
    select * into made from hall.credit_report where quote_id = q.id;
    if found then
        return jsonb_build_object('status', 200, 'body',
            hall.credit_report_body(made) || jsonb_build_object('enterprise_part', made.enterprise_part));
    end if;
    made.issued_at := hall.hall_now();
    if made.issued_at >= q.expires_at then perform hall.refuse('quote-expired'); end if;
    made.id := 'cr_' || replace(gen_random_uuid()::text, '-', '');
    made.quote_id := q.id;
    made.uscc := q.uscc;
    made.enterprise_part := (
        select jsonb_build_object('conditional_limit_fen', d.content -> 'answer' -> 'conditional_limit_fen', 'missing_feeds',
            d.content -> 'answer' -> 'missing_feeds', 'salt', replace(gen_random_uuid()::text, '-', ''))
        from hall.decision d where d.id = q.decision_id);
    made.content := hall.report_content(made.id, q, p_args,
        encode(sha256(convert_to(hall.jcs(made.enterprise_part), 'UTF8')), 'hex'), made.issued_at);
    made.sha256 := sha256(convert_to(hall.jcs(made.content), 'UTF8'));
    made.issued_by := p_actor ->> 'client';
    made.valid_until := q.expires_at;
    insert into hall.credit_report select made.*;
    return jsonb_build_object('status', 201, 'body',
        hall.credit_report_body(made) || jsonb_build_object('enterprise_part', made.enterprise_part));
end $$;

create function hall.look_at_credit_report(p_actor jsonb, p_id text, p_purpose text) returns jsonb
language plpgsql security definer set search_path = hall, pg_temp as $$
-- The whole for the enterprise's side; the content for a bank under a consent to the data set report that names it, or that
-- names whoever holds a live claim. Every look of a bank is logged; one that is allowed has a number of its own. Null: there
-- is no such report for the caller. A holder without a consent is told why.
declare
    r hall.credit_report;
    bank text := p_actor ->> 'institution';
    holds boolean;
    held record;
    consent text;
    seen integer;
begin
    select * into r from hall.credit_report where id = p_id;
    if not found then return null; end if;
    if hall.acts_for(p_actor, r.uscc) then
        return hall.credit_report_body(r) || jsonb_build_object('enterprise_part', r.enterprise_part);
    end if;
    if bank is null then return null; end if;
    select * into strict held from hall.held_request(p_actor, r.uscc);
    holds := (held.fr).id is not null;
    consent := hall.consent_for(r.uscc, bank, 'report', p_purpose, holds, held.at);
    if consent is null then
        perform hall.log_access(p_actor, r.uscc, 'credit-report', p_purpose, null,
            hall.why_withheld(r.uscc, bank, 'report', p_purpose, holds), held.at);
        if not holds then return null; end if;
        return jsonb_build_object('withheld', hall.why_withheld(r.uscc, bank, 'report', p_purpose, holds));
    end if;
    perform 1 from hall.credit_report where id = r.id for no key update;  -- one look is counted at a time
    perform hall.log_access(p_actor, r.uscc, 'credit-report', p_purpose, consent, null, held.at);
    insert into hall.credit_report_look (report_id, n, access_id)
        select r.id, 1 + coalesce(max(n), 0), currval(pg_get_serial_sequence('hall.access_log', 'id'))
        from hall.credit_report_look where report_id = r.id
        returning n into seen;
    return hall.credit_report_body(r) || jsonb_build_object('watermark', jsonb_build_object(
        'institution_id', bank, 'consent_id', consent, 'at', hall.iso(held.at), 'view', seen));
end $$;

create function hall.verify_credit_report(p_id text, p_sha256 bytea) returns text language sql volatile as $$
    -- An unknown number, another's hash and a report that is over answer alike, so nobody learns which numbers exist.
    select coalesce((select replace(hall.credit_report_state(r), 'expired', 'invalid')
        from hall.credit_report r where r.id = p_id and r.sha256 = p_sha256), 'invalid')
$$;

revoke execute on function hall.look_at_credit_report(jsonb, text, text) from public;
grant execute on function hall.look_at_credit_report(jsonb, text, text) to jifen_service;
