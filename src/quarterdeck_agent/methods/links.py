# SPDX-License-Identifier: Apache-2.0
"""Methods that keep a symbolic link; with force, or enforce=true, it replaces the file or link in its way."""

from __future__ import annotations

import contextlib
import os

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


def _audit(call: MethodCall) -> Finding:
    path, wanted = call["path"], call["source"]
    if os.path.islink(path):
        found = os.readlink(path)
        if found == wanted:
            return outcome.compliant(f"{path} points to {wanted}.")
        return outcome.drift(f"{path} points to {found}; {wanted} is expected.")
    if os.path.lexists(path):
        return outcome.drift(f"{path} is no symbolic link; a link to {wanted} is expected.")
    return outcome.drift(f"{path} does not exist; a link to {wanted} is expected.")


def _link(call: MethodCall) -> Finding:
    if os.path.lexists(call["path"]):
        return outcome.error(f"{call['path']} already exists and is not replaced without force.")
    os.symlink(call["source"], call["path"])
    return outcome.compliant(f"{call['path']} was linked to {call['source']}.")


def _link_by_force(call: MethodCall) -> Finding:
    path = call["path"]
    if os.path.isdir(path) and not os.path.islink(path):
        return outcome.error(f"{path} is a directory and is not replaced by a link.")
    if os.path.isfile(path) and not os.path.islink(path):
        contents.back_up(path, call.backups)
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.quarterdeck-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(call["source"], temporary)
    os.replace(temporary, path)
    return outcome.compliant(f"{path} was linked to {call['source']}.")


def _forced(call: MethodCall) -> bool:
    choice = call["enforce"].strip().lower()
    if choice not in ("true", "false"):
        raise UnableError(f"The parameter enforce must be true or false, not {call['enforce']}.")
    return choice == "true"


def _link_as_asked(call: MethodCall) -> Finding:
    return _link_by_force(call) if _forced(call) else _link(call)


register("file_symlink_present", "source path", _audit, _link, value="path")
register(
    "file_symlink_present_force", "source path", _audit, _link_by_force, value="path", prefix="file_symlink_present"
)
register(
    "file_symlink_present_option",
    "source path enforce",
    _audit,
    _link_as_asked,
    value="path",
    prefix="file_symlink_present",
)
