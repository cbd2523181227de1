# SPDX-License-Identifier: Apache-2.0
"""FusionInventory XML, with the section that genuine agents add, -> what the core knows of a machine.

The document comes from outside: no entities, no network, no huge trees. Sizes come in megabytes unless they carry
a unit, and leave in bytes. Which signature it needs is decided in services.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from lxml import etree

from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.ids import NodeId, is_node_id
from quarterdeck.core.inventories import Element, Inventory, Machine, OperatingSystem
from quarterdeck.formats.inventory_json import Found, check_hostname

#: A document that means harm takes thirty times its length in memory.
MAX_BYTES = 16 * 1024 * 1024
_MEGABYTE = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_LOCAL_NAMES = ("", "localhost", "127.0.0.1", "::1")
_AGENTS = {
    "community": "cfengine-community",
    "cfengine-community": "cfengine-community",
    "dsc": "dsc",
    "quarterdeck": "quarterdeck",
}
#: VMSYSTEM, lower case -> provider id
_PROVIDERS = {
    "xen": "xen",
    "virtualbox": "vbox",
    "vmware": "vmware",
    "qemu": "qemu",
    "solariszone": "solariszone",
    "aix_lpar": "aixlpar",
    "aix lpar": "aixlpar",
    "hyper-v": "hyperv",
    "bsdjail": "bsdjail",
    "virtuozzo": "virtuozzo",
    "openvz": "openvz",
    "lxc": "lxc",
}
#: (text in the system's names, lower case; name as the Rudder API spells it); the first that fits counts
_LINUX = (
    ("debian", "Debian"),
    ("ubuntu", "Ubuntu"),
    ("kali", "Kali"),
    ("red hat", "Redhat"),
    ("redhat", "Redhat"),
    ("rhel", "Redhat"),
    ("centos", "Centos"),
    ("fedora", "Fedora"),
    ("suse", "Suse"),
    ("android", "Android"),
    ("oracle", "Oracle"),
    ("scientific", "Scientific"),
    ("slackware", "Slackware"),
    ("mint", "Mint"),
    ("amazon", "AmazonLinux"),
    ("rocky", "RockyLinux"),
    ("alma", "AlmaLinux"),
    ("raspbian", "Raspbian"),
)
_SIZE = re.compile(r"(-?[0-9][0-9_ ]*(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {letter: 1024**power for power, letter in enumerate("kmgtpezy", start=1)} | {"": 1}


def decompressed(data: bytes) -> bytes:
    """The document itself, from its gzip form or as it is. Raises TooLarge, Invalid."""
    if not data.startswith(_GZIP_MAGIC):
        return data
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise Invalid(f"The inventory is not gzip: {error}.") from error
    if reader.unconsumed_tail:
        raise TooLarge(f"The inventory is larger than {MAX_BYTES} bytes.")
    if not reader.eof:
        raise Invalid("The inventory's gzip data ends too early.")
    return content


def parse(xml: bytes) -> Found:
    """Read an inventory. Raises Invalid, in words that name the tag that is missing or wrong."""
    content = _content(xml)
    rudder = _only(content, "RUDDER")
    node = _required(rudder, "UUID", "RUDDER/UUID").lower()
    if not is_node_id(node):
        raise Invalid(f"'{node}' in RUDDER/UUID is not a node id.")
    agents = [one for one in rudder.findall("AGENT") if _text(one, "AGENT_NAME")]
    if not agents:
        raise Invalid("Missing tag AGENT with an AGENT_NAME below RUDDER.")
    name, version = _agent(agents[0], content)
    properties = _properties(_text(rudder, "CUSTOM_PROPERTIES"))
    return Found(
        node=NodeId(node),
        hostname=_hostname(rudder, content, properties),
        inventory=_inventory(content),
        date=_log_date(content.findtext("ACCESSLOG/LOGDATE", "")),
        agent=name,
        agent_version=version,
        agent_capabilities=tuple(_texts(rudder, "AGENT_CAPABILITIES/AGENT_CAPABILITY")),
        policy_server=NodeId(_required(agents[0], "POLICY_SERVER_UUID", "AGENT/POLICY_SERVER_UUID")),
        description=_text(content, "HARDWARE/OSCOMMENTS"),
        certificate=_pem(agents[0].findtext("AGENT_CERT", "")),
        properties=properties,
    )


def _content(xml: bytes) -> etree._Element:
    if b"<!ENTITY" in xml:
        raise Invalid("The inventory declares entities; these are not accepted.")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        raise Invalid(f"The inventory is not well-formed XML: {error}") from error
    if root.tag != "REQUEST":
        raise Invalid(f"The root of an inventory is REQUEST, not {root.tag}.")
    if not _text(root, "DEVICEID"):
        raise Invalid("Missing tag DEVICEID.")
    content = root.find("CONTENT")
    if content is None:
        raise Invalid("Missing tag CONTENT.")
    return content


def _only(parent: etree._Element, tag: str) -> etree._Element:
    found = parent.findall(tag)
    if not found:
        raise Invalid(f"Missing tag {tag}.")
    if len(found) > 1:
        raise Invalid(f"There must be one tag {tag}, but there are {len(found)}.")
    return found[0]


def _text(parent: etree._Element, path: str) -> str:
    """The text at a path, trimmed, inner blanks collapsed; empty when there is none."""
    return " ".join((parent.findtext(path) or "").split())


def _texts(parent: etree._Element, path: str) -> list[str]:
    return [text for text in (" ".join((one.text or "").split()) for one in parent.findall(path)) if text]


def _required(parent: etree._Element, path: str, shown: str) -> str:
    text = _text(parent, path)
    if not text:
        raise Invalid(f"Missing or empty tag {shown}.")
    return text


def _pem(text: str) -> str:
    """A certificate as PEM again: blanks at the ends of its lines are what editors of XML add."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return "\n".join(lines) + "\n" if lines else ""


