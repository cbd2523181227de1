# SPDX-License-Identifier: Apache-2.0
"""`quarterdeck relays`, against a real server over TLS."""

from __future__ import annotations

import json

import pytest
from tests.cli.conftest import CommandLine, Running
from tests.cli.test_commands import add_pending

#: They share one server.
pytestmark = pytest.mark.xdist_group("cli")


def test_a_node_becomes_a_relay_is_listed_and_a_node_again(operator: CommandLine, running: Running) -> None:
    node = add_pending(running, "edge.example.com")
    operator("nodes", "accept", node)
    nobody = operator("relays", "list")

    promoted = operator("relays", "promote", "edge.example.com")
    listed = operator("relays", "list")
    shown = operator("relays", "show", "edge.example.com")
    known = json.loads(operator("relays", "list", "--json").out)
    again = operator("relays", "promote", node)
    demoted = operator("relays", "demote", "edge.example.com")

    assert "quarterdeck relays promote NODE" in nobody.out
    assert (promoted.code, promoted.out) == (0, f"{node} is a relay now.\n")
    assert listed.out.splitlines()[1].split() == [node, "edge.example.com", "root", "0", "0", "never", "-", "-", "-"]
    assert "It serves no nodes." in shown.out
    assert [one["id"] for one in known] == [node]
    assert again.code == 1
    assert "already a policy server" in again.err
    assert (demoted.code, demoted.out) == (0, f"{node} is a plain node now.\n")


def test_what_is_no_relay_is_said_so(operator: CommandLine) -> None:
    shown, demoted = operator("relays", "show", "nobody.example.com"), operator("relays", "demote", "nobody")

    assert (shown.code, demoted.code) == (1, 1)
    assert "There is no relay nobody.example.com." in shown.err
    assert "nobody" in demoted.err
