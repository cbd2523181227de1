# SPDX-License-Identifier: Apache-2.0
"""Nodes: rows <-> core objects, their software, and the narrow table of what changes at every run.

History keeps what administrators set, not what inventories say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import ARRAY, Row, Text
from sqlalchemy.dialects.postgresql import insert

from quarterdeck.core.errors import NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.core.inventories import Element, Inventory, Machine, OperatingSystem
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.node_queries import NodeQuery
from quarterdeck.core.nodes import AgentKey, AgentSchedule, KeyStatus, Node, NodeKind, NodeState, NodeStatus
from quarterdeck.storage import node_queries, property_rows, tables
from quarterdeck.storage.versioned import VersionedTable

_nodes = tables.nodes
_status = tables.node_status
_software = tables.software
_node_software = tables.node_software

#: What administrators set, hence what history keeps.
_VERSIONED = (
    "id",
    "hostname",
    "status",
    "state",
    "kind",
    "mode",
    "description",
    "documentation",
    "policy_server",
    "properties",
    "key_pem",
    "key_status",
    "schedule",
)


#: What may be set on a node without touching its inventory.
_ADMINISTERED = (*_VERSIONED, "accepted_at")

_STAMPS = sqlalchemy.select(_nodes.c.id, _nodes.c.version, _nodes.c.status, _status.c.last_run).outerjoin_from(
    _nodes, _status, _status.c.node_id == _nodes.c.id
)
#: Made once: putting a statement together takes as long as answering it.
_STAMP = _STAMPS.where(_nodes.c.id == sqlalchemy.bindparam("node"))

#: Columns that hold most of a node's bytes; few look at them.
_BULKY = ("accounts", "environment", "lists")
_SLIM_COLUMNS = [column for column in _nodes.c if column.name not in _BULKY]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What is known of a node's last run."""

    last_run: datetime | None = None
    config_id: str = ""


class Stamp(NamedTuple):
    """Which state of a node is the present one, and what changes without changing it."""

    id: NodeId
    version: int
    status: str
    last_run: datetime | None


