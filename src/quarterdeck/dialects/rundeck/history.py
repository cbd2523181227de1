# SPDX-License-Identifier: Apache-2.0
"""History chapter: what happened in a project, and reports of what external programs did."""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from typing import cast

from lxml import etree

from quarterdeck.core.activities import Activity, ActivityQuery, ActivityStatus
from quarterdeck.dialects.rundeck import body, dates
from quarterdeck.dialects.rundeck.envelope import element, items, moment
from quarterdeck.services import activities
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("History")

_PAGE = 20
_RECENT = re.compile(r"([0-9]{1,6})([hdwmy])")
#: What of the history a filter means by its words.
_STATUSES: dict[str, frozenset[str]] = {
    "succeed": frozenset({"succeeded"}),
    "fail": frozenset({"failed", "missed"}),
    "cancel": frozenset({"aborted"}),
}
#: Filters that ask whether there is a title at all; every entry has one.
_WITHOUT_TITLE, _WITH_TITLE = "null", "!null"
_REPORTED = ("succeeded", "aborted", "failed")


@section.operation("history", "GET", "/history", right="execution.read", since=1)
def list_history(ctx: Context, request: Request) -> Reply:
    """List what happened in a project, the newest end first, in pages."""
    query = _query(ctx, request)
    found, total = activities.find(ctx, query)
    page = {"total": total, "max": query.most, "offset": query.offset}
    return Reply([items("events", map(_encode, found), **page)])


@section.operation("createReport", "GET", "/report/create", right="execution.write", since=1)
def create_report(ctx: Context, request: Request) -> Reply:
    """Add to the history what an external program did."""
    activities.report(ctx, _reported(ctx, request))
    return Reply([element("message", "Report created successfully.")])


def _query(ctx: Context, request: Request) -> ActivityQuery:
    project = body.required(request, "project")
    status, title = body.text(request, "statFilter"), body.text(request, "reportIdFilter")
    statuses = _STATUSES.get(status, frozenset()) if status else None
    begin, end = body.moment(request, "begin"), body.moment(request, "end")
    recent = _RECENT.fullmatch(body.text(request, "recentFilter").strip())
    if recent is not None:
        begin, end = _before(ctx.now, int(recent[1]), recent[2]), None
    return ActivityQuery(
        project=project,
        job_id=body.text(request, "jobIdFilter"),
        title="" if title == _WITH_TITLE else title,
        user=body.text(request, "userFilter"),
        statuses=frozenset() if title == _WITHOUT_TITLE else statuses,
        begin=begin,
        end=end,
        job=body.text(request, "jobFilter") or body.text(request, "titleFilter"),
        node=body.text(request, "nodeFilter"),
        message=body.text(request, "messageFilter"),
        tags=body.text(request, "tagsFilter"),
        aborted_by=body.text(request, "abortedByFilter"),
        most=body.integer(request, "max") or _PAGE,
        offset=body.integer(request, "offset") or 0,
    )


def _before(now: datetime, count: int, unit: str) -> datetime | None:
    """So many hours, days, weeks, months or years ago by the calendar; None for before all times."""
    if unit in "my":
        return _months_before(now, count * (12 if unit == "y" else 1))
    try:
        return now - count * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[unit]
    except OverflowError:
        return None


def _months_before(now: datetime, count: int) -> datetime | None:
    """The same day of an earlier month, or that month's last."""
    year, month = divmod(now.year * 12 + now.month - 1 - count, 12)
    if year < 1:
        return None
    return now.replace(year=year, month=month + 1, day=min(now.day, calendar.monthrange(year, month + 1)[1]))


def _encode(one: Activity) -> etree._Element:
    succeeded = one.status == "succeeded"
    # A report may be about no node at all; an execution that ended early never knew its nodes.
    known = one.nodes_total > 0 or one.execution_id is None
    made = element(
        "event",
        "",
        element("title", one.title),
        element("status", "failed" if one.status == "missed" else one.status),
        element("summary", one.script or one.summary),
        element(
            "node-summary",
            succeeded=one.nodes_succeeded if known else int(succeeded),
            failed=one.nodes_failed if known else int(not succeeded),
            total=one.nodes_total if known else 1,
        ),
        element("user", one.user),
        element("project", one.project),
        starttime=dates.milliseconds(one.started),
        endtime=dates.milliseconds(one.ended),
    )
    if one.status == "aborted":
        made.append(element("abortedby", one.aborted_by or one.user))
    made.append(moment("date-started", one.started, unixtime=False))
    made.append(moment("date-ended", one.ended, unixtime=False))
    if one.job_id:
        made.append(element("job", id=one.job_id))
    if one.execution_id is not None:
        made.append(element("execution", id=one.execution_id))
    return made


def _reported(ctx: Context, request: Request) -> Activity:
    project = body.required(request, "project")
    # The reference says nodefailedcount where clients say nodefailcount.
    failed_name = "nodefailedcount" if body.text(request, "nodefailedcount") else "nodefailcount"
    body.require_all(request, "status", "title", "nodesuccesscount", failed_name, "summary")
    status = body.one_of(request, "status", _REPORTED)
    succeeded = body.integer(request, "nodesuccesscount") or 0
    failed = body.integer(request, failed_name) or 0
    ended = body.moment(request, "end") or ctx.now
    return Activity(
        project=project,
        title=body.required(request, "title"),
        status=cast("ActivityStatus", status),
        summary=body.required(request, "summary"),
        user="",
        started=body.moment(request, "start") or ended,
        ended=ended,
        nodes_succeeded=succeeded,
        nodes_failed=failed,
        nodes_total=succeeded + failed,
        script=body.text(request, "script"),
        tags=body.text(request, "tags"),
        job_id=body.text(request, "jobID"),
        execution_id=body.integer(request, "execID"),
    )
