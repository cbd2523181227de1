# SPDX-License-Identifier: Apache-2.0
"""Info chapter: the API about itself, told from the operations' own rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from quarterdeck import __version__
from quarterdeck.dialects.rudder import version
from quarterdeck.services.context import Context
from quarterdeck.web import openapi
from quarterdeck.web.operation import Answer, Operation, Reply, Request, Section

section = Section("API Info")

DOCUMENTATION = "https://docs.rudder.io/api/"
#: Filled once by `chapters.py`, which knows every chapter.
_catalogue: list[Operation] = []


def publish(operations: Iterable[Operation]) -> None:
    """Say which operations this chapter tells about."""
    _catalogue[:] = operations


@section.operation("apiGeneralInformations", "GET", "/info", right="system.read")
def api_general_informations(ctx: Context, request: Request) -> Reply:
    """List the versions and all operations."""
    return Reply(_general(_catalogue))


@section.operation("apiSubInformations", "GET", "/info/{section}", right="system.read")
def api_sub_informations(ctx: Context, request: Request) -> Reply:
    """List the operations below one first path segment."""
    wanted = request.params["section"]
    return Reply(_general(one for one in _catalogue if one.segments[0] == wanted))


@section.operation("apiInformations", "GET", "/info/details/{name}", right="system.read")
def api_informations(ctx: Context, request: Request) -> Reply:
    """Tell every URL of one operation."""
    name = request.params["name"]
    found = [one for one in _catalogue if one.name.lower() == name.lower()]
    if not found:
        return Reply({"documentation": DOCUMENTATION, "error": f"No endpoint with name '{name}' defined."})
    endpoints = [
        {one.method: f"/api/{number}{one.path}", "version": _version(number)}
        for number in version.VERSIONS
        for one in found
        if number >= one.since
    ]
    return Reply({"documentation": DOCUMENTATION, name: found[0].summary, "endpoints": endpoints})


@section.operation("openapi", "GET", "/openapi.json", right=None, documented=False)
def openapi_document(ctx: Context, request: Request) -> Answer:
    """The OpenAPI 3.1 document of this API, made from the same rows."""
    document = openapi.document(
        _catalogue,
        title="Quarterdeck: Rudder API",
        version=__version__,
        prefix="/rudder/api/latest",
        login_header="X-API-Token",
    )
    return Answer(headers=(("Content-Type", "application/json; charset=utf-8"),), body=msgspec.json.encode(document))


def _general(operations: Iterable[Operation]) -> dict[str, Any]:
    grouped: dict[str, dict[str, str]] = {}
    for one in operations:
        entry = grouped.setdefault(one.name, {one.name: one.summary})
        served = ",".join(str(number) for number in version.VERSIONS if number >= one.since)
        entry[one.method] = f"[{served}] {one.path}"
    return {
        "documentation": DOCUMENTATION,
        "availableVersions": {
            "latest": version.LATEST,
            "all": [_version(number) for number in version.VERSIONS],
        },
        "endpoints": list(grouped.values()),
    }


def _version(number: int) -> dict[str, Any]:
    return {"version": number, "status": version.status(number)}
