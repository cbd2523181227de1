# SPDX-License-Identifier: Apache-2.0
"""Files of techniques over two relays: to the node, changed, and still there when the server is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.daemon.servers import eventually
from tests.e2e import relays
from tests.e2e.machines import NATIVE, PATIENCE_SECONDS, Site, keep, statuses
from tests.e2e.relays import Relay, RelayedMachine

from quarterdeck.formats import agent

pytestmark = [pytest.mark.xdist_group("relayed resources"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def upper(served: Site, token: str) -> Iterator[Relay]:
    made = relays.relay(served, "upper", token)
    yield made
    made.end()


@pytest.fixture(scope="module")
def lower(served: Site, upper: Relay, token: str) -> Iterator[Relay]:
    made = relays.relay(served, "lower", token, above=upper)
    yield made
    made.end()


def put(served: Site, content: bytes) -> None:
    """Give the technique its file, and let policies follow."""
    answer = served.client.put(f"{NATIVE}/techniques/technique_motd/1.0/resources/motd", content=content)
    assert answer.json() == {"path": "motd", "sha256": agent.digest(content), "size": len(content)}, answer.text
    served.settle()


def mirrors(relay: Relay) -> set[str]:
    """The digests of what a relay has of techniques."""
    return {path.name for path in (relay.data / "mirror" / "resources").glob("??/*")}


def has_only(relay: Relay, digest: str) -> bool:
    """Whether a relay soon has this content and no other."""
    return eventually(lambda: mirrors(relay) == {digest}, PATIENCE_SECONDS)


def test_a_file_of_a_technique_reaches_a_node_behind_two_relays_also_without_the_server(
    served: Site, upper: Relay, lower: Relay, token: str
) -> None:
    machine = RelayedMachine(served, "deep", lower)
    machine.enroll_through_relay(token)
    target = machine.files / "motd"
    keep(served, "motd", machine.node, "file_from_local_source", source="${resources_dir}/motd", path=str(target))
    put(served, b"first\n")

    first = machine.run()
    copied = target.read_bytes()
    put(served, b"second\n")
    second = machine.run()

    assert statuses(first) == statuses(second) == {"motd": "result_repaired"}, (first, second)
    assert (copied, target.read_bytes()) == (b"first\n", b"second\n")

    third = agent.digest(b"third\n")
    put(served, b"third\n")
    # The relays fetch it by themselves, and forget what no policy names any more.
    for relay in (upper, lower):
        assert has_only(relay, third), relay.log.read_text()
    served.server.process.kill()
    served.server.process.wait()
    try:
        assert statuses(machine.run()) == {"motd": "result_repaired"}
        assert target.read_bytes() == b"third\n"
        lower.kill()
        lower.start()
        assert statuses(machine.run()) == {"motd": "result_success"}
    finally:
        served.start()


def test_machines_get_the_servers_agent_over_two_relays_and_the_line_names_it(
    served: Site, upper: Relay, lower: Relay
) -> None:
    of_the_server = served.client.get(agent.PATH_AGENT_FILE)
    digest = str(served.native("GET", "/server")["agentDigest"])
    assert eventually((lower.data / "mirror" / "agent").exists, PATIENCE_SECONDS), lower.log.read_text()

    for relay in (upper, lower):
        with relays.client(relay) as http:
            given = http.get(agent.PATH_AGENT_FILE)
            known = http.get(agent.PATH_AGENT_FILE, headers={"If-None-Match": given.headers["ETag"]})

        assert given.content == of_the_server.content
        assert given.headers[agent.HEADER_SIGNATURE] == of_the_server.headers[agent.HEADER_SIGNATURE]
        assert known.status_code == 304
        assert f"echo '{digest}  quarterdeck-agent.pyz' | sha256sum -c -" in relay.log.read_text()
