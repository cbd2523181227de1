# SPDX-License-Identifier: Apache-2.0
"""Roles x all operations: who lacks the right is refused, in the dialect's own form, before anything happens."""

from __future__ import annotations

import re

import pytest
from tests.served import Served
from tests.served_rundeck import Rundeck

from quarterdeck.core.accounts import DANGEROUS, READING, ROLES, WRITING, Access, Account
from quarterdeck.core.ids import AccountId
from quarterdeck.dialects.rudder.chapters import OPERATIONS
from quarterdeck.dialects.rundeck.chapters import OPERATIONS as RUNDECK
from quarterdeck.services import accounts
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance


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


def asking_as(role: str) -> Account:
    """An account with a role, or with a degree of access."""
    word, _, access = role.partition(" ")
    return account(Access(access)) if word == "access" else account(None, role)


def token_of(asking: Account, database: Database) -> str:
    """A new token that may do the same."""
    with database.unit_of_work(Provenance(actor="tests")) as store:
        ctx = Context(account=account(None, "admin"), store=store)
        token = accounts.create_token(ctx, "asking", access=asking.access, roles=asking.roles, expires_at=None)[1]
        store.commit()
    return token


DEGREES = [*sorted(ROLES), "access read", "access write"]


@pytest.mark.parametrize("role", DEGREES)
def test_every_operation_refuses_who_lacks_its_right(role: str, served: Served) -> None:
    asking = asking_as(role)
    token = token_of(asking, served.database)

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


@pytest.mark.parametrize("role", DEGREES)
def test_every_rundeck_operation_refuses_who_lacks_its_right(role: str, rundeck: Rundeck) -> None:
    asking = asking_as(role)
    token = token_of(asking, rundeck.database)

    for operation in RUNDECK:
        path = "/api/1" + re.sub(r"\{\w+\}", "x", operation.path)
        answer = rundeck.client.request(operation.method, path, headers={"X-RunDeck-Auth-Token": token})
        refused = f"asking is not authorized for: {path}" in answer.text
        assert answer.status_code == 200, operation.name
        assert refused == (operation.right not in asking.rights), operation.name


def test_every_rundeck_operation_refuses_who_has_no_login(rundeck: Rundeck) -> None:
    for operation in RUNDECK:
        path = "/api/1" + re.sub(r"\{\w+\}", "x", operation.path)
        answer = rundeck.client.request(operation.method, path)
        assert answer.status_code == 403, operation.name
        assert f"(unauthenticated) is not authorized for: {path}" in answer.text, operation.name
