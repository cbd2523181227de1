# SPDX-License-Identifier: Apache-2.0
"""Where the relay API stands: below its prefix with the version 1, or without any, which means the same; and beside it
what peers' web servers give themselves.

Paths are cut before they are decoded, so that a slash that was encoded stays part of its segment.
"""

from __future__ import annotations

from urllib.parse import unquote, unquote_to_bytes

from quarterdeck.core.errors import Invalid

PREFIX = "/rudder/relay-api"
METRICS = "/metrics"
UUID = "/uuid"
POLICIES = "/policies"
COMMON = "/common"
VERSION = "1"
#: Where the dialect is to be mounted, with all that is below; and where as a single path.
MOUNTS = (PREFIX, POLICIES, COMMON)
ROUTES = (METRICS, UUID)


def segments(target: str) -> tuple[str, ...] | None:
    """The segments of a request's path as sent, without prefix and version; None for a path elsewhere."""
    path = target.partition("?")[0]
    if is_beside(target):
        return tuple(path[1:].split("/"))
    if not path.startswith(f"{PREFIX}/"):
        return None
    parts = tuple(path[len(PREFIX) + 1 :].split("/"))
    return parts[1:] if parts[0] == VERSION else parts


def is_beside(target: str) -> bool:
    """Whether a request's path stands beside the prefix."""
    path = target.partition("?")[0]
    return path in ROUTES or path.startswith((f"{POLICIES}/", f"{COMMON}/"))


def lossily(segment: str) -> str:
    """A decoded segment; bytes that are no text become a sign for that."""
    return unquote(segment, errors="replace")


def exactly(path: str) -> str:
    """A decoded path. Raises Invalid when it is no text."""
    try:
        return unquote_to_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise Invalid("The path is not UTF-8.") from error
