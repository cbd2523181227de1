# SPDX-License-Identifier: Apache-2.0
"""All operations of the Rudder API, chapter by chapter."""

from __future__ import annotations

from quarterdeck.dialects.rudder import groups, info, nodes, not_yet, parameters, rules, status

SECTIONS = (
    info.section,
    status.section,
    parameters.section,
    groups.section,
    rules.section,
    node_creation.section,  # that of `nodes` with the one operation more
    not_yet.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
info.publish(OPERATIONS)
