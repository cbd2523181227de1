# SPDX-License-Identifier: Apache-2.0
"""Methods on POSIX access control lists. What a list is and how it is kept is in acls.py."""

from __future__ import annotations

import os
from typing import Callable, Dict, Iterator, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import acls, system, trees
from quarterdeck_agent.methods.acls import Acl
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.outcome import Finding, MethodCall

#: From the list a path has to the one it should have.
Wish = Callable[[Acl], Acl]
#: The paths of a call, each with its wish.
Plan = Callable[[MethodCall], Iterator[Tuple[str, Wish]]]


def _paths(call: MethodCall) -> Iterator[str]:
    levels = None if trees.flag("recursive", call["recursive"]) else 0
    for path in trees.walk(os.path.realpath(call["path"]), levels):
        if not os.path.islink(path):  # a link has no list of its own
            yield path


def _each(make: Callable[[MethodCall], Wish]) -> Plan:
    def plan(call: MethodCall) -> Iterator[Tuple[str, Wish]]:
        wish = make(call)
        for path in _paths(call):
            yield path, wish

    return plan


def _wish_of(texts: Dict[str, str]) -> Wish:
    def wish(acl: Acl) -> Acl:
        wanted = dict(acl)
        for kind, name in ((acls.USER, "user"), (acls.GROUP, "group")):
            if texts.get(name, "").strip():
                wanted = acls.with_entries(wanted, kind, texts[name])
        if texts.get("other", "").strip():
            wanted[acls.OTHER, 0] = acls.change(texts["other"])(wanted[acls.OTHER, 0])
        return wanted if wanted == acl else acls.completed(wanted)

    return wish


def _entries(call: MethodCall) -> Wish:
    return _wish_of({name: call[name] for name in ("user", "group", "other")})


def _with_parents(call: MethodCall) -> Iterator[Tuple[str, Wish]]:
    yield from _each(_entries)(call)
    wish = _wish_of({name: call[f"parent_permissions_{name}"] for name in ("user", "group", "other")})
    path = os.path.realpath(call["path"])
    while path != "/":
        path = os.path.dirname(path)
        yield path, wish


def _present(kind: int, parameter: str) -> Callable[[MethodCall], Wish]:
    def make(call: MethodCall) -> Wish:
        entry, change = (kind, acls.identity(kind, call[parameter])), acls.change(call["ace"])
        return lambda acl: _changed(acl, {**acl, entry: change(acl.get(entry, 0))})

    return make


def _absent(kind: int, parameter: str) -> Callable[[MethodCall], Wish]:
    def make(call: MethodCall) -> Wish:
        entry = (kind, acls.identity(kind, call[parameter]))
        return lambda acl: _changed(acl, {known: bits for known, bits in acl.items() if known != entry})

    return make


def _stripped(_call: MethodCall) -> Wish:
    return lambda acl: {entry: bits for entry, bits in acl.items() if entry[0] in _PLAIN}


def _changed(before: Acl, after: Acl) -> Acl:
    return before if after == before else acls.completed(after)


_PLAIN = (acls.OWNER, acls.GROUP_OWNER, acls.OTHER)


def _register(name: str, parameters: str, plan: Plan) -> None:
    def audit(call: MethodCall) -> Finding:
        count = 0
        for path, wish in plan(call):
            count += 1
            found = acls.get(path)
            wanted = wish(found)
            if wanted != found:
                return outcome.drift(f"{path} has {acls.shown(found)}; {acls.shown(wanted)} is expected.")
        return outcome.compliant(f"The access control lists of {count} paths are as expected.")

    def enforce(call: MethodCall) -> Finding:
        system.resolved(call["path"])
        count = 0
        for path, wish in plan(call):
            found = acls.get(path)
            wanted = wish(found)
            if wanted != found:
                acls.put(path, wanted)
                count += 1
        return outcome.compliant(f"The access control lists of {count} paths were changed.")

    register(name, parameters, audit, enforce)


def _register_each(name: str, parameters: str, make: Callable[[MethodCall], Wish]) -> None:
    _register(name, f"path recursive? {parameters}".strip(), _each(make))


_register_each("permissions_acl_entry", "user? group? other?", _entries)
_register_each("permissions_user_acl_present", "user ace", _present(acls.USER, "user"))
_register_each("permissions_user_acl_absent", "user", _absent(acls.USER, "user"))
_register_each("permissions_group_acl_present", "group ace", _present(acls.GROUP, "group"))
_register_each("permissions_group_acl_absent", "group", _absent(acls.GROUP, "group"))
_register_each("permissions_other_acl_present", "other", _entries)
_register_each("permissions_posix_acls_absent", "", _stripped)
_register(
    "permissions_posix_acl_entry_parent",
    "path recursive? user? group? other? parent_permissions_user? parent_permissions_group? parent_permissions_other?",
    _with_parents,
)
