# SPDX-License-Identifier: Apache-2.0
"""All operations of the Rudder API, chapter by chapter."""

from __future__ import annotations

from quarterdeck.dialects.rudder import (
    compliance,
    directives,
    groups,
    info,
    inventories,
    node_creation,
    nodes,
    not_yet,
    parameters,
    relays,
    rules,
    status,
    techniques,
)

SECTIONS = (
    info.section,
    status.section,
    parameters.section,
    techniques.section,
    groups.section,
    directives.section,
    rules.section,
    compliance.section,
    nodes.section,
    node_creation.section,
    inventories.section,
    relays.section,
    not_yet.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
info.publish(OPERATIONS)
