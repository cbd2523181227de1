# SPDX-License-Identifier: Apache-2.0
"""Files over HTTP: conditions on tag and time of change, and one range of bytes. Which file it is, others say."""

from __future__ import annotations

import mimetypes
import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from quarterdeck.web.operation import Answer, Excerpt, Request

#: The types that Python knows by itself: what the machine has besides would differ from one to the next.
_TYPES = mimetypes.MimeTypes()
_OTHER = "application/octet-stream"
_RANGE = re.compile(r"bytes=\s*([0-9]*)-([0-9]*)\s*(?:,.*)?")
_MAX_DIGITS = 18


def answer(request: Request, excerpt: Excerpt, modified_ns: int | None, name: str, tag: str = "") -> Answer:
    """What a GET or HEAD for a file gets; `excerpt` is the whole file, and is closed when nothing of it is sent.

    `modified_ns` is None for what has no time of change, and `tag` empty for what has no tag.
    """
    modified = datetime.fromtimestamp(modified_ns // 10**9, UTC) if modified_ns is not None else None
    stamps = _stamps(modified, tag)
    accepts = ("Accept-Ranges", "bytes")
    status = _condition(request, modified, tag)
    wanted = _range(request, modified, tag, excerpt.length)
    if status == 200 and wanted == ():
        status = 416
    if status != 200:
        length = excerpt.length
        excerpt.close()
        about = (("Content-Range", f"bytes */{length}"),) if status == 416 else ()
        return Answer(status=status, headers=(*stamps, accepts, *about))
    kind = ("Content-Type", _TYPES.guess_type(name)[0] or _OTHER)
    if not wanted:
        return Answer(headers=(kind, *stamps, accepts), body=excerpt)
    first, last = wanted
    about = (("Content-Range", f"bytes {first}-{last}/{excerpt.length}"),)
    excerpt.start, excerpt.length = first, last - first + 1
    return Answer(status=206, headers=(kind, *stamps, accepts, *about), body=excerpt)


def _stamps(modified: datetime | None, tag: str) -> tuple[tuple[str, str], ...]:
    stamps = []
    if modified is not None:
        stamps.append(("Last-Modified", format_datetime(modified, usegmt=True)))
    if tag:
        stamps.append(("ETag", f'"{tag}"'))
    return tuple(stamps)


def _condition(request: Request, modified: datetime | None, tag: str) -> int:
    """A condition on the tag, where there is one, makes the one on the time count no more."""
    if tag and "if-match" in request.headers:
        if not _names(request.headers["if-match"], tag):
            return 412
    else:
        not_since = _moment(request, "if-unmodified-since")
        if not_since is not None and modified is not None and modified > not_since:
            return 412
    if tag and "if-none-match" in request.headers:
        return 304 if _names(request.headers["if-none-match"], tag, weakly=True) else 200
    since = _moment(request, "if-modified-since")
    return 304 if since is not None and modified is not None and modified <= since else 200


def _names(condition: str, tag: str, *, weakly: bool = False) -> bool:
    """Whether a list of tags has this one, or stands for all."""
    listed = [one.strip() for one in condition.split(",")]
    return listed == ["*"] or f'"{tag}"' in [one.removeprefix("W/") if weakly else one for one in listed]


def _range(request: Request, modified: datetime | None, tag: str, length: int) -> tuple[int, int] | tuple[()] | None:
    """First and last byte; None without a range that can be read, () for one that has no byte of the file."""
    found = _RANGE.fullmatch(request.headers.get("range", "")) if request.method == "GET" else None
    if found is None or max(map(len, found.groups())) > _MAX_DIGITS or not any(found.groups()):
        return None
    if "if-range" in request.headers and not _is_same(request, modified, tag):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, length - int(last)), length - 1
    else:
        start, end = int(first), min(int(last), length - 1) if last else length - 1
        if last and int(last) < start:
            return None
    return (start, end) if start <= end else ()


def _is_same(request: Request, modified: datetime | None, tag: str) -> bool:
    """Whether the client has a part of this very state."""
    if tag and request.headers["if-range"].strip() == f'"{tag}"':
        return True
    return modified is not None and _moment(request, "if-range") == modified


def _moment(request: Request, name: str) -> datetime | None:
    """A time in a header; None when there is none that can be read."""
    try:
        return parsedate_to_datetime(request.headers[name]).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return None
