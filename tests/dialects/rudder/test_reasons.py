# SPDX-License-Identifier: Apache-2.0
"""Where a reason is demanded, dropped and kept. The settings are set behind the scenes: their chapter comes later."""

from __future__ import annotations

from typing import Any

import pytest
from tests.served import Served

MISSING = "Reason field is mandatory and should be at least 5 characters long"
TOO_SHORT = "Reason field should be at least 5 characters long"
NODE = ("POST", "/nodes/root", {"policyMode": "audit"}, "An error occurred while updating Node 'root' <- ")
CREATE = ("PUT", "/groups/categories", {"id": "cat", "name": "Category"}, "Could not create group category <- ")
UPDATE = ("POST", "/groups/categories/cat", {"name": "Other"}, "Could not update Group category 'cat' <- ")
DELETE = ("DELETE", "/groups/categories/cat", None, "Could not delete Group category 'cat' <- ")

Case = tuple[str, str, dict[str, Any] | None, str]


def send(served: Served, case: Case, **arguments: Any) -> dict[str, Any]:
    """The answer to one case's request."""
    method, path, document, _ = case
    headers = {"X-API-Token": served.tokens["admin"]}
    body = {"json": document} if document is not None else {}
    answer = served.client.request(method, f"/rudder/api/latest{path}", headers=headers, **{**body, **arguments})
    shown: dict[str, Any] = answer.json()
    return shown


def set_up(served: Served, **settings: object) -> None:
    """Change settings, with a category that can be changed and deleted."""
    with served.unit_of_work() as ctx:
        for key, value in settings.items():
            ctx.store.settings.set(key, value)


@pytest.mark.parametrize("case", [NODE, CREATE, UPDATE, DELETE], ids=lambda case: f"{case[0]} {case[1]}")
def test_a_mandatory_reason_must_be_there_and_long_enough(served: Served, case: Case) -> None:
    if case in (UPDATE, DELETE):
        send(served, CREATE)
    set_up(served, mandatory_change_message=True)
    assert send(served, case)["errorDetails"] == case[3] + MISSING
    assert send(served, case, params={"reason": "why"})["errorDetails"] == case[3] + TOO_SHORT
    assert send(served, case, params={"reason": "because"})["result"] == "success"


def test_a_mandatory_reason_may_stand_inside_the_json(served: Served) -> None:
    set_up(served, mandatory_change_message=True)
    assert send(served, CREATE, json={"name": "First", "reason": "why"})["errorDetails"] == CREATE[3] + TOO_SHORT
    assert send(served, CREATE, json={"id": "one", "name": "First", "reason": "because"})["result"] == "success"
    with served.unit_of_work() as ctx:
        assert [one.reason for one in ctx.store.history.of("group_category", "one")] == ["because"]


def test_newer_operations_never_insist_on_a_reason(served: Served) -> None:
    set_up(served, mandatory_change_message=True)
    assert send(served, ("PUT", "/rules", {"displayName": "A rule"}, ""))["result"] == "success"
    assert send(served, ("PUT", "/rules/categories", {"name": "Category"}, ""))["result"] == "success"


def test_without_change_messages_a_reason_is_dropped(served: Served) -> None:
    set_up(served, mandatory_change_message=True, enable_change_message=False)
    assert send(served, CREATE, params={"reason": "because"})["result"] == "success"
    with served.unit_of_work() as ctx:
        assert [one.reason for one in ctx.store.history.of("group_category", "cat")] == [""]
