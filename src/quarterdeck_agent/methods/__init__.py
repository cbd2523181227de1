# SPDX-License-Identifier: Apache-2.0
"""The agent's generic methods: importing this package registers all of them in `outcome.METHODS`.

One module per subject. A module registers its methods at its end; `aliases` comes last because it
names the others.
"""

from quarterdeck_agent.methods import (
    acl_permissions,
    commands,
    conditions,
    dictionaries,
    directories,
    file_checks,
    files,
    key_values,
    links,
    osquery,
    permissions,
    sections,
    variables,
)

__all__ = [
    "acl_permissions",
    "commands",
    "conditions",
    "dictionaries",
    "directories",
    "file_checks",
    "files",
    "key_values",
    "links",
    "osquery",
    "permissions",
    "sections",
    "variables",
]
