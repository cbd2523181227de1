# SPDX-License-Identifier: Apache-2.0
"""Resources: nodes as a project sees them, with the attribute names that RunDeck gives them.

Where resources come from (documents, the inventory, the server's own node) is decided in services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

from quarterdeck.core.ids import NodeId

#: RunDeck's name of an attribute -> our field. Documents write camel case, filters and contexts write dashes.
_FIELDS = {
    "name": "name",
    "nodename": "name",
    "hostname": "hostname",
    "username": "username",
    "description": "description",
    "os-arch": "os_arch",
    "os-family": "os_family",
    "os-name": "os_name",
    "os-version": "os_version",
    "osArch": "os_arch",
    "osFamily": "os_family",
    "osName": "os_name",
    "osVersion": "os_version",
}
#: In the order in which contexts and documents name them.
_CONTEXT_NAMES = (
    *("name", "hostname", "username", "description"),
    *("tags", "os-name", "os-family", "os-arch", "os-version"),
)

_ID_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Resource:
    """A node of a project; "" where an attribute is not set. `attributes` holds the free ones by their own names."""

    name: str
    _: KW_ONLY
    hostname: str = ""
    username: str = ""
    description: str = ""
    tags: frozenset[str] = frozenset()
    os_arch: str = ""
    os_family: str = ""
    os_name: str = ""
    os_version: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    #: which node of the inventory it is; None for what a document says, whatever that calls itself
    node: NodeId | None = None

    def get(self, name: str, default: str = "") -> str:
        """The attribute that RunDeck calls `name` (`os-family`, `tags` as a sorted comma list, any free one)."""
        if name == "tags":
            return self.tag_list
        if name in _FIELDS:
            value: str = getattr(self, _FIELDS[name])
            return value or default
        return self.attributes.get(name, default)

    @property
    def tag_list(self) -> str:
        """The tags, sorted and joined by a comma."""
        return ",".join(sorted(self.tags))

    def items(self) -> Iterator[tuple[str, str]]:
        """Every attribute that has a value, by the name it has in filters and contexts."""
        for name in _CONTEXT_NAMES:
            if value := self.get(name):
                yield name, value
        yield from ((name, value) for name, value in sorted(self.attributes.items()) if value)


def is_own(name: str) -> bool:
    """Whether an attribute of this name is one of the fields, so that no free one can be called so."""
    return name == "tags" or name in _FIELDS


def named(some: Iterable[tuple[str, Resource]], taken: Iterable[str]) -> list[Resource]:
    """Resources of the inventory, each with its node's id, under names that are unique in a project.

    The name is the host name if nobody else has it; else `~` and eight characters of the id follow. What has a name
    in `taken` (a document's) is left out: there the document speaks for the node.
    """
    pairs, known = list(some), set(taken)
    count = Counter(one.name for _, one in pairs)
    called = ((one, one.name if count[one.name] == 1 else f"{one.name}~{node[:_ID_SHOWN]}") for node, one in pairs)
    return [replace(one, name=name) for one, name in called if name not in known]


def merged(resources: Iterable[Resource]) -> list[Resource]:
    """One resource per name, in order of first appearance; of two with one name the later values win."""
    found: dict[str, Resource] = {}
    for one in resources:
        found[one.name] = _over(found[one.name], one) if one.name in found else one
    return list(found.values())


def _over(earlier: Resource, later: Resource) -> Resource:
    return Resource(
        earlier.name,
        hostname=later.hostname or earlier.hostname,
        username=later.username or earlier.username,
        description=later.description or earlier.description,
        tags=later.tags or earlier.tags,
        os_arch=later.os_arch or earlier.os_arch,
        os_family=later.os_family or earlier.os_family,
        os_name=later.os_name or earlier.os_name,
        os_version=later.os_version or earlier.os_version,
        attributes={**earlier.attributes, **later.attributes},
    )
