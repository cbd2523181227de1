# SPDX-License-Identifier: Apache-2.0
"""Methods on services: running, started at boot, and plain actions, which can only be done and not looked at."""

from __future__ import annotations

import os
import re
from typing import Callable, Iterator, List, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.conditions import holds
from quarterdeck_agent.methods import processes, service_managers, system
from quarterdeck_agent.methods.registration import register, register_blind
from quarterdeck_agent.methods.service_managers import Manager
from quarterdeck_agent.outcome import Finding, MethodCall

#: From manager and service name: does it fit, and the words for that.
Test = Callable[[Manager, str], bool]


def _chosen(call: MethodCall) -> Tuple[Manager, str]:
    return service_managers.choose(), service_managers.checked(call["name"].strip())


def _look(test: Test, fits: str, misfits: str) -> outcome.Look:
    def audit(call: MethodCall) -> Finding:
        manager, name = _chosen(call)
        if test(manager, name):
            return outcome.compliant(f"The service {name} {fits}.")
        known = "" if manager.exists(name) else f" {manager.name} knows no such service."
        return outcome.drift(f"The service {name} {misfits}.{known}")

    return audit


def _do(action: str) -> outcome.Look:
    def enforce(call: MethodCall) -> Finding:
        manager, name = _chosen(call)
        processes.act(*manager.act(name, action))
        return outcome.compliant(f"{action} of the service {name} was done.")

    return enforce


def _switch(commands: Callable[[Manager, str], List[List[str]]], done: str) -> outcome.Look:
    def enforce(call: MethodCall) -> Finding:
        manager, name = _chosen(call)
        for argv in commands(manager, name):
            processes.act(*argv)
        return outcome.compliant(f"The service {name} was {done}.")

    return enforce


def _act(action: str) -> outcome.Look:
    def enforce(call: MethodCall) -> Finding:
        manager, name = _chosen(call)
        processes.act(*manager.act(name, action))
        return outcome.repaired(f"{action} of the service {name} was done.")

    return enforce


def _act_as_asked(call: MethodCall) -> Finding:
    return _act(service_managers.checked_action(call["action"].strip()))(call)


def _restart_if(call: MethodCall) -> Finding:
    if not holds(call["expression"], call.facts.conditions):
        return outcome.compliant(f"The service {call['name']} was not restarted: {call['expression']} is not met.")
    return _act("restart")(call)


def _command_lines() -> Iterator[Tuple[str, str]]:
    """Program and command line of each process but our own."""
    directory = system.path("/proc")
    for entry in os.listdir(directory):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(os.path.join(directory, entry, "cmdline"), "rb") as stream:
                words = stream.read().decode("utf-8", "replace").rstrip("\0").split("\0")
        except OSError:
            continue  # it has just ended
        try:
            program = os.readlink(os.path.join(directory, entry, "exe"))
        except OSError:
            program = words[0]
        yield program, " ".join(words)


def _running_ps(call: MethodCall) -> Finding:
    pattern = re.compile(call["name"])
    if any(pattern.search(line) for _, line in _command_lines()):
        return outcome.compliant(f"A process matches {call['name']}.")
    return outcome.drift(f"No process matches {call['name']}.")


def _running_path(call: MethodCall) -> Finding:
    path = call["path"]
    if any(program == path or (line + " ").startswith(path + " ") for program, line in _command_lines()):
        return outcome.compliant(f"A process of {path} is running.")
    return outcome.drift(f"No process of {path} is running; the service {call['name']} should be started.")


def _running(manager: Manager, name: str) -> bool:
    return manager.running(name)


def _stopped(manager: Manager, name: str) -> bool:
    return not manager.running(name)


def _enabled(manager: Manager, name: str) -> bool:
    return manager.enabled(name)


def _disabled(manager: Manager, name: str) -> bool:
    return manager.disabled(name)


_IS_RUNNING = _look(_running, "is running", "is not running; it should be")
_IS_ENABLED = _look(_enabled, "is started at boot", "is not started at boot; it should be")
_IS_DISABLED = _look(_disabled, "is not started at boot", "is started at boot; it should not be")

register("service_started", "name", _IS_RUNNING, _do("start"))
register("service_stopped", "name", _look(_stopped, "is stopped", "is running; it should be stopped"), _do("stop"))
register("service_enabled", "name", _IS_ENABLED, _switch(lambda manager, name: manager.enable(name), "enabled"))
register("service_disabled", "name", _IS_DISABLED, _switch(lambda manager, name: manager.disable(name), "disabled"))
register("service_started_path", "name path", _running_path, _do("start"), prefix="service_started")
register("service_check_running", "name", _IS_RUNNING)
register("service_check_running_ps", "name", _running_ps, prefix="service_check_running")
register("service_check_started_at_boot", "name", _IS_ENABLED)
register("service_check_disabled_at_boot", "name", _IS_DISABLED)
register_blind("service_action", "name action", _act_as_asked, deed="run that action of the service")
register_blind("service_restart", "name", _act("restart"), deed="restart the service")
register_blind("service_reload", "name", _act("reload"), deed="reload the service")
register_blind("service_start", "name", _act("start"), deed="start the service")
register_blind("service_stop", "name", _act("stop"), deed="stop the service")
register_blind(
    "service_restart_if", "name expression", _restart_if, deed="restart the service", prefix="service_restart"
)
