# SPDX-License-Identifier: Apache-2.0
"""Access policy files: what is not understood is refused, as half a policy would allow the wrong things."""

from __future__ import annotations

import re

import pytest

from quarterdeck.core.access_policies import AccessPolicy, AccessRule
from quarterdeck.core.errors import Invalid
from quarterdeck.formats import aclpolicy


def policy(rule: str = "{allow: '*'}", *, context: str = "{project: p}", by: str = "{group: g}") -> bytes:
    return f"context: {context}\nfor: {{job: [{rule}]}}\nby: {by}\n".encode()


def test_a_policy_is_read() -> None:
    [found] = aclpolicy.read(policy("{match: {name: 'a.*'}, contains: {tags: [x, y]}, allow: [read, run], deny: kill}"))

    assert found == AccessPolicy(
        project="p",
        groups=frozenset({"g"}),
        rules={
            "job": (
                AccessRule(
                    match={"name": ("a.*",)},
                    contains={"tags": ("x", "y")},
                    allow=frozenset({"read", "run"}),
                    deny=frozenset({"kill"}),
                ),
            ),
        },
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (policy("{}"), "Policy 1: A rule has neither 'allow' nor 'deny'"),
        (policy("{match: {name: '('}, allow: run}"), "Policy 1: The pattern '(' is not a regular expression"),
        (policy("{match: {}, allow: run}"), "Policy 1: 'match' names no property"),
        (policy("{match: {name: }, allow: run}"), "Policy 1: 'match' names no property"),
        (policy("{matches: {name: x}, allow: run}"), "Policy 1: 'rule' has parts that are not known: matches"),
        (policy("text"), "Policy 1: 'rule' is not a map"),
        (policy(context="{}"), "Policy 1: 'context' has either"),
        (policy(context="{project: p, application: rundeck}"), "Policy 1: 'context' has either"),
        (policy(context="{application: other}"), "Policy 1: 'context' has either"),
        (policy(by="{}"), "Policy 1: 'by' names neither"),
        (policy(by="{role: x}"), "Policy 1: 'by' has parts that are not known: role"),
        (b"for: {jobs: []}\ncontext: {project: p}\nby: {group: g}", "'for' has parts that are not known: jobs"),
        (b"context: {project: p}\nby: {group: g}", "Policy 1: 'for' is missing"),
        (policy() + b"---\ntext", "Policy 2: 'policy' is not a map"),
        (b"rules: {'.*': {actions: workflow_fly}}\nby: {group: g}", "Policy 1: The action 'workflow_fly' is not known"),
        (b"{", "line 2: "),
    ],
)
def test_a_policy_that_is_not_understood_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        aclpolicy.read(data)
