# SPDX-License-Identifier: Apache-2.0
"""Which version of the API a path names, and whether it is served.

Answers always carry the newest version that is switched on, not the one asked for.
"""

from __future__ import annotations

import re

from quarterdeck.core.errors import Invalid

#: The newest version that this dialect knows.
LATEST = 1
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


class UnsupportedVersion(Invalid):
    """No version, or one that is not served."""


class TooOldVersion(UnsupportedVersion):
    """The operation, or one of its parameters, came with a later version than the one asked for."""


def check(text: str, path: str, newest: int) -> int:
    """The version as a number. Raises UnsupportedVersion, which quotes the request's path."""
    if not _NUMBER.fullmatch(text) or int(text) > newest:
        raise UnsupportedVersion(
            f'Unsupported API Version "{text}". API Request: {path}. Reason: Current version: {newest}'
        )
    return int(text)


def require(version: int, since: int, path: str) -> None:
    """Raises TooOldVersion when something came later than with this version."""
    if version < since:
        raise TooOldVersion(
            f'Unsupported API Version "{version}". API Request: {path}. Reason: Minimum supported version: {since}'
        )
