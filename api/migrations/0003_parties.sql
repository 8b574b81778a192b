-- Who takes part: institutions with their outlets, officers and products; enterprises; and the programs that call us.

create table hall.institution (
    id text primary key,
    tenant text not null default 'default',
    name text not null,
    size_class text not null default 'other' check (size_class in ('state', 'joint-stock', 'city', 'rural', 'other')),
    is_suspended boolean not null default false,
    suspended_at timestamptz,
    hold_cap integer not null check (hold_cap >= 0),
    daily_claim_cap integer not null check (daily_claim_cap >= 0),
    created_at timestamptz not null default hall.hall_now(),
    unique (tenant, name)
);

create table hall.outlet (
    id text primary key,
    no integer generated always as identity unique,
    institution_id text not null references hall.institution,
    name text not null,
    district text not null,
    hold_cap integer not null check (hold_cap >= 0),
    is_closed boolean not null default false,
    closed_at timestamptz,
    closed_by text,
    closing_note text,
    created_at timestamptz not null default hall.hall_now(),
    unique (institution_id, id),
    unique (institution_id, name)
);
create index outlet_closed on hall.outlet (no) where is_closed;
comment on column hall.outlet.no is 'the small number that stands for the outlet in an audience';

create table hall.officer (
    id text primary key,
    outlet_id text not null references hall.outlet,
    name text not null,
    hold_cap integer not null check (hold_cap >= 0),
    is_gone boolean not null default false,
    gone_at timestamptz,
    gone_by text,
    going_note text,
    unique (outlet_id, id)
);

create table hall.product (
    id text not null,
    version integer not null check (version > 0),
    institution_id text not null references hall.institution,
    name text not null,
    category text not null,
    min_fen hall.fen not null,
    max_fen hall.fen not null check (max_fen >= min_fen),
    terms jsonb not null,
    proposed_by text not null,
    approved_by text,
    created_at timestamptz not null default hall.hall_now(),
    approved_at timestamptz,
    withdrawn_at timestamptz,
    primary key (id, version),
    constraint four_eyes check (approved_by is null or approved_by <> proposed_by)
);
comment on table hall.product is 'versions of products; a version is offered from its approval by a second pair of eyes until it is withdrawn';

-- Counters that a claiming transaction locks (C2: round, then quota, then exposure). One row an institution is the lock
-- for its outlets' and officers' rows too.
create table hall.quota (
    owner text primary key,
    institution_id text not null references hall.institution,
    held integer not null default 0 check (held >= 0),
    day date,
    claims_that_day integer not null default 0 check (claims_that_day >= 0)
);
comment on table hall.quota is 'owner is the id of an institution, outlet or officer; held counts claims held without contact (H1)';

create table hall.enterprise (
    uscc hall.uscc primary key,
    tenant text not null default 'default',
    name text not null,
    contact_name text,
    contact_phone text,
    industry_section text check (industry_section ~ '^[A-T]$'),
    district text,
    portal text,
    entered_by text,
    created_at timestamptz not null default hall.hall_now()
);
comment on column hall.enterprise.portal is 'the portal''s client that speaks for it; null: none has taken it up';
comment on column hall.enterprise.entered_by is 'the client that registered it first, which a clerk may be';

-- ------------------------------------------------------------------------------------------------------------ clients

create table hall.client (
    id text primary key,
    tenant text not null default 'default',
    name text not null,
    role text not null check (role in ('enterprise', 'portal', 'clerk', 'bank', 'institution-manager', 'case-manager',
        'scoring', 'operator', 'admin', 'auditor')),
    scopes text[] not null,
    institution_id text references hall.institution,
    outlet_id text references hall.outlet,
    uscc hall.uscc references hall.enterprise,
    created_at timestamptz not null default hall.hall_now(),
    revoked_at timestamptz,
    constraint bank_has_institution check ((role in ('bank', 'institution-manager')) = (institution_id is not null)),
    constraint enterprise_has_code check ((role = 'enterprise') = (uscc is not null)),
    foreign key (institution_id, outlet_id) references hall.outlet (institution_id, id)
);

create table hall.client_key (
    client_id text not null references hall.client,
    kid text not null,
    jwk jsonb not null,
    added_at timestamptz not null default hall.hall_now(),
    revoked_at timestamptz,
    primary key (client_id, kid)
);

create table hall.assertion_seen (
    client_id text not null references hall.client,
    jti text not null,
    expires_at timestamptz not null,
    primary key (client_id, jti)
);

create table hall.access_token (
    token_sha256 bytea primary key check (length(token_sha256) = 32),
    client_id text not null,
    kid text not null,
    scopes text[] not null,
    issued_at timestamptz not null default hall.hall_now(),
    expires_at timestamptz not null,
    foreign key (client_id, kid) references hall.client_key
);
comment on table hall.access_token is 'a token is 256 random bits; only its hash is kept, so that no process needs a signing key and revoking is an update';
