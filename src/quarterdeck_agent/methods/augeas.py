# SPDX-License-Identifier: Apache-2.0
"""Methods that speak augeas, where a node has augtool: one value, raw commands, a variable from a value."""

from __future__ import annotations

from typing import List, Optional

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, processes, system, trees
from quarterdeck_agent.methods.registration import register, register_blind
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.variables import define
from quarterdeck_agent.outcome import Finding, MethodCall


def _augtool(call: MethodCall) -> List[str]:
    """Augtool with its options: one lens for one file, or all files it knows, which takes seconds."""
    argv = [system.tool("augtool")]
    if system.sysroot():
        argv += ["--root", system.sysroot()]
    lens, file = call["lens"].strip(), call["file"].strip()
    if lens and not file:
        raise UnableError("A lens needs the parameter file.")
    if lens:
        argv += ["--noautoload", "--transform", f"{lens} incl {file}"]
    elif file:
        argv += ["--load-file", file]
    return argv


def _quoted(text: str) -> str:
    """A word of an augeas command; augtool reads its arguments as one line."""
    if "\n" in text:
        raise UnableError("A value of augeas may not have several lines.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _get(call: MethodCall) -> Optional[str]:
    """The value at the call's path; None when there is no such node, empty when it has no value."""
    path = call["path"]
    done = processes.query(*_augtool(call), "get", _quoted(path))
    if done.code != 0:
        raise UnableError(f"augtool returned {done.code}{done.told}")
    answer = done.out.rstrip("\n")
    for line in answer.splitlines():
        if line == f"{path} (o)":
            return None
        if line == f"{path} (none)":
            return ""
    before, found, value = answer.partition(f"{path} = ")
    if not found or (before and not before.endswith("\n")):
        raise UnableError(f"The answer of augtool is not understood: {answer[:200]}.")
    return value


def _audit(call: MethodCall) -> Finding:
    path, wanted, found = call["path"], call["value"], _get(call)
    if found == wanted:
        return outcome.compliant(f"{path} is {wanted}.")
    return outcome.drift(f"{path} {'does not exist' if found is None else f'is {found}'}; {wanted} is expected.")


def _set(call: MethodCall) -> Finding:
    if call["file"].strip():
        contents.back_up(system.path(call["file"].strip()), call.backups)
    processes.act(*_augtool(call), "--autosave", "set", _quoted(call["path"]), _quoted(call["value"]))
    return outcome.compliant(f"{call['path']} was set to {call['value']}.")


def _commands(call: MethodCall) -> Finding:
    argv = [system.tool("augtool")] + (["--root", system.sysroot()] if system.sysroot() else [])
    if call["autoload"] and not trees.flag("autoload", call["autoload"]):
        argv.append("--noautoload")
    done = processes.act(*argv, stdin=call["commands"].rstrip("\n") + "\n")
    call.facts.variables[f"{call['variable_prefix']}.{call['variable_name']}"] = done.out
    text = f"The commands of augeas were run{done.told}"
    return outcome.repaired(text) if "Saved " in done.out else outcome.compliant(text)


def _variable(call: MethodCall) -> Finding:
    found = _get(call)
    if found is None:
        raise UnableError(f"{call['path']} does not exist.")
    return define(call, found)


register("file_augeas_set", "path value lens? file?", _audit, _set)
register_blind(
    "file_augeas_commands",
    "variable_prefix variable_name commands autoload?",
    _commands,
    deed="run the commands of augeas",
    value="variable_name",
)
register("variable_string_from_augeas", "prefix name path lens? file?", _variable, value="name")
