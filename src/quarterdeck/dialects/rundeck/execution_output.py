# SPDX-License-Identifier: Apache-2.0
"""Output of executions as text, JSON or XML, while they run and afterwards. Long ones leave page by page.

The API got this with its version 5; its clients ask for it at any version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import timedelta
from typing import Any
from xml.sax.saxutils import escape

import anyio.to_thread
import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.core.logs import LogEntry
from quarterdeck.dialects.rundeck import body, dates, envelope, login, parts
from quarterdeck.dialects.rundeck.envelope import element
from quarterdeck.formats.xml_documents import possible
from quarterdeck.services import output_windows
from quarterdeck.services.context import Context
from quarterdeck.services.output_windows import Window
from quarterdeck.web import sessions
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Execution output")
#: For people, who come from the address that executions carry.
page_section = Section(login.section.title)

_FORMATS = ("xml", "json", "text")
_JSON = ("Content-Type", "application/json;charset=UTF-8")
_TEXT = ("Content-Type", "text/plain;charset=UTF-8")


@section.operation(
    "executionOutput",
    "GET",
    "/execution/{id}/output",
    right="execution.read",
    since=1,
    documented=False,
    extension=_FORMATS,
    long=True,
)
def get_execution_output(ctx: Context, request: Request) -> Answer:
    """The output behind `offset`, or the `lastlines`, up to `maxlines`; nothing unless newer than `lastmod`."""
    execution_id = body.present(request.params["id"], "id")
    wanted = request.memo.get(body.FORMAT) or body.text(request, "format", "xml")
    if wanted not in _FORMATS:
        raise Invalid(f"The format specified is unsupported: {wanted}")
    last_seen = body.integer(request, "lastmod")
    window = output_windows.find(
        ctx,
        execution_id,
        offset=body.integer(request, "offset") or 0,
        last_lines=body.integer(request, "lastlines"),
        most_lines=body.integer(request, "maxlines"),
    )
    unmodified = last_seen is not None and _modified(window) <= last_seen
    facts = _facts(ctx, window, unmodified=unmodified)
    read = parts.no_output if unmodified else parts.of(request).output
    pages = read(window.execution.id, window.begin, window.end)
    if wanted == "text":
        return Answer(headers=(_TEXT, *envelope.CAREFUL, *_headers(facts)), body=_as_text(pages))
    if wanted == "json":
        return Answer(headers=(_JSON, *envelope.CAREFUL), body=_as_json(facts, pages))
    newest = parts.of(request).max_version
    return Answer(headers=(envelope.XML, *envelope.CAREFUL), body=_as_xml(facts, pages, newest))


@page_section.operation("followExecution", "GET", "/execution/follow/{id}", right=None, since=1, documented=False)
def follow_execution(ctx: Context, request: Request) -> Answer:
    """Where executions say that people find their output: the output as text, after a login."""
    if sessions.account(ctx, request) is None:
        return login.to_login(ctx, request)
    execution_id = request.params["id"]
    if not execution_id.isdecimal() or not execution_id.isascii():
        return login.refusal(404, f"Execution ID does not exist: {execution_id}")
    return login.redirect(ctx, request, f"/api/1/execution/{execution_id}/output?format=text")


def _facts(ctx: Context, window: Window, *, unmodified: bool) -> dict[str, Any]:
    """What is told beside the entries, by the names that clients know."""
    execution = window.execution
    end = window.begin if unmodified else window.end
    took = (execution.ended or ctx.now) - execution.started
    facts: dict[str, Any] = {
        "id": str(execution.id),
        "offset": end,
        "completed": window.is_complete,
        "execCompleted": execution.ended is not None,
        "hasFailedNodes": execution.nodes_failed > 0,
        "execState": execution.state.value,
        "lastModified": _modified(window),
        "execDuration": took // timedelta(milliseconds=1),
        "percentLoaded": round(end * 100 / window.size, 2) if window.size else 0.0,
        "totalSize": window.size,
    }
    if unmodified:
        facts["unmodified"] = True
    if not window.size:
        facts["empty"] = True
    return facts


def _modified(window: Window) -> int:
    """When it changed last, in milliseconds; the end of the execution counts."""
    ended = window.execution.ended
    times = [when for when in (window.modified, ended) if when is not None]
    return max(map(dates.milliseconds, times), default=0)


def _headers(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    names = {
        "X-Rundeck-ExecOutput-Offset": "offset",
        "X-Rundeck-ExecOutput-Completed": "completed",
        "X-Rundeck-Exec-Completed": "execCompleted",
        "X-Rundeck-Exec-State": "execState",
        "X-Rundeck-Exec-Duration": "execDuration",
        "X-Rundeck-ExecOutput-LastModified": "lastModified",
        "X-Rundeck-ExecOutput-TotalSize": "totalSize",
        "X-Rundeck-ExecOutput-Unmodified": "unmodified",
        "X-Rundeck-ExecOutput-Empty": "empty",
    }
    return [(name, _word(facts[key])) for name, key in names.items() if key in facts]


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- the three forms --------------------------------------------------------------------------


async def _as_text(pages: AsyncIterator[list[LogEntry]]) -> AsyncIterator[bytes]:
    async with aclosing(pages) as entries:  # type: ignore[type-var]  # every source is an async generator
        async for page in entries:
            yield b"".join(one.text for one in page)


async def _as_json(facts: dict[str, Any], pages: AsyncIterator[list[LogEntry]]) -> AsyncIterator[bytes]:
    yield msgspec.json.encode(facts)[:-1] + b',"entries":['
    comma = b""
    async with aclosing(pages) as entries:  # type: ignore[type-var]  # as above
        async for page in entries:
            # A page has many thousand lines; others are served meanwhile.
            yield comma + await anyio.to_thread.run_sync(_json_of, page)
            comma = b","
    yield b"]}"


async def _as_xml(facts: dict[str, Any], pages: AsyncIterator[list[LogEntry]], version: int) -> AsyncIterator[bytes]:
    told = b"".join(envelope.written(element(name, _word(value))) for name, value in facts.items())
    yield b'<result success="true" apiversion="%d"><output>%b<entries>' % (version, told)
    async with aclosing(pages) as entries:  # type: ignore[type-var]  # as above
        async for page in entries:
            yield await anyio.to_thread.run_sync(_xml_of, page)
    yield b"</entries></output></result>"


def _json_of(page: list[LogEntry]) -> bytes:
    written = []
    for one in page:
        opening = msgspec.json.encode(_shown(one))[:-1] + b',"log":'
        written += [b"%b%b}" % (opening, msgspec.json.encode(line)) for line in _lines(one)]
    return b",".join(written)


def _xml_of(page: list[LogEntry]) -> bytes:
    """An element per line; what the lines of an entry share is written once and repeated."""
    return b"".join(map(_xml_of_entry, page))


def _xml_of_entry(one: LogEntry) -> bytes:
    opening, _, closing = envelope.written(element("entry", "\n", **_shown(one))).partition(b"\n")
    # A carriage return is lost on the way unless it is escaped.
    text = escape(possible("\n".join(_lines(one))), {"\r": "&#13;"})
    return opening + text.encode().replace(b"\n", closing + opening) + closing


def _shown(one: LogEntry) -> dict[str, str]:
    return {
        "time": f"{one.time:%H:%M:%S}",
        "absolute_time": dates.written(one.time),
        "level": one.level,
        "user": one.user,
        "command": one.step,
        "node": one.node,
    }


def _lines(one: LogEntry) -> list[str]:
    return one.text.decode(errors="replace").removesuffix("\n").split("\n")
