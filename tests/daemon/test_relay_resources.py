# SPDX-License-Identifier: Apache-2.0
"""A relay as it is wired, asked for files of techniques and for the agent by nodes, strangers and relays below it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import agents
from tests.agents import Agent
from tests.daemon.wired_relays import DEEP, INNER, NEAR, STRANGER, Above, Below, refused, wired
from tests.relaying.upstreams import Asked, Said, conditional

from quarterdeck.formats import agent, agent_file, relay_documents

ROOT_KEY = Agent(key_number=6)
FOR_NEAR, FOR_DEEP, AGENT = b"for near", b"for deep", b"the server's agent"


class Root(Above):
    """The server above, with policies that name files and an agent of its own."""

    files = {NEAR.node: FOR_NEAR, DEEP.node: FOR_DEEP}  # noqa: RUF012  # nobody changes it
    agent_file = AGENT

    def answer(self, asked: Asked) -> Said:
        if self.away:
            return Said(503)
        if asked.target == relay_documents.PATH_POLICIES:
            return conditional(asked, relay_documents.encode(dict.fromkeys(self.files, "id-1")))
        name = asked.target.rpartition("/")[2]
        if asked.target.startswith(f"{relay_documents.PATH_POLICIES}/"):
            file = self.files[name]
            named = [{"path": "file", "sha256": agent.digest(file), "size": len(file)}]
            body = json.dumps({"policies": [{"resources": named}]}, separators=(",", ":")).encode()
            return Said(200, body, {"ETag": '"id-1"', agent.HEADER_SIGNATURE: "c2ln"})
        if asked.target.startswith(relay_documents.PATH_RESOURCES):
            return Said(200, next(one for one in self.files.values() if agent.digest(one) == name))
        if asked.target == agent.PATH_AGENT_FILE:
            digest = agent.digest(self.agent_file)
            signed = base64.b64encode(agents.sign(ROOT_KEY.key, agent.agent_file_message(digest))).decode()
            return Said(200, self.agent_file, {"ETag": f'"{digest}"', agent.HEADER_SIGNATURE: signed})
        return super().answer(asked)


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    told = {"public_url": "https://relay.example.com:8443"}
    with wired(Root(), tmp_path, told, policy_key=ROOT_KEY.certificate) as made:
        yield made


def path(content: bytes, *, relay: bool = False) -> str:
    return f"{relay_documents.PATH_RESOURCES if relay else agent.PATH_RESOURCES}/{agent.digest(content)}"


def test_a_node_gets_the_files_of_its_policy_and_keeps_getting_them(below: Below) -> None:
    first = below.get(NEAR, path(FOR_NEAR))
    below.above.away = True
    kept = below.get(NEAR, path(FOR_NEAR))

    assert (first.status_code, first.content) == (200, FOR_NEAR)
    assert (kept.content, kept.headers["Content-Type"]) == (FOR_NEAR, "application/octet-stream")
    assert refused(below.get(NEAR, path(FOR_DEEP))) == (404, "invalid")
    forged = below.client.get(path(FOR_NEAR), headers=NEAR.headers("GET", path(FOR_DEEP)))
    assert refused(forged) == (401, "bad_signature")


def test_a_round_brings_what_no_node_has_asked_for_yet(below: Below) -> None:
    below.relay.mirror.policies.refresh()
    below.relay.mirror.resources.refresh()
    below.above.away = True

    assert below.get(NEAR, path(FOR_NEAR)).content == FOR_NEAR
    assert below.get(INNER, path(FOR_DEEP, relay=True)).content == FOR_DEEP


def test_a_relay_below_gets_what_its_nodes_need_and_a_node_is_no_relay(below: Below) -> None:
    below.relay.mirror.policies.refresh()

    assert below.get(INNER, path(FOR_DEEP, relay=True)).content == FOR_DEEP
    assert refused(below.get(INNER, path(FOR_NEAR, relay=True))) == (404, "invalid")
    assert refused(below.get(NEAR, path(FOR_NEAR, relay=True))) == (403, "invalid")


def test_what_a_stranger_asks_for_goes_up(below: Below) -> None:
    answer = below.get(STRANGER, path(FOR_NEAR))

    assert refused(answer) == (404, "not_accepted")
    (passed,) = below.above.passed
    assert passed.target == path(FOR_NEAR)
    assert relay_documents.HEADER_VOUCHER.lower() in passed.headers


def test_machines_get_the_relays_own_agent_until_the_servers_came(below: Below) -> None:
    said: list[str] = []
    mirror = below.relay.mirror
    mirror.agent_changed = lambda: said.append(mirror.agent.file().digest)

    before = below.client.get(agent.PATH_AGENT_FILE)
    mirror.round()
    after = below.client.get(agent.PATH_AGENT_FILE)
    mirror.round()

    assert before.content == agent_file.agent_file()
    assert agent.HEADER_SIGNATURE not in before.headers
    assert (after.content, after.headers["ETag"]) == (AGENT, f'"{agent.digest(AGENT)}"')
    assert after.headers[agent.HEADER_SIGNATURE]
    assert said == [agent.digest(AGENT)]


def test_a_relay_that_starts_asks_which_agent_the_server_has_and_does_without_an_answer(below: Below) -> None:
    mirror = below.relay.mirror

    mirror.look_for_agent(30.0)
    below.above.away = True
    mirror.look_for_agent(30.0)

    assert mirror.agent.file().body == AGENT
