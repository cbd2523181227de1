# SPDX-License-Identifier: Apache-2.0
"""Resource documents in XML, as RunDeck's `resources-v10` has them: nodes of a project, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lxml import etree

from quarterdeck.core import resources
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource
from quarterdeck.formats import xml_documents

#: In the order in which they are written.
_ATTRIBUTES = {
    "description": "description",
    "hostname": "hostname",
    "osArch": "os_arch",
    "osFamily": "os_family",
    "osName": "os_name",
    "osVersion": "os_version",
    "username": "username",
}
_ORDER = ("name", "description", "tags", "hostname", "osArch", "osFamily", "osName", "osVersion", "username")
_XML_NAME = re.compile(r"(?![Xx][Mm][Ll])[A-Za-z_][A-Za-z0-9_.-]*")


def read(data: bytes) -> list[Resource]:
    """The nodes of a document; of two with one name the later values win. Raises Invalid, which names the place."""
    root = xml_documents.parse(data)
    if root.tag != "project":
        raise Invalid(f"Document root tag was not 'project': '{root.tag}'")
    return resources.merged(_resource(node) for node in root.iterchildren("node"))


def _resource(node: etree._Element) -> Resource:
    found = {str(name): str(value) for name, value in node.attrib.items()}
    for child in node.iterchildren("attribute"):
        name = str(child.get("name", "")).strip()
        if not name:
            raise Invalid(f"line {child.sourceline}: An attribute has no name.")
        found[name] = str(child.get("value", (child.text or "").strip()))
    name = found.pop("name", "").strip()
    if not name:
        raise Invalid(f"line {node.sourceline}: The required attribute 'name' of a node is missing.")
    tags = tags_of(found.pop("tags", ""))
    known = {field: found.pop(name, "") for name, field in _ATTRIBUTES.items()}
    return resource(name, tags, known, found)


def tags_of(text: str) -> frozenset[str]:
    """The tags of a comma list, trimmed."""
    return frozenset(tag.strip() for tag in text.split(",") if tag.strip())


def resource(name: str, tags: frozenset[str], known: dict[str, str], free: dict[str, str]) -> Resource:
    """A resource of its parts; `known` goes by our field names."""
    return Resource(
        name,
        tags=tags,
        attributes=free,
        hostname=known["hostname"],
        username=known["username"],
        description=known["description"],
        os_arch=known["os_arch"],
        os_family=known["os_family"],
        os_name=known["os_name"],
        os_version=known["os_version"],
    )


def write(nodes: Iterable[Resource]) -> bytes:
    """The document of these nodes, in their order; equal nodes give equal bytes."""
    root = etree.Element("project")
    for one in nodes:
        root.append(_element(one))
    return xml_documents.written(root)


def _element(one: Resource) -> etree._Element:
    element = etree.Element("node")
    for name in _ORDER:
        element.set(name, xml_documents.possible(one.get(name)))
    for name, value in sorted(one.attributes.items()):
        if name in _ORDER:
            continue
        if _XML_NAME.fullmatch(name):
            element.set(name, xml_documents.possible(value))
        else:
            held = {"name": xml_documents.possible(name), "value": xml_documents.possible(value)}
            etree.SubElement(element, "attribute", held)
    return element
