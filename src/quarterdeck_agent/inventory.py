# SPDX-License-Identifier: Apache-2.0
"""The inventory of this machine: what the machine is. Assembles what `hardware.py` and `software.py` find.

Everything is looked up, nothing is guessed: what cannot be found out is left out, and no missing
tool or unreadable file makes the inventory fail.
"""

from __future__ import annotations

import glob
import json
import os
import time
from typing import Any, Callable, Dict, List, Tuple, cast

from quarterdeck_agent import __version__, documents, facts, hardware, software
from quarterdeck_agent.hardware import read

PROPERTIES = "/etc/quarterdeck-agent/properties.d/*.json"

_OS_NAMES = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "kali": "Kali",
    "rhel": "Redhat",
    "centos": "Centos",
    "fedora": "Fedora",
    "sles": "Suse",
    "sled": "Suse",
    "opensuse": "Suse",
    "opensuse-leap": "Suse",
    "opensuse-tumbleweed": "Suse",
    "ol": "Oracle",
    "scientific": "Scientific",
    "slackware": "Slackware",
    "linuxmint": "Mint",
    "amzn": "AmazonLinux",
    "rocky": "RockyLinux",
    "almalinux": "AlmaLinux",
    "raspbian": "Raspbian",
    "android": "Android",
}

#: The environment may hold secrets: only names known to be harmless are sent.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "PWD", "SHELL", "TERM", "TZ", "USER")

#: (text in the DMI vendor or product, provider)
_PROVIDERS = (
    ("vmware", "vmware"),
    ("virtualbox", "vbox"),
    ("innotek", "vbox"),
    ("xen", "xen"),
    ("microsoft corporation virtual", "hyperv"),
    ("qemu", "qemu"),
    ("kvm", "qemu"),
    ("bochs", "qemu"),
    ("amazon ec2", "qemu"),
    ("google", "qemu"),
    ("openstack", "qemu"),
    ("parallels", "virtuozzo"),
)


def collect(node: str) -> documents.Inventory:
    """Everything that can be found out about this machine now."""
    sizes = hardware.memory_sizes()
    found: Dict[str, Any] = {
        "format": documents.FORMAT,
        "node": node,
        "hostname": facts.full_hostname(),
        "fqdn": facts.full_hostname(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "agent": {"version": __version__},
        "os": operating_system(facts.os_release()),
        "architecture": os.uname().machine,
        "ram": sizes.get("MemTotal"),
        "swap": sizes.get("SwapTotal"),
        "timezone": timezone(time.localtime()),
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }
    for name, look in _PARTS:
        try:
            found[name] = look()
        except Exception:  # one part that cannot be read must not hide the others
            continue
    interfaces = found.get("network_interfaces") or []
    found["ip_addresses"] = [address for interface in interfaces for address in interface["ipAddresses"]]
    return cast("documents.Inventory", {name: value for name, value in found.items() if value not in (None, [], {})})


def operating_system(release: Dict[str, str]) -> Dict[str, str]:
    """The system from the fields of os-release, named as the Rudder API does."""
    kernel = os.uname()
    version = release.get("VERSION_ID", "")
    if release.get("ID") == "debian":
        version = read("/etc/debian_version") or version
    return {
        "type": "Linux",
        "name": _os_name(release),
        "version": version or "N/A",
        "fullName": release.get("PRETTY_NAME") or f"{kernel.sysname} {kernel.release}",
        "kernelVersion": kernel.release,
    }


def machine() -> Dict[str, str]:
    """The machine: its id, whether it is virtual and by what, maker and serial number."""
    vendor, product = hardware.dmi("sys_vendor"), hardware.dmi("product_name")
    kind, provider = _virtualisation(f"{vendor} {product}".lower())
    found = {
        "id": hardware.dmi("product_uuid").lower() or read("/etc/machine-id"),
        "type": kind,
        "provider": provider,
        "manufacturer": vendor,
        "serialNumber": hardware.dmi("product_serial"),
    }
    return {name: value for name, value in found.items() if value}


def timezone(now: time.struct_time) -> Dict[str, str]:
    """Name of the zone and its offset as `+01` or `+0530`."""
    offset = time.strftime("%z", now)
    link = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    name = os.environ.get("TZ", "").lstrip(":") or link or time.strftime("%Z", now)
    return {"name": name, "offset": offset[:3] if offset.endswith("00") else offset}


def accounts() -> List[str]:
    """Login names of /etc/passwd, sorted."""
    with open("/etc/passwd", encoding="utf-8", errors="replace") as stream:
        names = [line.partition(":")[0] for line in stream if not line.startswith(("#", "+", "-"))]
    return sorted(name for name in names if name.strip())


def properties(pattern: str = PROPERTIES) -> Dict[str, Any]:
    """What the administrator of this machine declares in the files of `pattern`: JSON objects, later files win."""
    found: Dict[str, Any] = {}
    for path in sorted(glob.glob(pattern)):
        try:
            document = json.loads(read(path))
        except ValueError:
            continue
        if isinstance(document, dict):
            found.update(document)
    return found


_PARTS: Tuple[Tuple[str, Callable[[], Any]], ...] = (
    ("machine", machine),
    ("accounts", accounts),
    ("properties", properties),
    ("software", software.packages),
    ("software_updates", software.updates),
    ("processes", software.processes),
    ("file_systems", hardware.file_systems),
    ("network_interfaces", hardware.network_interfaces),
    ("processors", hardware.processors),
    ("memories", hardware.memories),
    ("storage", hardware.storage),
    ("bios", hardware.bios),
)


def _os_name(release: Dict[str, str]) -> str:
    for name in [release.get("ID", ""), *release.get("ID_LIKE", "").split()]:
        if name in _OS_NAMES:
            return _OS_NAMES[name]
    return "UnknownLinux"


def _virtualisation(description: str) -> Tuple[str, str]:
    """Type and provider as the Rudder API names them, from containers, DMI and the processor's flags."""
    container = read("/run/systemd/container") or _container_of_init()
    if os.path.isdir("/proc/vz") and not os.path.isdir("/proc/bc"):
        return "Virtual", "openvz"
    if container or os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return "Virtual", "lxc" if container.startswith("lxc") else "unknown"
    for text, provider in _PROVIDERS:
        if text in description:
            return "Virtual", provider
    if " hypervisor" in read("/proc/cpuinfo"):
        return "Virtual", "unknown"
    return ("Physical", "") if description.strip() else ("Unknown", "")


def _container_of_init() -> str:
    for entry in read("/proc/1/environ").split("\0"):
        name, _, value = entry.partition("=")
        if name == "container":
            return value
    return ""
