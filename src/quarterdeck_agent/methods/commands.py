# SPDX-License-Identifier: Apache-2.0
"""Methods that run a command line of the policy with /bin/sh.

What a command does is unknown, so that none runs in audit mode, except the one of
`audit_from_command`, whose whole purpose is to look. Conditions and variables from commands are in
conditions.py and variables.py.
"""

from __future__ import annotations

import os
import pwd
import time

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import markers, processes
from quarterdeck_agent.methods.processes import Account, Outcome, exit_codes
from quarterdeck_agent.methods.registration import register, register_blind
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


def _audit(call: MethodCall) -> Finding:
    codes = exit_codes(call["compliant_codes"])
    done = processes.shell(call["command"])
    text = f"{call['command']} returned {done.code}{done.told}"
    return outcome.compliant(text) if done.code in codes else outcome.drift(text)


def _judged(command: str, done: Outcome, *, kept: bool = False, repaired: bool = False) -> Finding:
    text = f"{command} returned {done.code}{done.told}"
    if kept:
        return outcome.compliant(text)
    return outcome.repaired(text) if repaired else outcome.error(text)


def _execute(call: MethodCall) -> Finding:
    done = processes.shell(call["command"])
    return _judged(call["command"], done, repaired=done.code == 0)


def _execute_for_result(call: MethodCall) -> Finding:
    kept, repaired = exit_codes(call["kept_codes"]), exit_codes(call["repaired_codes"])
    done = processes.shell(call["command"])
    return _judged(call["command"], done, kept=done.code in kept, repaired=done.code in repaired)


def _execute_once(call: MethodCall) -> Finding:
    until, name = call["until"].strip() or "any", call["unique_id"] or call["command"]
    if until not in ("any", "ok"):
        raise UnableError(f"The parameter until must be any or ok, not {until}.")
    codes = exit_codes(call["ok_codes"] or "0")
    ran = markers.get(call, "commands", name)
    if ran is not None:
        return outcome.compliant(f"{call['command']} ran at {ran} and does not run again.")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if until == "any":  # before it runs: a command that ends the machine must not run twice
        markers.put(call, "commands", name, now)
    done = processes.shell(call["command"])
    if until == "ok" and done.code in codes:
        markers.put(call, "commands", name, now)
    return _judged(call["command"], done, repaired=done.code in codes)


def account(name: str) -> Account:
    """The account a command runs under, with all its groups. Raises UnableError."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError as problem:
        raise UnableError(f"There is no account {name}.") from problem
    if os.geteuid() not in (0, entry.pw_uid):
        raise UnableError(f"Only root can run a command as {name}.")
    groups = os.getgrouplist(name, entry.pw_gid)
    return Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, name)


def _execute_as_user(call: MethodCall) -> Finding:
    done = processes.shell(call["command"], account(call["user"]))
    return _judged(call["command"], done, repaired=done.code == 0)


_DEED = "run the command"

register("audit_from_command", "command compliant_codes", _audit)
register_blind("command_execution", "command", _execute, deed=_DEED)
register_blind("command_execution_result", "command kept_codes repaired_codes", _execute_for_result, deed=_DEED)
register_blind("command_execution_once", "command ok_codes? until? unique_id?", _execute_once, deed=_DEED)
register_blind("command_execution_as_user", "command user", _execute_as_user, deed=_DEED)
