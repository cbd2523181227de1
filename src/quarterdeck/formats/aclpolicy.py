# SPDX-License-Identifier: Apache-2.0
"""RunDeck's aclpolicy files: a stream of YAML documents, in the form with `for` and in the older one with `rules`.

What is not understood is an error, never left out: a policy read by half would allow or forbid the wrong things.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from quarterdeck.core import bounded_regexes
from quarterdeck.core.access_policies import ALL, TYPES, AccessPolicy, AccessRule
from quarterdeck.core.errors import Invalid
from quarterdeck.formats import yaml_documents

_KEYS = {"description", "context", "for", "by", "id"}
_OLD_KEYS = {"description", "rules", "by"}
_RULE_KEYS = {"match", "equals", "contains", "allow", "deny"}
#: The older form's words -> the actions on jobs that they stand for.
_OLD_ACTIONS = {
    "workflow_read": "read",
    "workflow_create": "create",
    "workflow_update": "update",
    "workflow_delete": "delete",
    "workflow_run": "run",
    "workflow_kill": "kill",
}
_OLD_ADHOC = "adhoc/Temporary_Job"


def read(data: bytes) -> list[AccessPolicy]:
    """The policies of a file. Raises Invalid, which says the document (counted from 1) and what is wrong."""
    found: list[AccessPolicy] = []
    for number, document in enumerate(yaml_documents.read_all(data), 1):
        try:
            found += _policies(_map(document, "policy"))
        except Invalid as error:
            raise Invalid(f"Policy {number}: {error.message}") from error
    return found


def _policies(document: dict[str, Any]) -> list[AccessPolicy]:
    if "rules" in document:
        return [_old(document)]
    _only(document, _KEYS, "policy")
    usernames, groups = _by(document.get("by"))
    rules = _map(document.get("for"), "for")
    _only(rules, set(TYPES), "for")
    return [
        AccessPolicy(
            description=_text(document.get("description")),
            project=_project(document.get("context")),
            usernames=usernames,
            groups=groups,
            rules={kind: tuple(_rule(one) for one in _list(found)) for kind, found in rules.items()},
        ),
    ]


def _project(context: Any) -> str | None:
    """The pattern of projects; None for the application."""
    given = _map(context, "context")
    if set(given) == {"project"}:
        return _regex(_text(given["project"]))
    if given == {"application": "rundeck"}:
        return None
    raise Invalid("'context' has either a 'project', or an 'application' that is 'rundeck'")


def _by(value: Any) -> tuple[frozenset[str], frozenset[str]]:
    given = _map(value, "by")
    _only(given, {"username", "group"}, "by")
    usernames, groups = (frozenset(_texts(given.get(name))) for name in ("username", "group"))
    if not usernames and not groups:
        raise Invalid("'by' names neither a username nor a group")
    return usernames, groups


def _rule(value: Any) -> AccessRule:
    given = _map(value, "rule")
    _only(given, _RULE_KEYS, "rule")
    rule = AccessRule(
        match=_properties(given, "match", lambda one: tuple(_regex(text) for text in _texts(one))),
        equals=_properties(given, "equals", _text),
        contains=_properties(given, "contains", lambda one: tuple(_texts(one))),
        allow=frozenset(_texts(given.get("allow"))),
        deny=frozenset(_texts(given.get("deny"))),
    )
    if not rule.allow and not rule.deny:
        raise Invalid("A rule has neither 'allow' nor 'deny'")
    return rule


def _properties(given: dict[str, Any], name: str, read_one: Callable[[Any], Any]) -> dict[str, Any]:
    """The properties that a part of a rule names; a part that is there must name one, or the rule would fit all."""
    if name not in given:
        return {}
    found = {key: read_one(value) for key, value in _map(given[name], name).items()}
    if not found or () in found.values():
        raise Invalid(f"'{name}' names no property, or no value of it")
    return found


def _old(document: dict[str, Any]) -> AccessPolicy:
    """The older form: job paths to actions, in every project; ad-hoc commands count as one job."""
    _only(document, _OLD_KEYS, "policy")
    usernames, groups = _by(document.get("by"))
    jobs: list[AccessRule] = []
    adhoc: set[str] = set()
    for path, rule in _map(document["rules"], "rules").items():
        given = rule.get("actions") if isinstance(rule, dict) else rule
        actions = frozenset(_old_action(action) for action in _texts(given))
        jobs.append(AccessRule(match={"path": (_regex(path),)}, allow=actions))
        if bounded_regexes.compiled(path).fullmatch(_OLD_ADHOC):
            adhoc |= actions & {"run", "kill", ALL}
    rules: dict[str, tuple[AccessRule, ...]] = {"job": tuple(jobs)}
    if adhoc:
        rules["adhoc"] = (AccessRule(allow=frozenset(adhoc)),)
    return AccessPolicy(
        description=_text(document.get("description")),
        project=".*",
        usernames=usernames,
        groups=groups,
        rules=rules,
    )


def _old_action(action: str) -> str:
    if action == ALL:
        return ALL
    if action not in _OLD_ACTIONS:
        raise Invalid(f"The action '{action}' is not known")
    return _OLD_ACTIONS[action]


def _regex(pattern: str) -> str:
    try:
        bounded_regexes.compiled(pattern)
    except Invalid as error:
        raise Invalid(f"The pattern '{pattern}' is not a regular expression: {error.message}") from error
    return pattern


def _map(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"'{what}' is not a map" if value is not None else f"'{what}' is missing")
    return {_text(key): one for key, one in value.items()}


def _only(given: dict[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise Invalid(f"'{what}' has parts that are not known: {', '.join(unknown)}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _texts(value: Any) -> list[str]:
    return [] if value is None else [_text(one) for one in _list(value)]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        raise Invalid("A single value was expected")
    return re.sub(r"\s+", " ", str(value)).strip()
