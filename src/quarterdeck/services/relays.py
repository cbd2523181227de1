# SPDX-License-Identifier: Apache-2.0
"""What the server knows of the tree of policy servers, who in it may ask for whom, and who becomes a relay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from quarterdeck.core import groups, relays
from quarterdeck.core.agent_requests import NotAccepted, Signed, UnknownNode
from quarterdeck.core.errors import Conflict, Forbidden, NotFound
from quarterdeck.core.events import GroupChanged, NodeChanged, RuleChanged
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import ROOT, GroupId, NodeId
from quarterdeck.core.node_queries import Criterion, NodeQuery
from quarterdeck.core.nodes import Node, NodeKind, NodeStatus
from quarterdeck.core.relays import MAX_LEVELS, ListedNode, Topology
from quarterdeck.core.targets import Simple
from quarterdeck.formats import nodes_list, relay_documents
from quarterdeck.formats.relay_documents import NodeEntry, NodesDocument, ServerEntry
from quarterdeck.relaying import policy_files
from quarterdeck.relaying.nodes_list import Listing
from quarterdeck.services import agent_requests
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context

#: A file that all nodes have leads to the first that are below the relay.
_ASKED_AT_ONCE = 500

# -- the tree ------------------------------------------------------------------------------


def listing(ctx: Context) -> Listing:
    """The root's own list: every accepted node at any depth, itself too, with the keys that are known."""
    nodes, keys, servers = _known(ctx)
    return Listing(topology=Topology(ROOT, nodes), keys=keys, relays=servers)


def listing_below(ctx: Context, relay: NodeId) -> Listing:
    """The list that a relay gets: every accepted node below it at any depth, with their keys."""
    nodes, keys, servers = _known(ctx)
    mine = relays.below(relay, nodes)
    return Listing(
        topology=Topology(relay, mine),
        keys={node: some for node, some in keys.items() if node in mine},
        relays=servers & mine.keys(),
    )


def document_for(ctx: Context, relay: NodeId, policy_key: str) -> NodesDocument:
    """The same as a relay gets it; `policy_key` (PEM) is the key that this server signs with."""
    found = listing_below(ctx, relay)
    nodes = {
        str(one): NodeEntry(
            hostname=node.hostname,
            policy_server=node.policy_server,
            keys=found.keys_of(one),
            relay=one in found.relays,
        )
        for one, node in found.topology.nodes.items()
    }
    return NodesDocument(server=ServerEntry(id=ROOT, keys=(policy_key,)), nodes=nodes)


def config_ids(ctx: Context, relay: NodeId) -> dict[str, str]:
    """The configurations of the nodes below a relay that have one."""
    mine = listing_below(ctx, relay).topology.nodes
    return {str(one): found for one, found in ctx.store.policies.config_ids(mine).items()}


def _known(ctx: Context) -> tuple[dict[NodeId, ListedNode], Mapping[NodeId, tuple[str, ...]], frozenset[NodeId]]:
    nodes: dict[NodeId, ListedNode] = {}
    keys: dict[NodeId, tuple[str, ...]] = {}
    rows = ctx.store.relays.listed()
    for row in rows:
        nodes[row.node] = ListedNode(row.hostname, row.policy_server, nodes_list.hash_of(row.key_pem))
        if row.key_pem:
            keys[row.node] = (row.key_pem,)
    return nodes, keys, frozenset(row.node for row in rows if row.kind is NodeKind.RELAY)


# -- who asks ------------------------------------------------------------------------------


def admit(ctx: Context, gate: Gate, signed: Signed) -> NodeId:
    """The relay that signed a request. Raises Forbidden unless it is one, NotAccepted, the errors of `Gate.admit`."""
    agent_requests.require_accepted(gate.admit(ctx, signed))
    if ctx.store.relays.kind(signed.node) is not NodeKind.RELAY:
        raise Forbidden(
            f"Node {signed.node} is no relay; an administrator may promote it (quarterdeck relays promote)."
        )
    return signed.node


def through(ctx: Context, gate: Gate, voucher: str, node_signature: str) -> NodeId:
    """The relay that a node's request came through first; the root without a voucher. Raises what `admit` raises."""
    if not voucher:
        return ROOT
    relay, time, nonce, signed = relay_documents.read_voucher(voucher)
    message = relay_documents.voucher_message(relay, time, nonce, node_signature)
    try:
        return admit(ctx, gate, Signed(node=NodeId(relay), time=time, nonce=nonce, signature=signed, message=message))
    except (NotAccepted, UnknownNode, Forbidden) as error:  # who reads it is the node, which may well be accepted
        raise type(error)(f"The relay {relay} may carry nothing to the server: {error.message}") from error


