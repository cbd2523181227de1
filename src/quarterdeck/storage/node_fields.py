# SPDX-License-Identifier: Apache-2.0
"""Where each attribute of the node query language is found in the tables.

A field is text: one value or several, of the node itself or of one of its sub-objects. `node_queries.py` says
how fields are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, FromClause, Select, Text, cast, column, func
from sqlalchemy.dialects.postgresql import JSONB

from quarterdeck.storage import tables

NODES = tables.nodes
SOFTWARE = tables.software

Test = Callable[[ColumnElement[Any]], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Single:
    """One value, absent when null or empty. `source` is where it stands, joined to its node."""

    expression: ColumnElement[Any]
    source: FromClause

    def some(self, test: Test) -> ColumnElement[bool]:
        """Whether the value passes; null when it is absent."""
        return test(func.nullif(self.expression, ""))

    @property
    def present(self) -> ColumnElement[bool]:
        return func.nullif(self.expression, "").is_not(None)

    def distinct(self) -> Select[Any]:
        """All values that occur."""
        return sqlalchemy.select(self.expression).select_from(self.source).distinct()


@dataclass(frozen=True, slots=True)
class Several:
    """Values made by a set-returning function over the node or its sub-object."""

    function: FromClause
    expression: ColumnElement[Any]
    #: without the function
    source: FromClause

    def some(self, test: Test) -> ColumnElement[bool]:
        """Whether any value passes."""
        values = sqlalchemy.select(sqlalchemy.literal(1)).select_from(self.function)
        return values.where(test(self.expression)).correlate_except(self.function).exists()

    @property
    def present(self) -> ColumnElement[bool]:
        return self.some(lambda _: sqlalchemy.true())

    def distinct(self) -> Select[Any]:
        """All values that occur."""
        joined = self.source.join(self.function, sqlalchemy.true())
        return sqlalchemy.select(self.expression).select_from(joined).distinct()


Field = Single | Several


def _column(name: str) -> Field:
    return Single(cast(NODES.c[name], Text), NODES)


def _array(name: str) -> Field:
    values = func.unnest(NODES.c[name]).table_valued("value", name=f"one_of_{name}").render_derived()
    return Several(values, values.c.value, NODES)


def _absent() -> Field:
    """What no inventory of ours says: the field never has a value."""
    return Single(sqlalchemy.null().cast(Text), NODES)


def environment() -> tuple[FromClause, ColumnElement[Any], ColumnElement[Any]]:
    """The node's environment variables: (function, key, value)."""
    entries = func.jsonb_each_text(NODES.c.environment).table_valued("key", "value", name="variable")
    return entries, entries.c.key, entries.c.value


def properties() -> tuple[FromClause, ColumnElement[Any]]:
    """The node's own properties: (function, JSON of one)."""
    entries = func.jsonb_array_elements(NODES.c.properties).table_valued(column("value", JSONB), name="property")
    return entries, entries.c.value


def of_element(name: str, key: str) -> tuple[FromClause, Field]:
    """One of the inventory's lists and a field of its elements: (function, field)."""
    function = func.jsonb_array_elements(NODES.c.lists[name]).table_valued(column("value", JSONB), name="element")
    element = function.c.value
    source = NODES.join(function, sqlalchemy.true())
    if key in _MULTIPLE:
        listed = sqlalchemy.case(
            (func.jsonb_typeof(element[key]) == "array", element[key]),
            (element[key].is_not(None), func.jsonb_build_array(element[key])),
        )
        values = func.jsonb_array_elements_text(listed).table_valued("value", name="one")
        return function, Several(values, values.c.value, source)
    expression = element[key].astext
    if key == "quantity":
        # Left out of inventories when it is one.
        expression = func.coalesce(expression, "1")
    return function, Single(expression, source)


def of_software(key: str) -> Field:
    """A field of software: a column, or a path below its details."""
    if key in ("name", "version"):
        return Single(SOFTWARE.c[key], SOFTWARE)
    return Single(SOFTWARE.c.details[tuple(key.split("."))].astext, SOFTWARE)


_MULTIPLE = ("ipAddresses", "mask")

_DAY = func.to_char(func.timezone("UTC", NODES.c.inventory_date), "YYYY-MM-DD")

#: The node's own attributes.
NODE: dict[str, Field] = {
    "OS": _column("os_type"),
    "nodeId": _column("id"),
    "nodeHostname": _column("hostname"),
    "osName": _column("os_name"),
    "osFullName": _column("os_full_name"),
    "osVersion": _column("os_version"),
    "osServicePack": _column("os_service_pack"),
    "osKernelVersion": _column("os_kernel_version"),
    "osArchitectureType": _column("architecture"),
    "state": _column("state"),
    "ram": _column("ram"),
    "swap": _column("swap"),
    "agentName": _column("agent"),
    "localAccountName": _array("accounts"),
    "ipHostNumber": _array("ip_addresses"),
    # Agents run as root, on every system that we know of.
    "localAdministratorAccountName": Single(sqlalchemy.literal("root"), NODES),
    "inventoryDate": Single(_DAY, NODES),
    "policyServerId": _column("policy_server"),
}

