# SPDX-License-Identifier: Apache-2.0
"""Methods that exchange files with the node's own server: from its shared folder, to and from other nodes.

The audit compares digests; nothing is fetched or sent before a repair. Copies from "the policy server" are those of its
shared folder, which stands for the directory where policies written for Rudder expect such files; no other file of
the server is given to anybody. As with local copies, what is only in the target stays.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, Iterator, Optional, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.errors import AgentError
from quarterdeck_agent.exchange import MAX_SHARED_BYTES, Exchange
from quarterdeck_agent.methods import contents, system, trees
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, Look, MethodCall

_SERVED = ("sha256", "sha512")
#: Where policies written for Rudder expect what here is the shared folder.
_FOLDER = "/var/rudder/configuration-repository/shared-files"
#: Mode of a new directory; new files are nobody else's either.
_PRIVATE_DIRECTORY = 0o700


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


# -- copies of what the shared folder has, whole directories too --------------------------


def _folder_path(source: str) -> str:
    """A source as a path of the shared folder. Raises UnableError for one that is elsewhere on the server."""
    parts = [part for part in source.split("/") if part not in ("", ".")]
    above = _FOLDER.strip("/").split("/")
    if source.startswith("/"):
        if parts[: len(above)] != above:
            raise UnableError(f"{source} is not served: the server gives files of its shared folder only ({_FOLDER}).")
        parts = parts[len(above) :]
    if ".." in parts:
        raise UnableError(f"{source} is not served: it leads out of the server's shared folder.")
    return "/".join(parts)


def _copies(call: MethodCall) -> Iterator[Tuple[str, str, str]]:
    """Path in the shared folder, SHA-256 ("" for a directory) and target path of all that is to be copied."""
    source, levels = _folder_path(call["source"]), trees.depth(call["recursion"] or "0")
    entries = _server(call).list_folder(source, levels)
    if entries is None:
        raise UnableError(f"The server has no {call['source']} in its shared folder.")
    for inside in sorted(entries):  # a directory comes before what is in it
        yield (
            "/".join(part for part in (source, inside) if part),
            entries[inside],
            os.path.join(call["path"], inside) if inside else call["path"],
        )


def _difference(digest: str, target: str) -> str:
    """Why the target is no copy; empty when it is one. Raises UnableError when it cannot become one."""
    if not os.path.lexists(target):
        return f"{target} does not exist."
    if digest:
        return "" if _digest(target, "sha256") == digest else f"{target} differs from the server's."
    if not os.path.isdir(target):
        raise UnableError(f"{target} is not a directory, but the source is.")
    return ""


def _audit_copy(call: MethodCall) -> Finding:
    count = 0
    for _, digest, target in _copies(call):
        count += 1
        difference = _difference(digest, target)
        if difference:
            return outcome.drift(difference)
    return outcome.compliant(f"{call['path']} is a copy of the server's {call['source']} ({count} compared).")


def _enforce_copy(call: MethodCall) -> Finding:
    count = 0
    for source, digest, target in _copies(call):
        if _difference(digest, target):
            _copy(call, source, digest, target)
            count += 1
    return outcome.compliant(f"{count} of the server's {call['source']} copied to {call['path']}.")


def _copy(call: MethodCall, source: str, digest: str, target: str) -> None:
    if not digest:
        system.resolved(os.path.dirname(target))  # nobody's link leads this elsewhere
        os.mkdir(target, _PRIVATE_DIRECTORY)
        return
    server = _server(call)

    def fill(stream: IO[bytes]) -> None:
        hashed = _Hashed(stream)
        server.fetch_from_folder(source, hashed)  # type: ignore[arg-type]  # all it does is write
        if hashed.digest.hexdigest() != digest:
            raise UnableError(f"{source} of the shared folder changed while it was fetched.")

    contents.replace(target, fill, call.backups)


class _Hashed:
    """Writes into a stream, and hashes what it writes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, piece: bytes) -> int:
        self.digest.update(piece)
        return self._stream.write(piece)


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
register("file_from_remote_source", "source path", _heard(_audit_copy), _heard(_enforce_copy), value="path")
register(
    "file_from_remote_source_recursion",
    "source path recursion",
    _heard(_audit_copy),
    _heard(_enforce_copy),
    value="path",
    prefix="file_from_remote_source",
)
