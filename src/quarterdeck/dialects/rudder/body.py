# SPDX-License-Identifier: Apache-2.0
"""The fields of a request: a JSON body, or form and query parameters whose structured values are JSON text.

With a JSON body, form-style values are ignored, except the general parameters (`reason`,
`changeRequestName`, `changeRequestDescription`, `prettify`), which stand in the query string.
"""

from __future__ import annotations

import contextlib
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.web import forms
from quarterdeck.web.operation import Request, group_pairs

T = TypeVar("T")

JSON_TYPES = ("application/json", "text/json")
GENERAL = ("reason", "changeRequestName", "changeRequestDescription", "prettify")
#: What `curl -d @file -d reason=...` puts behind JSON; the documentation does so, and says that it does not count.
_TRAILING = re.compile(rb"(?<=[]}])\s*(?:&(?:%s)=[^]&}]*)+\Z" % "|".join(GENERAL).encode())


class NotJson(Invalid):
    """A body that says it is JSON and is not."""


class Undecodable(Invalid):
    """Fields that cannot be read. The message is a whole chain, to which no hint is added."""


def is_json(request: Request) -> bool:
    """Whether the body says it is JSON."""
    return request.content_type in JSON_TYPES


def document(request: Request) -> Any:
    """The JSON body as plain objects, general parameters behind it left out. Raises NotJson."""
    found = _TRAILING.search(request.body)
    try:
        return msgspec.json.decode(request.body[: found.start()] if found else request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = "The request has a JSON content type but the body is not valid JSON"
        raise NotJson(message, detail=str(error)) from error


def decode(request: Request, wanted: type[T]) -> T:
    """The request's fields as `wanted`. Raises NotJson, or Invalid with a sentence that names the field."""
    if is_json(request) and request.body:
        fields = document(request)
        if not isinstance(fields, dict):
            raise Invalid(f"Expected a JSON object, got {_kind(fields)}.")
        fields = _tolerate_single_values(fields, wanted)
    else:
        kinds = _kinds(wanted)  # type: ignore[arg-type]  # a class is hashable, whatever its type parameter
        fields = {key: _typed(values, kinds.get(key)) for key, values in form(request).items()}
    return convert(fields, wanted)


def convert(fields: Any, wanted: type[T]) -> T:
    """Plain objects as `wanted`; a null is a field that was not sent, where null means nothing. Raises Invalid."""
    try:
        return msgspec.convert(_without_nulls(fields, wanted), wanted)
    except msgspec.ValidationError as error:
        raise Invalid(str(error)) from error


def form(request: Request) -> dict[str, list[str]]:
    """Query and form parameters; those of the body come first."""
    pairs: list[tuple[str, str]] = []
    if request.content_type in (forms.URLENCODED, "") and request.body:
        pairs = forms.fields(request.body)
    elif request.content_type == forms.MULTIPART:
        found = forms.parts(request)
        pairs = [(part.name, part.content.decode(errors="replace")) for part in found if not part.filename]
    elif request.body and not is_json(request):
        raise Invalid(
            f"Content type '{request.content_type}' is not read here; send application/json or form parameters."
        )
    grouped = group_pairs(pairs)
    return grouped | {key: grouped.get(key, []) + values for key, values in request.query.items()}


def general(request: Request, name: str) -> str:
    """A general parameter: from the query, or from a form body; a form that cannot be read has none."""
    if name in request.query:
        return request.query[name][0]
    if request.content_type == "application/x-www-form-urlencoded":
        with contextlib.suppress(Invalid):  # errors are told with these parameters, too
            return form(request).get(name, [""])[0]
    return ""


@cache
def _kinds(wanted: Any) -> dict[str, Any]:
    """Wire name -> annotated type of a struct's fields."""
    if not isinstance(wanted, type) or not issubclass(wanted, msgspec.Struct):
        return {}
    return {field.encode_name: field.type for field in msgspec.structs.fields(wanted)}


def _without_nulls(value: Any, kind: Any) -> Any:
    """The value without the nulls of fields that have no null; so clients write what they leave out."""
    for one in _alternatives(kind):
        if isinstance(value, dict) and (kinds := _kinds(one)):
            return {
                key: _without_nulls(inner, kinds.get(key, Any))
                for key, inner in value.items()
                if inner is not None or _has_null(kinds.get(key, Any))
            }
        if isinstance(value, list) and typing.get_origin(one) is list:
            return [_without_nulls(inner, typing.get_args(one)[0]) for inner in value]
    return value


def _has_null(kind: Any) -> bool:
    return kind is Any or type(None) in _alternatives(kind)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(one) in (list, tuple, frozenset) or one is list for one in _alternatives(kind))


def _typed(values: list[str], kind: Any) -> Any:
    """Form text as the value that the field's type asks for; what does not parse stays text and is refused later."""
    if kind is None:
        return values[0]
    if _is_list(kind):
        parsed = [json_or_text(value) for value in values]
        return parsed[0] if len(parsed) == 1 and isinstance(parsed[0], list) else parsed
    alternatives = _alternatives(kind)
    if str in alternatives and Any not in alternatives:
        return values[0]
    if kind is Any or dict in (typing.get_origin(one) or one for one in alternatives) or _has_struct(alternatives):
        return json_or_text(values[0])
    return _scalar(values[0], alternatives)


def _has_struct(alternatives: tuple[Any, ...]) -> bool:
    return any(isinstance(one, type) and issubclass(one, msgspec.Struct) for one in alternatives)


def _scalar(text: str, alternatives: tuple[Any, ...]) -> Any:
    if bool in alternatives and text in ("true", "false"):
        return text == "true"
    if int in alternatives and text.removeprefix("-").isdecimal():
        return int(text)
    return text


def json_or_text(text: str) -> Any:
    """JSON where it looks like an object or an array, else the text itself."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _tolerate_single_values(fields: Mapping[str, Any], wanted: type) -> dict[str, Any]:
    """The documentation's own samples give one text where a list is meant."""
    kinds = _kinds(wanted)
    return {
        key: [value] if isinstance(value, (str, dict)) and _is_list(kinds.get(key)) else value
        for key, value in fields.items()
    }


def _kind(value: Any) -> str:
    return {list: "an array", str: "a text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")
