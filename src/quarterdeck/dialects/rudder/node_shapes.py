# SPDX-License-Identifier: Apache-2.0
"""A node as the Rudder API shows it: levels of fields, in one fixed order, as a JSON fragment.

`lastRunDate` changes at every run and the rest of a node seldom does, so a fragment is cut where it belongs.
Sizes are bytes inside and megabytes here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from quarterdeck.core import modes
from quarterdeck.core.inventories import Element
from quarterdeck.core.nodes import AgentSchedule, Node, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.dialects.rudder.shapes import encode_property

_MEGABYTE = 1024 * 1024
_LAST_RUN = "lastRunDate"
#: the version of the API that brought a field
_SINCE = {"softwareUpdate": 15}


class Fragment(NamedTuple):
    """A node's JSON object in two halves, between which the date of its last run is spliced."""

    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.head) + len(self.tail)


class Field(NamedTuple):
    """A field of a node; `encode` answers None for what is left out."""

    name: str
    #: minimal | default | full
    level: str
    encode: Callable[[Node], Any]


def print_date(when: datetime | None) -> str | None:
    """ISO 8601 in UTC without fractions of a second."""
    return f"{when.astimezone(UTC).isoformat()[:19]}Z" if when is not None else None


def _megabytes(size: Any) -> int | None:
    return int(size) // _MEGABYTE if isinstance(size, (int, float)) else None


def _os(node: Node) -> dict[str, str]:
    os = node.inventory.os
    shown = {"type": os.type, "name": os.name, "version": os.version, "fullName": os.full_name}
    if os.service_pack:
        shown["servicePack"] = os.service_pack
    return shown | {"kernelVersion": os.kernel_version}


def _machine(node: Node) -> dict[str, str]:
    machine = node.inventory.machine
    optional = {
        "provider": machine.provider,
        "manufacturer": machine.manufacturer,
        "serialNumber": machine.serial_number,
    }
    return {"id": machine.id, "type": machine.type} | {key: value for key, value in optional.items() if value}


def _management(node: Node) -> list[dict[str, Any]]:
    shown: dict[str, Any] = {"name": "Rudder Windows" if node.agent == "dsc" else "Rudder"}
    if node.agent_version:
        shown["version"] = node.agent_version
    return [shown | {"capabilities": list(node.agent_capabilities), "nodeKind": node.kind.value}]


def _keys(node: Node) -> dict[str, Any]:
    return {"cfengineKeys": [node.key.pem] if node.key.pem else [], "cfengineUser": "root"}


def _timezone(node: Node) -> dict[str, str] | None:
    inventory = node.inventory
    if not inventory.timezone_name:
        return None
    return {"name": inventory.timezone_name, "offset": inventory.timezone_offset}


def _own_properties(node: Node) -> list[dict[str, Any]]:
    return encode_properties(node.properties)


def encode_properties(properties: Iterable[Property]) -> list[dict[str, Any]]:
    """Own properties, sorted by name; on nodes the provider stands before the mode."""
    shown = [encode_property(one) for one in sorted(properties, key=lambda one: one.name)]
    for one in shown:
        if "inheritMode" in one:
            one["inheritMode"] = one.pop("inheritMode")
    return shown


def _file_systems(node: Node) -> list[dict[str, Any]]:
    """Swap stands first."""
    swap: dict[str, Any] = {"name": "swap"}
    if (size := _megabytes(node.inventory.swap)) is not None:
        swap["totalSpace"] = size
    return [swap, *(_elements(node, "fileSystems", megabytes=("freeSpace", "totalSpace")) or [])]


def _interfaces(node: Node) -> list[dict[str, Any]] | None:
    found = _elements(node, "networkInterfaces")
    return [
        {**one, "mask": one.get("mask", []), "ipAddresses": one.get("ipAddresses", [])} for one in found or []
    ] or None


def _elements(node: Node, name: str, *, megabytes: tuple[str, ...] = ()) -> list[dict[str, Any]] | None:
    """A list of the inventory; None when it is empty."""
    return [_element(one, megabytes) for one in node.inventory.lists.get(name, ())] or None


def _element(one: Element, megabytes: tuple[str, ...]) -> dict[str, Any]:
    shown = {key: value for key, value in one.items() if value is not None}
    if shown.get("quantity") == 1:
        del shown["quantity"]
    for key in megabytes:
        if key in shown:
            shown[key] = _megabytes(shown[key])
    return shown


def _list_of(name: str, *megabytes: str) -> Field:
    return Field(name, "full", functools.partial(_elements, name=name, megabytes=megabytes))


_SOFTWARE = "software"

