# SPDX-License-Identifier: Apache-2.0
"""Resource documents in YAML, as RunDeck's `resources-v10-yaml` has them: nodes of a project, read and written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from quarterdeck.core import resources
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource
from quarterdeck.formats import resources_xml, yaml_documents

#: Key -> our field, in the order in which they are written.
_KEYS = {
    "hostname": "hostname",
    "username": "username",
    "description": "description",
    "osArch": "os_arch",
    "osFamily": "os_family",
    "osName": "os_name",
    "osVersion": "os_version",
}
_REQUIRED = ("nodename", "hostname")
_NOTHING = b"# 0 results for query\n"


def read(data: bytes) -> list[Resource]:
    """The nodes of all documents of a stream; of two with one name the later values win. Raises Invalid."""
    return resources.merged(_resource(one) for document in yaml_documents.read_all(data) for one in _nodes(document))


def _nodes(document: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(document, list):
        found = list(document)
    elif isinstance(document, dict):
        found = [
            {**one, "nodename": key} if isinstance(one, dict) else _refuse(f"Node '{key}' is not a mapping.")
            for key, one in document.items()
        ]
    else:
        _refuse("A resource document is a mapping of nodes or a sequence of them.")
    for one in found:
        yield one if isinstance(one, dict) else _refuse("A node of the sequence is not a mapping.")


def _refuse(message: str) -> Any:
    raise Invalid(message)


def _resource(node: dict[Any, Any]) -> Resource:
    for name in _REQUIRED:
        if node.get(name) is None:
            raise Invalid(f"Required property '{name}' was not specified")
    tags = _tags(node.get("tags"))
    found = {_text(key): _text(value) for key, value in node.items() if key != "tags"}
    name = found.pop("nodename").strip()
    if not name:
        raise Invalid("Required property 'nodename' was not specified")
    known = {field: found.pop(key, "") for key, field in _KEYS.items()}
    return resources_xml.resource(name, tags, known, found)


def _tags(value: Any) -> frozenset[str]:
    if isinstance(value, list):
        return frozenset(tag for one in value if (tag := _text(one).strip()))
    return resources_xml.tags_of(_text(value))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise Invalid(f"A property of a node is a single value, not {type(value).__name__}.")


def write(nodes: Iterable[Resource]) -> bytes:
    """The document of these nodes, in their order; a comment line when there are none."""
    scalar = yaml_documents.scalar
    lines: list[str] = []
    for one in nodes:
        lines.append(f"{scalar(one.name)}:\n")
        lines += (f"  {scalar(key)}: {scalar(value)}\n" for key, value in _mapping(one).items())
    return "".join(lines).encode() if lines else _NOTHING


def _mapping(one: Resource) -> dict[str, str]:
    known = {key: one.get(key) for key in _KEYS}
    free = {name: value for name, value in sorted(one.attributes.items()) if name not in ("nodename", "tags", *_KEYS)}
    return {"nodename": one.name, **known, "tags": one.tag_list, **free}
