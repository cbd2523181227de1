# SPDX-License-Identifier: Apache-2.0
"""Times as this API writes and reads them: UTC without a fraction, or milliseconds since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from quarterdeck.core.errors import Invalid

_W3C = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_MILLISECONDS = re.compile(r"0*[1-9][0-9]{0,14}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def written(when: datetime) -> str:
    """yyyy-MM-ddTHH:mm:ssZ."""
    return f"{when.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat()}Z"


def milliseconds(when: datetime) -> int:
    """Milliseconds since 1970."""
    return (when - _EPOCH) // timedelta(milliseconds=1)


def read(text: str) -> datetime:
    """The time that a text means. Raises Invalid."""
    try:
        if _MILLISECONDS.fullmatch(text):
            return _EPOCH + timedelta(milliseconds=int(text))
        if _W3C.fullmatch(text):
            return datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        pass
    raise Invalid(f"'{text}' is no time")
