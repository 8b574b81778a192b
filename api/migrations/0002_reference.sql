-- What the hall looks up: its settings, the edges of its state machines, the calendar of working days, its problem types.
-- All four are data of the code (YAML files beside it, the official calendar) and are brought in line by `jifen migrate`.

create table hall.setting (
    name text primary key check (name ~ '^[a-z_]+$'),
    value bigint not null,
    unit text not null,
    origin text not null default 'shipped' check (origin in ('shipped', 'operator'))
);
comment on table hall.setting is 'hall_policy.yaml, one row a number; durations in working minutes, minutes or milliseconds as the unit says';
comment on column hall.setting.origin is 'who says so: an operator''s own value stays until a file of his says otherwise';

create function hall.setting(p_name text) returns bigint language plpgsql stable as $$
declare found_value bigint;
begin
    select value into found_value from hall.setting where name = p_name;
    if found_value is null then raise exception 'no setting named %', p_name; end if;
    return found_value;
end $$;

create table hall.edge (
    machine text not null check (machine in ('request', 'claim', 'facility')),
    number text not null,
    from_state text not null,
    to_state text not null,
    primary key (machine, number, from_state, to_state)
);
comment on table hall.edge is 'machines.yaml: only these transitions exist (S1); the state before creation is written as -';

create table hall.working_day (
    day date primary key,
    works boolean not null
);
create table hall.calendar_year (
    year integer primary key
);
comment on table hall.calendar_year is 'years whose official calendar is known; in another year weekdays work and a deadline is provisional (S6)';

create table hall.problem_type (
    code text primary key check (code ~ '^[a-z-]+$'),
    status integer not null check (status between 400 and 599),
    title_zh text not null,
    title_en text not null
);

-- What a request may name: the scheme it comes under, the channel that brought it, its purpose; and the bands in which a
-- card shows its amount. All are data of the code (hall_policy.yaml) and are brought in line by `jifen migrate`.

create table hall.scheme (
    name text primary key check (name ~ '^[a-z-]+$'),
    policy text not null,
    quote_binds boolean not null,
    title_zh text not null,
    title_en text not null
);
comment on column hall.scheme.policy is 'name of the credit policy that the engine decides by';
comment on column hall.scheme.quote_binds is 'whether amounts keep to the quote; amounts that need not stand in their own columns (L8)';

create table hall.channel (
    name text primary key check (name ~ '^[a-z-]+$'),
    title_zh text not null,
    title_en text not null
);

create table hall.purpose (
    name text primary key check (name ~ '^[a-z-]+$'),
    title_zh text not null,
    title_en text not null
);

create table hall.amount_band (
    code text primary key check (code ~ '^[0-9]{4,}-([0-9]{4,}|up)$'),
    from_fen hall.fen not null unique deferrable initially deferred,
    title_zh text not null,
    title_en text not null
);
comment on column hall.amount_band.code is 'from and up to (not including) in units of 10,000 CNY, such as 0050-0100';

create function hall.amount_band_of(p_fen bigint) returns text language sql stable as $$
    select code from hall.amount_band where from_fen <= p_fen order by from_fen desc limit 1
$$;

-- ------------------------------------------------------------------------------------------------------- identifiers

create function hall.uuid7() returns uuid language sql volatile as $$
    -- RFC 9562: 48 bits of milliseconds, then random bits; the function of the same name in PostgreSQL 18 is not in 15.
    select encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                placing substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                from 1 for 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;

create function hall.new_id(p_prefix text) returns text language sql volatile as $$
    select p_prefix || '_' || replace(hall.uuid7()::text, '-', '')
$$;

