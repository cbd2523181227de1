# SPDX-License-Identifier: Apache-2.0
"""Methods that define conditions for the calls after them, and one that reports a condition.

`<condition>_true` or `<condition>_false` is defined, never both. Only what is remembered beyond the
run is a change: those two methods are blind, though they define their condition in audit mode too.
"""

from __future__ import annotations

import re
import time
from typing import Optional, Set

from quarterdeck_agent import outcome
from quarterdeck_agent.conditions import canonify, holds
from quarterdeck_agent.methods import markers, processes
from quarterdeck_agent.methods.processes import exit_codes
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall

_PERSISTENT = "conditions"
_ONCE = "once"


def _define(call: MethodCall, *, truth: bool) -> str:
    """Define the call's condition and tell so in a sentence."""
    name, other = ("true", "false") if truth else ("false", "true")
    stem = canonify(call["condition"])
    call.facts.conditions.discard(f"{stem}_{other}")
    call.facts.conditions.add(f"{stem}_{name}")
    return f"{stem}_{name} is defined"


def _from_command(call: MethodCall) -> Finding:
    true, false = exit_codes(call["true_codes"]), exit_codes(call["false_codes"])
    done = processes.shell(call["command"])
    if done.code not in true | false:
        return outcome.error(f"{call['command']} returned {done.code}, neither a true nor a false code{done.told}")
    return outcome.compliant(f"{_define(call, truth=done.code in true)}: {call['command']} returned {done.code}.")


def _from_expression(call: MethodCall) -> Finding:
    truth = holds(call["expression"], call.facts.conditions)
    return outcome.compliant(f"{_define(call, truth=truth)}: {call['expression']} is {'' if truth else 'not '}met.")


def persistent(state: str, now: Optional[float] = None) -> Set[str]:
    """The conditions that earlier runs keep in the state directory and that have not expired."""
    moment = time.time() if now is None else now
    return {f"{name}_true" for name, until in markers.all_of(state, _PERSISTENT) if _number(until) > moment}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _remembered(call: MethodCall) -> bool:
    return _number(markers.get(call, _PERSISTENT, canonify(call["condition"])) or "") > time.time()


def _look_at_persistent(call: MethodCall) -> Finding:
    truth = holds(call["expression"], call.facts.conditions) or _remembered(call)
    return outcome.not_applicable(f"{_define(call, truth=truth)} in this run; it is kept longer in enforce mode only.")


def _keep_persistent(call: MethodCall) -> Finding:
    minutes = call["duration"].strip()
    if not minutes.isdigit():
        raise UnableError(f"The parameter duration must be a number of minutes, not {minutes}.")
    if holds(call["expression"], call.facts.conditions):
        until = time.time() + 60 * int(minutes)
        known = _remembered(call)
        markers.put(call, _PERSISTENT, canonify(call["condition"]), f"{until:.0f}")
        text = f"{_define(call, truth=True)} for {minutes} minutes."
        return outcome.compliant(text) if known else outcome.repaired(text)
    kept = _remembered(call)
    return outcome.compliant(f"{_define(call, truth=kept)}: {call['expression']} is not met{' now' if kept else ''}.")


def _from_string_match(call: MethodCall) -> Finding:
    truth = re.fullmatch(call["regex"], call["value"], re.DOTALL) is not None
    return outcome.compliant(f"{_define(call, truth=truth)}.")


def _from_variable_existence(call: MethodCall) -> Finding:
    truth = call["variable_name"] in call.facts.variables
    return outcome.compliant(
        f"{_define(call, truth=truth)}: {call['variable_name']} {'exists' if truth else 'is undefined'}."
    )


def _from_variable_match(call: MethodCall) -> Finding:
    name = call["variable_name"]
    value = call.facts.variables.get(name)
    if not isinstance(value, str):
        text = "is undefined" if name not in call.facts.variables else "is not a text"
        return outcome.error(f"{_define(call, truth=False)}: {name} {text}.")
    truth = re.fullmatch(call["expected_match"], value, re.DOTALL) is not None
    return outcome.compliant(f"{_define(call, truth=truth)}.")


def _look_at_once(call: MethodCall) -> Finding:
    first = markers.get(call, _ONCE, canonify(call["condition"])) is None
    return outcome.not_applicable(f"{_define(call, truth=first)} in this run; it is remembered in enforce mode only.")


def _once(call: MethodCall) -> Finding:
    name = canonify(call["condition"])
    if markers.get(call, _ONCE, name) is not None:
        return outcome.compliant(f"{_define(call, truth=False)}: it was true in an earlier run.")
    markers.put(call, _ONCE, name, f"{time.time():.0f}")
    return outcome.repaired(f"{_define(call, truth=True)} for the first and only time.")


def _report_if(call: MethodCall) -> Finding:
    if holds(call["condition"], call.facts.conditions):
        return outcome.compliant(f"{call['report_message']} ({call['condition']} is met)")
    return outcome.drift(f"{call['report_message']} ({call['condition']} is not met)")


register("condition_from_command", "condition command true_codes false_codes", _from_command)
register("condition_from_expression", "condition expression", _from_expression)
register(
    "condition_from_expression_persistent",
    "condition expression duration",
    _look_at_persistent,
    _keep_persistent,
    blind=True,
)
register("condition_from_string_match", "condition value regex", _from_string_match)
register("condition_from_variable_existence", "condition variable_name", _from_variable_existence)
register("condition_from_variable_match", "condition variable_name expected_match", _from_variable_match)
register("condition_once", "condition", _look_at_once, _once, blind=True)
register("report_if_condition", "report_message condition", _report_if)
