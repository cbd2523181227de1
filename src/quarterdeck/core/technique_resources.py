# SPDX-License-Identifier: Apache-2.0
"""Files that come with a technique: how long they may be, how many, and which paths they may have.

Not to be taken for `resources.py`, which has nodes as projects see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from quarterdeck.core.errors import Conflict, Invalid

#: Longest file, in bytes.
MAX_BYTES = 10 * 1024 * 1024
#: Files of one version of a technique: each is named in the policy of every node that uses it.
MAX_FILES = 1000
_MAX_PATH = 1024
_MAX_SEGMENT = 255
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Control characters, lone surrogates, and what separates names elsewhere.
_NEVER = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")


def check_path(path: str) -> None:
    """Raise Invalid unless a path names a file below a directory, in the one way in which it can be written."""
    problem = _problem(path)
    if problem:
        raise Invalid(f"A resource cannot have the path {path[:200]!r}: {problem}.", problems={"path": problem})


def _problem(path: str) -> str:
    encoded = path.encode(errors="replace")
    if len(encoded) > _MAX_PATH:
        return f"it is longer than {_MAX_PATH} bytes"
    if found := _NEVER.search(path):
        return f"it has the character {found[0]!r}"
    segments = path.split("/")
    if {"", ".", ".."}.intersection(segments):
        return "every part between slashes must be a name"
    if any(len(segment.encode()) > _MAX_SEGMENT for segment in segments):
        return f"a name in it is longer than {_MAX_SEGMENT} bytes"
    return ""


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 as contents are named by: lower-case hexadecimal."""
    return _DIGEST.fullmatch(text) is not None


def check_beside(path: str, others: Iterable[str]) -> None:
    """Raise Conflict when a file cannot lie beside the others: one would be a directory too, or they are many."""
    rest = [other for other in others if other != path]
    if len(rest) >= MAX_FILES:
        raise Conflict(f"A technique has at most {MAX_FILES} resources.")
    for other in rest:
        if other.startswith(f"{path}/") or path.startswith(f"{other}/"):
            raise Conflict(f"'{min(path, other, key=len)}' would be a file and a directory at the same time.")
