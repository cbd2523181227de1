# SPDX-License-Identifier: Apache-2.0
"""Jobs: documents in and out in RunDeck's two forms, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import msgspec

from quarterdeck.core import options
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import Job, JobHead
from quarterdeck.dialects.native import body
from quarterdeck.dialects.native.body import Loglevel
from quarterdeck.dialects.native.executions import encode_execution
from quarterdeck.formats import job_xml, job_yaml
from quarterdeck.services import executions, jobs, projects
from quarterdeck.services.context import Context
from quarterdeck.services.jobs import Duplicates, Imported, ListedJob
from quarterdeck.storage.jobs import JobQuery
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Jobs")

_READERS: dict[str, Callable[[bytes], list[Draft]]] = {"yaml": job_yaml.read, "xml": job_xml.read}
_WRITERS: dict[str, Callable[[Iterable[Job]], bytes]] = {"yaml": job_yaml.write, "xml": job_xml.write}
_TYPES = {"yaml": "text/yaml; charset=utf-8", "xml": "text/xml; charset=utf-8"}
_MOST = 10_000


class JobRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`options` is a map, or an argument string like `-name value`; `filter` replaces the job's own filters."""

    options: dict[str, str] | str = {}
    filter: dict[str, str] | None = None
    loglevel: Loglevel = ""


class JobPurge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers or uuids."""

    ids: list[str]


@section.operation("listJobs", "GET", "/api/1/projects/{name}/jobs", right="job.read")
def list_jobs(ctx: Context, request: Request) -> Reply:
    """List the jobs of a project; `group` is a group with all below, `search` a part of the name."""
    return Reply([_encode_listed(one) for one in jobs.listed(ctx, _query(ctx, request))])


@section.operation("importJobs", "POST", "/api/1/projects/{name}/jobs/import", right="job.write", long=True)
def import_jobs(ctx: Context, request: Request) -> Reply:
    """Keep the jobs of a document; `format` is yaml or xml, `duplicates` create, skip or update."""
    duplicates = request.first("duplicates", "create")
    if duplicates not in ("create", "skip", "update"):
        raise Invalid(f"'duplicates' is create, skip or update, not '{duplicates}'.")
    project = projects.get(ctx, request.params["name"]).name
    drafts = _READERS[_format(request)](request.body)
    done = jobs.import_all(ctx, [_placed(one, project) for one in drafts], cast("Duplicates", duplicates))
    return Reply(
        {
            outcome: [_encode_imported(one) for one in done if one.outcome == outcome]
            for outcome in ("succeeded", "failed", "skipped")
        }
    )


@section.operation("exportJobs", "GET", "/api/1/projects/{name}/jobs/export", right="job.read")
def export_jobs(ctx: Context, request: Request) -> Answer:
    """Write jobs as one document, all of the project or those of `ids` or `group`; `format` is yaml or xml."""
    form = _format(request)
    found = jobs.matching(ctx, _query(ctx, request))
    return Answer(headers=(("Content-Type", _TYPES[form]),), body=_WRITERS[form](found))


@section.operation("getJob", "GET", "/api/1/jobs/{id}", right="job.read")
def get_job(ctx: Context, request: Request) -> Reply:
    """Show one job, named by its number or uuid, with its definition; values of secure options are hidden."""
    saved = jobs.get(ctx, request.params["id"])
    return Reply(
        encode_head(saved.job)
        | {
            "savedBy": saved.account_name,
            "nextRun": saved.next_run,
            "averageMilliseconds": saved.average_ms,
            "definition": job_yaml.tree(saved.job),
        }
    )


@section.operation("deleteJob", "DELETE", "/api/1/jobs/{id}", right="job.write")
def delete_job(ctx: Context, request: Request) -> Reply:
    """Remove a job; refused while it runs. Its executions stay."""
    return Reply({"deleted": [encode_head(jobs.delete(ctx, request.params["id"]))]})


@section.operation("purgeJobs", "POST", "/api/1/jobs/purge", right="job.write", body=JobPurge)
def purge_jobs(ctx: Context, request: Request) -> Reply:
    """Remove several jobs, all of them or none."""
    ids = dict.fromkeys(body.read(request, JobPurge).ids)
    return Reply({"deleted": [encode_head(jobs.delete(ctx, one)) for one in ids]})


@section.operation("runJob", "POST", "/api/1/jobs/{id}/run", right="job.run", body=JobRun, status=201)
def run_job(ctx: Context, request: Request) -> Reply:
    """Start a job; the answer is its execution, which has only begun."""
    asked = body.read(request, JobRun)
    given = asked.options if isinstance(asked.options, str) else options.written(asked.options)
    started = jobs.run(
        ctx,
        request.params["id"],
        given,
        node_filter=body.node_filter(asked.filter),
        loglevel=asked.loglevel,
    )
    return Reply(encode_execution(executions.show(ctx, [started])[0]))


def _placed(draft: Draft, project: str) -> Draft:
    """In the project of the path, whatever the document says."""
    return replace(draft, job=replace(draft.job, project=project))


def _query(ctx: Context, request: Request) -> JobQuery:
    ids = tuple(filter(None, request.first("ids").split(",")))
    return JobQuery(
        project=projects.get(ctx, request.params["name"]).name,
        ids=ids or None,
        within=request.first("group").strip("/"),
        name_part=request.first("search"),
        most=body.integer(request, "max", _MOST, low=1, high=_MOST),
        offset=body.integer(request, "offset", 0, low=0, high=2**31),
    )


def _format(request: Request) -> str:
    form = request.first("format", "yaml")
    if form not in _READERS:
        raise Invalid(f"'format' is yaml or xml, not '{form}'.")
    return form


def encode_head(one: JobHead | Job) -> dict[str, Any]:
    """The head of a job as this dialect shows it."""
    return {
        "id": one.id,
        "uuid": one.uuid,
        "name": one.name,
        "group": one.group,
        "project": one.project,
        "description": one.description,
    }


def _encode_listed(one: ListedJob) -> dict[str, Any]:
    return encode_head(one.head) | {"nextRun": one.next_run, "averageMilliseconds": one.average_ms}


def _encode_imported(one: Imported) -> dict[str, Any]:
    return {
        "index": one.index,
        "id": one.id,
        "uuid": one.job.uuid,
        "name": one.job.name,
        "group": one.job.group,
        "project": one.job.project,
        "problems": list(one.problems),
    }
