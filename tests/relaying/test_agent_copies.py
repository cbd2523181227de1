# SPDX-License-Identifier: Apache-2.0
"""The agent that a relay gives to machines: the root's, as the root signed it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests import agents
from tests.agents import Agent
from tests.relaying.upstreams import Asked, Said, Upstream

from quarterdeck.core.errors import Unavailable
from quarterdeck.formats import agent, signature
from quarterdeck.relaying.agent_copies import AgentCopy

ROOT_KEY = Agent(key_number=1)
OTHER_KEY = Agent(key_number=2)
OWN = b"of this relay's installation"


class Above:
    """A server above with an agent, signed by `signer` unless that is None."""

    def __init__(self) -> None:
        self.body = b"of the root"
        self.signer: Agent | None = ROOT_KEY
        self.statuses: list[int] = []

    def answer(self, asked: Asked) -> Said:
        said = self._answer(asked)
        self.statuses.append(said.status)
        return said

    def _answer(self, asked: Asked) -> Said:
        assert asked.target == agent.PATH_AGENT_FILE
        digest = agent.digest(self.body)
        headers = {"ETag": f'"{digest}"'}
        if asked.headers.get("if-none-match") == headers["ETag"]:
            return Said(304, b"", headers)
        if self.signer is not None:
            signed = agents.sign(self.signer.key, agent.agent_file_message(digest))
            headers[agent.HEADER_SIGNATURE] = base64.b64encode(signed).decode()
        return Said(200, self.body, headers)


@pytest.fixture
def above(server: Upstream) -> Above:
    made = Above()
    server.answer = made.answer
    return made


def copy(directory: Path, server: Upstream) -> AgentCopy:
    return AgentCopy(directory / "agent", server.link(), ROOT_KEY.certificate, lambda: OWN)


def test_the_servers_agent_is_fetched_when_it_changed(tmp_path: Path, above: Above, server: Upstream) -> None:
    made = copy(tmp_path, server)

    before = made.file()
    first, second = made.refresh(), made.refresh()
    fetched = made.file()
    above.body = b"newer"
    third = made.refresh()

    assert (before.body, before.signature) == (OWN, "")
    assert (fetched.body, fetched.digest) == (b"of the root", agent.digest(b"of the root"))
    signed = base64.b64decode(fetched.signature)
    assert signature.verify(ROOT_KEY.certificate, agent.agent_file_message(fetched.digest), signed)
    assert made.file().body == b"newer"
    assert (first, second, third) == (True, False, True)
    assert above.statuses == [200, 304, 200]


def test_the_same_agent_as_the_relays_own_is_no_change(tmp_path: Path, above: Above, server: Upstream) -> None:
    above.body = OWN
    made = copy(tmp_path, server)

    assert made.refresh() is False
    assert made.file().signature != ""


def test_the_last_copy_is_given_after_a_restart_while_the_server_is_away(
    tmp_path: Path, above: Above, server: Upstream
) -> None:
    copy(tmp_path, server).refresh()
    server.answer = lambda _: Said(503)

    again = copy(tmp_path, server)

    assert again.file().body == b"of the root"
    with pytest.raises(Unavailable):
        again.refresh()
    assert again.file().body == b"of the root"


@pytest.mark.parametrize("signer", [None, OTHER_KEY])
def test_an_agent_that_the_root_did_not_sign_is_not_given_to_machines(
    tmp_path: Path, above: Above, server: Upstream, signer: Agent | None
) -> None:
    above.signer = signer
    made = copy(tmp_path, server)

    with pytest.raises(Unavailable, match="not signed by the root"):
        made.refresh()

    assert made.file().body == OWN
    above.signer = ROOT_KEY
    made.refresh()
    assert made.file().body == b"of the root"


def test_a_copy_that_was_altered_on_disk_is_not_given_to_machines(
    tmp_path: Path, above: Above, server: Upstream
) -> None:
    copy(tmp_path, server).refresh()
    kept = (tmp_path / "agent").read_bytes()
    (tmp_path / "agent").write_bytes(kept.replace(b"of the root", b"of nobody.."))

    again = copy(tmp_path, server)

    assert again.file().body == OWN
    assert again.refresh()
    assert again.file().body == b"of the root"
