# SPDX-License-Identifier: Apache-2.0
"""The envelope of answers, and the XML that they are made of.

Lists become text item by item: a long one costs its bytes and not a tree of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from lxml import etree

from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dialects.rundeck import dates, errors
from quarterdeck.formats.xml_documents import possible
from quarterdeck.web.operation import Answer, Request

XML = ("Content-Type", "text/xml;charset=UTF-8")
YAML = ("Content-Type", "text/yaml;charset=UTF-8")
#: What a list, or a part of an answer, is once it is text.
Written = bytes
Piece = etree._Element | Written  # noqa: SLF001  # the class of elements has no other name
#: Browsers are not to guess what an answer is, nor to keep it.
CAREFUL = (("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store"))


def element(tag: str, text: str = "", /, *children: etree._Element, **attributes: object) -> etree._Element:
    """An element with a text or with children; attributes that are None are left out."""
    made = etree.Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name, possible(str(value)))
    if text:
        made.text = possible(text)
    made.extend(children)
    return made


def moment(tag: str, when: datetime, *, unixtime: bool = True) -> etree._Element:
    """A time in UTC, as text and as milliseconds."""
    return element(tag, dates.written(when), unixtime=dates.milliseconds(when) if unixtime else None)


def items(tag: str, elements: Iterable[etree._Element], **attributes: object) -> Written:
    """A list with its count, and further attributes behind it."""
    inside = [written(one) for one in elements]
    opening = written(element(tag, "\n", count=len(inside), **attributes)).partition(b"\n")
    return b"".join((opening[0], *inside, opening[2]))


def told(*messages: str) -> etree._Element:
    """What an operation says when it went well."""
    return element("success", "", *(element("message", one) for one in messages))


def success(pieces: Iterable[Piece], version: int) -> Answer:
    """An answer with these inside."""
    inside = b"".join(one if isinstance(one, bytes) else written(one) for one in pieces)
    body = b'<result success="true" apiversion="%d">%b</result>' % (version, inside)
    return Answer(headers=(XML, *CAREFUL), body=body)


def error(request: Request, problem: QuarterdeckError | None, version: int) -> Answer:
    """An error; None is a fault of ours that nobody outside should read about."""
    look = errors.look_up(problem)
    inner = element("error", "", *(element("message", one) for one in errors.messages(request, problem)))
    if look.code:
        inner.set("code", look.code)
    whole = element("result", "", inner, error="true", apiversion=version)
    return Answer(status=look.status, headers=(XML, *CAREFUL), body=written(whole))


def document(body: bytes, content_type: tuple[str, str]) -> Answer:
    """A document as it is, without an envelope."""
    return Answer(headers=(content_type, *CAREFUL), body=body)


def written(one: etree._Element) -> bytes:
    """An element as text."""
    return etree.tostring(one, encoding="UTF-8", xml_declaration=False)
