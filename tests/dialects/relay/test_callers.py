# SPDX-License-Identifier: Apache-2.0
"""Every operation says whom it is for, and turns everybody else away before anything else happens."""

from __future__ import annotations

import re

import pytest
from tests.dialects.relay.conftest import API, INSIDE, LOOPBACK, OUTSIDE, Relay

from quarterdeck.dialects.relay.chapters import OPERATIONS
from quarterdeck.web.operation import Operation

#: Who proves nothing gets this far.
OPEN_TO = {
    "host": {LOOPBACK},
    "upstream": {LOOPBACK},
    "nodes": {LOOPBACK, INSIDE},
    "proven": set[str](),
    "server": set[str](),
    "anyone": {LOOPBACK, INSIDE},
}
#: What anybody may know.
FOR_EVERYBODY = {"getUuid", "headUuid"}
BY_NAME = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)


def ask(relay: Relay, operation: Operation, address: str) -> int:
    path = re.sub(r"\{\w+\}", "x", operation.path)
    prefix = "" if operation.options.get("beside") else API
    return relay.ask(operation.method, f"{prefix}{path}?ttl=1d&hash=aa", at=address).status_code


@BY_NAME
def test_strangers_from_elsewhere_may_call_nothing_but_what_anybody_may_know(operation: Operation, root: Relay) -> None:
    assert ask(root, operation, OUTSIDE) == (200 if operation.name in FOR_EVERYBODY else 403)


@BY_NAME
def test_addresses_open_what_the_row_says(operation: Operation, root: Relay) -> None:
    opened = {address for address in (LOOPBACK, INSIDE) if ask(root, operation, address) not in (401, 403)}

    assert opened == OPEN_TO[operation.options["callers"]]


def test_rights_stand_on_what_is_not_for_nodes() -> None:
    for one in OPERATIONS:
        assert (one.right is not None) == (one.options["callers"] in ("host", "upstream")), one.name
