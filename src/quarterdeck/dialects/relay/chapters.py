# SPDX-License-Identifier: Apache-2.0
"""All operations of the relay API, chapter by chapter."""

from __future__ import annotations

from quarterdeck.dialects.relay import not_yet, remote_runs, shared_files, shared_folder, system

SECTIONS = (system.section, shared_folder.section, shared_files.section, remote_runs.section, not_yet.section)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
