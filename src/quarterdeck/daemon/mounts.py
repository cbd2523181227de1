# SPDX-License-Identifier: Apache-2.0
"""Where an application answers for all that is below a path. What is mounted where: `http.py`, `relay_process.py`."""

from __future__ import annotations

import re

from starlette.routing import Mount
from starlette.types import ASGIApp


class Below(Mount):
    """All paths below one. Starlette's own finds nothing below when a path holds a line break, which it may."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app=app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)
