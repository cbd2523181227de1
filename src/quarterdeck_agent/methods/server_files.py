# SPDX-License-Identifier: Apache-2.0
"""Methods that exchange files with the node's own server: from its shared folder, to and from other nodes.

The audit compares digests; nothing is fetched or sent before a repair.
"""

from __future__ import annotations

import hashlib
import os
from typing import Optional

from quarterdeck_agent import outcome
from quarterdeck_agent.errors import AgentError
from quarterdeck_agent.exchange import MAX_SHARED_BYTES, Exchange
from quarterdeck_agent.methods import contents
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, Look, MethodCall

_SERVED = ("sha256", "sha512")


def _server(call: MethodCall) -> Exchange:
    if call.server is None:
        raise UnableError("There is no server to exchange files with in this run.")
    return call.server


def _digest(path: str, algorithm: str) -> str:
    """The digest of a file; empty when there is none."""
    if not os.path.lexists(path):
        return ""
    if not os.path.isfile(path):
        raise UnableError(f"{path} is not a regular file.")
    digest = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        for piece in iter(lambda: stream.read(1024 * 1024), b""):
            digest.update(piece)
    return digest.hexdigest()


def _heard(look: Look) -> Look:
    """What the server refuses, or its silence, is this component's error."""

    def hearing(call: MethodCall) -> Finding:
        try:
            return look(call)
        except AgentError as problem:
            raise UnableError(str(problem)) from problem

    return hearing


# -- the shared folder -------------------------------------------------------------------


def _audit_folder(call: MethodCall) -> Finding:
    source, path = call["source"], call["path"]
    wanted = call["hash_type"].strip().lower()
    algorithm = wanted if wanted in _SERVED else _SERVED[0]  # any tells whether two files are the same
    digest = _digest(path, algorithm)
    same = _server(call).folder_has(source, digest, algorithm)
    if same is None:
        raise UnableError(f"The server has no file {source} in its shared folder.")
    if not digest:
        return outcome.drift(f"{path} does not exist; it comes from {source} of the shared folder.")
    if same:
        return outcome.compliant(f"{path} is a copy of {source} of the shared folder.")
    return outcome.drift(f"{path} differs from {source} of the shared folder.")


def _enforce_folder(call: MethodCall) -> Finding:
    source, server = call["source"], _server(call)
    contents.replace(call["path"], lambda stream: server.fetch_from_folder(source, stream), call.backups)
    return outcome.compliant(f"{call['path']} was fetched from {source} of the shared folder.")


# -- from node to node -------------------------------------------------------------------


def _audit_to(call: MethodCall) -> Finding:
    server, path = _server(call), _absolute(call)
    digest = _digest(path, "sha512")
    if not digest:
        raise UnableError(f"{path} does not exist, so it cannot be shared.")
    if server.is_shared(call["remote_node"], server.node, call["file_id"], digest):
        return outcome.compliant(f"{path} is shared with node {call['remote_node']} as {call['file_id']}.")
    return outcome.drift(f"{path} is not shared with node {call['remote_node']} as {call['file_id']}, or was changed.")


def _enforce_to(call: MethodCall) -> Finding:
    path = _absolute(call)
    if os.path.getsize(path) > MAX_SHARED_BYTES:
        raise UnableError(f"{path} is longer than the {MAX_SHARED_BYTES} bytes that can be shared.")
    content = contents.read(path)
    if content is None:
        raise UnableError(f"{path} does not exist, so it cannot be shared.")
    _server(call).share(call["remote_node"], call["file_id"], call["ttl"], content)
    return outcome.compliant(f"{path} was shared with node {call['remote_node']} as {call['file_id']}.")


def _audit_from(call: MethodCall) -> Finding:
    server, path = _server(call), _absolute(call)
    digest = _digest(path, "sha512")
    if digest and server.is_shared(server.node, call["remote_node"], call["file_id"], digest):
        return outcome.compliant(f"{path} is the file {call['file_id']} of node {call['remote_node']}.")
    found: Optional[str] = "differs from" if digest else "does not exist; it is"
    return outcome.drift(f"{path} {found} the file {call['file_id']} that node {call['remote_node']} shares.")


def _enforce_from(call: MethodCall) -> Finding:
    server, source, name = _server(call), call["remote_node"], call["file_id"]
    contents.replace(_absolute(call), lambda stream: server.fetch_shared(source, name, stream), call.backups)
    return outcome.compliant(f"{call['file_path']} was fetched: the file {name} of node {source}.")


def _absolute(call: MethodCall) -> str:
    path = call["file_path"]
    if not path.startswith("/") or "\0" in path:
        raise UnableError(f"The path {path} must be absolute.")
    return path


register(
    "file_from_shared_folder", "source path hash_type?", _heard(_audit_folder), _heard(_enforce_folder), value="path"
)
register(
    "sharedfile_to_node", "remote_node file_id file_path ttl", _heard(_audit_to), _heard(_enforce_to), value="file_id"
)
register(
    "sharedfile_from_node", "remote_node file_id file_path", _heard(_audit_from), _heard(_enforce_from), value="file_id"
)
