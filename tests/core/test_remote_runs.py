# SPDX-License-Identifier: Apache-2.0
"""What is asked for when agents are to run, as the form that goes from server to server."""

from __future__ import annotations

import pytest

from quarterdeck.core import remote_runs
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.remote_runs import Form, Order, Wanted

NODES = (NodeId("n1"), NodeId("n2"))


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(nodes=NODES),
        Wanted(nodes=NODES, conditions=("a", "b"), audit=True, keep_output=True, form=Form.JSON),
        Wanted(nodes=NODES, asynchronous=True),
    ],
)
def test_the_next_server_reads_what_was_asked_for(wanted: Wanted) -> None:
    assert remote_runs.wanted(wanted.fields(NODES), NODES) == wanted


def test_an_agent_that_is_only_to_look_is_told_so() -> None:
    assert Wanted(audit=True, keep_output=True).order == Order(audit=True)


def test_peers_are_told_nothing_that_they_do_not_know_unless_it_is_asked_for() -> None:
    assert Wanted(nodes=NODES).fields(NODES).keys() == {"keep_output", "asynchronous", "classes", "nodes"}


def test_to_look_or_not_is_true_or_false() -> None:
    with pytest.raises(Invalid, match="invalid audit: perhaps, should be true or false"):
        remote_runs.wanted({"audit": "perhaps"}, NODES)