MACHINE: dict[str, Field] = {
    "machineType": _column("machine_type"),
    "provider": _column("machine_provider"),
    "machineId": _column("machine_id"),
    "cn": _absent(),
    "description": _absent(),
    "motherBoardUuid": _absent(),
    "manufacturer": _column("machine_manufacturer"),
    "componentSerialNumber": _column("machine_serial_number"),
}

_LICENCE_KEYS = {
    "licenseExpirationDate": "license.expirationDate",
    "licenseName": "license.name",
    "licenseProductId": "license.productId",
    "licenseProductKey": "license.productKey",
}

#: Attribute -> key, see `of_software`.
SOFTWARE_KEYS = {
    "cn": "name",
    "description": "description",
    "softwareVersion": "version",
    "releaseDate": "releaseDate",
    "editor": "editor",
    **_LICENCE_KEYS,
}

_PHYSICAL_KEYS = {
    "description": "description",
    "model": "model",
    "componentSerialNumber": "serialNumber",
    "firmware": "firmware",
    "quantity": "quantity",
    "smeType": "type",
    "status": "status",
    "manufacturer": "manufacturer",
}

#: Object type -> (the inventory's list, attribute -> key of its elements).
LISTS: dict[str, tuple[str, dict[str, str]]] = {
    "networkInterfaceLogicalElement": (
        "networkInterfaces",
        {
            "description": "description",
            "networkInterface": "name",
            "ipHostNumber": "ipAddresses",
            "networkInterfaceDhcpServer": "dhcpServer",
            "networkInterfaceGateway": "gateway",
            "networkInterfaceMask": "mask",
            "networkSubnet": "subnet",
            "networkInterfaceMacAddress": "macAddress",
            "networkInterfaceType": "type",
            "networkInterfaceTypeMib": "typeMib",
        },
    ),
    "fileSystemLogicalElement": (
        "fileSystems",
        {
            "description": "description",
            "cn": "name",
            "mountPoint": "mountPoint",
            "fileCount": "fileCount",
            "fileSystemFreeSpace": "freeSpace",
            "fileSystemTotalSpace": "totalSpace",
        },
    ),
    "process": (
        "processes",
        {
            "commandName": "name",
            **{key: key for key in ("pid", "cpuUsage", "memory", "tty", "virtualMemory", "started", "user")},
        },
    ),
    "virtualMachineLogicalElement": (
        "virtualMachines",
        {
            "description": "description",
            "vmType": "type",
            "vmOwner": "owner",
            "vmStatus": "status",
            "vmCpu": "vcpu",
            "vmMemory": "memory",
            "virtualMachineUuid": "uuid",
            "subsystem": "subsystem",
            "vmName": "name",
        },
    ),
    "biosPhysicalElement": (
        "bios",
        _PHYSICAL_KEYS
        | _LICENCE_KEYS
        | {"biosName": "name", "releaseDate": "releaseDate", "editor": "editor", "softwareVersion": "version"},
    ),
    "controllerPhysicalElement": ("controllers", _PHYSICAL_KEYS | {"controllerName": "name"}),
    "memoryPhysicalElement": (
        "memories",
        _PHYSICAL_KEYS
        | {
            "memorySlotNumber": "slotNumber",
            "cn": "name",
            "memoryCapacity": "capacity",
            "memoryCaption": "caption",
            "memorySpeed": "speed",
            "memoryType": "type",
        },
    ),
    "portPhysicalElement": ("ports", _PHYSICAL_KEYS | {"portName": "name"}),
    "processorPhysicalElement": (
        "processors",
        _PHYSICAL_KEYS
        | {
            "cpuName": "name",
            "cpuSpeed": "speed",
            "cpuStepping": "stepping",
            "cpuFamily": "family",
            "cpuFamilyName": "familyName",
            "cpuThread": "thread",
            "cpuCore": "core",
        },
    ),
    "slotPhysicalElement": ("slots", _PHYSICAL_KEYS | {"slotName": "name"}),
    "soundCardPhysicalElement": ("sound", _PHYSICAL_KEYS | {"soundCardName": "name"}),
    "storagePhysicalElement": ("storage", _PHYSICAL_KEYS | {"storageName": "name", "storageSize": "size"}),
    "videoCardPhysicalElement": (
        "videos",
        _PHYSICAL_KEYS
        | {
            "videoCardName": "name",
            "videoChipset": "chipset",
            "videoResolution": "resolution",
            "memoryCapacity": "memory",
        },
    ),
}
