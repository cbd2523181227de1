# SPDX-License-Identifier: Apache-2.0
"""What a RunDeck server keeps of a project in files: its properties, and the document of its nodes."""

from __future__ import annotations

from pathlib import Path

from quarterdeck.core.errors import Invalid, NotFound, Unavailable
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.formats import project_properties, resources_xml, resources_yaml

_RESOURCES = ("resources.xml", "resources.yaml", "resources.yml")
_YAML = (".yaml", ".yml")


def project(directory: Path, name: str) -> tuple[Project, list[Resource] | None]:
    """The project of a directory under a new name, and its nodes; None where it has no document.

    Raises NotFound, Invalid, Unavailable.
    """
    file = directory / "etc" / "project.properties"
    if not file.is_file():
        raise NotFound(f"{directory} is no project of a RunDeck server: it has no etc/project.properties.")
    found = project_properties.project(name, _read(file))
    document = _document(directory, found)
    return found, _nodes(document) if document is not None else None


def _document(directory: Path, found: Project) -> Path | None:
    """The file that the properties name, also when the directory was copied here from elsewhere."""
    etc = directory / "etc"
    named = found.get("project.resources.file")
    candidates = [Path(named), etc / Path(named).name] if named else []
    candidates += [etc / name for name in _RESOURCES]
    return next((one for one in candidates if one.is_file()), None)


def _nodes(file: Path) -> list[Resource]:
    read = resources_yaml.read if file.suffix.lower() in _YAML else resources_xml.read
    try:
        return read(_read(file))
    except Invalid as error:
        raise Invalid(f"{file}: {error.message}", detail=error.detail) from error


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Unavailable(f"{file} cannot be read: {error.strerror}.") from error
