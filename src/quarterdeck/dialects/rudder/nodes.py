# SPDX-License-Identifier: Apache-2.0
"""Nodes chapter: lists, details, acceptance, settings of a node, removal, runs. Making nodes: `node_creation.py`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from quarterdeck.core import modes, node_queries
from quarterdeck.core import nodes as core_nodes
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.node_queries import NodeQuery
from quarterdeck.core.nodes import AgentSchedule, KeyStatus, Node, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.dialects.rudder import body, envelope, node_shapes, parts, reasons
from quarterdeck.dialects.rudder.fragments import LongAnswer
from quarterdeck.dialects.rudder.node_shapes import Fragment, Include
from quarterdeck.dialects.rudder.shapes import Fields, PropertyFields, Text, encode_inherited
from quarterdeck.services import node_runs, nodes
from quarterdeck.services.context import Context
from quarterdeck.services.nodes import NodeChanges
from quarterdeck.storage.nodes import Stamp
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Nodes")

_CHUNK = 500
_ACCEPTING = ("accepted", "accept")
_REFUSING = ("refused", "refuse")
_REMOVING = ("removed", "deleted", "delete")


# -- lists and details ------------------------------------------------------------------


@section.operation(
    "listAcceptedNodes",
    "GET",
    "/nodes",
    right="node.read",
    long=True,
    style="old",
    hint="Could not fetch accepted Nodes",
)
def list_accepted_nodes(ctx: Context, request: Request) -> Answer:
    """List accepted nodes, or those that a query matches."""
    return _list(ctx, request, NodeStatus.ACCEPTED, "listAcceptedNodes")


@section.operation(
    "listPendingNodes",
    "GET",
    "/nodes/pending",
    right="node.read",
    long=True,
    style="old",
    hint="Could not fetch pending Nodes",
)
def list_pending_nodes(ctx: Context, request: Request) -> Answer:
    """List nodes that wait for acceptance, or those of them that a query matches."""
    return _list(ctx, request, NodeStatus.PENDING, "listPendingNodes")


def _list(ctx: Context, request: Request, status: NodeStatus, action: str) -> Answer:
    include = _include(request)
    stamps = nodes.stamps(ctx, status, _query(request))
    answer = LongAnswer()
    answer.add([f'{{"action":"{action}","result":"success","data":{{"nodes":['.encode()])
    separator = b""
    for start in range(0, len(stamps), _CHUNK):
        pieces: list[bytes] = []
        for node in _shown(ctx, request, include, stamps[start : start + _CHUNK]):
            pieces += (separator, *node)
            separator = b","
        answer.add(pieces)
    answer.add([b"]}}"])
    if body.general(request, "prettify") == "true":
        return Answer(headers=(envelope.CONTENT_TYPE,), body=msgspec.json.format(answer.joined(), indent=2))
    return Answer(headers=(envelope.CONTENT_TYPE,), body=answer.source())


def _shown(ctx: Context, request: Request, include: Include, stamps: list[Stamp]) -> list[tuple[bytes, ...]]:
    """The JSON objects of nodes, each in pieces; a node that is gone meanwhile is left out."""
    found = _fragments(ctx, request, include, stamps)
    return [include.splice(found[one.id], one.last_run) for one in stamps if one.id in found]


def _fragments(ctx: Context, request: Request, include: Include, stamps: list[Stamp]) -> dict[str, Fragment]:
    """What these nodes look like, from the cache where it has their present version."""
    cache = parts.of(request).fragments
    found = cache.find(include.key, ((one.id, one.version) for one in stamps))
    missing = [one.id for one in stamps if one.id not in found]
    if missing:
        loaded = nodes.load(ctx, missing, with_bulk=include.with_bulk, with_software=include.with_software)
        made = [(node.id, version, include.fragment(node)) for node, version in loaded]
        cache.keep(include.key, made)
        found.update((node, fragment) for node, _, fragment in made)
    return found


def _include(request: Request) -> Include:
    return node_shapes.parse_include(request.first("include", "default"), request.version)


def _query(request: Request) -> NodeQuery | None:
    """The search, if there is one: in one parameter, or in several. Raises Invalid."""
    if "query" in request.query:
        document = _json(request, "query")
        if not isinstance(document, dict):
            raise Invalid("The parameter 'query' must be a JSON object")
    elif "where" in request.query:
        document = {"where": _json(request, "where")}
        document |= {
            name: request.first(name) for name in ("composition", "select", "transform") if request.first(name)
        }
    else:
        return None
    query = node_queries.parse(document)
    if not query.criteria:
        raise Invalid("Query should at least contain one criteria")
    return query


def _json(request: Request, name: str) -> Any:
    try:
        return msgspec.json.decode(request.first(name))
    except msgspec.DecodeError as error:
        raise Invalid(f"The parameter '{name}' is not valid JSON: {error}") from error


@section.operation(
    "nodeDetails", "GET", "/nodes/{id}", right="node.read", wrap="nodes", style="old", unknown_status=404
)
def node_details(ctx: Context, request: Request) -> Reply:
    """Get one node, whether accepted, pending or deleted."""
    node_id = request.params["id"]
    stamp = nodes.stamp(ctx, node_id)
    shown = _shown(ctx, request, _include(request), [stamp]) if stamp is not None else []
    if not shown:
        raise NotFound(f"Node with ID '{node_id}' was not found in Rudder")
    return Reply([msgspec.Raw(b"".join(shown[0]))], id=node_id)


@section.operation(
    "pendingNodeDetails", "GET", "/nodes/pending/{id}", right="node.read", wrap="nodes", style="old", documented=False
)
def pending_node_details(ctx: Context, request: Request) -> Reply:
    """Get one node that waits for acceptance."""
    node = nodes.pending(ctx, request.params["id"])
    return Reply([node_shapes.encode_brief(node, node.status.value, with_machine=False)], id=node.id)


@section.operation("getNodeStatus", "GET", "/nodes/status", right="node.read", wrap="nodes", since=13)
def get_node_status(ctx: Context, request: Request) -> Reply:
    """Tell which of some ids are accepted, pending, deleted or unknown."""
    if "ids" not in request.query:
        raise Invalid("Missing 'ids' parameter: a comma separated list of node ids", problems={"ids": "is missing"})
    wanted = [one.strip() for one in ",".join(request.query["ids"]).split(",") if one.strip()]
    found = nodes.statuses(ctx, wanted)
    return Reply(
        [{"id": one, "status": status.value if status is not None else "unknown"} for one, status in found.items()]
    )


@section.operation("nodeInheritedProperties", "GET", "/nodes/{id}/inheritedProperties", right="node.read", since=11)
def node_inherited_properties(ctx: Context, request: Request) -> Reply:
    """All properties that hold on a node, inherited ones included."""
    shown = [encode_inherited(one) for one in nodes.inherited(ctx, request.params["id"])]
    return Reply([{"nodeId": request.params["id"], "properties": shown}])


# -- acceptance and removal ---------------------------------------------------------------


class StatusFields(Fields):
    status: Text = UNSET
    node_id: list[str] | UnsetType = UNSET


@section.operation(
    "changePendingNodeStatus",
    "POST",
    "/nodes/pending/{id}",
    right="node.accept",
    body=StatusFields,
    wrap="nodes",
)
def change_pending_node_status(ctx: Context, request: Request) -> Reply:
    """Accept or refuse a pending node."""
    fields = body.decode(request, StatusFields)
    return Reply(_change_status(ctx, fields.status, [request.params["id"]]), id=request.params["id"])


@section.operation(
    "changePendingNodeStatus",
    "POST",
    "/nodes/pending",
    right="node.accept",
    body=StatusFields,
    wrap="nodes",
    documented=False,
)
def change_pending_node_statuses(ctx: Context, request: Request) -> Reply:
    """Accept or refuse several pending nodes, all or none."""
    fields = body.decode(request, StatusFields)
    wanted = [] if fields.node_id is UNSET else [one for text in fields.node_id for one in text.split(",") if one]
    if not wanted:
        raise Invalid("You must add a node id as target", problems={"nodeId": "is missing"})
    return Reply(_change_status(ctx, fields.status, wanted))


def _change_status(ctx: Context, status: Text, wanted: list[str]) -> list[dict[str, Any]]:
    if status is UNSET or not status:
        raise Invalid("node status needs to be specified", problems={"status": "is missing"})
    match status.lower():
        case word if word in _ACCEPTING:
            return [node_shapes.encode_brief(node, "accepted") for node in nodes.accept(ctx, wanted)]
        case word if word in _REFUSING:
            refused = nodes.refuse(ctx, wanted)
            return [node_shapes.encode_brief(node, "refused", with_machine=False) for node in refused]
        case word if word in _REMOVING:
            return [node_shapes.encode_brief(node, "deleted") for node in nodes.refuse(ctx, wanted)]
    raise Invalid(f"'{status}' is not a status of a pending node; use accepted or refused")


@section.operation("deleteNode", "DELETE", "/nodes/{id}", right="node.write", wrap="nodes")
def delete_node(ctx: Context, request: Request) -> Reply:
    """Remove a node; removing an unknown one succeeds."""
    node_id = request.params["id"]
    mode = body.form(request).get("mode", ["erase"])[0].lower()
    deleted = nodes.delete(ctx, node_id, keep_tombstone=mode == "move")
    if deleted is not None:
        return Reply([node_shapes.encode_brief(deleted, "deleted")], id=node_id)
    info = "Node with that ID was already deleted or ID doesn't map to an existing node"
    return Reply([{"id": node_id, "status": "deleted", "info": info}], id=node_id)


# -- settings of a node ----------------------------------------------------------------------


class KeyFields(Fields):
    value: Text = UNSET
    status: Text = UNSET


class RunFields(Fields):
    overrides: bool = True
    interval: int = 5
    start_hour: int = 0
    start_minute: int = 0
    splaytime: int = 4


class NodeFields(Fields):
    """What may be set on a node. `properties` are objects, or `name=value` in a form."""

    properties: list[Any] | UnsetType = UNSET
    policy_mode: Text = UNSET
    state: Text = UNSET
    documentation: Text = UNSET
    agent_key: KeyFields | UnsetType = UNSET
    agent_run: RunFields | UnsetType | None = UNSET
    reason: Text = UNSET

    def changes(self) -> NodeChanges:
        """The changes asked for. Raises Invalid."""
        fields: dict[str, Any] = self.given(documentation="documentation")
        if self.policy_mode is not UNSET:
            fields["mode"] = modes.parse_own_mode(self.policy_mode)
        if self.state is not UNSET:
            fields["state"] = core_nodes.parse_state(self.state)
        if self.agent_run is not UNSET:
            fields["schedule"] = _schedule(self.agent_run)
        key = KeyFields() if self.agent_key is UNSET else self.agent_key
        return NodeChanges(
            fields=fields,
            properties=() if self.properties is UNSET else tuple(decode_property(one) for one in self.properties),
            key_pem=None if key.value is UNSET else key.value,
            key_status=None if key.status is UNSET else _key_status(key.status),
        )


def _schedule(run: RunFields | None) -> AgentSchedule | None:
    if run is None or not run.overrides:
        return None
    return AgentSchedule(
        interval_minutes=run.interval,
        start_hour=run.start_hour,
        start_minute=run.start_minute,
        splay_minutes=run.splaytime,
    )


def _key_status(text: str) -> KeyStatus:
    try:
        return KeyStatus(text.lower())
    except ValueError:
        raise Invalid(f"Key status must be 'certified' or 'undefined' but '{text}' provided") from None


def decode_property(given: Any) -> Property:
    """A property from its object, or from `name=value`; a null or empty value deletes. Raises Invalid."""
    if isinstance(given, str):
        name, separator, text = given.partition("=")
        if not separator:
            raise Invalid(f"A property in a form is written name=value, not '{given}'")
        given = {"name": name, "value": body.json_or_text(text)}
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or not given["name"].strip():
        raise Invalid('A property is an object with a name and a value, as in {"name":"env","value":"prod"}')
    return body.convert(given, PropertyFields).to_property()


@section.operation(
    "updateNode",
    "POST",
    "/nodes/{id}",
    right="node.write",
    body=NodeFields,
    since=5,
    style="old",
    hint="An error occurred while updating Node '{id}'",
)
def update_node(ctx: Context, request: Request) -> Reply:
    """Set properties, policy mode, state, agent key, schedule or documentation of a node."""
    fields = body.decode(request, NodeFields)
    reasons.take(ctx, request)
    node = nodes.update(ctx, request.params["id"], fields.changes())
    return Reply(_settings(node), id=node.id)


def _settings(node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": node.id,
        "properties": node_shapes.encode_properties(node.properties),
        "policyMode": modes.print_own_mode(node.mode),
        "state": node.state.value,
    }
    if node.documentation:
        shown["documentation"] = node.documentation
    if node.schedule is not None:
        shown["agentRun"] = node_shapes.encode_schedule(node.schedule)
    return shown


# -- runs ------------------------------------------------------------------------------------------


class RunRequest(Fields):
    classes: list[str] | UnsetType = UNSET

    @property
    def wanted(self) -> list[str]:
        """The classes asked for, none by default."""
        return [] if self.classes is UNSET else self.classes


@section.operation("applyPolicyAllNodes", "POST", "/nodes/applyPolicy", right="node.write", body=RunRequest, since=8)
def apply_policy_all_nodes(ctx: Context, request: Request) -> Reply:
    """Ask the agents of all nodes to run, where they can be reached."""
    asked = node_runs.start_all(ctx, parts.of(request).agents, body.decode(request, RunRequest).wanted)
    return Reply([{"id": one.id, "hostname": one.hostname, "result": _result(one)} for one in asked])


def _result(asked: node_runs.Asked) -> str:
    if not asked.problem:
        return "Started"
    return f"An error occurred when applying policy on Node '{asked.id}', cause is: {asked.problem}"


@section.operation("applyPolicy", "POST", "/nodes/{id}/applyPolicy", right="node.write", body=RunRequest, since=8)
def apply_policy(ctx: Context, request: Request) -> Answer:
    """Ask the agent of one node to run, and pass on what it prints."""
    wanted = body.decode(request, RunRequest).wanted
    printed = node_runs.follow(ctx, parts.of(request).agents, request.params["id"], wanted)
    return Answer(headers=(("Content-Type", "text/plain; charset=utf-8"),), body=printed)
