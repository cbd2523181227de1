# SPDX-License-Identifier: Apache-2.0
"""Roles x all operations: who lacks the right is refused, in the dialect's own form, before anything happens."""

from __future__ import annotations

import re

import pytest
from tests.served import Served

from quarterdeck.core.accounts import DANGEROUS, READING, ROLES, WRITING, Access, Account
from quarterdeck.core.ids import AccountId
from quarterdeck.dialects.rudder.chapters import OPERATIONS
from quarterdeck.services import accounts
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Provenance


def account(access: Access | None, *roles: str) -> Account:
    return Account(id=AccountId("a"), name="a", access=access, roles=frozenset(roles))


def test_access_write_gives_no_dangerous_right() -> None:
    assert account(Access.WRITE).rights & DANGEROUS == frozenset()


def test_access_read_gives_only_reading_rights() -> None:
    assert account(Access.READ).rights == READING
    assert frozenset() == READING & WRITING


def test_admin_may_do_everything_the_others_may() -> None:
    for role in ROLES:
        assert account(None, role).rights <= account(None, "admin").rights


@pytest.mark.parametrize("role", [*sorted(ROLES), "access read", "access write"])
def test_every_operation_refuses_who_lacks_its_right(role: str, served: Served) -> None:
    word, _, access = role.partition(" ")
    asking = account(Access(access)) if word == "access" else account(None, role)
    with served.database.unit_of_work(Provenance(actor="tests")) as store:
        token = accounts.create_token(
            Context(account=account(None, "admin"), store=store),
            f"role {role}",
            access=asking.access,
            roles=asking.roles,
            expires_at=None,
        )[1]
        store.commit()

    for operation in OPERATIONS:
        if operation.right is None or operation.right in asking.rights:
            continue
        path = "/rudder/api/latest" + re.sub(r"\{\w+\}", "x", operation.path)
        answer = served.client.request(operation.method, path, headers={"X-API-Token": token})
        assert answer.status_code == 500, operation.name
        assert answer.json()["errorDetails"].startswith("Authorization error: "), operation.name
        assert answer.json()["action"] == operation.name


def test_every_operation_refuses_who_has_no_token(served: Served) -> None:
    for operation in OPERATIONS:
        if operation.right is None:
            continue
        path = "/rudder/api/latest" + re.sub(r"\{\w+\}", "x", operation.path)
        answer = served.client.request(operation.method, path)
        assert answer.status_code == 401, operation.name
        assert answer.json()["result"] == "error"
