# SPDX-License-Identifier: Apache-2.0
"""All operations of the RunDeck API, chapter by chapter, and the pages beside it."""

from __future__ import annotations

from quarterdeck.dialects.rundeck import adhoc, executions, history, jobs, login, projects, resources, system

SECTIONS = (
    jobs.section,
    executions.section,
    adhoc.section,
    projects.section,
    resources.section,
    history.section,
    system.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
PAGES = tuple(login.section.operations)
