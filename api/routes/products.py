"""Products: the public catalogue, and how an institution proposes, approves and withdraws versions."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field, model_validator

from api import parties
from api.calls import Caller, act, allowed, answer, found
from api.limits import CALLS
from api.paging import Page, begun_after, page_of
from api.problems import problems
from api.shapes import BasisPoints, Closed, Count, Day, District, Fen, Id, Name, Note

router = APIRouter(prefix="/v1", tags=["products"])

Category = Literal[
    "credit", "mortgage", "guarantee", "pledge", "supply-chain", "first-loan", "innovation-points", "other"
]
Months = Annotated[int, Field(strict=True, ge=1, le=360)]
Hours = Annotated[int, Field(strict=True, ge=0, le=10_000, description="working hours")]
VersionNumber = Annotated[int, Path(ge=1, le=999_999)]


class Eligibility(Closed):
    """Whom the product is for; what is absent is not asked."""

    firm_age_months_least: Count | None = None
    districts: Annotated[tuple[District, ...], Field(max_length=3000)] = ()
    industry_sections_excluded: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-T]$", description="section, GB/T 4754")], ...], Field(max_length=20)
    ] = ()
    tax_grades: Annotated[tuple[Literal["A", "B", "M", "C", "D"], ...], Field(max_length=5)] = ()
    tax_12m_fen_least: Fen | None = None
    invoice_sales_12m_fen_least: Fen | None = None
    owner_age_years_least: Annotated[int, Field(strict=True, ge=18, le=99)] | None = None
    owner_age_years_most: Annotated[int, Field(strict=True, ge=18, le=99)] | None = None
    owner_share_bp_least: BasisPoints | None = None
    note: Note | None = None


class Rate(Closed):
    """The yearly rate, from and up to, in basis points; with LPR the spread is in it. An offer's rate lies within.

    `by_grade_bp` tells it by the institution's own grades. The hall does not know them: they bind no offer.
    """

    basis: Literal["LPR1Y", "LPR5Y", "fixed"]
    from_bp: BasisPoints
    to_bp: BasisPoints
    by_grade_bp: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9+-]{1,8}$")], BasisPoints] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.to_bp < self.from_bp:
            raise ValueError("to_bp is below from_bp")
        if not all(self.from_bp <= rate <= self.to_bp for rate in self.by_grade_bp.values()):
            raise ValueError("by_grade_bp is not within from_bp and to_bp")
        return self


class Terms(Closed):
    """What the product pages of the platforms tell of a product, the union of them."""

    target_customers: Note
    eligibility: Eligibility = Eligibility()
    rate: Rate
    line_months: Months
    draw_months: Months
    repayments: Annotated[
        list[Literal["interest-monthly-principal-at-end", "equal-instalments", "equal-principal", "bullet"]],
        Field(min_length=1, max_length=4),
    ]
    is_revolving: Annotated[bool, Field(strict=True, description="随借随还")]
    prepayment_fee_bp: BasisPoints | None = None
    security: Note | None = None
    channel: Literal["online", "branch", "both"]
    approval_hours: Hours | None = None
    payout_hours: Hours | None = None
    documents: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    risk_share_scheme: Note | None = None
    subsidy: Note | None = None
    valid_from: Day | None = None
    valid_to: Day | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.draw_months > self.line_months:
            raise ValueError("draw_months is above line_months")
        if self.valid_from and self.valid_to and self.valid_to < self.valid_from:
            raise ValueError("valid_to is before valid_from")
        return self


class NewProduct(Closed):
    """A product, or with `product_id` the next version of one; it is offered once a second client approves it."""

    product_id: Id | None = None
    name: Name
    category: Category
    min_fen: Fen
    max_fen: Annotated[Fen, Field(gt=0)]
    terms: Terms

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_fen < self.min_fen:
            raise ValueError("max_fen is below min_fen")
        return self


class Product(BaseModel):
    """One version of a product."""

    id: str
    version: int
    institution_id: str
    institution: str | None = None
    name: str
    category: str
    min_fen: int
    max_fen: int
    terms: Terms
    status: Literal["proposed", "offered", "withdrawn"]
    created_at: str
    approved_at: str | None
    withdrawn_at: str | None


class Products(BaseModel):
    """A page of products."""

    items: list[Product]
    as_of: str


class Wanted(Page):
    """Which products."""

    category: Category | None = None
    institution_id: Id | None = None


Manager = Annotated[Caller, Depends(allowed("product:write"))]


@router.post(
    "/products",
    status_code=201,
    summary="Propose a product or its next version",
    response_model=Product,
    responses=problems("not-found"),
)
async def propose_product(body: NewProduct, request: Request, caller: Manager) -> Response:
    """Propose; nobody can be offered it before a second client of the institution approves."""
    return await act(request, caller, "propose_product", body.model_dump(mode="json"))


@router.post(
    "/products/{product_id}/versions/{version}/approve",
    summary="Approve a version",
    response_model=Product,
    responses=problems("not-found", "four-eyes-required", "illegal-transition"),
)
async def approve_product(product_id: Id, version: VersionNumber, request: Request, caller: Manager) -> Response:
    """Approve with a second pair of eyes; the version before is withdrawn."""
    return await act(request, caller, "approve_product", {"product_id": product_id, "version": version})


@router.post(
    "/products/{product_id}/versions/{version}/withdraw",
    summary="Withdraw a version",
    response_model=Product,
    responses=problems("not-found"),
)
async def withdraw_product(product_id: Id, version: VersionNumber, request: Request, caller: Manager) -> Response:
    """Withdraw: no new claim is made under it, claims made go on."""
    return await act(request, caller, "withdraw_product", {"product_id": product_id, "version": version})


@router.get(
    "/products",
    summary="The catalogue",
    response_model=Products,
    responses=problems("bad-cursor", "rate-limited"),
)
async def list_products(request: Request, page: Annotated[Wanted, Query()]) -> Response:
    """Products offered now, for everybody."""
    _count(request)
    after = begun_after(request, page, "")
    async with request.app.state.service.pool.acquire() as connection:
        rows = await parties.products_offered(connection, page.category, page.institution_id, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    return page_of(request, page, [row["product"] for row in rows], client="", last="id", as_of=as_of)


@router.get(
    "/products/{product_id}",
    summary="One product",
    response_model=Product,
    responses=problems("not-found", "rate-limited"),
)
async def read_product(
    product_id: Id, request: Request, version: Annotated[int | None, Query(ge=1, le=999_999)] = None
) -> Response:
    """A version that is or was offered; without one the latest."""
    _count(request)
    async with request.app.state.service.pool.acquire() as connection:
        return answer(found(await parties.product(connection, product_id, version)))


@router.get(
    "/institutions/{institution_id}/products",
    summary="An institution's own products",
    response_model=Products,
    responses=problems("not-found", "bad-cursor"),
)
async def list_own_products(
    institution_id: Id,
    request: Request,
    caller: Annotated[Caller, Depends(allowed("inst:read"))],
    page: Annotated[Page, Query()],
) -> Response:
    """Every version, proposals too, for the institution itself."""
    if caller.institution_id != institution_id:
        found(None)
    after = begun_after(request, page, caller.client_id)
    async with request.app.state.service.pool.acquire() as connection:
        rows = await parties.products_of_institution(connection, institution_id, after, page.limit + 1)
        as_of = await parties.hall_time(connection)
    return page_of(
        request,
        page,
        [row["product"] | {"place": row["place"]} for row in rows],
        client=caller.client_id,
        last="place",
        as_of=as_of,
    )


def _count(request: Request) -> None:
    """Everybody may look, an address at the pace of a client."""
    request.app.state.service.limits.count(request, CALLS, request.client.host if request.client else "")
