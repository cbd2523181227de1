# SPDX-License-Identifier: Apache-2.0
"""Files over HTTP: conditions on the time of change, and one range of bytes. Which file it is, others say."""

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


def answer(request: Request, excerpt: Excerpt, modified_ns: int, name: str) -> Answer:
    """What a GET for a file gets; `excerpt` is the whole file, and is closed when nothing of it is sent."""
    modified = datetime.fromtimestamp(modified_ns // 10**9, UTC)
    stamp = ("Last-Modified", format_datetime(modified, usegmt=True))
    accepts = ("Accept-Ranges", "bytes")
    status = _condition(request, modified)
    wanted = _range(request, modified, excerpt.length)
    if status == 200 and wanted == ():
        status = 416
    if status != 200:
        length = excerpt.length
        excerpt.close()
        about = (("Content-Range", f"bytes */{length}"),) if status == 416 else ()
        return Answer(status=status, headers=(stamp, accepts, *about))
    kind = ("Content-Type", _TYPES.guess_type(name)[0] or _OTHER)
    if not wanted:
        return Answer(headers=(kind, stamp, accepts), body=excerpt)
    first, last = wanted
    about = (("Content-Range", f"bytes {first}-{last}/{excerpt.length}"),)
    excerpt.start, excerpt.length = first, last - first + 1
    return Answer(status=206, headers=(kind, stamp, accepts, *about), body=excerpt)


def _condition(request: Request, modified: datetime) -> int:
    not_since = _moment(request, "if-unmodified-since")
    if not_since is not None and modified > not_since:
        return 412
    since = _moment(request, "if-modified-since")
    return 304 if since is not None and modified <= since else 200


def _range(request: Request, modified: datetime, length: int) -> tuple[int, int] | tuple[()] | None:
    """First and last byte; None without a range that can be read, () for one that has no byte of the file."""
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if found is None or max(map(len, found.groups())) > _MAX_DIGITS or not any(found.groups()):
        return None
    if "if-range" in request.headers and _moment(request, "if-range") != modified:
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, length - int(last)), length - 1
    else:
        start, end = int(first), min(int(last), length - 1) if last else length - 1
        if last and int(last) < start:
            return None
    return (start, end) if start <= end else ()


def _moment(request: Request, name: str) -> datetime | None:
    """A time in a header; None when there is none that can be read."""
    try:
        return parsedate_to_datetime(request.headers[name]).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return None
