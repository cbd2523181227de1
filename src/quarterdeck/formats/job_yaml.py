# SPDX-License-Identifier: Apache-2.0
"""Job definitions in YAML, as RunDeck's `job-yaml-v12` has them, read and written without loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from quarterdeck.core import policy_steps, schedules
from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import ApplyPolicies, Exec, Job, JobRef, Option, Schedule, Script, ScriptFile, Step
from quarterdeck.formats import job_documents, yaml_documents

_NO_JOBS = b"[]\n"


def read(data: bytes) -> list[Draft]:
    """The jobs of a document: a sequence of maps. Raises Invalid in the words that clients know; TooLarge."""
    try:
        documents = yaml_documents.read_all(data)
    except TooLarge:
        raise
    except Invalid as error:
        raise Invalid(f"{job_documents.PREFIX}Unable to parse yaml: {error.message}") from error
    return [_draft(one) for document in documents for one in _sequence(document)]


def _sequence(document: Any) -> list[Any]:
    if not isinstance(document, list):
        raise Invalid(f"{job_documents.PREFIX}Unexpected data type: {_kind(document)}, a sequence was expected")
    return document


def _draft(document: Any) -> Draft:
    if not isinstance(document, dict):
        raise Invalid(f"{job_documents.PREFIX}Unexpected data type: {_kind(document)}, a map was expected")
    try:
        return job_documents.draft(job_documents.tree(document))
    except Invalid as error:
        raise Invalid(f"{job_documents.PREFIX}Unable to create Job: {error.message}") from error


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "sequence"
    return "map" if isinstance(value, dict) else "text"


def write(jobs: Iterable[Job]) -> bytes:
    """The document of these jobs; equal jobs give equal bytes."""
    found = [tree(job) for job in jobs]
    return yaml_documents.written(found) if found else _NO_JOBS


def tree(job: Job) -> dict[str, Any]:
    """The job as the map that stands for it; `job_documents.draft` reads it."""
    return {
        **_set(id=job.id, uuid=job.uuid),
        "name": job.name,
        **_set(group=job.group),
        "description": job.description,
        "project": job.project,
        "loglevel": job.loglevel,
        **_set(multipleExecutions=job.multiple_executions, timeout=job.timeout),
        **_set(options={option.name: _option(option) for option in job.options}),
        "sequence": {
            "keepgoing": job.sequence.keepgoing,
            "strategy": job.sequence.strategy,
            "commands": [_step(step) for step in job.sequence.steps],
        },
        **_schedule(job.schedule),
        **_node_filters(job),
        **_set(notification=_notification(job)),
    }


def _set(**parts: Any) -> dict[str, Any]:
    """The parts that say something."""
    return {name: value for name, value in parts.items() if value not in (None, "", False, [], {})}


def _option(option: Option) -> dict[str, Any]:
    return _set(
        description=option.description,
        value=option.value,
        values=list(option.values),
        valuesUrl=option.values_url,
        enforced=option.enforced,
        regex=option.regex,
        required=option.required,
        multivalued=option.multivalued,
        delimiter=option.delimiter,
        secure=option.secure,
        valueExposed=option.value_exposed,
    )


def _step(step: Step) -> dict[str, Any]:
    match step:
        case Exec(command):
            return {"exec": command}
        case JobRef(name, group, args):
            return {"jobref": {"name": name, **_set(group=group, args=args)}}
        case Script(script, args):
            return {"script": script, **_set(args=args)}
        case ScriptFile(path, args):
            return {"scriptfile": path, **_set(args=args)}
        case ApplyPolicies():
            configuration = policy_steps.configuration(step)
            return {"nodeStep": True, "type": policy_steps.TYPE, **_set(configuration=configuration)}
    return {"scripturl": step.url, **_set(args=step.args)}


def _schedule(schedule: Schedule | None) -> dict[str, Any]:
    if schedule is None:
        return {}
    parts = schedules.parts(schedule.crontab)
    day = {"weekday": {"day": parts.weekday}}
    if parts.dayofmonth != "?":
        day = {"dayofmonth": {"day": parts.dayofmonth}}
    return {
        **_set(timeZone=schedule.zone),
        "schedule": {
            "time": {"hour": parts.hour, "minute": parts.minute, "seconds": parts.seconds},
            "month": parts.month,
            "year": parts.year,
            **day,
        },
    }


def _node_filters(job: Job) -> dict[str, Any]:
    if job.node_filter is None:
        return {}
    ranked = _set(rankAttribute=job.dispatch.rank_attribute)
    if ranked:
        ranked["rankOrder"] = job.dispatch.rank_order
    return {
        "nodefilters": {
            "dispatch": {
                "threadcount": job.dispatch.threadcount,
                "keepgoing": job.dispatch.keepgoing,
                "excludePrecedence": job.node_filter.exclude_precedence,
                **ranked,
            },
            **_set(
                include=job_documents.side(job.node_filter.include),
                exclude=job_documents.side(job.node_filter.exclude),
            ),
        },
    }


def _notification(job: Job) -> dict[str, Any]:
    told = job.notification
    success = _set(recipients=",".join(told.on_success_emails), urls=",".join(told.on_success_urls))
    failure = _set(recipients=",".join(told.on_failure_emails), urls=",".join(told.on_failure_urls))
    return _set(onsuccess=success, onfailure=failure)
