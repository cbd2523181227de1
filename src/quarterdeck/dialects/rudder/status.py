# SPDX-License-Identifier: Apache-2.0
"""Status chapter: is the server there? Plain text, no login, no envelope."""

from __future__ import annotations

from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Status")


@section.operation("none", "GET", "/status", right=None)
def none(ctx: Context, request: Request) -> Answer:
    """Say that the server is alive."""
    return Answer(headers=(("Content-Type", "text/plain; charset=utf-8"),), body=b"OK\n")
