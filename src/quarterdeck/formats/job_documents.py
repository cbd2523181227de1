# SPDX-License-Identifier: Apache-2.0
"""What job documents in XML and in YAML share: from a tree of maps, lists and texts to a job.

The tree has the keys of the YAML format. Values of the wrong kind become problems of that one job, never errors of
the whole document.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast

from quarterdeck.core import job_checks, node_filters, policy_steps, schedules
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_checks import Draft
from quarterdeck.core.jobs import (
    Dispatch,
    Exec,
    Job,
    JobRef,
    Notification,
    Option,
    Schedule,
    Script,
    ScriptFile,
    ScriptUrl,
    Sequence,
    Step,
    Strategy,
)
from quarterdeck.core.node_filters import NodeFilter, Side

PREFIX = "JobXMLException: "
_TRUE = ("true", "yes", "on")
_PLAIN_STEPS: dict[str, Callable[[str, str], Step]] = {
    "exec": lambda text, _: Exec(text),
    "script": lambda text, args: Script(_line_ends(text), args),
    "scriptfile": ScriptFile,
    "scripturl": ScriptUrl,
}
_COUNT = re.compile(r"0*[1-9][0-9]{0,5}")
_Part = TypeVar("_Part")
_UNSUPPORTED = ("errorhandler", "node-step-plugin", "step-plugin", "nodeStep", "type", "scriptinterpreter")


def text(value: Any) -> str:
    """A single value as trimmed text; "" for none. Raises Invalid for a list or a map."""
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise Invalid("A single value was expected")
    return str(value).strip()


def flag(value: Any) -> bool:
    """Whether a value says yes."""
    return text(value).lower() in _TRUE


def tree(value: Any) -> dict[str, Any]:
    """A map; an empty one for none. Raises Invalid for anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if not isinstance(value, dict):
        raise Invalid("A map was expected")
    return {text(key): one for key, one in value.items()}


def many(value: Any) -> list[Any]:
    """A list; a single value is a list of one, none an empty one."""
    if value is None or value == "":
        return []
    return value if isinstance(value, list) else [value]


def commas(value: Any) -> tuple[str, ...]:
    """The items of a comma list, or of a list."""
    items = [text(one) for one in value] if isinstance(value, list) else text(value).split(",")
    return tuple(item.strip() for item in items if item.strip())


def _line_ends(script: str) -> str:
    return script.replace("\r\n", "\n").replace("\r", "\n")


