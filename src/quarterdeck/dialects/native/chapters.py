# SPDX-License-Identifier: Apache-2.0
"""All operations of the native dialect."""

from __future__ import annotations

from quarterdeck.dialects.native import (
    accounts,
    agents,
    events,
    execution_output,
    executions,
    host_keys,
    jobs,
    projects,
    quarantine,
    relay_views,
    relays,
    secrets,
    server,
    technique_resources,
    waiting_agents,
    workers,
)

SECTIONS = (
    agents.section,
    waiting_agents.section,
    relays.section,
    relay_views.section,
    accounts.section,
    technique_resources.section,
    projects.section,
    jobs.section,
    executions.section,
    execution_output.section,
    host_keys.section,
    secrets.section,
    workers.section,
    quarantine.section,
    events.section,
    server.section,
)
OPERATIONS = tuple(operation for section in SECTIONS for operation in section.operations)
