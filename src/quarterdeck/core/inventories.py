# SPDX-License-Identifier: Apache-2.0
"""What a node found out about itself. Element keys are those of the Rudder API's node fields.

Sizes are bytes; the dialect turns them into megabytes where its fields are in megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Element = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingSystem:
    """`type` and `name` spelled as the Rudder API spells them (`Linux`, `Debian`)."""

    type: str = ""
    name: str = ""
    version: str = ""
    full_name: str = ""
    kernel_version: str = ""
    service_pack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`type` is `Physical`, `Virtual`, `Unknown` or `No machine Inventory`."""

    id: str = ""
    type: str = "No machine Inventory"
    provider: str = ""
    manufacturer: str = ""
    serial_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    os: OperatingSystem = field(default_factory=OperatingSystem)
    machine: Machine = field(default_factory=Machine)
    architecture: str = ""
    ram: int | None = None
    swap: int | None = None
    timezone_name: str = ""
    timezone_offset: str = ""
    ip_addresses: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    #: The named lists of elements: software, fileSystems, networkInterfaces, processes, processors, memories,
    #: storage, bios, controllers, ports, slots, sound, videos, virtualMachines, softwareUpdate.
    lists: Mapping[str, tuple[Element, ...]] = field(default_factory=dict)
