"""Ratings 评价 as they are read: whole by who gave them, and by everybody else in sums that betray nobody."""

from typing import Annotated

import asyncpg
from pydantic import BaseModel, Field

from api.calls import Caller
from api.database import Connection


class Rating(BaseModel):
    """How a bank treated the enterprise under one claim."""

    rating_id: str
    claim_id: str
    uscc: str
    institution_id: str
    outlet_id: str
    stars: int
    reasons: list[str]
    rated_at: str


class Ratings(BaseModel):
    """A page of ratings, in the order in which they were given."""

    items: list[Rating]
    as_of: str


class Totals(BaseModel):
    """A sum of ratings, each of several enterprises; `reasons` counts how often each was given."""

    ratings: int
    stars_hundredths: Annotated[int, Field(description="the average, in hundredths of a star, rounded down")]
    reasons: dict[str, int]


class InstitutionTotals(Totals):
    """What all ratings of an institution come to, as far as they can be shown."""

    institution_id: str
    institution: str


class LeagueTable(BaseModel):
    """A page of institutions that have enough ratings, by id."""

    items: list[InstitutionTotals]
    as_of: str


class OutletTotals(Totals):
    """One outlet's month that is over; without an outlet: months of several outlets that are too small alone."""

    place: str
    outlet_id: str | None
    month: Annotated[str, Field(description="YYYY-MM in China; without an outlet the last of several")]


class OutletsTotals(BaseModel):
    """A page of the institution's outlets by month."""

    items: list[OutletTotals]
    as_of: str


async def ratings_given(connection: Connection, caller: Caller, after: str, most: int) -> list[asyncpg.Record]:
    """The ratings that the caller's enterprises gave."""
    return await connection.fetch(
        """
        SELECT hall.rating_row(r) AS found FROM hall.rating AS r
        WHERE r.uscc IN (SELECT hall.spoken_for($1)) AND r.id > $2
        ORDER BY r.id
        LIMIT $3
        """,
        caller.actor(),
        after,
        most,
    )


async def league_table(
    connection: Connection, institution_id: str | None, after: str, most: int
) -> list[asyncpg.Record]:
    """Institutions with their totals, by id; None: all that have any to show."""
    return await connection.fetch(
        """
        SELECT jsonb_build_object('institution_id', i.id, 'institution', i.name)
            || hall.rating_totals(shown.members) AS found
        FROM hall.institution AS i, LATERAL (
            SELECT array_agg(one) AS members FROM hall.rating_groups(i.id) AS g, unnest(g.members) AS one) AS shown
        WHERE ($1::text IS NULL OR i.id = $1) AND i.id > $2 AND shown.members IS NOT NULL
        ORDER BY i.id
        LIMIT $3
        """,
        institution_id,
        after,
        most,
    )


async def outlets_totals(connection: Connection, caller: Caller, after: str, most: int) -> list[asyncpg.Record]:
    """The totals of the caller's institution by month and outlet, or of the one outlet that it is bound to."""
    return await connection.fetch(
        """
        SELECT jsonb_build_object('place', g.place, 'outlet_id', g.outlet_id, 'month', to_char(g.month, 'YYYY-MM'))
            || hall.rating_totals(g.members) AS found
        FROM (SELECT *, to_char(month, 'YYYY-MM') || '/' || coalesce(outlet_id, '') AS place
            FROM hall.rating_groups($1)) AS g
        WHERE ($2::text IS NULL OR g.outlet_id = $2) AND g.place > $3
        ORDER BY g.place
        LIMIT $4
        """,
        caller.institution_id,
        caller.outlet_id,
        after,
        most,
    )
