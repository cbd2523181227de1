# SPDX-License-Identifier: Apache-2.0
"""Documented operations that this version does not serve: they say so. `not_yet.txt` may only shrink."""

from __future__ import annotations

from importlib.resources import files

from quarterdeck.core.errors import NotImplementedYet
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Not yet")


def _refuse(ctx: Context, request: Request) -> Reply:
    """Not served yet: answers an error that says so."""
    raise NotImplementedYet(
        "This operation is not implemented yet in this version of Quarterdeck. Nothing was changed."
    )


def _declare() -> None:
    for line in (files("quarterdeck.dialects.rudder") / "not_yet.txt").read_text().splitlines():
        name, method, path = line.split()
        section.operation(name, method, path, right="system.read")(_refuse)


_declare()