create function hall.jcs(p_value jsonb) returns text language plpgsql immutable strict as $$
-- Canonical JSON (RFC 8785) of what the hall hashes: members have ASCII names, numbers are whole and below 2^53, so the
-- order of bytes is the order of UTF-16 and a number is its digits.
begin
    return case jsonb_typeof(p_value)
        when 'object' then '{' || coalesce((select string_agg(to_json(m.key)::text || ':' || hall.jcs(m.value), ','
            order by m.key collate "C") from jsonb_each(p_value) as m), '') || '}'
        when 'array' then '[' || coalesce((select string_agg(hall.jcs(i.value), ',' order by i.n)
            from jsonb_array_elements(p_value) with ordinality as i (value, n)), '') || ']'
        when 'string' then to_json(p_value #>> '{}')::text
        else p_value::text end;
end $$;

-- ------------------------------------------------------------------------------------------------------ working time

create function hall.works(p_day date) returns boolean language sql stable as $$
    select coalesce((select works from hall.working_day where day = p_day), extract(isodow from p_day) < 6)
$$;

create function hall.calendar_knows(p_until timestamptz) returns boolean language sql stable as $$
    select exists (
        select 1 from hall.calendar_year where year = extract(year from p_until at time zone 'Asia/Shanghai')::integer)
$$;

create function hall.next_working_time(p_at timestamptz) returns timestamptz language plpgsql stable as $$
-- The instant itself where people work then, else the next opening of the working day (Beijing time).
declare
    clock timestamp := p_at at time zone 'Asia/Shanghai';
    day date := clock::date;
    opening interval := make_interval(mins => hall.setting('working_day_opens')::integer);
    closing interval := make_interval(mins => hall.setting('working_day_closes')::integer);
begin
    if hall.works(day) and clock < day + closing then
        return greatest(clock, day + opening) at time zone 'Asia/Shanghai';
    end if;
    loop
        day := day + 1;
        exit when hall.works(day);
    end loop;
    return (day + opening) at time zone 'Asia/Shanghai';
end $$;

create function hall.add_working_minutes(p_at timestamptz, p_minutes bigint) returns timestamptz
language plpgsql stable strict as $$
declare
    at_work timestamptz := hall.next_working_time(p_at);
    closes timestamptz;
    remaining interval := make_interval(mins => p_minutes::integer);
    closing interval := make_interval(mins => hall.setting('working_day_closes')::integer);
begin
    loop
        closes := ((at_work at time zone 'Asia/Shanghai')::date + closing) at time zone 'Asia/Shanghai';
        if at_work + remaining <= closes then return at_work + remaining; end if;
        remaining := remaining - (closes - at_work);
        at_work := hall.next_working_time(closes);
    end loop;
end $$;

create function hall.working_minutes_between(p_from timestamptz, p_until timestamptz) returns bigint
language plpgsql stable strict as $$
-- How many working minutes lie between two instants, a begun one counted whole; 0 where the second is not later.
declare
    at_work timestamptz := hall.next_working_time(p_from);
    closing interval := make_interval(mins => hall.setting('working_day_closes')::integer);
    closes timestamptz;
    worked interval := '0';
begin
    while at_work < p_until loop
        closes := ((at_work at time zone 'Asia/Shanghai')::date + closing) at time zone 'Asia/Shanghai';
        worked := worked + (least(closes, p_until) - at_work);
        at_work := hall.next_working_time(closes);
    end loop;
    return ceil(extract(epoch from worked) / 60)::bigint;
end $$;

-- ----------------------------------------------------------------------------------------------------------- refusals

create function hall.refuse(p_code text, p_members jsonb default '{}') returns void language plpgsql as $$
-- Ends the transaction: the caller reads the problem's code from the message and its members from the detail.
begin
    raise exception using errcode = 'JF001', message = p_code, detail = p_members::text;
end $$;

-- The service reads these and the other looked-up tables; only their owner changes them.
revoke all on hall.scheme, hall.channel, hall.purpose, hall.amount_band, hall.setting, hall.edge, hall.working_day,
    hall.calendar_year, hall.problem_type from jifen_service;
grant select on hall.scheme, hall.channel, hall.purpose, hall.amount_band, hall.setting, hall.edge, hall.working_day,
    hall.calendar_year, hall.problem_type to jifen_service;
grant execute on function hall.amount_band_of(bigint) to jifen_service;