#: In the order in which they are printed; the one that is spliced in encodes to nothing.
FIELDS = (
    Field("id", "minimal", lambda node: node.id),
    Field("hostname", "minimal", lambda node: node.hostname),
    Field("status", "minimal", lambda node: node.status.value),
    Field("state", "default", lambda node: node.state.value if node.status is NodeStatus.ACCEPTED else None),
    Field("os", "default", _os),
    Field("architectureDescription", "default", lambda node: node.inventory.architecture),
    Field("ram", "default", lambda node: _megabytes(node.inventory.ram)),
    Field("machine", "default", _machine),
    Field("ipAddresses", "default", lambda node: list(node.inventory.ip_addresses)),
    Field("description", "default", lambda node: node.description),
    Field("lastInventoryDate", "default", lambda node: print_date(node.inventory_date)),
    Field(_LAST_RUN, "default", lambda _: None),
    Field("policyServerId", "default", lambda node: node.policy_server),
    Field("managementTechnology", "default", _management),
    Field("properties", "default", _own_properties),
    Field("policyMode", "default", lambda node: modes.print_own_mode(node.mode)),
    Field("timezone", "default", _timezone),
    Field("accounts", "full", lambda node: list(node.inventory.accounts) or None),
    _list_of("bios"),
    _list_of("controllers"),
    Field("environmentVariables", "full", lambda node: dict(node.inventory.environment) or None),
    Field("fileSystems", "full", _file_systems),
    Field("managementTechnologyDetails", "full", _keys),
    _list_of("memories", "capacity"),
    Field("networkInterfaces", "full", _interfaces),
    _list_of("processes"),
    _list_of("processors"),
    _list_of("slots"),
    _list_of(_SOFTWARE),
    _list_of("softwareUpdate"),
    _list_of("sound"),
    _list_of("storage", "size"),
    _list_of("ports"),
    _list_of("videos", "memory"),
    _list_of("virtualMachines"),
)
_LEVELS = {"minimal": ("minimal",), "default": ("minimal", "default"), "full": ("minimal", "default", "full")}


@dataclass(frozen=True, slots=True)
class Include:
    """Which fields a client wants; `key` is equal for equal choices."""

    key: str
    before: tuple[Field, ...]
    after: tuple[Field, ...]
    with_last_run: bool
    #: whether anything beyond the narrow columns is looked at
    with_bulk: bool
    with_software: bool

    def fragment(self, node: Node) -> Fragment:
        """The chosen fields of a node."""
        head = msgspec.json.encode(_chosen(self.before, node))[:-1]
        tail = msgspec.json.encode(_chosen(self.after, node))
        return Fragment(head, b"," + tail[1:] if len(tail) > 2 else b"}")

    def splice(self, fragment: Fragment, last_run: datetime | None) -> tuple[bytes, ...]:
        """The pieces of a node's JSON object, in order."""
        if last_run is None or not self.with_last_run:
            return fragment.head, fragment.tail
        return fragment.head, f',"{_LAST_RUN}":"{print_date(last_run)}"'.encode(), fragment.tail


def _chosen(fields: Iterable[Field], node: Node) -> dict[str, Any]:
    return {field.name: value for field in fields if (value := field.encode(node)) is not None}


@functools.lru_cache(maxsize=256)
def parse_include(text: str, version: int) -> Include:
    """What `include` asks for: one level at most counts (full, else minimal, else default), and further fields."""
    words = frozenset(word.strip() for word in text.split(","))
    level = next((one for one in ("full", "minimal") if one in words), "default")
    chosen = tuple(
        field
        for field in FIELDS
        if (field.level in _LEVELS[level] or field.name in words) and version >= _SINCE.get(field.name, 0)
    )
    names = [field.name for field in chosen]
    cut = next(index for index, field in enumerate(FIELDS) if field.name == _LAST_RUN)
    return Include(
        key=",".join(names),
        before=tuple(field for field in chosen if field in FIELDS[:cut]),
        after=tuple(field for field in chosen if field in FIELDS[cut + 1 :]),
        with_last_run=_LAST_RUN in names,
        with_bulk=any(field.level == "full" for field in chosen),
        with_software=_SOFTWARE in names,
    )


def encode_schedule(schedule: AgentSchedule) -> dict[str, Any]:
    """A schedule that a node has of its own."""
    return {
        "overrides": True,
        "interval": schedule.interval_minutes,
        "startHour": schedule.start_hour,
        "startMinute": schedule.start_minute,
        "splaytime": schedule.splay_minutes,
    }


def encode_brief(node: Node, status: str, *, with_machine: bool = True) -> dict[str, Any]:
    """What is said of a node after something was done to it."""
    shown = {"id": node.id, "status": status, "hostname": node.hostname, "osName": node.inventory.os.name}
    if with_machine:
        shown |= {"osVersion": node.inventory.os.version, "machineType": node.inventory.machine.type}
    return shown
