# SPDX-License-Identifier: Apache-2.0
"""What holds on this machine before the first call: hard conditions and a few variables.

Names follow those administrators know: `linux`, `debian`, `debian_12`, `x86_64`, `Hr09`, `Min35_40`,
`Saturday`, the host name. Cheap on purpose: nothing is started, two small files are read.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Dict, Sequence, Set

from quarterdeck_agent.conditions import canonify
from quarterdeck_agent.outcome import Facts

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")

_FAMILIES = {"rhel": "redhat", "fedora": "redhat", "centos": "redhat", "rocky": "redhat", "almalinux": "redhat"}

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def gather() -> Facts:
    """The conditions and variables of this machine at this moment."""
    machine, host = os.uname().machine, socket.gethostname()
    found = Facts(conditions=set(), variables={})
    found.conditions |= {"any", "linux", canonify(machine), canonify(host), canonify(host.partition(".")[0])}
    found.conditions.add("64_bit" if machine.endswith("64") else "32_bit")
    found.conditions |= os_conditions(os_release()) | time_conditions(time.localtime())
    if os.path.isdir("/run/systemd/system"):
        found.conditions.add("systemd")
    found.variables.update(
        {
            "const.n": "\n",
            "const.r": "\r",
            "const.t": "\t",
            "const.dollar": "$",
            "sys.host": host,
            "sys.uqhost": host.partition(".")[0],
            "sys.arch": machine,
            "sys.os": "linux",
            "sys.release": os.uname().release,
        }
    )
    return found


def full_hostname() -> str:
    """The host name with its domain, where the machine knows one."""
    host = socket.gethostname()
    full = host if "." in host else socket.getfqdn(host)
    return host if full.startswith("localhost") else full


def os_release(paths: Sequence[str] = OS_RELEASE) -> Dict[str, str]:
    """The fields of the first of these files that can be read, quotes removed; empty when there is none."""
    fields = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    name, found, value = line.strip().partition("=")
                    if found and not name.startswith("#"):
                        fields[name] = value.strip("\"'")
        except OSError:
            continue
        break
    return fields


def os_conditions(release: Dict[str, str]) -> Set[str]:
    """Distribution, its family, and each with the version's parts: debian, debian_12, debian_12_5."""
    names = {canonify(release.get("ID", "")).lower()}
    like = {canonify(name).lower() for name in release.get("ID_LIKE", "").split()}
    found = names | like | {_FAMILIES[name] for name in names | like if name in _FAMILIES}
    parts = [part for part in release.get("VERSION_ID", "").split(".") if part]
    for count in range(1, len(parts) + 1):
        found |= {canonify("_".join([name, *parts[:count]])) for name in names if name}
    if any(name.startswith(("sles", "opensuse", "suse")) for name in found):
        found |= {"suse", "SuSE"}
    return found - {""}


def time_conditions(now: time.struct_time) -> Set[str]:
    """The clock as conditions: Hr09, Min35, Min35_40, Day21, Saturday, November, Yr2026, Morning."""
    five = now.tm_min // 5 * 5
    return {
        f"Hr{now.tm_hour:02}",
        f"Min{now.tm_min:02}",
        f"Min{five:02}_{(five + 5) % 60:02}",
        f"Q{now.tm_min // 15 + 1}",
        f"Day{now.tm_mday}",
        f"Yr{now.tm_year}",
        _DAYS[now.tm_wday],
        _MONTHS[now.tm_mon - 1],
        ("Night", "Morning", "Afternoon", "Evening")[now.tm_hour // 6],
    }
