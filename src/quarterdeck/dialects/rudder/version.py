# SPDX-License-Identifier: Apache-2.0
"""Which version of the API a request speaks: in the URL, in the `X-API-Version` header, or the newest.

Versions 2 to 18 are served, because scripts written for an older one must keep working; the peer has
dropped 2 to 13. An unversioned path without a header means the newest; the peer answers an error.
"""

from __future__ import annotations

import re

from quarterdeck.core.errors import Invalid, NotFound

LATEST = 18
VERSIONS = tuple(range(2, LATEST + 1))
HEADER = "x-api-version"
_NUMERIC = re.compile(r"[0-9]+(\.[0-9]+)*")


class UnknownVersion(NotFound):
    """A version in the URL that is none."""


def settle(segments: tuple[str, ...], header: str | None) -> tuple[int, tuple[str, ...], int | None]:
    """The version, the path without it, and what the header asks for if that is another version.

    Raises UnknownVersion for a wrong one in the URL, Invalid for a wrong one in the header.
    """
    first = segments[0]
    wanted = _of_header(header) if header is not None else None
    if first == "latest":
        version = LATEST
    elif _NUMERIC.fullmatch(first):
        version = _of_url(first)
    else:
        return wanted or LATEST, segments, None
    return version, segments[1:], wanted if wanted != version else None


def _of_url(text: str) -> int:
    if text.isdecimal() and int(text) in VERSIONS:
        return int(text)
    raise UnknownVersion(f"There is no version '{text}' of this API. Available versions: {_listed()}")


def _of_header(text: str) -> int:
    if text.strip().lower() == "latest":
        return LATEST
    if text.strip().isdecimal() and int(text) in VERSIONS:
        return int(text)
    raise Invalid(
        f"Bad request: Version '{text}' in the X-API-Version header does not exist. Available versions: {_listed()}"
    )


def _listed() -> str:
    return ", ".join(f"'{version}'" for version in VERSIONS)


def status(version: int) -> str:
    """`maintained` for the newest version, `deprecated` for the others."""
    return "maintained" if version == LATEST else "deprecated"
