# SPDX-License-Identifier: Apache-2.0
"""Remote runs on their way to a relay below: over TLS with its key pinned, signed, read while they come."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from tests import agents

from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.relays import KeyHash, ListedNode, Topology
from quarterdeck.formats import agent, signature
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.addresses import Addresses
from quarterdeck.relaying.links import Signer
from quarterdeck.relaying.nodes_list import Listing, NodesList
from quarterdeck.relaying.remote_run_hops import RemoteRunHops
from quarterdeck.relaying.shared_file_hops import Hops
from quarterdeck.relaying.shared_files import Address, Passing

RELAY = NodeId("1a000000-0000-4000-8000-00000000000a")
FORM = {"classes": "a,b", "keep_output": "true", "nodes": "n1,n2"}
RELAY_KEY, ROOT_KEY, OTHER_KEY = 3, 4, 5


@dataclass
class Below:
    """A relay that answers with these pieces; after the first it waits until `go` is set."""

    url: str = ""
    status: int = 200
    pieces: tuple[bytes, ...] = (b"first\n", b"second\n")
    go: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    #: what it refuses requests of another time with; None: it takes any
    clock: int | None = None


@pytest.fixture
def below(tmp_path: Path) -> Iterator[Below]:
    known = Below()
    known.go.set()
    with _serving(known, tmp_path):
        yield known


@contextmanager
def _serving(known: Below, directory: Path, key_number: int = RELAY_KEY) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known.asked.append((self.path, dict(self.headers.items()), body))
            if known.clock is not None and abs(int(self.headers[agent.HEADER_TIME]) - known.clock) > 300:
                self.send_response(401)
                self.send_header(agent.HEADER_TIME, str(known.clock))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(known.status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in known.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                known.go.wait(20)
            self.wfile.write(b"0\r\n\r\n")

        def do_HEAD(self) -> None:
            known.asked.append((self.path, dict(self.headers.items()), b""))
            known.go.wait(20)
            self.send_response(known.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Who does not trust this relay hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    key = agents.private_key(key_number)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "relay.pem").write_bytes(pem + agents.certificate(key, RELAY).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "relay.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    known.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        known.go.set()
        server.shutdown()
        thread.join()
        server.server_close()


def listed(key_number: int = RELAY_KEY) -> ListedNode:
    public = agents.private_key(key_number).public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return ListedNode("relay.invalid", ROOT, KeyHash("sha256", hashlib.sha256(der).digest()))


def hops(url: str, directory: Path) -> RemoteRunHops:
    addresses = Addresses(directory / "relays.json")
    addresses.learn(RELAY, url)
    pem = agents.private_key(ROOT_KEY).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return RemoteRunHops(addresses=addresses, signer=Signer(node=ROOT, key=SigningKey(pem)))


async def everything(hop: RemoteRunHops, of: ListedNode | None = None) -> bytes:
    return b"".join([piece async for piece in hop(RELAY, of or listed(), "nodes", FORM)])


def test_a_relay_gets_the_form_signed_and_its_answer_comes_back(below: Below, tmp_path: Path) -> None:
    assert asyncio.run(everything(hops(below.url, tmp_path))) == b"first\nsecond\n"

    ((path, headers, body),) = below.asked
    assert path == "/rudder/relay-api/remote-run/nodes"
    assert {key: value[0] for key, value in parse_qs(body.decode()).items()} == FORM
    names = (agent.HEADER_NODE, agent.HEADER_TIME, agent.HEADER_NONCE, agent.HEADER_SIGNATURE)
    given = {name.lower(): value for name, value in headers.items()}
    node, moment, nonce, signed = (given[name.lower()] for name in names)
    message = agent.request_message("POST", path, node, moment, nonce, body)
    pem = agents.certificate(agents.private_key(ROOT_KEY), ROOT)
    assert node == ROOT
    assert signature.verify(pem, message, signature.decode_base64(signed))


def test_output_is_there_before_the_end(below: Below, tmp_path: Path) -> None:
    below.go.clear()

    async def story() -> None:
        async with aclosing(hops(below.url, tmp_path)(RELAY, listed(), "all", FORM)) as pieces:
            assert await anext(pieces) == b"first\n"
            below.go.set()
            assert await anext(pieces) == b"second\n"

    asyncio.run(asyncio.wait_for(story(), 20))


def test_statement_39_a_relay_with_another_key_gets_nothing(below: Below, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="another key than the nodes list has"):
        asyncio.run(everything(hops(below.url, tmp_path), listed(OTHER_KEY)))

    assert below.asked == []
    gc.collect()  # a connection that was left open would be told now


@pytest.fixture
def replaced(tmp_path: Path) -> Iterator[Below]:
    """The same relay with another key, at another port."""
    known = Below(pieces=(b"with another key\n",))
    known.go.set()
    (tmp_path / "replaced").mkdir()
    with _serving(known, tmp_path / "replaced", OTHER_KEY):
        yield known


def test_statement_64_a_new_key_of_a_relay_holds_for_new_runs_and_cuts_none_that_goes_on(
    below: Below, replaced: Below, tmp_path: Path
) -> None:
    below.go.clear()
    hop = hops(below.url, tmp_path)

    async def story() -> None:
        async with aclosing(hop(RELAY, listed(), "all", FORM)) as pieces:
            assert await anext(pieces) == b"first\n"
            with pytest.raises(Unavailable, match="another key than the nodes list has"):
                await everything(hop, listed(OTHER_KEY))  # who has the old key only is believed no more

            hop.addresses.learn(RELAY, replaced.url)
            assert await everything(hop, listed(OTHER_KEY)) == b"with another key\n"

            below.go.set()
            assert [piece async for piece in pieces] == [b"second\n"]

    asyncio.run(asyncio.wait_for(story(), 20))
    assert (len(below.asked), len(replaced.asked)) == (1, 1)


def test_statement_64_a_new_key_of_a_relay_holds_for_new_files_and_cuts_none_that_is_on_its_way(
    below: Below, replaced: Below, tmp_path: Path
) -> None:
    below.go.clear()
    now = listed()
    nodes = NodesList(lambda: Listing(topology=Topology(ROOT, {RELAY: now})))
    hop = hops(below.url, tmp_path)
    files = Hops(nodes, hop.addresses, hop.signer)
    address = Address(target=NodeId("target"), source=NodeId("source"), file="file")
    passing = Passing(to=RELAY, address=address, word="aa")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(files.pass_on, passing)
        while not below.asked:
            time.sleep(0.01)
        now = listed(OTHER_KEY)
        nodes.reload()
        with pytest.raises(Unavailable):
            files.pass_on(passing)
        hop.addresses.learn(RELAY, replaced.url)

        assert files.pass_on(passing) == 200
        assert not running.done()
        below.go.set()
        assert running.result(20) == 200

    assert (len(below.asked), len(replaced.asked)) == (1, 1)
    files.link(RELAY).close()
    gc.collect()  # a connection that was left open would be told now


def test_a_relay_whose_key_is_not_known_is_not_asked(below: Below, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="key is not known"):
        asyncio.run(everything(hops(below.url, tmp_path), ListedNode("relay.invalid", ROOT)))

    assert below.asked == []


def test_a_relay_that_refuses_adds_nothing_and_its_words_are_told(below: Below, tmp_path: Path) -> None:
    below.status, below.pieces = 403, (b"This is for this machine.",)

    with pytest.raises(Unavailable, match=r"status 403: This is for this machine\."):
        asyncio.run(everything(hops(below.url, tmp_path)))


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_relay_whose_clock_is_off_is_asked_again_by_its_own(below: Below, tmp_path: Path, ahead: int) -> None:
    below.clock = int(time.time()) + ahead
    hop = hops(below.url, tmp_path)

    assert [asyncio.run(everything(hop)) for _ in range(2)] == [b"first\nsecond\n"] * 2

    assert len(below.asked) == 3, "it remembers"


def test_a_relay_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        asyncio.run(everything(hops("https://127.0.0.1:1", tmp_path)))
