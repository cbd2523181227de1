# SPDX-License-Identifier: Apache-2.0
"""All operations of the Rudder API, chapter by chapter in the reference's order."""

from __future__ import annotations

from quarterdeck.dialects.rudder import rules, status

SECTIONS = (
    status.section,
    rules.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
