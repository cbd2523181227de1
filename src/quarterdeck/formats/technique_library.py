# SPDX-License-Identifier: Apache-2.0
"""The techniques that ship with the server: YAML documents in `techniques/`, checked when they are first read."""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib import resources

from quarterdeck.core import technique_checks
from quarterdeck.core.techniques import Technique
from quarterdeck.formats import method_catalogue, technique_yaml

#: Categories of the shipped techniques: id -> name.
CATEGORIES = {
    "applications": "Applications",
    "fileDistribution": "Files",
    "jobScheduling": "Job scheduling",
    "systemSettings": "System settings",
}


@functools.cache
def load() -> tuple[Technique, ...]:
    """Every shipped technique, sorted by id and version. Read once. Raises Invalid when one is defective."""
    files = resources.files("quarterdeck.formats").joinpath("techniques").iterdir()
    found = [technique_yaml.read(file.read_text()) for file in files if file.name.endswith(".yaml")]
    techniques = sorted((replace(technique, source="built-in") for technique in found), key=lambda one: one.key)
    for technique in techniques:
        technique_checks.check(technique, method_catalogue.load())
    return tuple(techniques)
