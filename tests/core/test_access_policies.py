# SPDX-License-Identifier: Apache-2.0
"""Who may do what, as the policies say; they are read from the documents that administrators write."""

from __future__ import annotations

import pytest

from quarterdeck.core import access_policies
from quarterdeck.core.access_policies import Caller, Target
from quarterdeck.core.resources import Resource
from quarterdeck.formats import aclpolicy

POLICIES = aclpolicy.read(
    b"""
description: Administrators, all
context: {project: '.*'}
for:
  resource: [{allow: '*'}]
  adhoc: [{allow: '*'}]
  job: [{allow: '*'}]
  node: [{allow: '*'}]
by: {group: admin}
---
description: Administrators, the application
context: {application: rundeck}
for:
  project: [{allow: '*'}]
by: {group: [admin]}
---
description: Operators
context: {project: 'ops|web.*'}
for:
  job:
    - {match: {name: 'deploy.*', group: 'app(/.*)?'}, allow: [read, run]}
    - {equals: {group: 'db'}, allow: read}
    - {match: {name: '.*danger.*'}, deny: '*'}
  node:
    - {contains: {tags: www}, allow: [read, run]}
    - {contains: {tags: [blue, sql]}, allow: read}
    - {equals: {rundeck_server: 'true'}, deny: run}
  resource:
    - {equals: {kind: event}, allow: read}
  adhoc:
    - {deny: run}
by: {group: ops, username: [olga]}
""",
)


def job(name: str, group: str = "") -> Target:
    return access_policies.job_target(name, group)


def node(tags: str, *, is_server: bool = False) -> Target:
    return access_policies.node_target(Resource("n", tags=frozenset(tags.split())), is_server=is_server)


@pytest.mark.parametrize(
    ("scope", "kind", "target", "action", "decision"),
    [
        ("ops", "job", job("deploy1", "app"), "run", "granted"),
        ("ops", "job", job("deploy1", "app/web"), "read", "granted"),
        ("web7", "job", job("deploy1", "app"), "run", "granted"),
        ("other", "job", job("deploy1", "app"), "run", "refused"),
        ("", "job", job("deploy1", "app"), "run", "refused"),
        ("ops", "job", job("deploy1", "application"), "run", "refused"),  # whole values
        ("ops", "job", job("deploy1", "app"), "delete", "refused"),
        ("ops", "job", job("deploy danger", "app"), "run", "denied"),  # a denial beats what is allowed
        ("ops", "job", job("x", "db"), "read", "granted"),
        ("ops", "job", job("x", "db/y"), "read", "refused"),
        ("ops", "node", node("www red"), "run", "granted"),
        ("ops", "node", node("www", is_server=True), "run", "denied"),
        ("ops", "node", node("www", is_server=True), "read", "granted"),
        ("ops", "node", node("blue"), "read", "refused"),
        ("ops", "node", node("blue sql"), "read", "granted"),
        ("ops", "resource", {"kind": "event"}, "read", "granted"),
        ("ops", "resource", {"kind": "job"}, "read", "refused"),
        ("ops", "adhoc", {}, "run", "denied"),
        ("ops", "adhoc", {}, "kill", "refused"),
        ("", "project", {"name": "ops"}, "read", "refused"),
    ],
)
def test_what_an_operator_may_do(scope: str, kind: str, target: Target, action: str, decision: str) -> None:
    for caller in (Caller("otto", frozenset({"ops"})), Caller("olga")):
        assert access_policies.decide(POLICIES, caller, scope, kind, target, action) == decision


def test_an_administrator_may_do_everything_in_both_scopes() -> None:
    admin = Caller("root", frozenset({"admin"}))

    assert access_policies.allows(POLICIES, admin, "any", "adhoc", {}, "run")
    assert access_policies.allows(POLICIES, admin, "", "project", {"name": "any"}, "read")
    assert not access_policies.allows(POLICIES, admin, "", "job", job("x"), "read")


def test_without_policies_and_for_strangers_nothing_is_allowed() -> None:
    assert not access_policies.allows([], Caller("root", frozenset({"admin"})), "p", "adhoc", {}, "run")
    assert not access_policies.allows(POLICIES, Caller("mallory"), "ops", "job", job("deploy", "app"), "read")


def test_the_older_form_governs_jobs_by_their_path() -> None:
    policies = aclpolicy.read(
        b"""
rules:
  'app/.*': {actions: [workflow_read, workflow_run]}
  'adhoc/Temporary_Job': {actions: 'workflow_run'}
by: {group: ops}
""",
    )
    caller = Caller("otto", frozenset({"ops"}))

    def allows(kind: str, target: Target, action: str) -> bool:
        return access_policies.allows(policies, caller, "any", kind, target, action)

    assert allows("job", job("x", "app"), "run")
    assert not allows("job", job("x", "app"), "delete")
    assert not allows("job", job("x", "db"), "run")
    assert allows("adhoc", {}, "run")
    assert not allows("adhoc", {}, "kill")
