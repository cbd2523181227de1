# SPDX-License-Identifier: Apache-2.0
"""An OpenAPI 3.1 document from operations' rows; body schemas come from their msgspec types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from quarterdeck.web.operation import Operation

_FORMS = ("application/json", "application/x-www-form-urlencoded")


def document(
    operations: Iterable[Operation], *, title: str, version: str, prefix: str, login_header: str
) -> dict[str, Any]:
    """The document. `prefix` stands before every path, `login_header` carries the token."""
    rows = list(operations)
    bodies = [one.body for one in rows if one.body is not None]
    schemas, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(bodies, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in rows:
        paths.setdefault(prefix + one.path, {})[one.method.lower()] = _operation(one, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": login_header}},
        },
    }


def _operation(one: Operation, schema_of: dict[type, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": f"{one.name}.{one.method.lower()}.{'.'.join(one.segments)}",
        "summary": one.summary,
        "tags": [one.section],
        "responses": {"200": {"description": "Done."}, "default": {"description": "An error, in the envelope."}},
    }
    names = [segment[1:-1] for segment in one.segments if segment.startswith("{")]
    if names:
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    if one.body is not None:
        content = {form: {"schema": schema_of[one.body]} for form in _FORMS}
        described["requestBody"] = {"content": content}
    if one.right is not None:
        described["security"] = [{"token": []}]
        described["x-right"] = one.right
    return described
