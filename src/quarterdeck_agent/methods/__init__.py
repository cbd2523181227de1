# SPDX-License-Identifier: Apache-2.0
"""The agent's generic methods: importing this package registers all of them in `outcome.METHODS`.

One module per subject. A module registers its methods at its end; `aliases` comes last because it
names the others.
"""

from quarterdeck_agent.methods import (
    accounts,
    acl_permissions,
    augeas,
    commands,
    conditions,
    copies,
    dictionaries,
    directories,
    file_checks,
    files,
    http,
    kernel,
    key_values,
    links,
    osquery,
    packages,
    permissions,
    sections,
    server_files,
    services,
    templates,
    variables,
)

from quarterdeck_agent.methods import aliases  # isort: skip  # names the others' methods

__all__ = [
    "accounts",
    "acl_permissions",
    "aliases",
    "augeas",
    "commands",
    "conditions",
    "copies",
    "dictionaries",
    "directories",
    "file_checks",
    "files",
    "http",
    "kernel",
    "key_values",
    "links",
    "osquery",
    "packages",
    "permissions",
    "sections",
    "server_files",
    "services",
    "templates",
    "variables",
]
