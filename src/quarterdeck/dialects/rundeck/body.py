# SPDX-License-Identifier: Apache-2.0
"""What a client sent: the parameters of query and form are one namespace, in which the query comes first.

Blank counts as absent where a parameter is asked for by its meaning.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal

from quarterdeck.core import node_filters
from quarterdeck.core.errors import Invalid
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.dialects.rundeck import dates, errors
from quarterdeck.web import forms
from quarterdeck.web.operation import Part, Request

#: Where a request's memo holds what was read once.
_PARAMETERS, _PARTS = "parameters", "multipart"
#: Where it holds the format that an extension of the path asked for.
FORMAT = "format"
_INTEGER = re.compile(r"[0-9]{1,15}")
Format = Literal["xml", "yaml"]
FORMATS = ("xml", "yaml")


def parameters(request: Request) -> dict[str, str]:
    """Every parameter with its first value. Raises Invalid for a form that cannot be read."""
    if _PARAMETERS not in request.memo:
        found = {name: values[0] for name, values in request.query.items()}
        for name, value in _form(request):
            found.setdefault(name, value)
        request.memo[_PARAMETERS] = found
    known: dict[str, str] = request.memo[_PARAMETERS]
    return known


def _form(request: Request) -> list[tuple[str, str]]:
    if not request.body:
        return []
    if request.content_type in (forms.URLENCODED, ""):
        return forms.fields(request.body)
    return [(part.name, part.content.decode(errors="replace")) for part in parts(request) if not part.filename]


def parts(request: Request) -> list[Part]:
    """The parts of a multipart body; none of any other. Raises Invalid."""
    if request.content_type != forms.MULTIPART:
        return []
    if _PARTS not in request.memo:
        request.memo[_PARTS] = forms.parts(request)
    known: list[Part] = request.memo[_PARTS]
    return known


def part(request: Request, name: str) -> Part | None:
    """The part of this name, a file before a field."""
    found = [one for one in parts(request) if one.name == name]
    return next((one for one in found if one.filename), found[0] if found else None)


def text(request: Request, name: str, default: str = "") -> str:
    """A parameter; the default when it is absent or blank."""
    value = parameters(request).get(name, "")
    return value if value.strip() else default


def missing(name: str) -> str:
    """What is said of a parameter that is needed and absent."""
    return f'parameter "{name}" is required'


def required(request: Request, name: str) -> str:
    """A parameter. Raises Invalid when it is absent or blank."""
    return present(text(request, name), name)


def present(value: str, name: str) -> str:
    """The value of a parameter, from wherever it comes. Raises Invalid when it is blank."""
    if not value.strip():
        raise Invalid(missing(name))
    return value


def require_all(request: Request, *names: str) -> None:
    """Raises Invalid that names all of these that are absent or blank, in this order."""
    absent = [missing(name) for name in names if not text(request, name)]
    if absent:
        raise errors.several(absent)


def one_of(request: Request, name: str, allowed: tuple[str, ...]) -> str:
    """A parameter that is one of these; "" when it is absent or blank. Raises Invalid."""
    value = text(request, name)
    if value and value not in allowed:
        listed = ", ".join(allowed)
        raise Invalid(f'the value "{value}" for parameter "{name}" was invalid. It must be in the list: [{listed}]')
    return value


def integer(request: Request, name: str, default: int | None = None) -> int | None:
    """A whole number of at least 0. Raises Invalid."""
    value = text(request, name).strip()
    if not value:
        return default
    if not _INTEGER.fullmatch(value):
        raise Invalid(f'The value "{value}" for parameter "{name}" is not valid: Not a valid integer: {value}')
    return int(value)


def moment(request: Request, name: str) -> datetime | None:
    """A time. Raises Invalid."""
    value = text(request, name).strip()
    if not value:
        return None
    try:
        return dates.read(value)
    except Invalid:
        message = f'The parameter "{name}" did not have a valid time or dateTime format: {value}'
        raise Invalid(message) from None


def is_true(request: Request, name: str) -> bool:
    """Whether a parameter is exactly `true`."""
    return text(request, name) == "true"


def node_filter(request: Request) -> NodeFilter | None:
    """The node filter of the parameters; None when there is none."""
    return node_filters.from_parameters(parameters(request))


def document_format(request: Request) -> Format:
    """The format that is asked for, by the path's extension or a parameter. Raises Invalid."""
    wanted = request.memo.get(FORMAT) or text(request, "format", "xml")
    if wanted == "xml":
        return "xml"
    if wanted == "yaml":
        return "yaml"
    raise Invalid(f"The format specified is unsupported: {wanted}")
