# SPDX-License-Identifier: Apache-2.0
"""What a relay keeps of the server above it, to serve its nodes while that one is away: nodes list and policies.

Policies are signed by the root, so a relay can keep them and not change them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from quarterdeck.core import relays
from quarterdeck.core.agent_requests import NotAccepted
from quarterdeck.core.errors import Unavailable
from quarterdeck.core.ids import NodeId
from quarterdeck.core.relays import ListedNode, Topology
from quarterdeck.formats import agent, nodes_list, relay_documents
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.relaying import kept_files
from quarterdeck.relaying.links import Link, Told
from quarterdeck.relaying.nodes_list import Listing

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class NodesCopy:
    """The nodes list of a relay. `address` is where it says it is reached itself, `state` what it says of itself."""

    path: Path
    me: NodeId
    link: Link
    address: str
    state: Callable[[], str] = str

    def load(self) -> Listing:
        """The list as it was fetched last; empty before that. Raises Invalid."""
        body = kept_files.content(self.path)
        if body is None:
            return Listing(topology=Topology(self.me, {}))
        document = relay_documents.decode(body, NodesDocument)
        nodes = {NodeId(one): _listed(entry) for one, entry in document.nodes.items()}
        keys = {NodeId(one): entry.keys for one, entry in document.nodes.items() if entry.keys}
        server = NodeId(document.server.id)
        return Listing(
            topology=Topology(self.me, nodes),
            keys={**keys, server: document.server.keys},
            relays=frozenset(NodeId(one) for one, entry in document.nodes.items() if entry.relay),
            server=server,
        )

    def refresh(self) -> bool:
        """Fetch the list if it changed; whether it did. Raises Unavailable."""
        known = kept_files.content(self.path)
        headers = {relay_documents.HEADER_ADDRESS: self.address, relay_documents.HEADER_STATE: self.state()}
        body = fetched(self.link, relay_documents.PATH_NODES, known, headers)
        if body is None:
            return False
        relay_documents.decode(body, NodesDocument)
        kept_files.replace(self.path, body)
        return True


def document_below(listing: Listing, relay: NodeId, certificate: str) -> NodesDocument:
    """The list of a relay below this one, which signs its requests to it with the key of `certificate` (PEM)."""
    mine = relays.below(relay, listing.topology.nodes)
    nodes = {
        str(one): NodeEntry(
            hostname=node.hostname,
            policy_server=node.policy_server,
            keys=listing.keys_of(one),
            relay=one in listing.relays,
        )
        for one, node in mine.items()
    }
    return NodesDocument(server=ServerEntry(id=listing.topology.me, keys=(certificate,)), nodes=nodes)


def _listed(entry: NodeEntry) -> ListedNode:
    key_hash = nodes_list.hash_of(entry.keys[0]) if entry.keys else None
    return ListedNode(entry.hostname, NodeId(entry.policy_server), key_hash)


class PolicyCopy(msgspec.Struct, frozen=True):
    """A policy as the root signed it; the signature is base64."""

    config_id: str
    signature: str
    body: bytes


class PolicyCopies:
    """The policies of the nodes below this relay, one file each."""

    def __init__(self, directory: Path, link: Link) -> None:
        self._directory = directory
        self._link = link
        self._ids = directory / "configurations.json"

    def fetch(self, node: NodeId) -> PolicyCopy:
        """The present policy of a node; the last known one while the server above is away.

        Raises NotAccepted when the node has none, Unavailable when there is no copy either.
        """
        kept = self.kept(node)
        try:
            return self._fetch(node, kept)
        except Unavailable as error:
            if kept is None:
                raise
            log.debug("The policy of %s is served as it was: %s", node, error.message)
            return kept

    def kept(self, node: NodeId) -> PolicyCopy | None:
        """The copy that lies here, if any."""
        body = kept_files.content(self._path(node))
        try:
            return msgspec.msgpack.decode(body, type=PolicyCopy) if body is not None else None
        except msgspec.MsgspecError:
            log.warning("The copy of the policy of %s cannot be read; it is fetched anew.", node)
            return None

    def refresh(self) -> int:
        """Fetch what changed of all nodes' policies, and forget those of nodes that went; how many. Unavailable."""
        known = kept_files.content(self._ids)
        body = fetched(self._link, relay_documents.PATH_POLICIES, known)
        wanted = relay_documents.decode(body or known or b"{}", dict[str, str])
        changed = 0
        for node, config_id in wanted.items():
            kept = self.kept(NodeId(node))
            if kept is None or kept.config_id != config_id:
                try:
                    self._fetch(NodeId(node), kept)
                except NotAccepted:
                    continue
                changed += 1
        self._forget_others(wanted)
        if body is not None:
            kept_files.replace(self._ids, body)
        return changed

    def wanted(self) -> dict[str, str]:
        """The configurations that the nodes below should have, as of the last round."""
        return relay_documents.decode(kept_files.content(self._ids) or b"{}", dict[str, str])

    def _fetch(self, node: NodeId, kept: PolicyCopy | None) -> PolicyCopy:
        headers = {"If-None-Match": f'"{kept.config_id}"'} if kept is not None else {}
        told = self._link.ask("GET", f"{relay_documents.PATH_POLICIES}/{quote(node)}", b"", headers)
        if told.status == 304 and kept is not None:
            return kept
        if told.status == 200:
            config_id = told.headers.get("etag", "").strip('"')
            copy = PolicyCopy(config_id, told.headers.get(agent.HEADER_SIGNATURE.lower(), ""), told.body)
            self._keep(node, copy)
            return copy
        if told.status == 404 and told.code == "not_accepted":
            raise NotAccepted(told.message)
        raise Unavailable(f"The server above does not give the policy of {node}: {told.message}")

    def _keep(self, node: NodeId, copy: PolicyCopy) -> None:
        try:
            kept_files.replace(self._path(node), msgspec.msgpack.encode(copy))
        except OSError as error:  # the node gets it all the same
            log.warning("The policy of %s is not kept here: %s", node, error)

    def _forget_others(self, wanted: Mapping[str, str]) -> None:
        names = {self._path(NodeId(node)).name for node in wanted}
        for path in self._directory.glob("*.policy"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _path(self, node: NodeId) -> Path:
        return self._directory / f"{quote(node, safe='')}.policy"


def fetched(link: Link, path: str, known: bytes | None, headers: Mapping[str, str] | None = None) -> bytes | None:
    """A document of the server above; None when it is the one that is known. Raises Unavailable."""
    condition = {"If-None-Match": relay_documents.etag(known)} if known is not None else {}
    told = link.ask("GET", path, b"", {**(headers or {}), **condition})
    if told.status == 304 and known is not None:
        return None
    if told.status != 200:
        raise Unavailable(refusal(path, told))
    return told.body


def refusal(path: str, told: Told) -> str:
    """What to say when the server above did not give something."""
    return f"The server above does not give {path}: {told.message}"
