# SPDX-License-Identifier: Apache-2.0
"""Jobs chapter: list, run, export, import, delete, and the executions of a job."""

from __future__ import annotations

from collections.abc import Iterable

from lxml import etree

from quarterdeck.core.errors import Invalid
from quarterdeck.core.executions import State
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import LOG_LEVELS, Job
from quarterdeck.dialects.rundeck import body, envelope, execution_shapes, version
from quarterdeck.dialects.rundeck.envelope import element, items
from quarterdeck.formats import execution_xml, job_xml, job_yaml
from quarterdeck.services import executions, jobs
from quarterdeck.services.context import Context
from quarterdeck.services.jobs import Duplicates, Imported
from quarterdeck.storage.jobs import JobQuery
from quarterdeck.web import forms
from quarterdeck.web.operation import Answer, Reply, Request, Section

section = Section("Jobs")

#: Parameters that came with version 2.
_LATER = ("jobExactFilter", "groupPathExact")
_SORTED_BY = {"job": "name", "desc": "description", "loglevel": "loglevel", "proj": "project"}
_STATES = ("running", "aborted", "failed", "succeeded")
_DUPLICATES: dict[str, Duplicates] = {"skip": "skip", "update": "update"}


@section.operation("jobs", "GET", "/jobs", right="job.read", since=1)
def list_jobs(ctx: Context, request: Request) -> Reply:
    """List the jobs of a project that fit the filters and that the caller may read."""
    return Reply([items("jobs", map(execution_xml.job_element, jobs.heads(ctx, _query(request))))])


@section.operation("runJob", "GET", "/job/{id}/run", right="job.run", since=1)
def run_job(ctx: Context, request: Request) -> Reply:
    """Start a job, with other options or on other nodes than it says itself."""
    started = jobs.run(
        ctx,
        body.present(request.params["id"], "id"),
        body.text(request, "argString"),
        node_filter=body.node_filter(request),
        loglevel=body.one_of(request, "loglevel", LOG_LEVELS),
    )
    return execution_shapes.listed(request, ctx.site, executions.show(ctx, [started]))


@section.operation("exportJobs", "GET", "/jobs/export", right="job.read", since=1, extension=body.FORMATS, long=True)
def export_jobs(ctx: Context, request: Request) -> Answer:
    """The definitions of the jobs that fit the filters, as one document."""
    query, wanted = _query(request), body.document_format(request)
    return _document(jobs.matching(ctx, query), wanted)


@section.operation("importJobs", "POST", "/jobs/import", right="job.write", since=1, long=True)
def import_jobs(ctx: Context, request: Request) -> Reply:
    """Keep the jobs of a document; each that is wrong fails on its own."""
    drafts = _drafts(request)
    duplicates = _DUPLICATES.get(body.text(request, "dupeOption"), "create")
    done = jobs.import_all(ctx, drafts, duplicates)
    outcomes = ("succeeded", "failed", "skipped")
    return Reply([items(name, (_encode(one) for one in done if one.outcome == name)) for name in outcomes])


@section.operation("getJob", "GET", "/job/{id}", right="job.read", since=1, extension=body.FORMATS, fixed=True)
def get_job(ctx: Context, request: Request) -> Answer:
    """The definition of one job."""
    job_id, wanted = body.present(request.params["id"], "id"), body.document_format(request)
    return _document([jobs.get(ctx, job_id).job], wanted)


@section.operation("deleteJob", "DELETE", "/job/{id}", right="job.write", since=1)
def delete_job(ctx: Context, request: Request) -> Reply:
    """Remove a job that does not run now; its executions stay."""
    job_id = body.present(request.params["id"], "id")
    gone = jobs.delete(ctx, job_id)
    return Reply([envelope.told(f"Job was successfully deleted: [{job_id}] {gone.group}/{gone.name}")])


@section.operation("jobExecutions", "GET", "/job/{id}/executions", right="execution.read", since=1, long=True)
def list_job_executions(ctx: Context, request: Request) -> Reply:
    """List the executions of a job, running ones first, then the newest."""
    status = body.one_of(request, "status", _STATES)
    found = executions.of_job(
        ctx,
        body.present(request.params["id"], "id"),
        State(status) if status else None,
        most=body.integer(request, "max") or None,
        offset=body.integer(request, "offset") or 0,
    )
    return execution_shapes.listed(request, ctx.site, found)


def _query(request: Request) -> JobQuery:
    for name in _LATER:
        if body.text(request, name):
            version.require(request.version, 2, request.path)
    group, exact_group = body.text(request, "groupPath"), body.text(request, "groupPathExact").strip("/")
    ids = body.text(request, "idlist")
    order = body.text(request, "sortOrder", "ascending")
    return JobQuery(
        project=body.required(request, "project"),
        ids=tuple(one.strip() for one in ids.split(",")) if ids else None,
        group="" if "-" in (group, exact_group) else exact_group or None,
        within=group.strip("/") if group not in ("", "*", "-") else "",
        name_part=body.text(request, "jobFilter"),
        exact_name=body.text(request, "jobExactFilter"),
        description_part=body.text(request, "descFilter"),
        loglevel=body.text(request, "loglevelFilter"),
        sort_by=_SORTED_BY.get(body.text(request, "sortBy"), "name"),
        descending=order != "ascending",
        most=body.integer(request, "max") or None,
        offset=body.integer(request, "offset") or 0,
    )


def _document(some: Iterable[Job], wanted: body.Format) -> Answer:
    if wanted == "yaml":
        return envelope.document(job_yaml.write(some), envelope.YAML)
    return envelope.document(job_xml.write(some), envelope.XML)


def _drafts(request: Request) -> list[Draft]:
    document = _batch(request)
    wanted = body.text(request, "format", "xml")
    if wanted not in ("xml", "yaml"):
        raise Invalid(f"The specified format is not supported: {wanted}")
    drafts = job_xml.read(document) if wanted == "xml" else job_yaml.read(document)
    if not drafts:
        raise Invalid("Jobs Document did not define any jobs, or was invalid")
    return drafts


def _batch(request: Request) -> bytes:
    """The document: a part of a multipart body, or a field of a form."""
    name = "xmlBatch"
    part = body.part(request, name)
    given = body.text(request, name)
    if part is None and not given:
        raise Invalid(body.missing(name))
    if part is not None and part.content.strip():
        return part.content
    if request.content_type == forms.MULTIPART:
        raise Invalid("No file was uploaded")
    return given.encode()


def _encode(one: Imported) -> etree._Element:
    made = element("job", index=one.index)
    if one.id is not None:
        made.append(element("id", str(one.id)))
        made.extend([element("uuid", one.job.uuid)] if one.outcome == "succeeded" else [])
    made.append(element("name", one.job.name))
    made.append(element("group", one.job.group))
    made.append(element("project", one.job.project))
    if one.problems:
        made.append(element("error", "\n".join(one.problems)))
    return made
