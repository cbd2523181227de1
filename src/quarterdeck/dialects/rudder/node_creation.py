# SPDX-License-Identifier: Apache-2.0
"""Nodes chapter, making nodes: an array of descriptions, of which the good ones become nodes."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType

from quarterdeck.core.errors import Invalid
from quarterdeck.core.inventories import Machine, OperatingSystem
from quarterdeck.core.properties import Property
from quarterdeck.dialects.rudder import body, envelope
from quarterdeck.dialects.rudder.nodes import KeyFields, decode_property
from quarterdeck.dialects.rudder.shapes import Fields, Text
from quarterdeck.services import node_creation
from quarterdeck.services.context import Context
from quarterdeck.services.node_creation import Created, Description
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Nodes")

_LINUX = (
    *("Debian", "Ubuntu", "Kali", "Redhat", "Centos", "Fedora", "Suse", "Android", "Oracle", "Scientific"),
    *("Slackware", "Mint", "AmazonLinux", "RockyLinux", "AlmaLinux", "Raspbian"),
)
_WINDOWS = {
    "xp": "WindowsXP",
    "vista": "WindowsVista",
    "seven": "WindowsSeven",
    **{year: f"Windows{year}" for year in ("10", "2000", "2003", "2008", "2012", "2016", "2019", "2022")},
    **{f"{year} r2": f"Windows{year}R2" for year in ("2008", "2012", "2016")},
}
#: lower-case type -> (type, lower-case name -> name, name of what is none of these)
_SYSTEMS: dict[str, tuple[str, dict[str, str], str]] = {
    "linux": ("Linux", {name.lower(): name for name in _LINUX}, "UnknownLinux"),
    "windows": ("Windows", _WINDOWS, "Windows"),
    "solaris": ("Solaris", {}, "Solaris"),
    "aix": ("AIX", {}, "AIX"),
    "freebsd": ("BSD", {}, "FreeBSD"),
    "bsd": ("BSD", {"freebsd": "FreeBSD"}, "UnknownBSD"),
}
_UNKNOWN_SYSTEM: tuple[str, dict[str, str], str] = ("Unknown", {}, "N/A")
_PROVIDERS = frozenset(
    {"vmware", "vbox", "xen", "qemu", "solariszone", "aixlpar", "hyperv", "bsdjail", "virtuozzo", "openvz", "lxc"}
)


class SystemFields(Fields):
    type: str
    name: str
    version: str
    full_name: str
    service_pack: Text = UNSET


class MachineFields(Fields):
    type: Text = UNSET
    provider: Text = UNSET
    manufacturer: Text = UNSET
    serial_number: Text = UNSET


class TimezoneFields(Fields):
    name: str
    offset: str


class NewNode(Fields):
    """One element of the body."""

    id: str
    hostname: str
    status: str
    os: SystemFields
    properties: dict[str, Any] | list[Any]
    ip_addresses: list[str]
    policy_server_id: Text = UNSET
    machine_type: Text = UNSET
    machine: MachineFields | UnsetType = UNSET
    state: Text = UNSET
    policy_mode: Text = UNSET
    agent_key: KeyFields | UnsetType = UNSET
    timezone: TimezoneFields | UnsetType = UNSET

    def description(self) -> Description:
        """What the service calls it. Raises Invalid."""
        key = KeyFields() if self.agent_key is UNSET else self.agent_key
        return Description(
            id=self.id,
            hostname=self.hostname,
            status=self.status,
            os=_system(self.os),
            policy_server=_given(self.policy_server_id) or "root",
            machine=self._machine(),
            state=_given(self.state),
            mode=_given(self.policy_mode),
            key_pem=_given(key.value) or "",
            key_status=_given(key.status),
            properties=_properties(self.properties),
            ip_addresses=tuple(self.ip_addresses),
            timezone_name="" if self.timezone is UNSET else self.timezone.name,
            timezone_offset="" if self.timezone is UNSET else self.timezone.offset,
        )

    def _machine(self) -> Machine:
        told = MachineFields() if self.machine is UNSET else self.machine
        kind = (_given(told.provider) or _given(told.type) or _given(self.machine_type) or "physical").lower()
        virtual = kind in _PROVIDERS or kind in ("virtual", "vm")
        provider = kind if kind in _PROVIDERS else "unknown" if virtual else ""
        unknown = kind == "unknown"
        return Machine(
            type="Virtual" if virtual else "Unknown" if unknown else "Physical",
            provider=provider,
            manufacturer=_given(told.manufacturer) or "",
            serial_number=_given(told.serial_number) or "",
        )


def _given(text: Text) -> str | None:
    return None if text is UNSET else text


def _system(told: SystemFields) -> OperatingSystem:
    kind, names, other = _SYSTEMS.get(told.type.lower(), _UNKNOWN_SYSTEM)
    return OperatingSystem(
        type=kind,
        name=names.get(told.name.lower(), other),
        version=told.version,
        full_name=told.full_name,
        service_pack=_given(told.service_pack) or "",
    )


def _properties(told: dict[str, Any] | list[Any]) -> tuple[Property, ...]:
    """Properties given as an object or as a list of objects; of equal names the last counts."""
    given = [{"name": key, "value": value} for key, value in told.items()] if isinstance(told, dict) else told
    found = {one.name: one for one in map(decode_property, given)}
    return tuple(found[name] for name in sorted(found))


@section.operation(
    "createNodes",
    "PUT",
    "/nodes",
    right="node.write",
    body=list[NewNode],
    since=16,
    hint="Error when trying to parse node creation request",
)
def create_nodes(ctx: Context, request: Request) -> Reply | Answer:
    """Make nodes from descriptions; one that is wrong does not keep the others out."""
    if not body.is_json(request):
        raise Invalid("This API only Accept JSON request")
    descriptions = [one.description() for one in body.convert(body.document(request), list[NewNode])]
    shown = _encode(node_creation.create(ctx, descriptions))
    if shown["failed"]:
        return envelope.error(500, request, action="createNodes", details=shown)
    return Reply(shown)


def _encode(done: Created) -> dict[str, Any]:
    return {"created": done.created, "failed": [{node: problems} for node, problems in done.failed.items()]}
