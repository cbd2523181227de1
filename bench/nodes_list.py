# SPDX-License-Identifier: Apache-2.0
"""How long it takes until a new list of nodes is in use: of files, of a relay's copy, and of the server's database.

    python -m bench.nodes_list [--nodes 5000] [--rounds 10] [--quick]

Every node has a certificate with an RSA-4096 key. `first` is the first time in the process; the others follow, each
after one node in a hundred changed. While a list is made, the one before it is in use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests import agents

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.ids import ROOT, NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, Node
from quarterdeck.core.relays import ListedNode
from quarterdeck.formats import nodes_list, relay_documents
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.formats.signature import SigningKey
from quarterdeck.relaying.copies import NodesCopy
from quarterdeck.relaying.links import Link, Signer
from quarterdeck.relaying.nodes_list import ListFiles, Listing, NodesList
from quarterdeck.services import relays
from quarterdeck.services.context import Context
from quarterdeck.storage import embedded, migrate
from quarterdeck.storage.database import Database, Provenance

_GOAL = "(< 100 ms)"
_RELAY = NodeId("1b000000-0000-4000-8000-00000000000a")
#: Nodes that are new in a round are made beforehand, for so many rounds.
_SPARE_ROUNDS = 20
_CHANGED_SHARE = 0.01
#: As the server itself does it.
_CHANGE = "UPDATE nodes SET key_pem = %s, version = nextval('node_versions') WHERE id = %s"


class Subject(NamedTuple):
    """One node of the list."""

    node: NodeId
    hostname: str
    certificate: str


class Took(NamedTuple):
    """Seconds of all rounds: what passed, and what this process computed."""

    wall: list[float]
    cpu: list[float]


def subjects(count: int) -> list[Subject]:
    """So many nodes, with few different keys."""
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=4096) for _ in range(4)]

    def make(number: int) -> Subject:
        node = str(uuid.uuid4())
        return Subject(
            NodeId(node), f"node{number:05d}.example.com", agents.certificate(keys[number % len(keys)], node)
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(make, range(count)))


def measure(load: Callable[[], Listing], change: Callable[[int], None], rounds: int, count: int) -> Took:
    """Reload after each change."""
    took = Took([], [])
    known = NodesList(load)
    for number in range(rounds + 1):
        change(number)
        begun, computed = time.perf_counter(), time.process_time()
        known.reload()
        took.wall.append(time.perf_counter() - begun)
        took.cpu.append(time.process_time() - computed)
        if len(known.current().topology.nodes) < count:
            raise SystemExit(f"Only {len(known.current().topology.nodes)} of {count} nodes are listed.")
    return took


class Lists:
    """The same nodes in each of the three places, some of which another one replaces at every round."""

    def __init__(self, directory: Path, nodes: list[Subject], spare: list[Subject]) -> None:
        self._directory = directory
        self._nodes = nodes
        self._spare = spare

    def at(self, number: int) -> list[Subject]:
        """The nodes of one round."""
        fresh = self._fresh(number)
        return [*self._nodes[: len(self._nodes) - len(fresh)], *fresh]

    def _fresh(self, number: int) -> list[Subject]:
        """Those that are new in a round."""
        each = len(self._spare) // _SPARE_ROUNDS
        return self._spare[(number % _SPARE_ROUNDS) * each :][:each]

    def files(self, rounds: int) -> Took:
        """A list and certificates as peers keep them."""
        listed, certificates = self._directory / "nodeslist.json", self._directory / "certificates.pem"

        def change(number: int) -> None:
            some = self.at(number)
            nodes = {one.node: ListedNode(one.hostname, ROOT, nodes_list.hash_of(one.certificate)) for one in some} | {
                ROOT: ListedNode("server", ROOT, None)
            }
            listed.write_bytes(nodes_list.written(nodes))
            certificates.write_text("".join(one.certificate for one in some))

        load = ListFiles(me=ROOT, nodes=listed, certificates=certificates).load
        nodes_list.hash_of.cache_clear()
        return measure(load, change, rounds, len(self._nodes))

    def copy(self, rounds: int, pem: bytes) -> Took:
        """What a relay fetched from the server above."""
        path = self._directory / "nodes.json"

        def change(number: int) -> None:
            entries = {str(one.node): NodeEntry(one.hostname, _RELAY, (one.certificate,)) for one in self.at(number)}
            document = NodesDocument(ServerEntry(ROOT, (self._nodes[0].certificate,)), entries)
            path.write_bytes(relay_documents.encode(document))

        link = Link(url="http://127.0.0.1:1", pin="", signer=Signer(node=_RELAY, key=SigningKey(pem)))
        nodes_list.hash_of.cache_clear()
        return measure(NodesCopy(path=path, me=_RELAY, link=link, address="").load, change, rounds, len(self._nodes))

    def database(self, rounds: int) -> Took:
        """What the server itself knows."""
        directory = self._directory / "data"
        directory.mkdir()
        with embedded.running(directory) as url:
            migrate.upgrade(url)
            database = Database(url, pool_size=2)

            def load() -> Listing:
                with database.unit_of_work(Provenance(actor="bench")) as store:
                    return relays.listing(Context(account=SYSTEM, store=store))

            with database.unit_of_work(Provenance(actor="bench")) as store:
                for one in self._nodes:
                    key = AgentKey(pem=one.certificate, status=KeyStatus.CERTIFIED)
                    store.nodes.add(Node(id=one.node, hostname=one.hostname, key=key))
                store.commit()

            def change(number: int) -> None:
                with database.engine.begin() as connection:
                    for one, other in zip(self._nodes, self._fresh(number), strict=False):
                        values = (other.certificate, one.node)
                        connection.exec_driver_sql(_CHANGE, values)

            nodes_list.hash_of.cache_clear()
            took = measure(load, change, rounds, len(self._nodes))
            database.close()
            return took


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.nodes_list", description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="300 nodes, 3 rounds")
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.rounds = 300, 3
    found = subjects(options.nodes + _SPARE_ROUNDS * max(1, int(options.nodes * _CHANGED_SHARE)))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as scratch:
        Path(scratch).chmod(0o711)
        lists = Lists(Path(scratch), found[: options.nodes], found[options.nodes :])
        rows = [
            ("files of a relay", lists.files(options.rounds)),
            ("a relay's copy of the server's", lists.copy(options.rounds, pem)),
            ("the server's database", lists.database(options.rounds)),
        ]
    print(f"{options.nodes} nodes, load {os.getloadavg()[0]:.1f}; ms until the list is in use {_GOAL}")
    print(f"{'':<32} {'first':>8} {'median':>8} {'worst':>8} {'median CPU':>11}")
    for what, took in rows:
        later = [1000 * one for one in took.wall[1:]]
        cpu = 1000 * statistics.median(took.cpu[1:])
        print(f"{what:<32} {1000 * took.wall[0]:8.0f} {statistics.median(later):8.0f} {max(later):8.0f} {cpu:11.0f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
