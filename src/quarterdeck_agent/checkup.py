# SPDX-License-Identifier: Apache-2.0
"""`check`: is this agent healthy? Repairs what it safely can and says what a person must do."""

from __future__ import annotations

import os
import time
from typing import Callable, List, NamedTuple, Tuple

from quarterdeck_agent import keys, policy, run
from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import AgentError, Locked, Refused
from quarterdeck_agent.state import StateDirectory

#: A run that holds the lock longer than this hangs.
_LONG_RUN_SECONDS = 3600
_LOW_DISK_BYTES = 50 * 1024 * 1024
_OLD_INVENTORY_SECONDS = 72 * 3600


class Line(NamedTuple):
    """The outcome of one check: `ok`, `fixed`, `warning` or `failed`."""

    state: str
    subject: str
    text: str


def check(state: StateDirectory) -> List[Line]:
    """All checks, in the order in which one depends on the other."""
    lines = []
    for subject, look in _CHECKS:
        try:
            outcome, text = look(state)
        except Locked as error:
            outcome, text = "warning", str(error)
        except (AgentError, OSError, ValueError) as error:
            outcome, text = "failed", str(error)
        lines.append(Line(outcome, subject, text))
    return lines


def _check_lock(state: StateDirectory) -> Tuple[str, str]:
    lock = state.lock()
    try:
        with lock:
            removed = state.clean()
    except Locked:
        pid, age = lock.holder()
        if age > _LONG_RUN_SECONDS:
            return "failed", f"Process {pid} has been running for {age // 60} minutes; end it if it hangs."
        raise
    return ("fixed", f"{removed} file(s) of an interrupted run removed") if removed else ("ok", "no run under way")


def _check_identity(state: StateDirectory) -> Tuple[str, str]:
    before = state.stored_node_id()
    node = state.node_id()
    if before != node:
        return "fixed", f"the node id was missing or malformed and is {node} now"
    return "ok", node


def _check_key(state: StateDirectory) -> Tuple[str, str]:
    node = state.node_id()
    private = keys.load_private(state.path)
    mode = os.stat(state.at(keys.KEY_FILE)).st_mode & 0o777
    if mode & 0o077:
        os.chmod(state.at(keys.KEY_FILE), 0o600)
        return "fixed", f"the private key was readable by others (mode {mode:o})"
    try:
        certificate = keys.load(state.path).certificate
    except AgentError:
        certificate = ""
    if keys.certified_node(certificate) != node:
        keys.certify(state.path, private, node)
        return "fixed", "the certificate did not fit the key and the node id; a new one was made: enrol again"
    return "ok", "key and certificate fit"


def _check_server(state: StateDirectory) -> Tuple[str, str]:
    settings, node = state.settings(), state.node_id()
    client = Client(settings.server, settings.pin, keys.load(state.path), node)
    try:
        changed = policy.update(state, client, node, settings.policy_key)
    except Refused as error:
        if error.code in run.WAITING_CODES:
            return "ok", f"{settings.server} answers; this node waits to be accepted"
        raise
    finally:
        client.close()
    state.remember(last_update=int(time.time()))
    return "ok", f"{settings.server} answers; {'a newer policy was fetched' if changed else 'the policy is current'}"


def _check_policy(state: StateDirectory) -> Tuple[str, str]:
    found = policy.cached(state, state.node_id(), state.settings().policy_key)
    if found is None:
        return "warning", "no policy yet"
    return "ok", f"configuration {found['config_id']}, {len(found['policies'])} directive(s), signature valid"


def _check_queue(state: StateDirectory) -> Tuple[str, str]:
    waiting = [name for name in os.listdir(state.at("queue")) if name.endswith(".parcel")]
    refused = os.listdir(state.at("refused"))
    if refused:
        return "warning", f"{len(refused)} parcel(s) refused by the server for good, kept in {state.at('refused')}"
    return ("warning", f"{len(waiting)} parcel(s) wait for the server") if waiting else ("ok", "nothing waits")


def _check_disk(state: StateDirectory) -> Tuple[str, str]:
    numbers = os.statvfs(state.path)
    free = numbers.f_bavail * numbers.f_frsize
    if free < _LOW_DISK_BYTES:
        return "failed", f"only {free // 1024**2} MB are free below {state.path}"
    return "ok", f"{free // 1024**2} MB free"


def _check_last_run(state: StateDirectory) -> Tuple[str, str]:
    history = state.history()
    if not history:
        return "warning", "no run yet"
    errors = sum(count for name, count in history[-1]["counts"].items() if name.endswith("_error"))
    if errors:
        return "warning", f"{errors} component(s) in error in the run of {history[-1]['start']}"
    return "ok", f"last run {history[-1]['start']}"


def _check_inventory(state: StateDirectory) -> Tuple[str, str]:
    last = int(state.memory().get("last_inventory", 0))
    if last and time.time() - last > _OLD_INVENTORY_SECONDS:
        state.remember(last_inventory=0)
        return "fixed", "the inventory is older than three days; the next run sends one"
    return ("ok", "sent recently") if last else ("warning", "none sent yet")


_CHECKS: Tuple[Tuple[str, Callable[[StateDirectory], Tuple[str, str]]], ...] = (
    ("lock", _check_lock),
    ("disk", _check_disk),
    ("identity", _check_identity),
    ("key", _check_key),
    ("server", _check_server),
    ("policy", _check_policy),
    ("queue", _check_queue),
    ("inventory", _check_inventory),
    ("last run", _check_last_run),
)
