# SPDX-License-Identifier: Apache-2.0
"""What the machine is made of, from /proc and /sys: memory, processors, disks, file systems, interfaces.

Sizes in bytes. A field that is unknown is absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import shutil
import socket
import struct
import subprocess
from typing import Any, Dict, List, Tuple

_UNITS = {"bytes": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}
_GET_ADDRESS, _GET_MASK = 0x8915, 0x891B


def read(path: str) -> str:
    """The text of a small file without surrounding blanks; empty when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def output(*command: str, seconds: int = 30) -> str:
    """What a command prints; empty when it is missing, fails or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, check=False, timeout=seconds, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def dmi(name: str) -> str:
    """A field of the machine's DMI table; empty for fillers."""
    value = read(f"/sys/class/dmi/id/{name}")
    return "" if value.lower() in ("none", "not specified", "to be filled by o.e.m.", "default string") else value


def memory_sizes() -> Dict[str, int]:
    """The fields of /proc/meminfo in bytes."""
    sizes = {}
    for line in read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[0].isdigit():
            sizes[name] = int(words[0]) * 1024
    return sizes


def processors() -> List[Dict[str, Any]]:
    """One entry per socket of /proc/cpuinfo."""
    sockets: Dict[str, Dict[str, str]] = {}
    threads: Dict[str, int] = {}
    for block in read("/proc/cpuinfo").split("\n\n"):
        fields = dict(_fields(block))
        if "processor" not in fields:
            continue
        package = fields.get("physical id", "0")
        sockets.setdefault(package, fields)
        threads[package] = threads.get(package, 0) + 1
    return [_processor(sockets[package], threads[package]) for package in sorted(sockets)]


def memories() -> List[Dict[str, Any]]:
    """The memory modules that dmidecode lists; slots without a module are left out."""
    modules = []
    for slot, block in enumerate(output("dmidecode", "-t", "17", "-q").split("\n\n")):
        fields = dict(_fields(block))
        capacity = _size(fields.get("Size", ""))
        if capacity <= 0:
            continue
        found = {
            "slotNumber": str(slot),
            "name": fields.get("Locator"),
            "capacity": capacity,
            "type": fields.get("Type"),
            "speed": fields.get("Speed"),
            "serialNumber": fields.get("Serial Number"),
            "description": fields.get("Form Factor"),
        }
        modules.append(_known(found))
    return modules


def storage() -> List[Dict[str, Any]]:
    """The disks of /sys/block, without loop, ram and mapped devices."""
    disks = []
    for name in _names("/sys/block"):
        path = f"/sys/block/{name}"
        if name.startswith(("loop", "ram", "dm-", "md", "zram", "sr")) or not os.path.isdir(path):
            continue
        sectors = read(f"{path}/size")
        found = {
            "name": name,
            "type": "ssd" if read(f"{path}/queue/rotational") == "0" else "disk",
            "size": int(sectors) * 512 if sectors.isdigit() else None,
            "model": read(f"{path}/device/model"),
            "manufacturer": read(f"{path}/device/vendor"),
            "serialNumber": read(f"{path}/device/serial"),
            "firmware": read(f"{path}/device/firmware_rev") or read(f"{path}/device/rev"),
        }
        disks.append(_known(found))
    return disks


def file_systems() -> List[Dict[str, Any]]:
    """Mounted file systems that hold data, one entry per mount point."""
    found: Dict[str, Dict[str, Any]] = {}
    virtual = {line.split()[1] for line in read("/proc/filesystems").splitlines() if line.startswith("nodev")}
    virtual -= {"tmpfs", "overlay", "zfs", "nfs", "nfs4", "cifs", "btrfs", "fuse", "9p", "virtiofs"}
    for line in read("/proc/mounts").splitlines():
        device, mount, kind = [_unescaped(word) for word in line.split()[:3]]
        if kind in virtual or mount.startswith(("/proc/", "/sys/", "/dev/")) or os.path.isfile(mount):
            continue
        try:
            numbers = os.statvfs(mount)
        except OSError:
            continue
        if numbers.f_blocks:
            found[mount] = {
                "name": kind,
                "mountPoint": mount,
                "description": device,
                "totalSpace": numbers.f_blocks * numbers.f_frsize,
                "freeSpace": numbers.f_bavail * numbers.f_frsize,
                "fileCount": numbers.f_files - numbers.f_ffree,
            }
    return list(found.values())


def network_interfaces() -> List[Dict[str, Any]]:
    """Every interface with its addresses, from `ip`, or from the kernel where `ip` is missing."""
    addresses = _addresses_from_ip() or _addresses_from_kernel()
    return [_interface(name, addresses.get(name, [])) for name in _names("/sys/class/net")]


