# SPDX-License-Identifier: Apache-2.0
"""The XML of an execution, as RunDeck's API answers and its webhooks carry it. Written only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lxml import etree

from quarterdeck.core.executions import Execution
from quarterdeck.core.jobs import JobHead
from quarterdeck.formats.xml_documents import possible

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def element(execution: Execution, job: JobHead | None, base_url: str) -> etree._Element:
    """An `execution`; `job` is the one it belongs to, if that still exists; links begin with `base_url`."""
    made = etree.Element("execution")
    made.set("id", str(execution.id))
    made.set("href", link(execution.id, base_url))
    made.set("status", execution.state.value)
    made.append(_text("user", execution.user))
    made.append(_moment("date-started", execution.started))
    if execution.ended is not None:
        made.append(_moment("date-ended", execution.ended))
        if execution.cancelled:
            made.append(_text("abortedby", execution.aborted_by or execution.user))
    if job is not None:
        made.append(job_element(job))
    made.append(_text("description", execution.description))
    if execution.argstring:
        made.append(_text("argstring", execution.argstring))
    return made


def job_element(head: JobHead) -> etree._Element:
    """A `job` as lists show it; all four children are always there."""
    made = etree.Element("job", id=str(head.id))
    for name, value in (
        ("name", head.name),
        ("group", head.group),
        ("project", head.project),
        ("description", head.description),
    ):
        made.append(_text(name, value))
    return made


def link(execution_id: int, base_url: str) -> str:
    """Where people look at the output of an execution."""
    return f"{base_url.rstrip('/')}/execution/follow/{execution_id}"


def _text(tag: str, text: str) -> etree._Element:
    made = etree.Element(tag)
    made.text = possible(text) or None
    return made


def _moment(tag: str, when: datetime) -> etree._Element:
    """A time in UTC without a fraction, and in milliseconds since 1970."""
    made = _text(tag, f"{when.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat()}Z")
    made.set("unixtime", str((when - _EPOCH) // timedelta(milliseconds=1)))
    return made
