-- Who tried for a round, so that it can be asked whether all had the same chance (F2): the winner and the losers, by outlet.

create table hall.grab_attempt (
    fr_id text not null,
    round integer not null,
    outlet_id text not null,
    means text not null check (means in ('stream', 'poll', 'snapshot', 'none')),
    at timestamptz not null,
    primary key (fr_id, round, outlet_id)
);
comment on table hall.grab_attempt is 'the first attempt of an outlet that could have won a round that was won, after its gate; without foreign keys, since the losers of a race would all lock the round''s row for one';
comment on column hall.grab_attempt.means is 'the quickest by which the client that tried was handed events since the card was out, as far as its places were kept; none: it had the card from elsewhere';
call hall.append_only('hall.grab_attempt');

create function hall.note_attempt(p_actor jsonb, p_round hall.round, p_outlet text, p_at timestamptz) returns void
language plpgsql as $$
-- A row an outlet and no lock that another's attempt waits for: the race is the hot path. Further tries add nothing.
begin
    insert into hall.grab_attempt (fr_id, round, outlet_id, means, at)
        values (p_round.fr_id, p_round.n, p_outlet, coalesce((
            select p.means from hall.read_position p
            where p.client_id = p_actor ->> 'client' and p.outlet_id in ('', p_outlet) and p.at >= p_round.published_at
            order by array_position(array['stream', 'poll', 'snapshot'], p.means) limit 1), 'none'), p_at)
        on conflict do nothing;
end $$;

create function hall.could_have_won(p_actor jsonb, p_args jsonb, p_round hall.round, p_at timestamptz) returns boolean
language plpgsql stable as $$
-- Whether a loser had the card, a product in force that could serve it, an officer and room under its caps, as far as reading without a lock
-- tells: who would have been refused for himself has not tried.
declare inst text := p_actor ->> 'institution';
begin
    return (p_args ->> 'card_version')::integer is not distinct from p_round.card_version
        and exists (select 1 from hall.product p where id = p_args ->> 'product_id' and institution_id = inst
            and version = (p_args ->> 'product_version')::integer and approved_at is not null and withdrawn_at is null
            and hall.wrong_product(p, p_round.card) = '[]')
        and (exists (select 1 from hall.officer
                where id = p_args ->> 'officer_id' and outlet_id = p_args ->> 'outlet_id' and not is_gone)
            or p_args ->> 'officer_id' is null and not exists (
                select 1 from hall.officer where outlet_id = p_args ->> 'outlet_id' and not is_gone))
        and not exists (select 1 from hall.quota q
            left join hall.institution i on i.id = q.owner left join hall.outlet o on o.id = q.owner
            left join hall.officer f on f.id = q.owner
            where q.owner in (inst, p_args ->> 'outlet_id', p_args ->> 'officer_id')
                and (q.held >= coalesce(i.hold_cap, o.hold_cap, f.hold_cap)
                    or q.day = (p_at at time zone 'Asia/Shanghai')::date and q.claims_that_day >= i.daily_claim_cap));
end $$;

create function hall.attempts_between(p_from timestamptz, p_to timestamptz)
returns table (fr_id text, round integer, institution_id text, size_class text, means text, won boolean)
language sql stable as $$
    -- One row an institution and round of one slot that it tried for, of rounds whose gate opened in between and whose winner
    -- is among them. Of several outlets the one that won counts, else the first.
    select distinct on (r.fr_id, r.n, o.institution_id)
        r.fr_id, r.n, o.institution_id, i.size_class, a.means, c.id is not null
    from hall.round r join hall.grab_attempt a on a.fr_id = r.fr_id and a.round = r.n
        join hall.outlet o on o.id = a.outlet_id join hall.institution i on i.id = o.institution_id
        left join hall.claim c on c.fr_id = a.fr_id and c.round = a.round and c.outlet_id = a.outlet_id
    where r.opens_at >= p_from and r.opens_at < p_to and r.slots = 1 and exists (select 1 from hall.grab_attempt w
        join hall.claim k on k.fr_id = w.fr_id and k.round = w.round and k.outlet_id = w.outlet_id
        where w.fr_id = r.fr_id and w.round = r.n)
    order by r.fr_id, r.n, o.institution_id, c.id is null, a.at, a.outlet_id
$$;
