# SPDX-License-Identifier: Apache-2.0
"""The reason of a change where the older operations of this API want one: nodes and group categories.

They read it inside a JSON body too, insist on it when the settings say so, and drop it when the settings
turn change messages off. What other operations are given stands in the request's provenance already.
"""

from __future__ import annotations

from dataclasses import replace

from msgspec import UNSET

from quarterdeck.core.errors import Invalid
from quarterdeck.dialects.rudder import body
from quarterdeck.dialects.rudder.shapes import Fields, Text
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Request

MIN_LENGTH = 5


class ReasonFields(Fields):
    reason: Text = UNSET


def take(ctx: Context, request: Request) -> None:
    """Settle the reason of this unit of work. Raises Invalid when one is mandatory and missing or too short."""
    settings = ctx.store.settings.get()
    reason = _given(ctx, request) if settings.enable_change_message else ""
    if settings.enable_change_message and settings.mandatory_change_message and len(reason) < MIN_LENGTH:
        mandatory = " is mandatory and" if not reason else ""
        raise Invalid(f"Reason field{mandatory} should be at least {MIN_LENGTH} characters long")
    ctx.store.by = replace(ctx.store.by, reason=reason)


def _given(ctx: Context, request: Request) -> str:
    if ctx.store.by.reason or not (body.is_json(request) and request.body):
        return ctx.store.by.reason
    fields = body.decode(request, ReasonFields)
    return "" if fields.reason is UNSET else fields.reason
