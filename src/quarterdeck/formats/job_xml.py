# SPDX-License-Identifier: Apache-2.0
"""Job definitions in XML, as RunDeck's `job-v20` has them, read and written without loss.

On input an attribute and a child element of one name mean the same. Reading turns a document into the tree that
`formats/job_documents.py` knows; writing has one order, so equal jobs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from lxml import etree

from quarterdeck.core import policy_steps, schedules
from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import (
    ApplyPolicies,
    Exec,
    Job,
    JobRef,
    Notification,
    Option,
    Schedule,
    Script,
    ScriptFile,
    Step,
)
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.formats import job_documents, xml_documents

_REQUIRED = ("name", "description", "sequence")


def read(data: bytes) -> list[Draft]:
    """The jobs of a document. Raises Invalid in the words that clients know; TooLarge."""
    try:
        root = xml_documents.parse(data)
    except TooLarge:
        raise
    except Invalid as error:
        _refuse(f"Unable to parse xml: {error.message}")
    if root.tag != "joblist":
        _refuse(f"Document root tag was not 'joblist': '{root.tag}'")
    jobs = list(root.iterchildren("job"))
    if not jobs:
        _refuse("No 'job' element was found")
    return [_draft(job) for job in jobs]


def _refuse(message: str) -> NoReturn:
    raise Invalid(job_documents.PREFIX + message)


def _flat(element: etree._Element) -> Any:
    """A text for a leaf; else a map of attributes and children, a list where a name comes more than once."""
    children = list(element.iterchildren())
    if not children and not element.attrib:
        text = element.text or ""
        return text.strip() or text
    found: dict[str, Any] = {str(name): str(value) for name, value in element.attrib.items()}
    for child in children:
        name, value = str(child.tag), _flat(child)
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _draft(element: etree._Element) -> Draft:
    try:
        return job_documents.draft(_tree(job_documents.tree(_flat(element))))
    except Invalid as error:
        if error.message.startswith(job_documents.PREFIX):
            raise
        raise Invalid(
            f"{job_documents.PREFIX}Unable to create Job: line {element.sourceline}: {error.message}",
        ) from error


def _tree(job: dict[str, Any]) -> dict[str, Any]:
    """The tree of the YAML format from the one of the elements."""
    if "context" not in job:
        _refuse("'context' element not found")
    context = job_documents.tree(job["context"])
    if "project" not in context and "depot" not in context:
        _refuse("'context/project' element not found")
    for name in _REQUIRED:
        if name not in job:
            _refuse(f"'{name}' element not found")
    return {
        **job,
        "project": context.get("project", context.get("depot")),
        "options": [_given_option(one) for one in _all(context.get("options"), "option")],
        "sequence": _given_sequence(job["sequence"]),
        "schedule": _given_schedule(job.get("schedule")),
        "nodefilters": _given_filters(job),
        "notification": _given_notification(job["notification"]) if "notification" in job else None,
    }


def _all(parent: Any, name: str) -> list[Any]:
    return job_documents.many(job_documents.tree(parent).get(name))


def _given_option(value: Any) -> dict[str, Any]:
    given = job_documents.tree(value)
    given.setdefault("enforced", given.get("enforcedvalues"))
    return given


def _given_sequence(value: Any) -> dict[str, Any]:
    given = job_documents.tree(value)
    return {**given, "commands": [_given_step(one) for one in job_documents.many(given.get("command"))]}


def _given_step(value: Any) -> dict[str, Any]:
    given = job_documents.tree(value)
    step = {**given, "args": given.get("scriptargs")}
    if isinstance(given.get("jobref"), dict):
        reference = job_documents.tree(given["jobref"])
        argument = reference.get("arg")
        step["jobref"] = {**reference, "args": argument.get("line") if isinstance(argument, dict) else argument}
    elif "jobref" in given:
        step["jobref"] = {}
    plugin = step.get("node-step-plugin")
    if isinstance(plugin, dict) and job_documents.is_of_policies(plugin):
        del step["node-step-plugin"]
        step |= {"nodeStep": True, "type": plugin["type"], "configuration": _given_entries(plugin.get("configuration"))}
    return step


def _given_entries(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in _all(value, "entry"):
        entry = job_documents.tree(one)
        key = job_documents.text(entry.get("key"))
        if key in found:
            _refuse(f"configuration entry '{key}' comes more than once")
        found[key] = entry.get("value")
    return found


def _given_schedule(value: Any) -> dict[str, Any]:
    return job_documents.tree(value) if isinstance(value, dict) else {}


def _given_filters(job: dict[str, Any]) -> dict[str, Any]:
    return {**job_documents.tree(job.get("nodefilters")), "dispatch": job.get("dispatch")}


def _given_notification(value: Any) -> dict[str, Any]:
    given = job_documents.tree(value)
    if "onsuccess" not in given and "onfailure" not in given:
        _refuse("notification section had no onsuccess or onfailure element")
    return {name: _given_trigger(name, given[name]) for name in ("onsuccess", "onfailure") if name in given}


def _given_trigger(name: str, value: Any) -> dict[str, str]:
    trigger = job_documents.tree(value)
    if "email" not in trigger and "webhook" not in trigger:
        _refuse(f"notification '{name}' element had missing 'email' or 'webhook' element")
    found = {}
    for element, attribute in (("email", "recipients"), ("webhook", "urls")):
        if element in trigger:
            found[attribute] = job_documents.text(job_documents.tree(trigger[element]).get(attribute))
            if not found[attribute]:
                _refuse(f"{name} {element} had blank or missing '{attribute}' attribute")
    return found


def write(jobs: Iterable[Job]) -> bytes:
    """The document of these jobs; equal jobs give equal bytes."""
    root = etree.Element("joblist")
    for job in jobs:
        _write_job(etree.SubElement(root, "job"), job)
    return xml_documents.written(root)


def _add(parent: etree._Element, tag: str, text: str = "", /, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, tag, {key: xml_documents.possible(one) for key, one in attributes.items()})
    if text:
        element.text = xml_documents.possible(text)
    return element


def _add_set(parent: etree._Element, name: str, text: str) -> None:
    if text:
        _add(parent, name, text)


def _word(value: bool) -> str:  # it is the value
    return "true" if value else "false"


def _write_job(element: etree._Element, job: Job) -> None:
    _add_set(element, "id", "" if job.id is None else str(job.id))
    _add_set(element, "uuid", job.uuid)
    _add(element, "name", job.name)
    _add_set(element, "group", job.group)
    _add(element, "description", job.description)
    _add(element, "loglevel", job.loglevel)
    _add_set(element, "multipleExecutions", "true" if job.multiple_executions else "")
    _add_set(element, "timeout", job.timeout)
    _write_context(element, job)
    sequence = _add(
        element,
        "sequence",
        keepgoing=_word(job.sequence.keepgoing),
        strategy=job.sequence.strategy,
    )
    for step in job.sequence.steps:
        _write_step(_add(sequence, "command"), step)
    if job.schedule is not None:
        _write_schedule(element, job.schedule)
    if job.node_filter is not None:
        _write_dispatch(element, job, job.node_filter)
    _write_notification(element, job.notification)


def _write_context(element: etree._Element, job: Job) -> None:
    context = _add(element, "context")
    _add(context, "project", job.project)
    if job.options:
        options = _add(context, "options")
        for option in job.options:
            _write_option(options, option)


def _write_option(parent: etree._Element, option: Option) -> None:
    attributes = {
        "name": option.name,
        "value": option.value,
        "regex": option.regex,
        "valuesUrl": option.values_url,
        "values": ",".join(option.values),
        "enforcedvalues": "true" if option.enforced else "",
        "required": "true" if option.required else "",
        "secure": "true" if option.secure else "",
        "valueExposed": "true" if option.value_exposed else "",
    }
    element = _add(parent, "option", **{name: value for name, value in attributes.items() if value})
    _add_set(element, "description", option.description)
    _add_set(element, "multivalued", "true" if option.multivalued else "")
    _add_set(element, "delimiter", option.delimiter)


def _write_step(command: etree._Element, step: Step) -> None:
    match step:
        case Exec(text):
            _add(command, "exec", text)
        case JobRef(name, group, args):
            reference = _add(command, "jobref", name=name, **({"group": group} if group else {}))
            if args:
                _add(reference, "arg", line=args)
        case Script(text, args):
            _write_script(_add(command, "script"), xml_documents.possible(text))
            _add(command, "scriptargs", args)
        case ScriptFile(path, args):
            _add(command, "scriptfile", path)
            _add(command, "scriptargs", args)
        case ApplyPolicies():
            plugin = _add(command, "node-step-plugin", type=policy_steps.TYPE)
            if entries := policy_steps.configuration(step):
                configuration = _add(plugin, "configuration")
                for key, value in entries.items():
                    _add(configuration, "entry", key=key, value=value)
        case other:
            _add(command, "scripturl", other.url)
            _add(command, "scriptargs", other.args)


def _write_script(element: etree._Element, text: str) -> None:
    """As CDATA; a text that holds its end cannot be one section and is escaped instead."""
    element.text = text if "]]>" in text else etree.CDATA(text)


def _write_schedule(element: etree._Element, schedule: Schedule) -> None:
    parts = schedules.parts(schedule.crontab)
    _add_set(element, "timeZone", schedule.zone)
    written = _add(element, "schedule")
    _add(written, "time", seconds=parts.seconds, minute=parts.minute, hour=parts.hour)
    if parts.dayofmonth == "?":
        _add(written, "month", month=parts.month)
        _add(written, "weekday", day=parts.weekday)
    else:
        _add(written, "month", month=parts.month, day=parts.dayofmonth)
    _add(written, "year", year=parts.year)


def _write_dispatch(element: etree._Element, job: Job, wanted: NodeFilter) -> None:
    dispatch = _add(element, "dispatch")
    _add(dispatch, "threadcount", str(job.dispatch.threadcount))
    _add(dispatch, "keepgoing", _word(job.dispatch.keepgoing))
    _add(dispatch, "excludePrecedence", _word(wanted.exclude_precedence))
    if job.dispatch.rank_attribute:
        _add(dispatch, "rankAttribute", job.dispatch.rank_attribute)
        _add(dispatch, "rankOrder", job.dispatch.rank_order)
    filters = _add(element, "nodefilters", excludeprecedence=_word(wanted.exclude_precedence))
    for name, side in (("include", wanted.include), ("exclude", wanted.exclude)):
        given = job_documents.side(side)
        if given:
            half = _add(filters, name)
            for part, value in given.items():
                _add(half, part, value)


def _write_notification(element: etree._Element, told: Notification) -> None:
    triggers = {
        "onsuccess": (told.on_success_emails, told.on_success_urls),
        "onfailure": (told.on_failure_emails, told.on_failure_urls),
    }
    if not any(emails or urls for emails, urls in triggers.values()):
        return
    notification = _add(element, "notification")
    for name, (emails, urls) in triggers.items():
        if emails or urls:
            trigger = _add(notification, name)
            if emails:
                _add(trigger, "email", recipients=",".join(emails))
            if urls:
                _add(trigger, "webhook", urls=",".join(urls))
