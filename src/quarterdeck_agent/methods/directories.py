# SPDX-License-Identifier: Apache-2.0
"""Methods that keep a directory or its absence. What is inside a directory is not judged here."""

from __future__ import annotations

import os

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import trees
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.outcome import Finding, MethodCall


def _present(call: MethodCall) -> Finding:
    path = call["path"]
    if os.path.isdir(path):
        return outcome.compliant(f"{path} is a directory.")
    if os.path.lexists(path):
        return outcome.error(f"{path} exists but is not a directory.")
    return outcome.drift(f"{path} does not exist; a directory is expected.")


def _create(call: MethodCall) -> Finding:
    os.makedirs(call["path"], exist_ok=True)
    return outcome.compliant(f"{call['path']} was created.")


def _absent(call: MethodCall) -> Finding:
    path, recursive = call["path"], trees.flag("recursive", call["recursive"])
    if not os.path.lexists(path):
        return outcome.compliant(f"{path} is absent.")
    if os.path.islink(path) or not os.path.isdir(path):
        return outcome.error(f"{path} is not a directory; file_absent removes files and links.")
    content = "with its content" if recursive else "when it is empty"
    return outcome.drift(f"{path} exists; it should be removed {content}.")


def _remove(call: MethodCall) -> Finding:
    path = os.path.normpath(call["path"])
    if path == "/" or os.path.ismount(path):
        return outcome.error(f"{path} is a mount point and is not removed.")
    if trees.flag("recursive", call["recursive"]):
        from shutil import rmtree  # it imports every compression library; few runs remove trees

        rmtree(path)
    else:
        os.rmdir(path)
    return outcome.compliant(f"{path} was removed.")


register("directory_present", "path", _present, _create)
register("directory_absent", "path recursive?", _absent, _remove)
