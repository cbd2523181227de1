# SPDX-License-Identifier: Apache-2.0
"""What notifications say: the body and headers of a webhook's request, and the mail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from html import escape

from lxml import etree

from quarterdeck.core.notifications import Message
from quarterdeck.formats import execution_xml

_LONGEST_SUBJECT = 500


def webhook_headers(message: Message) -> Mapping[str, str]:
    """The headers of a webhook's request."""
    return {
        "Content-Type": "text/xml; charset=UTF-8",
        "X-RunDeck-Notification-Trigger": message.trigger,
        "X-RunDeck-Notification-Execution-ID": str(message.execution.id),
        "X-RunDeck-Notification-Execution-Status": message.execution.state.value,
    }


def webhook_body(message: Message) -> bytes:
    """The body of a webhook's request, in UTF-8."""
    execution = message.execution
    root = etree.Element("notification")
    root.set("trigger", message.trigger)
    root.set("status", execution.state.value)
    root.set("executionId", str(execution.id))
    executions = etree.SubElement(root, "executions", count="1")
    executions.append(execution_xml.element(execution, message.head, message.base_url))
    return etree.tostring(root, encoding="UTF-8", xml_declaration=False)


def mail(message: Message, recipient: str, sender: str, now: datetime) -> EmailMessage:
    """The mail about it, as text and as HTML. The same attempt later makes another message of the same content."""
    made = EmailMessage()
    made["Subject"] = _subject(message)
    made["From"] = Address("Quarterdeck", addr_spec=sender)
    made["To"] = recipient
    made["Date"] = format_datetime(now)
    made["Message-ID"] = make_msgid(f"execution-{message.execution.id}", sender.rpartition("@")[2] or "quarterdeck")
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(_text(message))
    made.add_alternative(_html(message), subtype="html")
    return made


def _subject(message: Message) -> str:
    result = "SUCCESS" if message.trigger == "success" else "FAILURE"
    job, execution = message.job, message.execution
    text = f"{result} [{execution.project}] {job.full_name} {execution.argstring}"
    # A line end in a name or a value must not begin another header.
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())[:_LONGEST_SUBJECT]


def _facts(message: Message) -> list[tuple[str, str]]:
    execution, job = message.execution, message.job
    found = [
        ("Job", job.full_name),
        ("Project", execution.project),
        ("Result", execution.state.value),
        ("Options", execution.argstring),
        ("Started", f"{_moment(execution.started)} by {execution.user}"),
    ]
    if execution.ended is not None:
        found.append(("Ended", _moment(execution.ended)))
        found.append(("Duration", f"{(execution.ended - execution.started).total_seconds():.1f} s"))
    if execution.cancelled:
        found.append(("Aborted by", execution.aborted_by or execution.user))
    total = len(execution.nodes or ())
    nodes = f"{execution.nodes_succeeded} succeeded, {execution.nodes_failed} failed, {total} in all"
    return [(name, value) for name, value in (*found, ("Nodes", nodes)) if value]


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(message: Message) -> str:
    lines = [f"{name}: {value}" for name, value in _facts(message)]
    return "\n".join([*lines, "", execution_xml.link(message.execution.id, message.base_url), ""])


def _html(message: Message) -> str:
    cells = (
        f'<tr><th align="left">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in _facts(message)
    )
    link = escape(execution_xml.link(message.execution.id, message.base_url))
    title = escape(f"{message.job.full_name}: {message.execution.state.value}")
    return (
        f"<html><body><h2>{title}</h2>\n<table>\n"
        + "\n".join(cells)
        + f'\n</table>\n<p><a href="{link}">Execution {message.execution.id}</a></p></body></html>\n'
    )
