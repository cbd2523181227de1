# SPDX-License-Identifier: Apache-2.0
"""The state directory: everything the agent remembers between two runs.

    node.id node.key node.cert   identity              settings.json  what enrolment settled
    policy                       last verified policy  memory.json    counters and times
    queue/                       parcels to send       refused/       parcels the server will never take
    backups/ persistent/         kept by methods       resources/     files of techniques
    history.jsonl                the last runs         orders/        which commands came
    lock

Every file is replaced atomically, so a crash leaves the old one or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from typing import Any, Dict, List, Optional, Tuple

from quarterdeck_agent import keys, storing
from quarterdeck_agent.errors import AgentError, Locked, NotEnrolled

DEFAULT_PATH = "/var/lib/quarterdeck-agent"
ENVIRONMENT = "QUARTERDECK_AGENT_STATE"
HISTORY_RUNS = 100
MAX_BACKUP_BYTES = 256 * 1024 * 1024


class Settings(Dict[str, str]):
    """What enrolment settled: server (URL), pin (`sha256//...` or ""), policy_key (PEM), status."""

    @property
    def server(self) -> str:
        return self.get("server", "")

    @property
    def pin(self) -> str:
        return self.get("pin", "")

    @property
    def policy_key(self) -> str:
        return self.get("policy_key", "")


class StateDirectory:
    """Paths and small documents of one state directory. Raises AgentError when it cannot be used."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            found = os.stat(self.path)
            if found.st_uid not in (0, os.geteuid()):
                raise AgentError(
                    f"{self.path} belongs to user {found.st_uid}, who could give this node another server; "
                    "the agent's state needs a directory of its own."
                )
            if found.st_mode & 0o022:
                raise AgentError(f"Others can write to {self.path}; the agent's state needs a directory of its own.")
            for name in ("queue", "refused", "backups", "persistent"):
                os.makedirs(self.at(name), mode=0o700, exist_ok=True)
        except OSError as error:
            raise AgentError(
                f"The state directory {self.path} cannot be used ({error.strerror}); "
                "run as root, or give another one with --state-dir."
            ) from error

    def at(self, name: str) -> str:
        """The path of `name` inside the directory."""
        return os.path.join(self.path, name)

    def node_id(self) -> str:
        """The node's id, made at first use.

        A malformed one is kept beside under another name and replaced: by the id the certificate
        names, so that the node stays itself, else by a new one.
        """
        path, stored = self.at("node.id"), self.stored_node_id()
        if is_node_id(stored):
            return stored
        if stored:
            os.replace(path, self.at(f"node.id.malformed-{int(time.time())}"))
        certificate = _read(self.at(keys.CERTIFICATE_FILE)).decode(errors="replace")
        node = keys.certified_node(certificate) or ""
        if not is_node_id(node):
            node = str(uuid.uuid4())
        storing.write(path, (node + "\n").encode(), mode=0o644)
        return node

    def stored_node_id(self) -> str:
        """What the node's id file holds, well formed or not; empty when there is none."""
        return _read(self.at("node.id")).decode(errors="replace").strip()

    def set_node_id(self, node: str) -> None:
        """Give the node an id chosen elsewhere. Raises AgentError when it is not a lower-case UUID."""
        if not is_node_id(node):
            raise AgentError(f"{node!r} is not a node id; it must be a lower-case UUID.")
        storing.write(self.at("node.id"), (node + "\n").encode(), mode=0o644)

    def settings(self) -> Settings:
        """What enrolment settled. Raises NotEnrolled before that."""
        found = Settings(self._document("settings.json"))
        if not found.server:
            raise NotEnrolled("This node is not enrolled; run `quarterdeck-agent enroll --server URL …` first.")
        return found

    def save_settings(self, settings: Dict[str, str]) -> None:
        """Replace what enrolment settled."""
        self._save("settings.json", dict(settings))

    def memory(self) -> Dict[str, Any]:
        """Counters and times: last_inventory, last_update, runs_since_full, full_config_id, service_minutes.

        Nothing in it is worth stopping for: a damaged file counts as empty.
        """
        try:
            return self._document("memory.json")
        except AgentError:
            return {}

    def remember(self, **values: Any) -> None:
        """Change some of `memory`."""
        known = self.memory()
        if {**known, **values} != known:
            self._save("memory.json", {**known, **values})

    def forget(self, name: str) -> None:
        """Remove one of `memory`."""
        known = self.memory()
        if known.pop(name, None) is not None:
            self._save("memory.json", known)

    def policy(self) -> Optional[Tuple[Dict[str, str], bytes]]:
        """The cached policy: {"signature", "etag"} and its exact bytes; None when there is none."""
        line, found, body = _read(self.at("policy")).partition(b"\n")
        try:
            header = json.loads(line) if found else None
        except ValueError:
            header = None
        return (header, body) if isinstance(header, dict) else None

    def save_policy(self, signature: str, etag: str, body: bytes) -> None:
        """Cache a policy that has been verified; header and bytes change together."""
        line = json.dumps({"signature": signature, "etag": etag}).encode()
        storing.write(self.at("policy"), line + b"\n" + body)

    def history(self) -> List[Dict[str, Any]]:
        """The last runs, oldest first: run_id, start, seconds, config_id, mode, counts."""
        runs = []
        for line in _read(self.at("history.jsonl")).splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                runs.append(entry)
        return runs

    def add_history(self, entry: Dict[str, Any]) -> None:
        """Append a run and forget those beyond HISTORY_RUNS."""
        kept = [*self.history(), entry][-HISTORY_RUNS:]
        lines = "".join(json.dumps(run, sort_keys=True) + "\n" for run in kept)
        storing.write(self.at("history.jsonl"), lines.encode())

    def clean(self) -> int:
        """Remove what interrupted writes left; only while holding the lock. How many files there were.

        Backups beyond MAX_BACKUP_BYTES go too, oldest first, uncounted.
        """
        storing.trim(self.at("backups"), MAX_BACKUP_BYTES)
        return storing.remove_leftovers(self.path) + storing.remove_leftovers(self.at("queue"))

    def lock(self) -> RunLock:
        """The run lock, not taken yet."""
        return RunLock(self.at("lock"))

    def _document(self, name: str) -> Dict[str, Any]:
        data = _read(self.at(name))
        if not data:
            return {}
        try:
            document = json.loads(data)
        except ValueError as error:
            raise AgentError(f"{self.at(name)} is not JSON ({error}); remove it or enrol again.") from error
        if not isinstance(document, dict):
            raise AgentError(f"{self.at(name)} is not a JSON object; remove it or enrol again.")
        return document

    def _save(self, name: str, document: Dict[str, Any]) -> None:
        storing.write(self.at(name), json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


class RunLock:
    """One run at a time; the kernel lets go when the process ends, however it ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> RunLock:  # noqa: PYI034  Self is newer than Python 3.9
        """Take the lock. Raises Locked, naming the process that holds it."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder, since = self.holder()
            os.close(self._descriptor)
            raise Locked(f"Another run is under way (process {holder}, for {since} s).") from error
        with contextlib.suppress(OSError):  # a full disk must not stop a run; only the message to others gets poorer
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {int(time.time())}\n".encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def holder(self) -> Tuple[str, int]:
        """Process id and age in seconds of whoever took the lock last."""
        pid, _, since = _read(self._path).decode(errors="replace").strip().partition(" ")
        return pid or "unknown", max(0, int(time.time()) - int(since)) if since.isdigit() else 0


def is_node_id(text: str) -> bool:
    """Whether `text` is a lower-case UUID with hyphens."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def default_path() -> str:
    """The state directory when the command line names none."""
    return os.environ.get(ENVIRONMENT) or DEFAULT_PATH


def _read(path: str) -> bytes:
    """The file's content, empty when there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return b""
