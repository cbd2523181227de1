# SPDX-License-Identifier: Apache-2.0
"""A tree of real processes: the server, a relay without a database, machines behind it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Site, site
from tests.e2e.relays import Relay, RelayedMachine
from tests.postgres import temporary_directory

pytestmark = [pytest.mark.xdist_group("relays"), pytest.mark.timeout(300)]

GROUP = "behind"


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with temporary_directory() as directory, site(directory) as made:
        yield made


@pytest.fixture(scope="module")
def token(served: Site) -> str:
    return relays.enrolment_token(served)


@pytest.fixture(scope="module")
def relay(served: Site, token: str) -> Iterator[Relay]:
    made = relays.relay(served, "relay1", token)
    yield made
    made.end()


@pytest.fixture(scope="module")
def machine(served: Site, relay: Relay, token: str) -> RelayedMachine:
    made = RelayedMachine(served, "behind1", relay)
    assert made.enroll_through_relay(token) == {"node": made.node, "status": "accepted"}
    served.ask(
        "PUT",
        "/groups",
        {
            "id": GROUP,
            "displayName": "Behind the relay",
            "category": "GroupRoot",
            "dynamic": True,
            "query": {
                "select": "node",
                "composition": "And",
                "where": [
                    {"objectType": "node", "attribute": "policyServerId", "comparator": "eq", "value": relay.node}
                ],
            },
        },
    )
    served.settle()
    return made


def test_a_node_enrols_gets_its_policy_and_reports_through_its_relay(
    served: Site, relay: Relay, machine: RelayedMachine
) -> None:
    story = Kept(served, "motd")
    target = machine.files / "motd"
    story.set(target, "from the root", "enforce", GROUP)
    served.settle()

    run = machine.run()

    assert relays.policy_server(served, machine.node) == relay.node
    assert run["counts"] == {"result_repaired": 1}
    assert target.read_text() == "from the root\n"
    assert eventually(lambda: story.compliance()["compliance"] == 100.0, PATIENCE_SECONDS), served.trouble()
    assert eventually(lambda: relay.waiting() == [], PATIENCE_SECONDS), relay.log.read_text()