class _Reading:
    """Reads the parts of one job; a part that is wrong gets its default and a problem."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._problems: list[str] = []

    def draft(self) -> Draft:
        document = self._document
        job = Job(
            name=self._read("name", text, ""),
            project=self._read("project", text, ""),
            uuid=self._read("uuid", text, ""),
            group=self._read("group", lambda value: text(value).strip("/ "), ""),
            description=self._read("description", text, ""),
            loglevel=self._read("loglevel", _loglevel, "INFO"),
            options=self._read("options", _options, ()),
            node_filter=self._read("nodefilters", _node_filter, None),
            dispatch=self._read("nodefilters", _dispatch, Dispatch(), said="dispatch"),
            sequence=self._sequence(document.get("sequence")),
            schedule=self._read("schedule", self._schedule, None),
            notification=self._read("notification", _notification, Notification()),
            multiple_executions=self._read("multipleExecutions", flag, False),
            timeout=self._read("timeout", text, ""),
        )
        return Draft(job, tuple(dict.fromkeys(self._problems)))

    def _read(self, key: str, read: Callable[[Any], _Part], default: _Part, *, said: str = "") -> _Part:
        try:
            return read(self._document.get(key))
        except Invalid as error:
            self._problems.append(f"{said or key}: {error.message}")
            return default

    def _sequence(self, value: Any) -> Sequence:
        nothing: dict[str, Any] = {}
        sequence = {"commands": value} if isinstance(value, list) else self._read("sequence", tree, nothing)
        steps, wrong = _steps(many(sequence.get("commands")))
        if not steps and not wrong:
            self._problems.append(job_checks.NO_STEPS)
        self._problems += job_checks.of_steps(wrong)
        strategy = text(sequence.get("strategy")) or "node-first"
        if strategy not in ("node-first", "step-first"):
            self._problems.append(f"sequence: The strategy is node-first or step-first, not {strategy}")
            strategy = "node-first"
        return Sequence(keepgoing=flag(sequence.get("keepgoing")), strategy=cast("Strategy", strategy), steps=steps)

    def _schedule(self, value: Any) -> Schedule | None:
        parts = tree(value)
        if not parts:
            return None
        zone = text(self._document.get("timeZone"))
        if crontab := text(parts.get("crontab")):
            return Schedule(_crontab(crontab), zone)
        time, month, year = tree(parts.get("time")), parts.get("month"), parts.get("year")
        return Schedule(
            schedules.from_parts(
                seconds=text(time.get("seconds")),
                minute=text(time.get("minute")),
                hour=text(time.get("hour")),
                dayofmonth=_of(parts.get("dayofmonth"), "day")
                or (_of(month, "day") if isinstance(month, dict) else ""),
                month=_of(month, "month"),
                weekday=_of(parts.get("weekday"), "day"),
                year=_of(year, "year"),
            ),
            zone,
        )


def draft(document: Mapping[str, Any]) -> Draft:
    """The job of a tree, with what was wrong with it."""
    return _Reading(document).draft()


def _of(value: Any, key: str, *, alone: bool = True) -> str:
    """A text under a key, or one that stands alone where it may."""
    if isinstance(value, dict):
        return text(value.get(key))
    return text(value) if alone else ""


def _crontab(expression: str) -> str:
    """With its year if it can be read; else as it is, for the checks to tell."""
    try:
        return str(schedules.parts(expression))
    except Invalid:
        return expression


def _loglevel(value: Any) -> str:
    level = text(value).upper() or "INFO"
    return "ERR" if level == "ERROR" else level


def _options(value: Any) -> tuple[Option, ...]:
    if isinstance(value, list):
        found = [_option(text(tree(one).get("name")), tree(one)) for one in value]
    else:
        found = [_option(name, tree(one)) for name, one in tree(value).items()]
    return tuple(sorted(found, key=lambda option: option.name))


def _option(name: str, given: dict[str, Any]) -> Option:
    delimiter = given.get("delimiter")
    return Option(
        name=name,
        value=text(given.get("value")),
        description=text(given.get("description")),
        values=tuple(sorted(set(commas(given.get("values"))))),
        values_url=text(given.get("valuesUrl")),
        enforced=flag(given.get("enforced")),
        regex=text(given.get("regex")),
        required=flag(given.get("required")),
        multivalued=flag(given.get("multivalued")),
        delimiter=text(delimiter) or (delimiter if isinstance(delimiter, str) else ""),
        secure=flag(given.get("secure")),
        value_exposed=flag(given.get("valueExposed")),
    )


def _node_filter(value: Any) -> NodeFilter | None:
    """Dispatch is on exactly if one of the sides is there, blank or not."""
    filters = tree(value)
    if "include" not in filters and "exclude" not in filters:
        return None
    precedence = tree(filters.get("dispatch")).get("excludePrecedence", filters.get("excludeprecedence"))
    return NodeFilter(
        include=_side(filters.get("include")),
        exclude=_side(filters.get("exclude")),
        exclude_precedence=precedence is None or flag(precedence),
    )


def _side(value: Any) -> Side:
    given = tree(value)
    return Side(
        **{field: ",".join(text(one) for one in many(given.get(name))) for name, field in node_filters.PARTS.items()}
    )


def _dispatch(value: Any) -> Dispatch:
    given = tree(tree(value).get("dispatch"))
    count = text(given.get("threadcount")) or "1"
    if not _COUNT.fullmatch(count):
        raise Invalid(f"The thread count is a whole number of at least 1, not {count}")
    order = text(given.get("rankOrder")).lower() or "ascending"
    if order not in ("ascending", "descending"):
        raise Invalid(f"The rank order is ascending or descending, not {order}")
    return Dispatch(
        threadcount=int(count),
        keepgoing=flag(given.get("keepgoing")),
        rank_attribute=text(given.get("rankAttribute")),
        rank_order=cast('Literal["ascending", "descending"]', order),
    )


def _steps(commands: list[Any]) -> tuple[tuple[Step, ...], dict[int, str]]:
    """The steps, and by their number what is wrong with those that cannot be."""
    steps: list[Step] = []
    wrong: dict[int, str] = {}
    for number, command in enumerate(commands, 1):
        try:
            steps.append(_step(tree(command)))
        except Invalid as error:
            wrong[number] = error.message
    return tuple(steps), wrong


def _step(command: dict[str, Any]) -> Step:
    applies = is_of_policies(command)
    for name in _UNSUPPORTED:
        if name in command and not (applies and name in ("nodeStep", "type")):
            raise Invalid(f"{name} is not supported")
    kinds = [kind for kind in _PLAIN_STEPS if text(command.get(kind))]
    if applies:
        if kinds or "jobref" in command:
            raise Invalid(job_checks.TOO_MUCH_TO_RUN)
        return _policy_step(command)
    if "jobref" in command:
        if kinds:
            raise Invalid(job_checks.TOO_MUCH_TO_RUN)
        return _job_ref(tree(command["jobref"]))
    if not kinds:
        raise Invalid(job_checks.NOTHING_TO_RUN)
    if len(kinds) > 1:
        raise Invalid(job_checks.TOO_MUCH_TO_RUN)
    args = text(command.get("args"))
    if kinds == ["exec"] and args:
        raise Invalid("A command takes no arguments beside it")
    return _PLAIN_STEPS[kinds[0]](text(command[kinds[0]]), args)


def is_of_policies(given: Mapping[str, Any]) -> bool:
    """Whether a plugin's step is the one that applies policies, the only one that there is."""
    return given.get("type") == policy_steps.TYPE


def _policy_step(given: dict[str, Any]) -> Step:
    if not flag(given.get("nodeStep")):
        raise Invalid(f"{policy_steps.TYPE} is a step on nodes (nodeStep: true)")
    return policy_steps.step({key: text(value) for key, value in tree(given.get("configuration")).items()})


def _job_ref(given: dict[str, Any]) -> JobRef:
    name = text(given.get("name"))
    if not name:
        raise Invalid(job_checks.NO_JOB_NAME)
    return JobRef(name, text(given.get("group")).strip("/ "), text(given.get("args")))


def _notification(value: Any) -> Notification:
    given = tree(value)
    success, failure = tree(given.get("onsuccess")), tree(given.get("onfailure"))
    return Notification(
        on_success_emails=commas(success.get("recipients")),
        on_success_urls=commas(success.get("urls")),
        on_failure_emails=commas(failure.get("recipients")),
        on_failure_urls=commas(failure.get("urls")),
    )


def side(given: Side) -> dict[str, str]:
    """The parts of a side that are set, by their names in documents."""
    return {name: getattr(given, field) for name, field in node_filters.PARTS.items() if getattr(given, field)}
