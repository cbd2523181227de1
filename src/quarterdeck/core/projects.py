# SPDX-License-Identifier: Apache-2.0
"""Projects: a name, and the properties that say where its nodes come from and how they are reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field

from quarterdeck.core.errors import Invalid

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}")
_GROUP_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_REFERENCE = re.compile(r"\$\{([^{}\s]+)\}")
_MOST_NESTED = 10


@dataclass(frozen=True, slots=True)
class Source:
    """Which nodes of the inventory a project takes: none, all, or the members of a group."""

    kind: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """`properties` holds texts by the names of RunDeck's project.properties, `project.description` left out."""

    name: str
    _: KW_ONLY
    description: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, default: str = "") -> str:
        """A property with its `${other}` references replaced; unknown ones, and loops, stay as they are."""
        value = self.properties.get(name, default).strip()
        for _ in range(_MOST_NESTED):
            replaced = _REFERENCE.sub(lambda match: self.properties.get(match[1], match[0]), value)
            if replaced == value:
                break
            value = replaced
        return value

    @property
    def resources_url(self) -> str:
        """Where the resource document can be fetched from; "" when nowhere."""
        return self.get("project.resources.url")

    @property
    def ssh_keypath(self) -> str:
        """The private key file for its nodes, as far as they do not name their own."""
        return self.get("project.ssh-keypath")

    @property
    def allowed_urls(self) -> tuple[str, ...]:
        """Patterns of the addresses that may be fetched, numbered from 0 without a gap."""
        return allowed_urls(self.properties, "project.resources.allowedURL.")

    @property
    def inventory_source(self) -> Source:
        """Which nodes of the inventory belong to the project; none unless it says so. Raises Invalid."""
        return source(self.get("project.inventory.source"))


def check_name(name: str) -> str:
    """The name if it can be one. Raises Invalid."""
    if not _NAME.fullmatch(name):
        raise Invalid(
            "A project's name has letters, digits and _ . + -, begins with a letter, digit or _, "
            f"and is at most 255 characters long: '{name}'",
        )
    return name


def source(text: str) -> Source:
    """`none` (also for ""), `all` or `group:ID`. Raises Invalid."""
    kind, colon, group = text.partition(":")
    if not colon and kind in ("", "none", "all"):
        return Source(kind or "none")
    if kind == "group" and _GROUP_ID.fullmatch(group):
        return Source("group", group)
    raise Invalid(f"project.inventory.source is none, all or group:ID, not '{text}'")


def allowed_urls(properties: Mapping[str, str], prefix: str) -> tuple[str, ...]:
    """The values of PREFIX0, PREFIX1 and so on up to the first that is missing."""
    found: list[str] = []
    while value := properties.get(f"{prefix}{len(found)}", "").strip():
        found.append(value)
    return tuple(found)
