# SPDX-License-Identifier: Apache-2.0
"""What the demo asks for: a group, directives built from shipped techniques, rules; and the files they are about."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tools.demo_world import DemoFailed

RULE, LOOK = "demo-web", "demo-look"
#: How many components differ at the start: no app.conf, a key readable by all, two settings.
FINDINGS = 4

GROUP = {
    "id": "demo-linux",
    "displayName": "Linux machines",
    "description": "Whatever runs Linux, found by its inventory, and is served by the server itself.",
    "dynamic": True,
    # Who is in it only for a moment, such as a relay before its promotion, has no port of its own.
    "properties": [{"name": "web", "value": {"port": 80}}],
    "query": {
        "select": "node",
        "composition": "and",
        "where": [
            {"objectType": "node", "attribute": "OS", "comparator": "eq", "value": "Linux"},
            {"objectType": "node", "attribute": "policyServerId", "comparator": "eq", "value": "root"},
        ],
    },
    "reason": "demo",
}


def _section(name: str, values: dict[str, str]) -> dict[str, Any]:
    return {
        "section": {"name": name, "vars": [{"var": {"name": key, "value": value}} for key, value in values.items()]}
    }


def _parameters(values: dict[str, str], *repeated: dict[str, Any]) -> dict[str, Any]:
    return {"section": _section("sections", values)["section"] | {"sections": list(repeated)}}


def directives(machine: Path) -> list[dict[str, Any]]:
    """Three directives below `machine`, and one or two that only look at the rest."""
    found = [
        {
            "id": "demo-app-conf",
            "displayName": "Configuration of the web application",
            "techniqueName": "checkGenericFileContent",
            "parameters": _parameters(
                {
                    "GENERIC_FILE_CONTENT_PATH": str(machine / "app.conf"),
                    "GENERIC_FILE_CONTENT_PAYLOAD": "# Kept by Quarterdeck\nhost = ${rudder.node.hostname}\n"
                    "port = ${node.properties[web][port]}",
                }
            ),
        },
        {
            "id": "demo-key",
            "displayName": "The private key is private",
            "techniqueName": "filesPermissions",
            "parameters": _parameters(
                {},
                _section("File", {"FILEPERMISSIONS_PATH": str(machine / "private.key"), "FILEPERMISSIONS_MODE": "600"}),
            ),
        },
        {
            "id": "demo-limits",
            "displayName": "Limits of the web application",
            "techniqueName": "manageKeyValueFile",
            "parameters": _parameters(
                {"KEY_VALUE_PATH": str(machine / "limits.ini")},
                _section("Key", {"KEY_VALUE_KEY": "workers", "KEY_VALUE_VALUE": "4"}),
                _section("Key", {"KEY_VALUE_KEY": "timeout", "KEY_VALUE_VALUE": "30"}),
            ),
        },
        *_looks(),
    ]
    return [one | {"enabled": True, "reason": "demo"} for one in found]


def _looks() -> list[dict[str, Any]]:
    accounts = {
        "id": "demo-accounts",
        "displayName": "Only root has the user id 0",
        "techniqueName": "auditFromCommand",
        "policyMode": "audit",
        "parameters": _parameters(
            {},
            _section(
                "Check",
                {
                    "AUDIT_NAME": "One account with user id 0",
                    "AUDIT_COMMAND": "test \"$(awk -F: '$3 == 0' /etc/passwd | wc -l)\" -eq 1",
                },
            ),
        ),
    }
    packages = {
        "id": "demo-packages",
        "displayName": "No telnet server is installed",
        "techniqueName": "packageManagement",
        "policyMode": "audit",
        "parameters": _parameters({}, _section("Package", {"PACKAGE_LIST": "telnetd", "PACKAGE_STATE": "absent"})),
    }
    known = any(shutil.which(manager) for manager in ("dpkg-query", "rpm", "apk"))
    return [accounts, packages] if known else [accounts]


def rules(machine: Path) -> list[dict[str, Any]]:
    """One rule for what the demo owns, one that only looks."""
    looks = [one["id"] for one in directives(machine) if one.get("policyMode") == "audit"]
    shared = {"targets": [f"group:{GROUP['id']}"], "enabled": True, "reason": "demo"}
    owned = [one["id"] for one in directives(machine) if one["id"] not in looks]
    return [
        {"id": RULE, "displayName": "Web servers are set up", "directives": owned, **shared},
        {"id": LOOK, "displayName": "A look at the rest of the machine", "directives": looks, **shared},
    ]


def prepare(machine: Path) -> None:
    """The machine as it was before anybody cared."""
    (machine / "private.key").write_text("not really a key\n")
    (machine / "private.key").chmod(0o644)
    (machine / "limits.ini").write_text("# set by hand, once\nworkers=1\nverbose=no\n")


def verify(machine: Path, hostname: str) -> None:
    """Raises DemoFailed unless the files are as the directives say; `hostname` is the node's in the inventory."""
    app, limits = (machine / "app.conf").read_text(), (machine / "limits.ini").read_text()
    mode = (machine / "private.key").stat().st_mode & 0o7777
    faults = [
        name
        for name, good in (
            ("app.conf", app == f"# Kept by Quarterdeck\nhost = {hostname}\nport = 8080\n"),
            ("limits.ini", limits == "# set by hand, once\nworkers=4\nverbose=no\ntimeout=30\n"),
            ("private.key", mode == 0o600),
        )
        if not good
    ]
    if faults:
        raise DemoFailed(f"Not as it should be after the run: {', '.join(faults)} in {machine}.")


def damage(machine: Path) -> Path:
    """Edit a file as somebody in a hurry would."""
    path = machine / "app.conf"
    path.write_text(path.read_text().replace("port = 8080", "port = 80"))
    return path
