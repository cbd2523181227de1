# SPDX-License-Identifier: Apache-2.0
"""All operations of the native dialect."""

from __future__ import annotations

from quarterdeck.dialects.native import accounts, agents, events, server

SECTIONS = (agents.section, accounts.section, events.section, server.section)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
