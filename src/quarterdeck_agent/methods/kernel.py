# SPDX-License-Identifier: Apache-2.0
"""Methods on kernel parameters, kernel modules and the environment that all sessions get."""

from __future__ import annotations

import os
import re
from typing import Optional, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, key_values, processes, system, texts
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.methods.texts import Text
from quarterdeck_agent.outcome import Finding, MethodCall

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def _text_of(path: str) -> Optional[Text]:
    data = contents.read(path)
    return None if data is None else texts.parse(data)


def _live(key: str) -> str:
    """Path of a kernel parameter; `net.ipv4.conf.eth0/100.mtu` and `net/ipv4/...` are both understood."""
    swap = "/" not in key or (0 <= key.find(".") < key.find("/"))
    inside = key.translate(str.maketrans("./", "/.")) if swap else key
    path = os.path.normpath(system.path(f"/proc/sys/{inside}"))
    if not path.startswith(system.path("/proc/sys/")):
        raise UnableError(f"{key} is not the name of a kernel parameter.")
    return path


def _sysctl(call: MethodCall) -> Tuple[str, str, bytes, Optional[bytes]]:
    """Wanted value, found value, wanted and found content of the file that keeps it."""
    with open(_live(call["key"]), encoding="utf-8", errors="surrogateescape") as stream:
        found = " ".join(stream.read().split())
    wanted = _bounded(call, " ".join(call["value"].split()), found)
    before = contents.read(_sysctl_file(call))
    text = texts.parse(before) if before is not None else Text()
    return wanted, found, texts.render(key_values.with_key(text, call["key"], " = ", wanted, lax=True)), before


def _bounded(call: MethodCall, wanted: str, found: str) -> str:
    option = call["option"].strip().lower() or "default"
    if option == "default":
        return wanted
    if option not in ("min", "max"):
        raise UnableError(f"The parameter option must be default, min or max, not {option}.")
    try:
        return str((max if option == "min" else min)(int(wanted), int(found)))
    except ValueError as problem:
        raise UnableError(f"{option} needs numbers; wanted is {wanted}, found is {found}.") from problem


def _sysctl_file(call: MethodCall) -> str:
    if not _FILE_NAME.fullmatch(call["filename"]):
        raise UnableError(f"{call['filename']} is not a file name without a path.")
    return system.path(f"/etc/sysctl.d/{call['filename']}.conf")


def _audit_sysctl(call: MethodCall) -> Finding:
    wanted, found, content, before = _sysctl(call)
    if found != wanted:
        return outcome.drift(f"{call['key']} is {found}; {wanted} is expected.")
    if content != before:
        return outcome.drift(f"{call['key']} is {found}, but {_sysctl_file(call)} does not keep it.")
    return outcome.compliant(f"{call['key']} is {found}, now and at boot.")


def _set_sysctl(call: MethodCall) -> Finding:
    wanted, found, content, before = _sysctl(call)
    if found != wanted:  # first: the kernel refuses what it does not like, and that must not be kept
        with open(_live(call["key"]), "w", encoding="utf-8") as stream:
            stream.write(f"{wanted}\n")
    if content != before:
        os.makedirs(os.path.dirname(_sysctl_file(call)), exist_ok=True)
        contents.write(_sysctl_file(call), content, call.backups, contents.PUBLIC)
    return outcome.compliant(f"{call['key']} was set to {wanted}.")


def _module(call: MethodCall) -> str:
    """The module's name as the kernel lists it. Raises UnableError."""
    if not _NAME.fullmatch(call["name"]):
        raise UnableError(f"{call['name']} is not the name of a kernel module.")
    return call["name"].replace("-", "_")


def _loaded(call: MethodCall) -> bool:
    name = _module(call)
    if os.path.isdir(system.path(f"/sys/module/{name}")):
        return True
    try:
        with open(system.path("/proc/modules"), encoding="utf-8", errors="replace") as stream:
            return any(line.split(" ", 1)[0] == name for line in stream)
    except FileNotFoundError as problem:
        raise UnableError("This node's kernel has no loadable modules.") from problem


def _audit_loaded(call: MethodCall) -> Finding:
    if _loaded(call):
        return outcome.compliant(f"The module {call['name']} is loaded.")
    return outcome.drift(f"The module {call['name']} is not loaded.")


def _audit_not_loaded(call: MethodCall) -> Finding:
    if _loaded(call):
        return outcome.drift(f"The module {call['name']} is loaded; it should not be.")
    return outcome.compliant(f"The module {call['name']} is not loaded.")


def _load(call: MethodCall) -> Finding:
    processes.act(system.tool("modprobe"), "--", call["name"])
    return outcome.compliant(f"The module {call['name']} was loaded.")


def _unload(call: MethodCall) -> Finding:
    processes.act(system.tool("modprobe"), "--remove", "--", call["name"])
    return outcome.compliant(f"The module {call['name']} was unloaded.")


def _at_boot(call: MethodCall, text: Optional[Text]) -> Text:
    name, found = _module(call), text or Text()
    listed = [body.strip().replace("-", "_") for body in found.bodies()]
    return found if name in listed else found.appended([call["name"]])


def _configured(call: MethodCall, text: Optional[Text]) -> Text:
    wanted, found = " ".join(call["configuration"].split()), text or Text()
    words = ("options", "alias", "blacklist", "install", "remove", "softdep")
    if wanted.split(" ")[0] not in words:
        raise UnableError(f"The configuration must begin with one of {', '.join(words)}.")
    _module(call)
    there = any(" ".join(body.split()) == wanted for body in found.bodies())
    return found if there else found.appended([wanted])


def _variable_set(call: MethodCall, text: Optional[Text]) -> Text:
    name, value, found = call["name"], call["value"], text or Text()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\n" in value:
        raise UnableError(f"{name} is not the name of an environment variable, or its value has several lines.")
    plain = re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", value) is not None
    accepted = (f"{name}={value}", f'{name}="{value}"')
    mine = [body for body in found.bodies() if re.match(rf"\s*(export\s+)?{name}=", body)]
    if len(mine) == 1 and mine[0].strip() in accepted:
        return found
    return found.kept(lambda body: body not in mine).appended([accepted[0 if plain else 1]])


def _register_file(name: str, parameters: str, path: str, edit: texts.Edit) -> None:
    """Register a method that edits a system file; `{name}` in `path` is its parameter."""

    def plan(call: MethodCall) -> Tuple[str, Optional[bytes], bytes]:
        place = system.path(path.format(name=call["name"]))
        wanted = edit(call, _text_of(place))
        return place, contents.read(place), texts.render(wanted or Text())

    def audit(call: MethodCall) -> Finding:
        return texts.judge(*plan(call))

    def enforce(call: MethodCall) -> Finding:
        place, before, after = plan(call)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return texts.put(call, place, before, after, mode=contents.PUBLIC)

    register(name, parameters, audit, enforce)


register("sysctl_value", "key value filename option?", _audit_sysctl, _set_sysctl)
register("kernel_module_loaded", "name", _audit_loaded, _load)
register("kernel_module_not_loaded", "name", _audit_not_loaded, _unload)
_register_file("kernel_module_enabled_at_boot", "name", "/etc/modules-load.d/{name}.conf", _at_boot)
_register_file("kernel_module_configuration", "name configuration", "/etc/modprobe.d/{name}.conf", _configured)
_register_file("environment_variable_present", "name value", "/etc/environment", _variable_set)
