# SPDX-License-Identifier: Apache-2.0
"""Operations of the reference that are not served yet: they answer so. The list only shrinks."""

from __future__ import annotations

from quarterdeck.core.errors import NotImplementedYet
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Not yet", {"callers": Callers.NODES, "max_body": 1024 * 1024})


@section.operation("getDscPolicies", "GET", "/policies/{nodeId}/rules/dsc/rudder.zip", right=None, since=1)
def refuse(visit: Visit, request: Request) -> Answer:
    """Answer that this is not served yet."""
    raise NotImplementedYet("This operation is not served yet.")
