"""Scopes: what a token may do, and which of them a role may have (hall.md §10)."""

from collections.abc import Mapping

from fastapi.openapi.models import OAuthFlowClientCredentials, OAuthFlows
from fastapi.security import OAuth2

SCOPES: Mapping[str, str] = {
    "admin:write": "institutions, outlets, officers, orders",
    "admin:read": "orders that wait for a second administrator",
    "appeal:write": "appeal against decisions about an enterprise",
    "audit:read": "nothing yet; kept for the proofs of what was booked",
    "case:write": "assigned cases and assisted requests",
    "claim:write": "grab, contact, release, decline",
    "consent:write": "give and revoke consents",
    "events:read": "stream and poll",
    "facts:write": "deliver an enterprise's facts",
    "fr:intake": "enter requests for an enterprise",
    "fr:write": "an enterprise's own requests",
    "hall:read": "cards of the audience",
    "inst:read": "one's own institution",
    "inst:write": "close outlets and end officers of one's own institution",
    "limit:read": "limits under a consent",
    "offer:accept": "accept an offer",
    "offer:write": "make an offer",
    "ops:read": "metadata of the service",
    "product:write": "propose, approve and withdraw products",
    "quote:write": "ask for a limit quote",
    "rating:write": "rate how a bank treated an enterprise",
    "report:write": "report signing, drawdowns, repayments, status",
    "stats:read": "aggregates",
}

_ENTERPRISE = (
    "fr:write", "consent:write", "offer:accept", "facts:write", "quote:write", "events:read", "hall:read",
    "appeal:write", "rating:write",
)  # fmt: skip
ROLES: Mapping[str, tuple[str, ...]] = {
    "enterprise": _ENTERPRISE,
    "portal": _ENTERPRISE,
    "clerk": ("fr:intake", "facts:write"),
    "bank": ("hall:read", "claim:write", "offer:write", "report:write", "events:read", "limit:read", "inst:read"),
    "institution-manager": ("inst:read", "inst:write", "product:write", "events:read", "hall:read"),
    "case-manager": ("case:write",),
    "scoring": ("quote:write", "facts:write"),
    "operator": ("ops:read", "stats:read"),
    "admin": ("admin:write", "admin:read"),
    "auditor": ("audit:read", "stats:read"),
}
"""What a client of the role may be given; a client added without a list is given all of it."""

OAUTH = OAuth2(
    flows=OAuthFlows(clientCredentials=OAuthFlowClientCredentials(tokenUrl="/oauth/token", scopes=dict(SCOPES))),
    scheme_name="clientCredentials",
    description="OAuth 2.0 client credentials, the client proved by private_key_jwt (RFC 7523)",
    auto_error=False,
)