def bios() -> List[Dict[str, Any]]:
    """The firmware."""
    found = {
        "name": "BIOS",
        "editor": dmi("bios_vendor"),
        "version": dmi("bios_version"),
        "releaseDate": dmi("bios_date"),
    }
    return [_known(found)] if found["version"] or found["editor"] else []


def _processor(fields: Dict[str, str], threads: int) -> Dict[str, Any]:
    cores = fields.get("cpu cores", "")
    count = int(cores) if cores.isdigit() else threads
    speed = re.match(r"\d+", fields.get("cpu MHz", ""))
    found = {
        "name": fields.get("model name") or fields.get("Processor") or os.uname().machine,
        "arch": os.uname().machine,
        "core": count,
        "thread": max(1, threads // max(1, count)),
        "speed": int(speed.group()) if speed else None,
        "manufacturer": fields.get("vendor_id"),
        "familyName": fields.get("cpu family"),
        "model": _number(fields.get("model", "")),
        "stepping": _number(fields.get("stepping", "")),
    }
    return _known(found)


def _interface(name: str, addresses: List[Tuple[str, str]]) -> Dict[str, Any]:
    path = f"/sys/class/net/{name}"
    mac, speed = read(f"{path}/address"), read(f"{path}/speed")
    found = {
        "name": name,
        "type": "loopback" if name == "lo" else "wifi" if os.path.isdir(f"{path}/wireless") else "ethernet",
        "status": "Up" if int(read(f"{path}/flags") or "0", 16) & 1 else "Down",
        "macAddress": "" if mac == "00:00:00:00:00:00" else mac,
        "speed": speed if speed.isdigit() else "",
    }
    addressed = {"ipAddresses": [address for address, _ in addresses], "mask": [mask for _, mask in addresses if mask]}
    return {**_known(found), **addressed}


def _addresses_from_ip() -> Dict[str, List[Tuple[str, str]]]:
    """Interface -> (address, mask) pairs from `ip -j addr`; empty when that does not work."""
    found: Dict[str, List[Tuple[str, str]]] = {}
    try:
        for link in json.loads(output("ip", "-j", "addr") or "[]"):
            pairs = [(str(entry["local"]), int(entry["prefixlen"])) for entry in link.get("addr_info", [])]
            found[link["ifname"]] = [(address, _mask(address, prefix)) for address, prefix in pairs]
    except (ValueError, KeyError, TypeError):
        return {}
    return found


def _addresses_from_kernel() -> Dict[str, List[Tuple[str, str]]]:
    """The first IPv4 address of each interface, and every IPv6 address."""
    found: Dict[str, List[Tuple[str, str]]] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in _names("/sys/class/net"):
            request = struct.pack("256s", name.encode()[:15])
            with contextlib.suppress(OSError):
                answers = [fcntl.ioctl(probe.fileno(), code, request)[20:24] for code in (_GET_ADDRESS, _GET_MASK)]
                found.setdefault(name, []).append((socket.inet_ntoa(answers[0]), socket.inet_ntoa(answers[1])))
    for line in read("/proc/net/if_inet6").splitlines():
        digits, _, prefix, _, _, name = line.split()
        address = str(ipaddress.IPv6Address(int(digits, 16)))
        found.setdefault(name, []).append((address, _mask(address, int(prefix, 16))))
    return found


def _mask(address: str, prefix: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{prefix}", strict=False).netmask)


def _fields(block: str) -> List[Tuple[str, str]]:
    """The `name: value` lines of a block."""
    pairs = [line.split(":", 1) for line in block.splitlines() if ":" in line]
    return [(name.strip(), value.strip()) for name, value in pairs]


def _names(directory: str) -> List[str]:
    try:
        return sorted(name for name in os.listdir(directory) if os.path.isdir(os.path.join(directory, name)))
    except OSError:
        return []


def _number(text: str) -> Any:
    return int(text) if text.isdigit() else None


def _size(text: str) -> int:
    """Bytes of a text such as `16 GB`; -1 when it is not a size."""
    number, _, unit = text.partition(" ")
    return int(number) * _UNITS.get(unit.lower(), -1) if number.isdigit() else -1


def _unescaped(word: str) -> str:
    """A word of /proc/mounts with its octal escapes undone."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)


def _known(found: Dict[str, Any]) -> Dict[str, Any]:
    return {name: value for name, value in found.items() if value not in (None, "", "Unknown", "Not Specified")}