class NodeTable(VersionedTable[Node]):
    table = _nodes
    kind = "node"
    not_found = "Node with id '{id}' was not found"

    def find(self, key: str, *, lock: bool = False) -> Node | None:
        """The node with everything, software included, or None."""
        query = sqlalchemy.select(_nodes).where(_nodes.c.id == key)
        row = self._store.run(query.with_for_update() if lock else query).first()
        return self._node(row, self.software([key]).get(key, ())) if row is not None else None

    def ids(self, status: NodeStatus) -> set[NodeId]:
        """The ids of all nodes of this status."""
        query = sqlalchemy.select(_nodes.c.id).where(_nodes.c.status == status.value)
        return {NodeId(row.id) for row in self._store.rows(query)}

    def policy_servers(self) -> set[NodeId]:
        """The ids of the root server and of relays."""
        query = sqlalchemy.select(_nodes.c.id).where(_nodes.c.kind != NodeKind.NODE.value)
        return {NodeId(row.id) for row in self._store.rows(query)}

    def hostnames(self, ids: Iterable[str] | None = None) -> dict[NodeId, str]:
        """Host names by id, of these nodes or of all."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.hostname)
        if ids is not None:
            query = query.where(_nodes.c.id.in_(list(ids)))
        return {NodeId(row.id): row.hostname for row in self._store.rows(query)}

    def stamps(self, status: NodeStatus, only: Iterable[str] | None = None) -> list[Stamp]:
        """Stamps of all nodes of a status, or of those among `only`, sorted by id."""
        query = _STAMPS.where(_nodes.c.status == status.value)
        if only is not None:
            query = query.where(_nodes.c.id == sqlalchemy.any_(sqlalchemy.literal(list(only), ARRAY(Text))))
        return list(map(Stamp._make, self._store.rows(query.order_by(_nodes.c.id))))

    def stamp(self, node: str) -> Stamp | None:
        """One node's stamp, whatever its status; None when there is no such node."""
        row = self._store.run(_STAMP, {"node": node}).first()
        return Stamp._make(row) if row is not None else None

    def match(self, query: NodeQuery, status: NodeStatus = NodeStatus.ACCEPTED) -> set[NodeId]:
        """The ids of the nodes of a status that a query selects. Raises Invalid."""
        return node_queries.match(self._store.connection, query, status=status)

    def load(self, ids: Sequence[str], *, with_bulk: bool, with_software: bool) -> Iterator[tuple[Node, int]]:
        """These nodes with their versions, sorted by id.

        Without `with_bulk` their inventories lack accounts, environment and lists; software comes apart.
        """
        wanted = _nodes.c.id == sqlalchemy.any_(sqlalchemy.literal(list(ids), ARRAY(Text)))
        columns = list(_nodes.c) if with_bulk else _SLIM_COLUMNS
        software = self.software(ids) if with_software else {}
        for row in self._store.rows(sqlalchemy.select(*columns).where(wanted).order_by(_nodes.c.id)):
            yield self._node(row, software.get(row.id, ()), with_bulk=with_bulk), row.version

    def accepted_with(self, hostname: str) -> list[NodeId]:
        """Accepted nodes of this host name."""
        query = sqlalchemy.select(_nodes.c.id).where(
            _nodes.c.hostname == hostname, _nodes.c.status == NodeStatus.ACCEPTED.value
        )
        return [NodeId(row.id) for row in self._store.rows(query)]

    def statuses(self, ids: Iterable[str]) -> dict[NodeId, NodeStatus]:
        """The status of each of these nodes that is known."""
        query = sqlalchemy.select(_nodes.c.id, _nodes.c.status).where(_nodes.c.id.in_(list(ids)))
        return {NodeId(row.id): NodeStatus(row.status) for row in self._store.rows(query)}

    # -- what changes at every run ------------------------------------------------

    def run_status(self, ids: Iterable[str] | None = None) -> dict[NodeId, RunStatus]:
        """The last run of these nodes, or of all that ever ran."""
        query = sqlalchemy.select(_status.c.node_id, _status.c.last_run, _status.c.last_run_config_id)
        if ids is not None:
            query = query.where(_status.c.node_id.in_(list(ids)))
        return {
            NodeId(row.node_id): RunStatus(last_run=row.last_run, config_id=row.last_run_config_id)
            for row in self._store.rows(query)
        }

    def touch(self, node: str) -> None:
        """Note that the node was heard of now."""
        statement = insert(_status).values(node_id=node, last_contact=self._store.now)
        self._store.run(
            statement.on_conflict_do_update(index_elements=["node_id"], set_={"last_contact": self._store.now})
        )

    # -- software -------------------------------------------------------------------

    def software(self, ids: Iterable[str]) -> dict[str, tuple[Element, ...]]:
        """The software elements of these nodes, sorted by name."""
        query = (
            sqlalchemy.select(_node_software.c.node_id, _software.c.name, _software.c.version, _software.c.details)
            .join(_software, _software.c.id == _node_software.c.software_id)
            .where(_node_software.c.node_id.in_(list(ids)))
            .order_by(_software.c.name, _software.c.version)
        )
        found: dict[str, list[Element]] = {}
        for row in self._store.rows(query):
            element = {"name": row.name, "version": row.version, **row.details}
            found.setdefault(row.node_id, []).append(element)
        return {node: tuple(elements) for node, elements in found.items()}

    def set_software(self, node: str, elements: Iterable[Element]) -> bool:
        """Make the node's software exactly these elements; tells whether anything changed.

        Each (name, version) is kept once for all nodes.
        """
        wanted = {(one.get("name", ""), one.get("version", "")): one for one in elements}
        ids = self._software_ids(wanted)
        present = {
            row.software_id
            for row in self._store.rows(
                sqlalchemy.select(_node_software.c.software_id).where(_node_software.c.node_id == node)
            )
        }
        gone, new = present - ids, sorted(ids - present)
        if gone:
            condition = (_node_software.c.node_id == node) & _node_software.c.software_id.in_(list(gone))
            self._store.run(sqlalchemy.delete(_node_software).where(condition))
        if new:
            rows = [{"node_id": node, "software_id": one} for one in new]
            self._store.run(insert(_node_software).on_conflict_do_nothing(), rows)
        return bool(gone or new)

    def _software_ids(self, wanted: Mapping[tuple[str, str], Element]) -> set[int]:
        if not wanted:
            return set()
        rows = [
            {
                "name": name,
                "version": version,
                "details": {key: value for key, value in element.items() if key not in ("name", "version")},
            }
            for (name, version), element in sorted(wanted.items())
        ]
        self._store.run(insert(_software).on_conflict_do_nothing(), rows)
        pairs = sqlalchemy.tuple_(_software.c.name, _software.c.version).in_(list(wanted))
        return {row.id for row in self._store.rows(sqlalchemy.select(_software.c.id).where(pairs))}

    # -- changes ----------------------------------------------------------------------

    def add(self, thing: Node) -> None:
        """Keep a new node with its software. Raises AlreadyExists."""
        super().add(thing)
        self.set_software(thing.id, thing.inventory.lists.get("software", ()))

    def replace(self, thing: Node) -> None:
        """Keep the node's new state with its software; it gets a new version when anything changed."""
        super().replace(thing)
        if self.set_software(thing.id, thing.inventory.lists.get("software", ())):
            statement = sqlalchemy.update(_nodes).where(_nodes.c.id == thing.id)
            self._store.run(statement.values(version=tables.node_versions.next_value()))

    def set_by_administrator(self, thing: Node) -> None:
        """Keep what an administrator may set on the node; its inventory and software stay as they are."""
        row = _identity_row(thing)
        self._update({name: row[name] for name in _ADMINISTERED})

    def bury(self, thing: Node) -> None:
        """Keep the node as a tombstone: everything that hangs on it goes, and its history says deleted."""
        self.remove(thing.id)
        dead = replace(thing, status=NodeStatus.DELETED, key=AgentKey(pem=thing.key.pem))
        self._store.run(sqlalchemy.insert(_nodes).values(self.to_row(dead)))
        self.set_software(dead.id, dead.inventory.lists.get("software", ()))

    def _update(self, row: Mapping[str, Any]) -> None:
        before = self._store.run(_nodes.select().where(_nodes.c.id == row["id"]).with_for_update()).first()
        if before is None:
            raise NotFound(self.not_found.format(id=row["id"]))
        old = before._mapping  # noqa: SLF001  # public API of Row
        if all(old[name] == value for name, value in row.items()):
            return
        statement = sqlalchemy.update(_nodes).where(_nodes.c.id == row["id"])
        self._store.run(statement.values(**row, version=tables.node_versions.next_value()))
        if any(old[name] != row[name] for name in _VERSIONED if name in row):
            self._record({**old, **row}, "modified")

    def history_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What administrators set."""
        return {name: row[name] for name in _VERSIONED}

    # -- mapping ------------------------------------------------------------------------

    def to_row(self, thing: Node) -> dict[str, Any]:
        return _identity_row(thing) | _inventory_row(thing.inventory)

    def from_row(self, row: Row[Any]) -> Node:
        """The node without its software; `find` and `load` bring it."""
        return self._node(row, ())

    def _node(self, row: Row[Any], software: tuple[Element, ...], *, with_bulk: bool = True) -> Node:
        return Node(
            id=NodeId(row.id),
            hostname=row.hostname,
            status=NodeStatus(row.status),
            state=NodeState(row.state),
            kind=NodeKind(row.kind),
            mode=PolicyMode(row.mode) if row.mode is not None else None,
            description=row.description,
            documentation=row.documentation,
            policy_server=NodeId(row.policy_server),
            properties=property_rows.from_json(row.properties),
            key=AgentKey(pem=row.key_pem, status=KeyStatus(row.key_status)),
            schedule=AgentSchedule(**row.schedule) if row.schedule is not None else None,
            agent=row.agent,
            agent_version=row.agent_version,
            agent_capabilities=tuple(row.agent_capabilities),
            inventory=_inventory(row, software, with_bulk=with_bulk),
            inventory_date=row.inventory_date,
            accepted_at=row.accepted_at,
        )


def _identity_row(node: Node) -> dict[str, Any]:
    schedule = node.schedule
    return {
        "id": node.id,
        "hostname": node.hostname,
        "status": node.status.value,
        "state": node.state.value,
        "kind": node.kind.value,
        "mode": node.mode.value if node.mode is not None else None,
        "description": node.description,
        "documentation": node.documentation,
        "policy_server": node.policy_server,
        "properties": property_rows.to_json(node.properties),
        "key_pem": node.key.pem,
        "key_status": node.key.status.value,
        "schedule": None if schedule is None else {name: getattr(schedule, name) for name in schedule.__slots__},
        "agent": node.agent,
        "agent_version": node.agent_version,
        "agent_capabilities": list(node.agent_capabilities),
        "inventory_date": node.inventory_date,
        "accepted_at": node.accepted_at,
    }


def _inventory_row(inventory: Inventory) -> dict[str, Any]:
    os, machine = inventory.os, inventory.machine
    return {
        "os_type": os.type,
        "os_name": os.name,
        "os_version": os.version,
        "os_full_name": os.full_name,
        "os_kernel_version": os.kernel_version,
        "os_service_pack": os.service_pack,
        "architecture": inventory.architecture,
        "ram": inventory.ram,
        "swap": inventory.swap,
        "machine_id": machine.id,
        "machine_type": machine.type,
        "machine_provider": machine.provider,
        "machine_manufacturer": machine.manufacturer,
        "machine_serial_number": machine.serial_number,
        "timezone_name": inventory.timezone_name,
        "timezone_offset": inventory.timezone_offset,
        "ip_addresses": list(inventory.ip_addresses),
        "accounts": list(inventory.accounts),
        "environment": dict(inventory.environment),
        "lists": {name: [dict(one) for one in some] for name, some in inventory.lists.items() if name != "software"},
    }


def _inventory(row: Row[Any], software: tuple[Element, ...], *, with_bulk: bool) -> Inventory:
    lists = {name: tuple(elements) for name, elements in row.lists.items()} if with_bulk else {}
    if software:
        lists["software"] = software
    return Inventory(
        os=OperatingSystem(
            type=row.os_type,
            name=row.os_name,
            version=row.os_version,
            full_name=row.os_full_name,
            kernel_version=row.os_kernel_version,
            service_pack=row.os_service_pack,
        ),
        machine=Machine(
            id=row.machine_id,
            type=row.machine_type,
            provider=row.machine_provider,
            manufacturer=row.machine_manufacturer,
            serial_number=row.machine_serial_number,
        ),
        architecture=row.architecture,
        ram=row.ram,
        swap=row.swap,
        timezone_name=row.timezone_name,
        timezone_offset=row.timezone_offset,
        ip_addresses=tuple(row.ip_addresses),
        accounts=tuple(row.accounts) if with_bulk else (),
        environment=row.environment if with_bulk else {},
        lists=lists,
    )
