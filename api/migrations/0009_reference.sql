-- What a request may name: the scheme it comes under, the channel that brought it, its purpose; and the bands in which a
-- card shows its amount. All are data of the code (hall_policy.yaml) and are brought in line by `jifen migrate`.

create table hall.scheme (
    name text primary key check (name ~ '^[a-z-]+$'),
    policy text not null,
    binds boolean not null,
    title_zh text not null,
    title_en text not null
);
comment on column hall.scheme.policy is 'name of the credit policy that the engine decides by';
comment on column hall.scheme.binds is 'whether amounts keep to the quote; amounts that need not stand in their own columns (L8)';

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

-- The service reads these and the other looked-up tables; only their owner changes them.
revoke all on hall.scheme, hall.channel, hall.purpose, hall.amount_band, hall.setting, hall.edge, hall.working_day,
    hall.calendar_year, hall.problem_type from jifen_service;
grant select on hall.scheme, hall.channel, hall.purpose, hall.amount_band, hall.setting, hall.edge, hall.working_day,
    hall.calendar_year, hall.problem_type to jifen_service;
grant execute on function hall.amount_band_of(bigint) to jifen_service;
