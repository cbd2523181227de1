# SPDX-License-Identifier: Apache-2.0
"""The catalogue of the node query language: object types, their attributes, and what each can be compared with.

Names are those of the Rudder API. Where an attribute is found in the inventory is `storage/node_queries.py`'s matter.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

EXISTENCE = ("exists", "notExists")
_EQUALITY = (*EXISTENCE, "eq", "notEq")
_TEXT = (*_EQUALITY, "regex", "notRegex")
_ORDER = ("lt", "lteq", "gt", "gteq")

OPERATING_SYSTEMS = ("Linux", "Windows", "AIX", "BSD", "Solaris")
#: In the order of their families.
OPERATING_SYSTEM_NAMES = (
    *("Debian", "Ubuntu", "Kali", "Redhat", "Centos", "Fedora", "Suse", "Android", "Oracle", "Scientific"),
    *("Slackware", "Mint", "AmazonLinux", "RockyLinux", "AlmaLinux", "Raspbian", "UnknownLinux"),
    *("Windows", "WindowsXP", "WindowsVista", "WindowsSeven", "Windows10", "Windows2000", "Windows2003"),
    *("Windows2008", "Windows2008R2", "Windows2012", "Windows2012R2", "Windows2016", "Windows2016R2"),
    *("Windows2019", "Windows2022", "FreeBSD", "UnknownBSD", "AIX", "Solaris", "N/A"),
)
NODE_STATES = ("enabled", "ignored", "empty-policies", "initializing", "preparing-eol")
#: `cfengine` is any agent on a Unix system; `quarterdeck` is our own.
AGENTS = ("cfengine", "community", "nova", "dsc", "quarterdeck")
MACHINE_TYPES = ("Physical", "Virtual")
#: `virtualMachine` is any virtual machine.
MACHINE_PROVIDERS = (
    *("virtualMachine", "bsdJail", "hyperV", "lxc", "openvz", "qemu", "solarisZone", "virtualBox", "virtuozzo"),
    *("vmWare", "xen"),
)


class Kind(enum.Enum):
    """What values an attribute has, which says how it is compared."""

    STRING = "string"
    #: lexicographic
    ORDERED_STRING = "ordered string"
    #: whole numbers
    LONG = "long"
    #: sizes in bytes, written with units
    MEMORY = "memory"
    #: days, written dd/MM/yyyy
    DATE = "date"
    ENUMERATION = "enumeration"
    GROUP = "group"
    ENVIRONMENT = "environment"
    PROPERTY = "property"

    @property
    def comparators(self) -> tuple[str, ...]:
        """What may stand between attribute and value, in canonical spelling."""
        return _COMPARATORS[self]


_COMPARATORS = {
    Kind.STRING: _TEXT,
    Kind.ORDERED_STRING: (*_TEXT, *_ORDER),
    Kind.LONG: (*_TEXT, *_ORDER),
    Kind.MEMORY: (*_TEXT, *_ORDER),
    Kind.DATE: (*_EQUALITY, *_ORDER),
    Kind.ENUMERATION: ("eq", "notEq"),
    Kind.GROUP: ("eq",),
    Kind.ENVIRONMENT: (*_TEXT, "hasKey"),
    Kind.PROPERTY: (*_TEXT, "hasKey", "jsonSelect"),
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """`choices` are the values that an enumeration knows."""

    name: str
    kind: Kind = Kind.STRING
    choices: tuple[str, ...] = ()


def _strings(names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name) for name in names.split())


def _of(kind: Kind, names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name, kind) for name in names.split())


_LICENCE = (
    Attribute("licenseExpirationDate", Kind.DATE),
    *_strings("licenseName licenseProductId licenseProductKey"),
)
#: What every physical element has.
_PHYSICAL = (
    *_strings("description model componentSerialNumber firmware"),
    Attribute("quantity", Kind.LONG),
    Attribute("smeType"),
    Attribute("status", Kind.LONG),
    Attribute("manufacturer"),
)

_CATALOGUE: dict[str, tuple[Attribute, ...]] = {
    "node": (
        Attribute("OS", Kind.ENUMERATION, OPERATING_SYSTEMS),
        *_strings("nodeId nodeHostname"),
        Attribute("osName", Kind.ENUMERATION, OPERATING_SYSTEM_NAMES),
        *_of(Kind.ORDERED_STRING, "osFullName osVersion osServicePack osKernelVersion"),
        Attribute("osArchitectureType"),
        Attribute("state", Kind.ENUMERATION, NODE_STATES),
        *_of(Kind.MEMORY, "ram swap"),
        Attribute("agentName", Kind.ENUMERATION, AGENTS),
        *_strings("localAccountName ipHostNumber localAdministratorAccountName"),
        Attribute("inventoryDate", Kind.DATE),
        Attribute("policyServerId"),
    ),
    "machine": (
        Attribute("machineType", Kind.ENUMERATION, MACHINE_TYPES),
        Attribute("provider", Kind.ENUMERATION, MACHINE_PROVIDERS),
        *_strings("machineId cn description motherBoardUuid manufacturer componentSerialNumber"),
    ),
    "group": (Attribute("nodeGroupId", Kind.GROUP),),
    "software": (
        *_strings("cn description softwareVersion"),
        Attribute("releaseDate", Kind.DATE),
        Attribute("editor"),
        *_LICENCE,
    ),
    "serializedNodeProperty": (Attribute("name.value", Kind.PROPERTY),),
    "environmentVariable": (Attribute("name.value", Kind.ENVIRONMENT),),
    "networkInterfaceLogicalElement": _strings(
        "description networkInterface ipHostNumber networkInterfaceDhcpServer networkInterfaceGateway "
        "networkInterfaceMask networkSubnet networkInterfaceMacAddress networkInterfaceType networkInterfaceTypeMib"
    ),
    "fileSystemLogicalElement": (
        *_strings("description cn mountPoint"),
        Attribute("fileCount", Kind.LONG),
        *_of(Kind.MEMORY, "fileSystemFreeSpace fileSystemTotalSpace"),
    ),
    "process": (
        Attribute("pid", Kind.LONG),
        *_strings("commandName cpuUsage memory tty"),
        Attribute("virtualMemory", Kind.LONG),
        *_strings("started user"),
    ),
    "virtualMachineLogicalElement": (
        *_strings("description vmType vmOwner vmStatus"),
        *_of(Kind.LONG, "vmCpu vmMemory"),
        *_strings("virtualMachineUuid subsystem vmName"),
    ),
    "biosPhysicalElement": (*_PHYSICAL, *_strings("biosName releaseDate editor softwareVersion"), *_LICENCE),
    "controllerPhysicalElement": (*_PHYSICAL, Attribute("controllerName")),
    "memoryPhysicalElement": (
        *_PHYSICAL,
        Attribute("memorySlotNumber", Kind.LONG),
        Attribute("cn"),
        Attribute("memoryCapacity", Kind.MEMORY),
        Attribute("memoryCaption"),
        Attribute("memorySpeed", Kind.LONG),
        Attribute("memoryType"),
    ),
    "portPhysicalElement": (*_PHYSICAL, Attribute("portName")),
    "processorPhysicalElement": (
        *_PHYSICAL,
        Attribute("cpuName"),
        Attribute("cpuSpeed", Kind.LONG),
        *_strings("cpuStepping cpuFamily cpuFamilyName cpuThread"),
        Attribute("cpuCore", Kind.LONG),
    ),
    "slotPhysicalElement": (*_PHYSICAL, Attribute("slotName")),
    "soundCardPhysicalElement": (*_PHYSICAL, Attribute("soundCardName")),
    "storagePhysicalElement": (*_PHYSICAL, Attribute("storageName"), Attribute("storageSize", Kind.MEMORY)),
    "videoCardPhysicalElement": (
        *_PHYSICAL,
        *_strings("videoCardName videoChipset videoResolution"),
        Attribute("memoryCapacity", Kind.MEMORY),
    ),
}

#: Object type -> attribute name -> attribute; canonical spelling throughout.
CATALOGUE: dict[str, dict[str, Attribute]] = {
    object_type: {attribute.name: attribute for attribute in attributes}
    for object_type, attributes in _CATALOGUE.items()
}