def _agent(found: etree._Element, content: etree._Element) -> tuple[str, str]:
    said = _text(found, "AGENT_NAME").lower()
    name = _AGENTS.get(said)
    if name is None:
        raise Invalid(f"Agent type '{said}' is not supported.")
    _required(found, "OWNER", "AGENT/OWNER")
    if not _text(found, "AGENT_CERT"):
        raise Invalid("Missing or empty tag AGENT/AGENT_CERT.")
    wanted = "rudder" if name != "quarterdeck" else "quarterdeck"
    for software in content.findall("SOFTWARES"):
        if wanted in _text(software, "NAME").lower():
            return name, _text(software, "VERSION")
    return name, ""


def _properties(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        documents = json.loads(text)
    except ValueError as error:
        raise Invalid(f"CUSTOM_PROPERTIES is not JSON: {error}") from error
    if not isinstance(documents, list) or not all(isinstance(one, dict) for one in documents):
        raise Invalid("CUSTOM_PROPERTIES is not a list of JSON objects.")
    return {name: value for one in documents for name, value in one.items()}


def _hostname(rudder: etree._Element, content: etree._Element, properties: dict[str, Any]) -> str:
    """The host name; a custom property may override it, then the original becomes one."""
    own = _text(rudder, "HOSTNAME")
    name = own or _text(content, "OPERATINGSYSTEM/FQDN")
    override = properties.get("rudder_override_hostname")
    if isinstance(override, str) and override:
        properties["rudder_original_hostname"] = name
        name = override
    if name in _LOCAL_NAMES:
        raise Invalid(f"Hostname '{name}' is not valid: a node needs a name of its own.")
    return check_hostname(name)


def _log_date(text: str) -> datetime | None:
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


# -- the machine ------------------------------------------------------------------------


def _inventory(content: etree._Element) -> Inventory:
    lists: dict[str, tuple[Element, ...]] = {name: tuple(read(content)) for name, read in _READERS.items()}
    interfaces = lists["networkInterfaces"]
    addresses = [address for interface in interfaces for address in interface.get("ipAddresses", ())]
    return Inventory(
        os=_system(content),
        machine=_machine(content),
        architecture=_text(content, "OPERATINGSYSTEM/ARCH") or _text(content, "HARDWARE/ARCHNAME"),
        ram=_known_size(_text(content, "HARDWARE/MEMORY")),
        swap=_known_size(_text(content, "HARDWARE/SWAP")),
        timezone_name=_text(content, "OPERATINGSYSTEM/TIMEZONE/NAME"),
        timezone_offset=_text(content, "OPERATINGSYSTEM/TIMEZONE/OFFSET"),
        ip_addresses=tuple(dict.fromkeys(addresses)),
        accounts=tuple(dict.fromkeys(_accounts(content))),
        environment={_text(one, "KEY"): _text(one, "VAL") for one in content.findall("ENVS") if _text(one, "KEY")},
        lists={name: elements for name, elements in lists.items() if elements},
    )


def _accounts(content: etree._Element) -> list[str]:
    found = [_text(one, "LOGIN") or _text(one, "NAME") for one in content.findall("LOCAL_USERS")]
    return sorted(name for name in found if name)


def _system(content: etree._Element) -> OperatingSystem:
    system = content.find("OPERATINGSYSTEM")
    if system is None:
        raise Invalid("Missing tag OPERATINGSYSTEM.")
    full, kernel, name = (_text(system, tag) for tag in ("FULL_NAME", "KERNEL_NAME", "NAME"))
    if not (full or kernel or name):
        raise Invalid("Missing tag OPERATINGSYSTEM/FULL_NAME, KERNEL_NAME or NAME.")
    kind, known = _system_names(kernel.lower(), f"{name} {full}".lower())
    return OperatingSystem(
        type=kind,
        name=known,
        version=_text(system, "VERSION") or "N/A",
        full_name=full or name,
        kernel_version=_required(system, "KERNEL_VERSION", "OPERATINGSYSTEM/KERNEL_VERSION"),
        service_pack=_text(system, "SERVICE_PACK"),
    )


def _system_names(kernel: str, description: str) -> tuple[str, str]:
    if "mswin" in kernel or "windows" in description:
        return "Windows", _windows_name(description)
    if "linux" in kernel or "linux" in description:
        return "Linux", next((name for text, name in _LINUX if text in description), "UnknownLinux")
    if "aix" in kernel:
        return "AIX", "AIX"
    if "solaris" in kernel or "sunos" in kernel:
        return "Solaris", "Solaris"
    if "bsd" in kernel:
        return "BSD", "FreeBSD" if "freebsd" in kernel else "UnknownBSD"
    return "N/A", "N/A"


def _windows_name(description: str) -> str:
    server = re.search(r"(2000|2003|2008|2012|2016|2019|2022)( ?r2)?", description)
    if server:
        suffix = "R2" if server[2] and server[1] in ("2008", "2012", "2016") else ""
        return f"Windows{server[1]}{suffix}"
    named = (("xp", "WindowsXP"), ("vista", "WindowsVista"), ("seven", "WindowsSeven"), (" 7", "WindowsSeven"))
    if " 10" in description:
        return "Windows10"
    return next((name for text, name in named if text in description), "Windows")


def _machine(content: etree._Element) -> Machine:
    system = _text(content, "HARDWARE/VMSYSTEM").lower()
    virtual = system not in ("", "physical")
    return Machine(
        id=_text(content, "HARDWARE/UUID").lower() or _text(content, "BIOS/SSN"),
        type="Virtual" if virtual else "Physical",
        provider=_PROVIDERS.get(system, "unknown") if virtual else "",
        manufacturer=_text(content, "BIOS/SMANUFACTURER") or _text(content, "BIOS/MMANUFACTURER"),
        serial_number=_text(content, "BIOS/SSN"),
    )


# -- lists --------------------------------------------------------------------------------

#: field -> (tag, how its text is read)
_Fields = Mapping[str, tuple[str, Callable[[str], Any]]]


def _size(text: str, default_unit: int = _MEGABYTE) -> int | None:
    """Bytes of a text such as `12_345`, `2 GB`; without a unit it is in megabytes. None when it is not a size."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        return None
    unit = found[2].lower().rstrip("bo")
    factor = default_unit if not found[2] else _UNITS.get(unit)
    if factor is None:
        return None
    return int(float(found[1].replace("_", "").replace(" ", "")) * factor)


def _known_size(text: str) -> int | None:
    found = _size(text)
    return found if found is not None and found >= 0 else None


def _integer(text: str) -> int | None:
    found = re.match(r"-?\d+", text)
    return int(found.group()) if found else None


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%"))
    except ValueError:
        return None


def _words(text: str) -> str:
    return text


def _read(element: etree._Element, fields: _Fields) -> dict[str, Any]:
    found = ((name, read(text)) for name, (tag, read) in fields.items() if (text := _text(element, tag)))
    return {name: value for name, value in found if value is not None}


def _plain(tag: str, fields: _Fields) -> Callable[[etree._Element], list[Element]]:
    """Elements as they come, those without a name left out."""

    def read(content: etree._Element) -> list[Element]:
        found = [_read(one, fields) for one in content.findall(tag)]
        return [one for one in found if one.get("name")]

    return read


def _counted(tag: str, fields: _Fields) -> Callable[[etree._Element], list[Element]]:
    """Identical elements are one with a quantity."""

    def read(content: etree._Element) -> list[Element]:
        return _fold(one for one in (_read(one, fields) for one in content.findall(tag)) if one.get("name"))

    return read


def _fold(elements: Iterable[dict[str, Any]]) -> list[Element]:
    counted: dict[str, dict[str, Any]] = {}
    for one in elements:
        key = json.dumps(one, sort_keys=True)
        first = counted.setdefault(key, one)
        if first is not one:
            first["quantity"] = first.get("quantity", 1) + 1
    return list(counted.values())


_BIOS: _Fields = {
    "name": ("SMODEL", _words),
    "editor": ("BMANUFACTURER", _words),
    "version": ("BVERSION", _words),
    "releaseDate": ("BDATE", _words),
}
_PROCESSOR: _Fields = {
    "name": ("NAME", _words),
    "arch": ("ARCH", _words),
    "core": ("CORE", _integer),
    "thread": ("THREAD", _integer),
    "speed": ("SPEED", _integer),
    "cpuid": ("ID", _words),
    "manufacturer": ("MANUFACTURER", _words),
    "familyName": ("FAMILYNAME", _words),
    "model": ("MODEL", _integer),
    "stepping": ("STEPPING", _integer),
    "externalClock": ("EXTERNAL_CLOCK", _words),
}
_DRIVE: _Fields = {
    "name": ("FILESYSTEM", _words),
    "mountPoint": ("TYPE", _words),
    "description": ("VOLUMN", _words),
    "fileCount": ("NUMFILES", _integer),
    "freeSpace": ("FREE", _size),
    "totalSpace": ("TOTAL", _size),
}
_INTERFACE: _Fields = {
    "name": ("DESCRIPTION", _words),
    "dhcpServer": ("IPDHCP", _words),
    "macAddress": ("MACADDR", _words),
    "status": ("STATUS", _words),
    "type": ("TYPE", _words),
    "speed": ("SPEED", _words),
}
_MEMORY: _Fields = {
    "name": ("CAPTION", _words),
    "caption": ("CAPTION", _words),
    "slotNumber": ("NUMSLOTS", _words),
    "capacity": ("CAPACITY", _size),
    "description": ("DESCRIPTION", _words),
    "speed": ("SPEED", _words),
    "type": ("TYPE", _words),
    "serialNumber": ("SERIALNUMBER", _words),
}
_STORAGE: _Fields = {
    "name": ("NAME", _words),
    "type": ("TYPE", _words),
    "size": ("DISKSIZE", _size),
    "model": ("MODEL", _words),
    "firmware": ("FIRMWARE", _words),
    "description": ("DESCRIPTION", _words),
    "manufacturer": ("MANUFACTURER", _words),
    "serialNumber": ("SERIALNUMBER", _words),
}
_VIDEO: _Fields = {
    "name": ("NAME", _words),
    "chipset": ("CHIPSET", _words),
    "memory": ("MEMORY", _size),
    "resolution": ("RESOLUTION", _words),
}
_CONTROLLER: _Fields = {
    "name": ("NAME", _words),
    "type": ("TYPE", _words),
    "description": ("CAPTION", _words),
    "manufacturer": ("MANUFACTURER", _words),
}
_SLOT: _Fields = {"name": ("NAME", _words), "description": ("DESCRIPTION", _words), "status": ("STATUS", _words)}
_PORT: _Fields = {"name": ("NAME", _words), "type": ("TYPE", _words), "description": ("DESCRIPTION", _words)}
_SOUND: _Fields = {"name": ("NAME", _words), "description": ("DESCRIPTION", _words)}
_PROCESS: _Fields = {
    "pid": ("PID", _integer),
    "name": ("CMD", _words),
    "cpuUsage": ("CPUUSAGE", _number),
    "memory": ("MEM", _number),
    "started": ("STARTED", _words),
    "tty": ("TTY", _words),
    "user": ("USER", _words),
    "virtualMemory": ("VIRTUALMEMORY", _number),
}
_SOFTWARE: _Fields = {
    "name": ("NAME", _words),
    "version": ("VERSION", _words),
    "description": ("COMMENTS", _words),
    "editor": ("PUBLISHER", _words),
    "sourceName": ("SOURCE_NAME", _words),
    "sourceVersion": ("SOURCE_VERSION", _words),
}
_UPDATE: _Fields = {
    "name": ("NAME", _words),
    "version": ("VERSION", _words),
    "arch": ("ARCH", _words),
    "from": ("FROM", _words),
    "kind": ("KIND", _words),
    "source": ("SOURCE", _words),
    "description": ("DESCRIPTION", _words),
    "severity": ("SEVERITY", _words),
    "date": ("DATE", _words),
}
_VIRTUAL: _Fields = {
    "name": ("NAME", _words),
    "type": ("VMTYPE", _words),
    "uuid": ("UUID", _words),
    "subsystem": ("SUBSYSTEM", _words),
    "owner": ("OWNER", _words),
    "status": ("STATUS", _words),
    "vcpu": ("VCPU", _integer),
    "memory": ("MEMORY", _words),
}


def _drives(content: etree._Element) -> list[Element]:
    found = []
    for one in content.findall("DRIVES"):
        drive = _read(one, _DRIVE)
        drive.setdefault("mountPoint", _text(one, "LETTER"))
        drive.setdefault("name", drive["mountPoint"])
        if drive["mountPoint"]:
            found.append(drive)
    return list(found)


def _interfaces(content: etree._Element) -> list[Element]:
    """One per name: addresses and masks of all entries of that name."""
    merged: dict[str, dict[str, Any]] = {}
    for one in content.findall("NETWORKS"):
        found = _read(one, _INTERFACE)
        if "name" not in found:
            continue
        interface = merged.setdefault(found["name"], {**found, "mask": [], "ipAddresses": []})
        for tag, key in (("IPADDRESS", "ipAddresses"), ("IPADDRESS6", "ipAddresses"), ("IPMASK", "mask")):
            text = _text(one, tag)
            if text and text not in interface[key]:
                interface[key].append(text)
    return list(merged.values())


def _memories(content: etree._Element) -> list[Element]:
    """Slots as they are numbered; those without a number, or with one that is taken, get negative ones."""
    found, taken = [], set[str]()
    for position, one in enumerate(content.findall("MEMORIES"), start=1):
        memory = _read(one, _MEMORY)
        slot = memory.get("slotNumber", "")
        if not slot or slot in taken:
            slot = str(-position)
        taken.add(slot)
        found.append({**memory, "slotNumber": slot})
    return list(found)


def _processes(content: etree._Element) -> list[Element]:
    return [one for one in (_read(one, _PROCESS) for one in content.findall("PROCESSES")) if one.get("pid") is not None]


def _software(content: etree._Element) -> list[Element]:
    unique = {
        (one["name"], one.get("version", "")): one
        for one in (_read(one, _SOFTWARE) for one in content.findall("SOFTWARES"))
        if one.get("name")
    }
    return [{"version": "", **one} for one in unique.values()]


def _updates(content: etree._Element) -> list[Element]:
    found = []
    for one in content.findall("SOFTWAREUPDATES"):
        update = _read(one, _UPDATE)
        ids = re.split(r"[,\s]+", _text(one, "ID"))
        if update.get("name"):
            found.append({**update, "kind": update.get("kind", "none"), **({"ids": ids} if ids != [""] else {})})
    return list(found)


_READERS: Mapping[str, Callable[[etree._Element], list[Element]]] = {
    "bios": _plain("BIOS", _BIOS),
    "controllers": _counted("CONTROLLERS", _CONTROLLER),
    "fileSystems": _drives,
    "memories": _memories,
    "networkInterfaces": _interfaces,
    "ports": _counted("PORTS", _PORT),
    "processes": _processes,
    "processors": _counted("CPUS", _PROCESSOR),
    "slots": _counted("SLOTS", _SLOT),
    "software": _software,
    "softwareUpdate": _updates,
    "sound": _counted("SOUNDS", _SOUND),
    "storage": _counted("STORAGES", _STORAGE),
    "videos": _counted("VIDEOS", _VIDEO),
    "virtualMachines": _plain("VIRTUALMACHINES", _VIRTUAL),
}
