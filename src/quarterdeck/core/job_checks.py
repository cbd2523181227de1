# SPDX-License-Identifier: Apache-2.0
"""What makes a job definition wrong, in the sentences that clients know. Whether its project exists is for services."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from quarterdeck.core import bounded_regexes, policy_steps, schedules
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import (
    LOG_LEVELS,
    ApplyPolicies,
    Exec,
    Job,
    JobRef,
    Notification,
    Option,
    Schedule,
    Script,
    Sequence,
    Step,
)

_OPTION_NAME = re.compile(r"[a-zA-Z_0-9.-]+")
_EMAIL = re.compile(r"[^@\s,<>\"']+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_URL = re.compile(r"https?://[^\s/]+(/\S*)?", re.IGNORECASE)
_TIMEOUT = re.compile(r"(?:([0-9]{1,9})d)?\s*(?:([0-9]{1,9})h)?\s*(?:([0-9]{1,9})m)?\s*(?:([0-9]{1,9})s?)?")

NO_STEPS = "Workflow must have at least one step"
NOTHING_TO_RUN = "A Remote command, inline script, or script file must be specified"
TOO_MUCH_TO_RUN = "Please specify only one of Local script or Remote command or Script file"
NO_JOB_NAME = "Job Name must be specified"
NO_PATTERN = "Included or Excluded node pattern is required to do Node Dispatch"


@dataclass(frozen=True, slots=True)
class Draft:
    """A job as a document gave it, and what of the document the job could not hold."""

    job: Job
    problems: tuple[str, ...] = ()


def problems(draft: Draft, now: datetime, zone: ZoneInfo) -> list[str]:
    """Everything that keeps the job from being stored, a sentence each. `zone` is the one for its schedule."""
    job = draft.job
    found = [*draft.problems]
    if not job.name:
        found.append("Job Name was not entered")
    if not job.project:
        found.append("Project was not entered")
    if job.loglevel not in LOG_LEVELS:
        found.append(f"Log level is not one of {', '.join(LOG_LEVELS)}: {job.loglevel}")
    found += [] if draft.problems else _of_sequence(job.sequence)
    found += _of_options(job.options)
    if job.node_filter is not None and job.node_filter.is_blank:
        found.append(NO_PATTERN)
    if job.dispatch.threadcount < 1:
        found.append("Thread count is a whole number of at least 1")
    found += _of_schedule(job.schedule, now, zone) + _of_notification(job.notification)
    if job.timeout and "${" not in job.timeout and timeout_seconds(job.timeout) is None:
        found.append(f"Timeout is not a time like 90 or 1h 30m: {job.timeout}")
    return found


def timeout_seconds(text: str) -> int | None:
    """Seconds of `90`, `90s`, `1d 2h 3m 4s`; 0 for "" (no timeout); None for what is none."""
    match = _TIMEOUT.fullmatch(text.strip().lower())
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def of_step(step: Step) -> str:
    """What is wrong with a step; "" for nothing."""
    match step:
        case JobRef(name=name):
            return "" if name else NO_JOB_NAME
        case Exec(text) | Script(text):
            return "" if text else NOTHING_TO_RUN
        case ApplyPolicies():
            return policy_steps.problem(step)
        case other:
            return "" if (getattr(other, "path", "") or getattr(other, "url", "")) else NOTHING_TO_RUN


def of_steps(wrong: dict[int, str]) -> list[str]:
    """The sentences for steps, counted from 1, that are wrong."""
    if not wrong:
        return []
    return [
        f"Workflow has one or more invalid steps: {list(wrong)}",
        *(f"{step}: {why}" for step, why in wrong.items()),
    ]


def _of_sequence(sequence: Sequence) -> list[str]:
    if not sequence.steps:
        return [NO_STEPS]
    return of_steps({number: why for number, step in enumerate(sequence.steps, 1) if (why := of_step(step))})


def _of_options(options: tuple[Option, ...]) -> list[str]:
    wrong = ((option.name, of_option(option)) for option in options)
    found = [f"Invalid Option definition: {name}: {';'.join(why)}" for name, why in wrong if why]
    twice = [name for name, count in Counter(option.name for option in options).items() if count > 1]
    return found + [f"Invalid Option definition: {name}: Option is defined more than once" for name in twice]


def of_option(option: Option) -> list[str]:
    """What is wrong with the definition of an option."""
    found = []
    if not _OPTION_NAME.fullmatch(option.name):
        found.append("Option name is letters, digits and _ . -")
    default = option.value
    if option.enforced and option.values and default and default not in option.values:
        found.append("Default Value was not in the allowed values list, and values are enforced")
    if option.enforced and not option.values and not option.values_url:
        found.append("Allowed values (list or remote URL) must be specified if values are enforced")
    found += _of_regex(option)
    if option.multivalued and not option.delimiter:
        found.append("You must specify a delimiter for multivalued options")
    if option.multivalued and option.secure:
        found.append("A secure option takes one value only")
    return found


def _of_regex(option: Option) -> list[str]:
    if not option.regex:
        return []
    try:
        pattern = bounded_regexes.compiled(option.regex)
    except Invalid:
        return [f"Invalid Regular Expression: {option.regex}"]
    found = [
        f'Allowed value "{value}" does not match the regex: {option.regex}'
        for value in option.values
        if not pattern.search(value)
    ]
    if option.value and not pattern.search(option.value):
        found.append(f'Default value "{option.value}" does not match the regex: {option.regex}')
    return found


def _of_schedule(schedule: Schedule | None, now: datetime, zone: ZoneInfo) -> list[str]:
    if schedule is None:
        return []
    try:
        schedules.check(schedule.crontab, now, zone_of(schedule, zone))
    except Invalid as error:
        return [error.message]
    return []


def zone_of(schedule: Schedule, default: ZoneInfo) -> ZoneInfo:
    """The time zone of a schedule: its own, else the default. Raises Invalid."""
    try:
        return ZoneInfo(schedule.zone) if schedule.zone else default
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"Time zone is not known: {schedule.zone}") from error


def is_email(text: str) -> bool:
    """Whether this is a mail address that a mail server may be given."""
    return _EMAIL.fullmatch(text) is not None


def _of_notification(notification: Notification) -> list[str]:
    emails = notification.on_success_emails + notification.on_failure_emails
    urls = notification.on_success_urls + notification.on_failure_urls
    wrong = [f"Invalid Email address: {one}" for one in emails if not is_email(one)]
    return list(dict.fromkeys(wrong + [f"Invalid URL: {one}" for one in urls if not _URL.fullmatch(one)]))