def below(ctx: Context, relay: NodeId, nodes: Iterable[str]) -> set[NodeId]:
    """Those of some nodes that are accepted and stand below a relay, at any depth."""
    wanted = {NodeId(one) for one in nodes} - {relay}
    above: dict[NodeId, NodeId] = {}
    asked: set[NodeId] = set(wanted)
    for _ in range(MAX_LEVELS):
        if not asked:
            break
        found = ctx.store.relays.policy_servers_of(asked)
        above |= found
        asked = set(found.values()) - above.keys() - {relay, ROOT}
    return {node for node in wanted if _leads_to(node, relay, above)}


def _leads_to(node: NodeId, relay: NodeId, above: Mapping[NodeId, NodeId]) -> bool:
    at = node
    for _ in range(MAX_LEVELS):
        if at not in above:
            return False
        at = above[at]
        if at == relay:
            return True
    return False


def require_below(ctx: Context, relay: NodeId, node: str) -> NodeId:
    """Raises NotFound unless the node is accepted and stands below the relay."""
    if not below(ctx, relay, [node]):
        raise NotFound(f"There is no node {node} below this relay.")
    return NodeId(node)


def shared_with(ctx: Context, relay: NodeId) -> frozenset[str]:
    """The directories with files of nodes of which a relay gets everything."""
    return policy_files.directories_for(relays.below(relay, _known(ctx)[0]))


def first_shared_with(ctx: Context, relay: NodeId, directories: Sequence[str]) -> frozenset[str]:
    """Those of some directories with files of nodes that a relay may have: the first that are found, if any are."""
    if policy_files.COMMON in directories:
        return policy_files.directories_for(())
    for start in range(0, len(directories), _ASKED_AT_ONCE):
        if found := below(ctx, relay, directories[start : start + _ASKED_AT_ONCE]):
            return policy_files.directories_for(found)
    return frozenset()


# -- who is one ----------------------------------------------------------------------------


def promote(ctx: Context, node_id: str) -> NodeId:
    """Make an accepted node a relay. Raises NotFound, and Conflict when it serves nodes already."""
    node = _accepted(ctx, node_id)
    if node.is_policy_server:
        raise Conflict(f"Node '{node.hostname}' ({node.id}) is already a policy server.")
    _set_kind(ctx, node, NodeKind.RELAY)
    served = Criterion(object_type="node", attribute="policyServerId", comparator="eq", value=node.id)
    group = Group(
        id=group_of(node.id),
        name=f"All nodes managed by {node.hostname} policy server",
        category=groups.SYSTEM_CATEGORY,
        query=NodeQuery(criteria=(served,)),
        system=True,
    )
    if ctx.store.groups.find(group.id) is None:  # servers before kept it when a relay was deleted
        ctx.store.groups.add(group)
        ctx.emit(GroupChanged(group.id))
    return node.id


def demote(ctx: Context, node_id: str) -> NodeId:
    """Make a relay a plain node. Raises NotFound, and Conflict for what is none, or still serves nodes."""
    node = _accepted(ctx, node_id)
    if node.kind is not NodeKind.RELAY:
        raise Conflict(f"Node '{node.hostname}' ({node.id}) is not a relay.")
    retire(ctx, node)
    _set_kind(ctx, node, NodeKind.NODE)
    return node.id


def retire(ctx: Context, node: Node) -> None:
    """Remove what hangs on a node's being a relay: its group and targets. Raises Conflict while it serves nodes."""
    served = ctx.store.relays.served_by(node.id)
    if served:
        counted = "1 node: enrol it" if served == 1 else f"{served} nodes: enrol them"
        raise Conflict(f"The relay '{node.hostname}' ({node.id}) serves {counted} at another server first.")
    group, target = group_of(node.id), Simple(f"policyServer:{node.id}")
    for rule in ctx.store.rules.all():
        if target in rule.targets:
            kept = tuple(one for one in rule.targets if one != target)
            ctx.store.rules.replace(replace(rule, targets=kept))
            ctx.emit(RuleChanged(rule.id, targets_before=rule.targets))
    if ctx.store.groups.find(group) is not None:
        ctx.store.groups.remove(group)
        ctx.emit(GroupChanged(group))


def group_of(relay: NodeId) -> GroupId:
    """The system group of the nodes that a relay serves."""
    return GroupId(f"hasPolicyServer-{relay}")


def _accepted(ctx: Context, node_id: str) -> Node:
    node = ctx.store.nodes.find(node_id, lock=True)
    if node is None or node.status is not NodeStatus.ACCEPTED:
        raise NotFound(f"Node with id '{node_id}' was not found")
    return node


def _set_kind(ctx: Context, node: Node, kind: NodeKind) -> None:
    ctx.store.nodes.set_by_administrator(replace(node, kind=kind))
    ctx.emit(NodeChanged(node.id))
