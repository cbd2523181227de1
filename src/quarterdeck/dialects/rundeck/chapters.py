# SPDX-License-Identifier: Apache-2.0
"""All operations of the RunDeck API, chapter by chapter, and the pages beside it."""

from __future__ import annotations

from quarterdeck.dialects.rundeck import (
    adhoc,
    execution_output,
    executions,
    history,
    jobs,
    login,
    projects,
    resources,
    system,
)

SECTIONS = (
    jobs.section,
    executions.section,
    execution_output.section,
    adhoc.section,
    projects.section,
    resources.section,
    history.section,
    system.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
PAGES = (*login.section.operations, *execution_output.page_section.operations)
