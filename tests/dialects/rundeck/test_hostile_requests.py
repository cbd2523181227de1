# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent, the answer is one in the envelope and never a fault of ours."""

from __future__ import annotations

import re

import pytest
from lxml import etree
from tests.dialects.rundeck import states
from tests.served_rundeck import Rundeck

from quarterdeck.dialects.rundeck.chapters import OPERATIONS

NAMES = (
    *("project", "format", "idlist", "groupPath", "jobFilter", "max", "offset", "sortBy", "sortOrder", "argString"),
    *("loglevel", "status", "exec", "nodeThreadcount", "xmlBatch", "dupeOption", "scriptFile", "providerURL"),
    *("begin", "end", "start", "recentFilter", "statFilter", "title", "summary", "nodesuccesscount", "nodefailcount"),
    *("jobID", "execID", "lastlines", "maxlines", "lastmod", "hostname", "tags", "name", "os-name", "exclude-tags"),
)
VALUES = (
    "\x00",
    "\ud7ff\ufffe\u0007",
    "9" * 15,
    "9" * 400,
    "-1",
    "(((a*)*)*)*$",
    "%s%n",
    "٣",
    "'",
    "a\r\nX: y",
    "[" * 500,
)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_no_value_of_any_parameter_breaks_an_operation(value: str, rundeck: Rundeck) -> None:
    states.ended_runs(rundeck)
    form = dict.fromkeys(NAMES, value) | {"project": "test"}

    for operation in OPERATIONS:
        for item in ("2", value.replace("/", "")):
            path = "/api/1" + re.sub(r"\{\w+\}", lambda _, item=item: _quoted(item), operation.path)  # type: ignore[misc]
            place = "params" if operation.method in ("GET", "DELETE") else "data"
            answer = rundeck.ask(operation.method, path, "admin", **{place: form})
            assert answer.status_code in (200, 400, 404), (operation.name, answer.status_code, answer.text)
            assert "An unknown error occurred" not in answer.text, operation.name
            if answer.headers["Content-Type"].startswith("text/xml"):
                etree.fromstring(answer.content)


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\ny\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\ncut"),
        ("multipart/form-data; boundary=\xff", b"nothing"),
        ("application/x-www-form-urlencoded", b"\xff\xfe=\xff"),
        ("application/x-www-form-urlencoded", b"a&" * 60_000),
        ("text/xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><project>&b;</project>"),
        ("text/yaml", b"a: &a [*a, *a]"),
        ("application/json", b"{"),
        ("", b"\x00"),
    ],
)
def test_no_body_breaks_an_operation(content_type: str, body: bytes, rundeck: Rundeck) -> None:
    headers = {b"Content-Type": content_type.encode("latin-1"), b"X-API-Token": rundeck.tokens["admin"].encode()}

    for operation in OPERATIONS:
        if operation.method != "POST":
            continue
        path = "/api/1" + re.sub(r"\{\w+\}", "test", operation.path) + "?project=test"
        answer = rundeck.client.post(path, content=body, headers=headers)
        assert answer.status_code == 200, (operation.name, answer.text)
        assert etree.fromstring(answer.content).get("error") == "true", (operation.name, answer.text)


def test_the_parameters_of_two_places_are_one_namespace_and_the_query_comes_first(rundeck: Rundeck) -> None:
    answer = rundeck.ask("POST", "/api/1/run/command?exec=first", data={"exec": "second", "project": "test"})

    assert 'success="true"' in answer.text
    assert ">first</description>" in rundeck.ask("GET", "/api/1/execution/1").text
