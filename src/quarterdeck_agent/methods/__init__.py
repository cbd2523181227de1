# SPDX-License-Identifier: Apache-2.0
"""The agent's generic methods: importing this package registers all of them in `outcome.METHODS`.

One module per subject. A module registers its methods at its end; `aliases` comes last because it
names the others.
"""

from quarterdeck_agent.methods import (
    commands,
    conditions,
    dictionaries,
    directories,
    file_checks,
    files,
    key_values,
    links,
    osquery,
    sections,
    variables,
)

__all__ = [
    "commands",
    "conditions",
    "dictionaries",
    "directories",
    "file_checks",
    "files",
    "key_values",
    "links",
    "osquery",
    "sections",
    "variables",
]
