# SPDX-License-Identifier: Apache-2.0
"""Lists of executions, in whichever chapter they come. How one looks: `formats/execution_xml.py`."""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.core.sites import Site
from quarterdeck.dialects.rundeck import links
from quarterdeck.dialects.rundeck.envelope import items
from quarterdeck.formats import execution_xml
from quarterdeck.services.executions import ShownExecution
from quarterdeck.web.operation import Reply, Request


def listed(request: Request, site: Site, some: Iterable[ShownExecution]) -> Reply:
    """An item list of executions."""
    base = links.base(request, site)
    return Reply([items("executions", (execution_xml.element(one.execution, one.job, base) for one in some))])
