# SPDX-License-Identifier: Apache-2.0
"""Requests to the next server, whose clock may be another: whatever is asked for, and in whichever dialect."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.agent.server import FakeServer, serving
from tests.agents import Agent
from tests.relaying.upstreams import Asked, Said, Upstream, upstream

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.daemon import tls
from quarterdeck.formats import agent
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import Link, Signer, Times
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.shared_file_hops import Hops
from quarterdeck.relaying.shared_files import Address, Passing

ME = NodeId("1b000000-0000-4000-8000-00000000000a")
NODE = NodeId("1b000000-0000-4000-8000-000000000001")


@pytest.fixture
def above() -> Iterator[Upstream]:
    with upstream() as made:
        yield made


def told_in_json(now: int) -> Said:
    return Said(401, b'{"code":"clock_skew","message":"Late.","server_time":%d}' % now)


def told_in_a_header(now: int) -> Said:
    """As the relay API says it, where HEAD has no body at all."""
    return Said(401, b"", {agent.HEADER_TIME: str(now)})


def by_its_clock(ahead: int, refuse: Callable[[int], Said], body: bytes = b"here") -> Callable[[Asked], Said]:
    """Answers as a server does whose clock is ahead of ours."""

    def answer(asked: Asked) -> Said:
        now = int(time.time()) + ahead
        return Said(200, body) if abs(int(asked.headers[agent.HEADER_TIME.lower()]) - now) <= 300 else refuse(now)

    return answer


def asks(link: Link) -> bytes:
    return link.ask("GET", "/x").body


def downloads(link: Link) -> bytes:
    into = io.BytesIO()
    link.download("/x", into, 100)
    return into.getvalue()


@pytest.mark.parametrize("time_told", [b"1" + b"0" * 400, b"-1", b'"noon"', b"true", b"1.5"])
def test_a_time_that_is_none_is_not_learnt(above: Upstream, time_told: bytes) -> None:
    link = above.link()
    above.answer = lambda _: Said(401, b'{"code":"clock_skew","server_time":' + time_told + b"}")

    assert link.ask("GET", "/x").status == 401

    above.answer = by_its_clock(0, told_in_json)
    assert link.ask("GET", "/x").body == b"here"


@pytest.mark.parametrize("ahead", [3600, -3600])
@pytest.mark.parametrize("refuse", [told_in_json, told_in_a_header])
@pytest.mark.parametrize("act", [asks, downloads])
def test_who_is_refused_for_the_time_asks_again_by_the_others_clock_and_keeps_to_it(
    above: Upstream, ahead: int, refuse: Callable[[int], Said], act: Callable[[Link], bytes]
) -> None:
    above.answer = by_its_clock(ahead, refuse)
    link = above.link()

    assert [act(link) for _ in range(3)] == [b"here"] * 3
    assert len(above.asked) == 4
    assert abs(link.times.now() - time.time() - ahead) < 5


def test_links_to_the_same_server_learn_together(above: Upstream) -> None:
    above.answer = by_its_clock(3600, told_in_json)
    one, other = above.link(), above.link()
    one.times = other.times = Times()

    asks(one)
    asks(other)

    assert len(above.asked) == 3


def test_whom_another_time_does_not_help_is_refused_in_the_end(above: Upstream) -> None:
    above.answer = lambda _: told_in_json(int(time.time()) + 9000)

    with pytest.raises(Unavailable, match=r"Late\."):
        downloads(above.link())

    assert len(above.asked) == 2


@pytest.mark.parametrize("answer", [Said(401, b'{"code":"bad_signature","server_time":1}'), Said(503), Said(401)])
def test_other_refusals_change_no_clock(above: Upstream, answer: Said) -> None:
    above.answer = lambda _: answer
    link = above.link()

    told = link.ask("GET", "/x")

    assert (told.status, len(above.asked), link.times.ahead) == (answer.status, 1, 0)


@pytest.mark.parametrize("body", [None, b"a file"])
def test_a_shared_file_passes_a_server_whose_clock_is_off(above: Upstream, tmp_path: Path, body: bytes | None) -> None:
    above.answer = by_its_clock(3600, told_in_a_header, b"")
    link = above.link()
    listing = Listing(topology=Topology(ME, {NODE: ListedNode("web1", ME)}))
    hops = Hops(NodesList(lambda: listing), Addresses(tmp_path / "relays.json"), link.signer, link)
    address = Address(target=NodeId("elsewhere"), source=NODE, file="name")

    status = hops.pass_on(Passing(to=None, address=address, word="1d", body=io.BytesIO(body) if body else None))

    assert status == 200
    assert [asked.body for asked in above.asked] == [body or b""] * 2


def test_a_request_with_a_body_goes_out_on_a_fresh_connection_when_an_idle_one_was_closed(tmp_path: Path) -> None:
    relay = Agent(node=ME, key_number=3)
    key = relay.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    identity = tmp_path / "server.pem"
    identity.write_bytes(relay.certificate.encode() + key)
    pin = tls.spki_pin(relay.certificate.encode())
    signing = SigningKey(key)
    fake = FakeServer(identity, relay.key, pin, idle_seconds=0.05, nodes={ME: signing.public_pem})
    with serving(fake) as server:
        link = Link(url=server.url, pin=pin, signer=Signer(node=ME, key=signing))
        link.ask("GET", agent.PATH_POLICY)
        time.sleep(0.5)

        told = link.ask("POST", agent.PATH_REPORTS, relay.parcel("report", relay.run([])))

        assert (told.status, len(server.parcels)) == (202, 1)
        link.close()
