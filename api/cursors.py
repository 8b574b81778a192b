"""Cursors of paged lists: opaque to the client, signed, bound to the client and the filter (G1)."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import orjson

from api.database import Pool
from api.problems import Problem

MOST = 200
MAC_BYTES = 16


class Cursors:
    """Makes and reads cursors.

    Args:
        secret: the key they are signed with; every process on a database has the same.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, client: str, listing: str, asked: Mapping[str, object], last: object) -> str:
        """The cursor behind `last`.

        Args:
            client: who may go on with it; empty for a public list.
            listing: the name of the list.
            asked: the filter.
            last: the place of the last row shown, as JSON.
        """
        place = orjson.dumps(last)
        return base64.urlsafe_b64encode(self._mac(client, listing, asked, place) + place).decode().rstrip("=")

    def read(self, client: str, listing: str, asked: Mapping[str, object], cursor: str | None) -> Any:  # noqa: ANN401
        """The place behind which to go on; None: at the beginning.

        Raises:
            Problem: bad-cursor: altered, or of another client, list or filter.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise Problem("bad-cursor") from None
        mac, place = raw[:MAC_BYTES], raw[MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(client, listing, asked, place)):
            raise Problem("bad-cursor")
        return orjson.loads(place)

    def _mac(self, client: str, listing: str, asked: Mapping[str, object], place: bytes) -> bytes:
        bound = orjson.dumps([client, listing, dict(asked)], option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._secret, sha256(bound).digest() + place, "sha256")[:MAC_BYTES]


async def cursors_of(pool: Pool) -> Cursors:
    """The cursors of a database."""
    return Cursors(await pool.fetchval("SELECT value FROM hall.secret WHERE name = 'cursors'"))
