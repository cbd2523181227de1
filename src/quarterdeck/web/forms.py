# SPDX-License-Identifier: Apache-2.0
"""Form bodies, urlencoded and multipart, read into fields and parts. What they mean is the dialects' business."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from python_multipart import FormParser

from quarterdeck.core.errors import Invalid
from quarterdeck.web.operation import Part, Request

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
#: More than the longest list of nodes that a form names; each costs much more memory than it is long.
MAX_FIELDS = 50_000
MAX_PARTS = 1_000


def fields(content: bytes) -> list[tuple[str, str]]:
    """The fields of an urlencoded body, in order. Raises Invalid."""
    if content.count(b"&") >= MAX_FIELDS:
        raise Invalid(f"The form has more than {MAX_FIELDS} fields.")
    try:
        return parse_qsl(content.decode(), keep_blank_values=True)
    except UnicodeDecodeError as error:
        raise Invalid("The form is not UTF-8.") from error


def parts(request: Request) -> list[Part]:
    """The parts of a multipart body. Raises Invalid."""
    found: list[Part] = []

    def add(part: Part) -> None:
        if len(found) >= MAX_PARTS:
            raise Invalid(f"it has more than {MAX_PARTS} parts")
        found.append(part)

    def on_field(field: Any) -> None:
        add(Part(name=_text(field.field_name), filename="", content=field.value or b""))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        content = file.file_object.read()
        file.close()  # a long one lies in a temporary file
        add(Part(name=_text(file.field_name), filename=_text(file.file_name), content=content))

    boundary = _boundary(request.headers.get("content-type", ""))
    try:
        parser = FormParser(MULTIPART, on_field, on_file, boundary=boundary)
        parser.write(request.body)
        parser.finalize()
    except Exception as error:
        raise Invalid(f"The multipart body cannot be read: {error}") from error
    return found


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _boundary(content_type: str) -> bytes:
    for piece in content_type.split(";")[1:]:
        name, _, value = piece.strip().partition("=")
        if name.lower() == "boundary":
            return value.strip('"').encode()
    raise Invalid("The multipart body has no boundary.")
