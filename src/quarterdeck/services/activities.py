# SPDX-License-Identifier: Apache-2.0
"""The history of a project: listing it, and what external programs report into it."""

from __future__ import annotations

from dataclasses import replace

from quarterdeck.core.activities import Activity, ActivityQuery
from quarterdeck.services import access, projects
from quarterdeck.services.context import Context


def find(ctx: Context, query: ActivityQuery) -> tuple[list[Activity], int]:
    """A page of the history, newest end first, and how many entries there are in all. Raises NotFound, Forbidden."""
    projects.require(ctx, query.project)
    access.require_kind(ctx, query.project, "event", "read")
    return ctx.store.activities.find(query)


def report(ctx: Context, activity: Activity) -> Activity:
    """Add what an external program did; the caller is its user. Raises NotFound, Forbidden."""
    projects.require(ctx, activity.project)
    access.require_kind(ctx, activity.project, "event", "create")
    mine = replace(activity, user=ctx.account.name, aborted_by=ctx.account.name if activity.status == "aborted" else "")
    return replace(mine, id=ctx.store.activities.add(mine))
