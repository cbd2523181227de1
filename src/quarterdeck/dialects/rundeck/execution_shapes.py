# SPDX-License-Identifier: Apache-2.0
"""How this API shows executions, in whichever chapter they come."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from quarterdeck.core.jobs import JobHead
from quarterdeck.core.sites import Site
from quarterdeck.dialects.rundeck import links
from quarterdeck.dialects.rundeck.envelope import element, items, moment
from quarterdeck.services.executions import ShownExecution
from quarterdeck.web.operation import Reply, Request


def listed(request: Request, site: Site, some: Iterable[ShownExecution]) -> Reply:
    """An item list of executions."""
    return Reply([items("executions", (_encode(request, site, one) for one in some))])


def _encode(request: Request, site: Site, shown: ShownExecution) -> etree._Element:
    one = shown.execution
    made = element(
        "execution",
        "",
        element("user", one.user),
        moment("date-started", one.started),
        id=one.id,
        href=links.execution(request, site, one.id),
        status=one.state.value,
    )
    if one.ended is not None:
        made.append(moment("date-ended", one.ended))
        if one.cancelled:
            made.append(element("abortedby", one.aborted_by or one.user))
    if shown.job is not None:
        made.append(job(shown.job))
    made.append(element("description", one.description))
    if one.argstring:
        made.append(element("argstring", one.argstring))
    return made


def job(head: JobHead) -> etree._Element:
    """A job as lists show it; all four children are always there."""
    return element(
        "job",
        "",
        element("name", head.name),
        element("group", head.group),
        element("project", head.project),
        element("description", head.description),
        id=head.id,
    )
