# SPDX-License-Identifier: Apache-2.0
"""All operations of the relay API, chapter by chapter."""

from __future__ import annotations

from quarterdeck.dialects.relay import node_commands, policies, remote_runs, shared_files, shared_folder, system

SECTIONS = (
    system.section,
    shared_folder.section,
    shared_files.section,
    remote_runs.section,
    node_commands.section,
    policies.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
