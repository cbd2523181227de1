# SPDX-License-Identifier: Apache-2.0
"""Our own agent's inventory document <-> what the core knows of a machine.

`Found` is also what the XML reader (`inventory_xml.py`) makes; what becomes of it is decided in services.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import ROOT, NodeId, is_node_id
from quarterdeck.core.inventories import Inventory, Machine, OperatingSystem
from quarterdeck.formats import agent

#: A document that means harm takes thirty times its length in memory.
MAX_BYTES = 16 * 1024 * 1024

#: Name in the document -> name in the core.
LISTS = {
    "software": "software",
    "file_systems": "fileSystems",
    "network_interfaces": "networkInterfaces",
    "processes": "processes",
    "processors": "processors",
    "memories": "memories",
    "storage": "storage",
    "bios": "bios",
    "virtual_machines": "virtualMachines",
    "software_updates": "softwareUpdate",
    "controllers": "controllers",
    "ports": "ports",
    "slots": "slots",
    "sounds": "sound",
    "videos": "videos",
}

#: What differs from one look to the next and says nothing new: whole lists, and keys of elements.
_VOLATILE_LISTS = frozenset({"processes"})
_VOLATILE_KEYS = {"fileSystems": ("freeSpace", "fileCount"), "processors": ("speed",)}

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an inventory says. `certificate` only where the format carries one."""

    node: NodeId
    hostname: str
    inventory: Inventory
    date: datetime | None = None
    agent: str = "quarterdeck"
    agent_version: str = ""
    agent_capabilities: tuple[str, ...] = ()
    policy_server: NodeId = ROOT
    description: str = ""
    certificate: str = ""
    #: Custom properties, as the machine's administrator declares them.
    properties: Mapping[str, Any] = field(default_factory=dict)


def check_hostname(name: str) -> str:
    """The name, when it can be one. Raises Invalid."""
    if _HOSTNAME.fullmatch(name) is None:
        raise Invalid(f"'{name}' is not a legal host name.")
    return name


def decompressed(body: bytes) -> bytes:
    """The document in the body of a parcel, at most MAX_BYTES of it. Raises Invalid."""
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise Invalid(f"The inventory is not gzip: {error}.") from error
    if reader.unconsumed_tail:
        raise Invalid(f"The inventory is larger than {MAX_BYTES} bytes.")
    if not reader.eof:
        raise Invalid("The inventory's gzip data ends too early.")
    return content


def decode(body: bytes) -> Found:
    """Read the body of an inventory parcel. Raises Invalid, in words that name the field at fault."""
    try:
        document = msgspec.json.decode(decompressed(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The inventory is not JSON: {error}") from error
    return parse(document)


def parse(document: Mapping[str, Any]) -> Found:
    """Read an inventory document. Raises Invalid, in words that name the field at fault."""
    try:
        known = msgspec.convert(document, agent.Inventory)
    except msgspec.ValidationError as error:
        raise Invalid(f"The inventory is not valid: {error}") from error
    if known.get("format") != agent.FORMAT:
        raise Invalid(f"The inventory is not of format {agent.FORMAT}.")
    node = known.get("node", "")
    if not is_node_id(node):
        raise Invalid("The inventory names no node.")
    return Found(
        node=NodeId(node),
        hostname=check_hostname(known.get("fqdn") or known.get("hostname", "")),
        inventory=_inventory(known),
        date=_date(known.get("date", "")),
        agent_version=known.get("agent", {}).get("version", ""),
        properties=known.get("properties", {}),
    )


def _inventory(known: agent.Inventory) -> Inventory:
    system, timezone = known.get("os", {}), known.get("timezone", {})
    plain = cast("Mapping[str, Any]", known)
    lists = {core: tuple(plain.get(name, ())) for name, core in LISTS.items()}
    return Inventory(
        os=OperatingSystem(
            type=system.get("type", ""),
            name=system.get("name", ""),
            version=system.get("version", ""),
            full_name=system.get("fullName", ""),
            kernel_version=system.get("kernelVersion", ""),
            service_pack=system.get("servicePack", ""),
        ),
        machine=_machine(known.get("machine", {})),
        architecture=known.get("architecture", ""),
        ram=known.get("ram"),
        swap=known.get("swap"),
        timezone_name=timezone.get("name", ""),
        timezone_offset=timezone.get("offset", ""),
        ip_addresses=tuple(known.get("ip_addresses", ())),
        accounts=tuple(known.get("accounts", ())),
        environment=known.get("environment", {}),
        lists={name: elements for name, elements in lists.items() if elements},
    )


def _machine(found: Mapping[str, str]) -> Machine:
    if not found:
        return Machine()
    return Machine(
        id=found.get("id", ""),
        type=found.get("type", "Unknown"),
        provider=found.get("provider", ""),
        manufacturer=found.get("manufacturer", ""),
        serial_number=found.get("serialNumber", ""),
    )


def _date(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"'{text}' is not a date and time.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def content_digest(found: Found) -> str:
    """SHA-256, lower-case hex, of what an inventory says, without what changes from one look to the next."""
    inventory = found.inventory
    lists = {
        name: [_settled(name, element) for element in elements]
        for name, elements in inventory.lists.items()
        if name not in _VOLATILE_LISTS
    }
    plain = msgspec.to_builtins(inventory) | {"lists": lists}
    content = [plain, found.hostname, found.agent, found.agent_version, found.properties, found.agent_capabilities]
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def _settled(name: str, element: Mapping[str, Any]) -> dict[str, Any]:
    volatile = _VOLATILE_KEYS.get(name, ())
    return {key: value for key, value in element.items() if key not in volatile}
