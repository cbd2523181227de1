# SPDX-License-Identifier: Apache-2.0
"""Whatever stands in a document: it is read or refused, and a job that came out of it can be checked and written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from quarterdeck.core import job_checks
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_checks import Draft
from quarterdeck.formats import aclpolicy, job_xml, job_yaml, realm, resources_xml, resources_yaml, yaml_documents

NOW, ZONE = datetime(2026, 1, 1, tzinfo=UTC), ZoneInfo("UTC")
KEYS = st.sampled_from(
    [
        *(
            "name",
            "project",
            "context",
            "options",
            "option",
            "sequence",
            "commands",
            "command",
            "exec",
            "script",
            "jobref",
        ),
        *(
            "arg",
            "line",
            "args",
            "schedule",
            "time",
            "hour",
            "month",
            "day",
            "year",
            "weekday",
            "dayofmonth",
            "crontab",
        ),
        *("dispatch", "threadcount", "nodefilters", "include", "exclude", "tags", "hostname", "notification", "values"),
        *("onsuccess", "onfailure", "email", "recipients", "webhook", "urls", "description", "loglevel", "timeout"),
        *("multivalued", "delimiter", "required", "regex", "nodename", "node", "attribute", "value", "uuid", "group"),
        *("for", "by", "job", "match", "equals", "contains", "allow", "deny", "rules", "actions", "username", "x"),
    ],
)
VALUES = st.sampled_from(["", " ", "a", "true", "0", "-1", "*", "?", "L", "(", "a,b", "9" * 5000, "é", None])
TREES = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def tried(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except Invalid:
        return []


def check_and_write(drafts: list[Draft]) -> None:
    for draft in drafts:
        if job_checks.problems(draft, NOW, ZONE):
            continue
        for document in (job_xml, job_yaml):
            [again] = document.read(document.write([draft.job]))
            assert again == draft


@settings(max_examples=100, deadline=None)
@given(TREES, st.dictionaries(KEYS, TREES, max_size=6))
def test_any_yaml(tree: Any, job: dict[str, Any]) -> None:
    whole = {"name": "j", "project": "p", "sequence": {"commands": [{"exec": "x"}]}}
    for one in (tree, [tree], [job], [{**whole, **job}], {"n": job}):
        data = yaml_documents.written(one)
        check_and_write(tried(job_yaml.read, data))
        tried(aclpolicy.read, data)
        tried(resources_yaml.read, data)


def element(name: str, tree: Any) -> etree._Element:
    made = etree.Element(name)
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(value, str) and len(key) % 2:
                made.set(key, value)
            else:
                made.append(element(key, value))
    elif isinstance(tree, list):
        made.extend([element("item", one) for one in tree])
    elif tree:
        made.text = tree
    return made


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["joblist", "project", "x"]), st.lists(st.dictionaries(KEYS, TREES, max_size=8), max_size=3))
def test_any_xml(root: str, trees: list[dict[str, Any]]) -> None:
    whole = {"name": "j", "description": "", "context": {"project": "p"}, "sequence": {"command": {"exec": "x"}}}
    for jobs in (trees, [{**whole, **tree} for tree in trees]):
        document = etree.Element(root)
        document.extend([element(name, tree) for tree in jobs for name in ("job", "node")])
        data = etree.tostring(document)
        check_and_write(tried(job_xml.read, data))
        tried(resources_xml.read, data)


@pytest.mark.parametrize(
    "read", [job_xml.read, job_yaml.read, aclpolicy.read, resources_xml.read, resources_yaml.read, realm.read]
)
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40) | st.text("<>&;/a:-{}[]'\"|?!*\n #", max_size=30).map(str.encode))
def test_any_bytes(read: Callable[[bytes], Any], data: bytes) -> None:
    tried(read, data)
