# SPDX-License-Identifier: Apache-2.0
"""Values that break databases and parsers, in every field, path and query of every operation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests import postgres
from tests.fuzz.fuzzed import (
    RUDDER_PREFIX,
    Fuzzed,
    check,
    fuzzed,
    native_operations,
    rudder_operations,
)

from quarterdeck.web.operation import Operation

pytestmark = [pytest.mark.xdist_group("hostile values"), pytest.mark.timeout(300)]

PREFIXES = {"rudder": RUDDER_PREFIX, "native": "/quarterdeck"}
OPERATIONS = [("rudder", one) for one in rudder_operations()] + [("native", one) for one in native_operations()]
names = [f"{dialect} {one.method} {one.path}" for dialect, one in OPERATIONS]

DEEP = "[" * 5000 + "]" * 5000
#: JSON text of values.
VALUES = [
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\uffff \\u202e \U0001f600"',
    '"' + "x" * 200_000 + '"',
    '""',
    '" "',
    "9" * 400,
    str(2**63),
    str(-(2**63) - 1),
    "1e400",
    "-1",
    "0.5",
    "true",
    "null",
    "[]",
    "{}",
    '{"a\\u0000": "b"}',
    '[{"": null}]',
    "[[[1]]]",
    '[null, 1, "a", {}]',
    DEEP,
    '{"a":' * 5000 + "1" + "}" * 5000,
    '"${node.properties[a\\u0000]} ${"',
    '"(((((((((((((((((((((((((((((((((((((((((a+)+)+)+)+"',
    '["group:\\u0000", "special:nonsense", {"include": {"or": [' + DEEP + "]}}]",
]
BODIES = [b"", b"null", b"[]", b"{", b"\xff\xfe", b'"\xed\xa0\x80"', b"\x00", b'{"a":1,"a":2}', DEEP.encode()]
SEGMENTS = ["%00", "a%00b", "%FF%FE", "%ED%A0%80", "%2F", "..", "%2E%2E", "x" * 5000, "%F0%9F%98%80", "'", '"', "*"]
VALUES_IN_QUERIES = [
    "%00",
    "[" * 2000,
    "%5B%7B%22value%22%3A%22%5Cu0000%22%7D%5D",
    "%FF",
    "9" * 400,
    "-1",
    "a=b",
]
QUERIES = [
    "include", "query", "where", "composition", "select", "transform", "ids", "mode", "level", "precision", "format",
    "reason", "prettify", "force", "nodeId", "status", "limit", "before", "id", "displayName", "properties",
]  # fmt: skip


@pytest.fixture(scope="module")
def target(postgres_server: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    directory: Path = tmp_path_factory.mktemp("fuzz")
    with (
        postgres.database_from(postgres_server, postgres_template, "fuzz") as url,
        fuzzed(url, directory) as made,
    ):
        yield made


def path_of(dialect: str, operation: Operation, segment: str) -> str:
    """The operation's path with this text in place of its parameters."""
    return PREFIXES[dialect] + re.sub(r"\{\w+\}", lambda _: segment, operation.path)


def fields_of(operation: Operation) -> list[str]:
    """The names of the body's fields."""
    if operation.body is None:
        return ["a"]
    (schema,), components = msgspec.json.schema_components([operation.body])
    name = schema.get("$ref", "").rpartition("/")[2]
    return list(components.get(name, schema).get("properties", {})) or ["a"]


def writes(operation: Operation) -> bool:
    return operation.method != "GET"


@pytest.mark.parametrize(("dialect", "operation"), OPERATIONS, ids=names)
def test_hostile_paths_and_queries_get_an_answer_of_ours(target: Fuzzed, dialect: str, operation: Operation) -> None:
    if "{" in operation.path:
        for segment in SEGMENTS:
            check(target.send(operation.method, path_of(dialect, operation, segment)))
    if operation.method == "DELETE":
        return
    for value in VALUES_IN_QUERIES:
        query = "&".join(f"{name}={value[:2000]}" for name in QUERIES)
        check(target.send(operation.method, path_of(dialect, operation, "known") + "?" + query))
    for name in QUERIES:
        for value in VALUES_IN_QUERIES[:3]:
            check(target.send(operation.method, path_of(dialect, operation, "known") + f"?{name}={value}"))


@pytest.mark.parametrize(
    ("dialect", "operation"),
    [one for one in OPERATIONS if writes(one[1])],
    ids=[name for name, one in zip(names, OPERATIONS, strict=True) if writes(one[1])],
)
def test_hostile_bodies_get_an_answer_of_ours(target: Fuzzed, dialect: str, operation: Operation) -> None:
    path = path_of(dialect, operation, "known" if operation.method != "DELETE" else "unknown")
    as_json = {"Content-Type": "application/json"}
    for body in BODIES:
        for content_type in (
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain",
            "multipart/form-data",
        ):
            check(target.send(operation.method, path, content=body, headers={"Content-Type": content_type}))
    fields = fields_of(operation)
    for value in VALUES:
        for name in fields:
            check(target.send(operation.method, path, content=_body({name: value}).encode(), headers=as_json))
        check(
            target.send(operation.method, path, content=_body(dict.fromkeys(fields, value)).encode(), headers=as_json)
        )
        check(target.send(operation.method, path, content=f"[{value}]".encode(), headers=as_json))


def _body(fields: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}"
