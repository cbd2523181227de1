# SPDX-License-Identifier: Apache-2.0
"""What runs and is installed: packages (dpkg, rpm, apk), available updates, processes. Only ever read."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, List

from quarterdeck_agent.hardware import memory_sizes, output, read

_DPKG_FORMAT = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Maintainer}\t${binary:Summary}\n"
_RPM_FORMAT = "%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{VENDOR}\t%{SUMMARY}\n"
_APT_LINE = re.compile(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+) (.*?) \[(\S+)\]\)")


def packages() -> List[Dict[str, Any]]:
    """Installed packages of every package database found, unique by name and version."""
    found = _from_dpkg() + _from_rpm() + _from_apk()
    return list({(entry["name"], entry["version"]): entry for entry in found}.values())


def updates() -> List[Dict[str, Any]]:
    """Updates that apt knows of, from its lists as they are: nothing is refreshed, no cache is written."""
    text = output(
        "apt-get",
        *("-s", "-q", "-o", "Debug::NoLocking=true", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
        "dist-upgrade",
        seconds=60,
    )
    found = []
    for name, old, version, source, arch in _APT_LINE.findall(text):
        if old:
            kind = "security" if "security" in source.lower() else "none"
            found.append(
                {"name": name, "version": version, "arch": arch, "from": "apt", "kind": kind, "source": source}
            )
    return found


def processes() -> List[Dict[str, Any]]:
    """Running processes, kernel threads left out."""
    total = memory_sizes().get("MemTotal", 0)
    boot = next((int(line.split()[1]) for line in read("/proc/stat").splitlines() if line.startswith("btime")), 0)
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            entry = _process(pid, boot, total)
        except (OSError, ValueError, IndexError):  # it ended meanwhile
            continue
        if entry:
            found.append(entry)
    return found


def _from_dpkg() -> List[Dict[str, Any]]:
    rows = [line.split("\t") for line in output("dpkg-query", "-W", "-f", _DPKG_FORMAT).splitlines()]
    return [_package(*row[1:]) for row in rows if len(row) == 5 and row[0][1:2] == "i"]


def _from_rpm() -> List[Dict[str, Any]]:
    if not os.path.isdir("/var/lib/rpm") and not os.path.isdir("/usr/lib/sysimage/rpm"):
        return []
    rows = [line.split("\t") for line in output("rpm", "-qa", "--qf", _RPM_FORMAT).splitlines()]
    return [_package(*row) for row in rows if len(row) == 4 and row[0] != "gpg-pubkey"]


def _from_apk() -> List[Dict[str, Any]]:
    found = []
    for block in read("/lib/apk/db/installed").split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if ":" in line)
        if "P" in fields and "V" in fields:
            found.append(_package(fields["P"], fields["V"], fields.get("m", ""), fields.get("T", "")))
    return found


def _package(name: str, version: str, editor: str, description: str) -> Dict[str, Any]:
    found = {"name": name, "version": version, "editor": editor, "description": description}
    return {field: value for field, value in found.items() if value and value != "(none)"}


def _process(pid: int, boot: int, total: int) -> Dict[str, Any]:
    """One process from /proc; empty for a kernel thread. Raises OSError when it is gone."""
    with open(f"/proc/{pid}/cmdline", "rb") as stream:
        command = stream.read().replace(b"\0", b" ").decode(errors="replace").strip()
    if not command:
        return {}
    stat = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    started = boot + int(stat[19]) / ticks
    lifetime = max(1.0, time.time() - started)
    resident = int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "pid": pid,
        "name": command[:512],
        "user": _user(os.stat(f"/proc/{pid}").st_uid),
        "started": time.strftime("%Y-%m-%d %H:%M", time.localtime(started)),
        "cpuUsage": round(100 * (int(stat[11]) + int(stat[12])) / ticks / lifetime, 1),
        "memory": round(100 * resident / total, 1) if total else 0.0,
        "virtualMemory": int(stat[20]),
        "tty": _terminal(int(stat[4])),
    }


def _user(uid: int) -> str:
    import pwd  # only the inventory names users

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(number: int) -> str:
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    return f"tty{minor}" if major == 4 and minor < 64 else "?"
