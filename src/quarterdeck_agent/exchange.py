# SPDX-License-Identifier: Apache-2.0
"""Files that the node's own server has: those of its shared folder, and those that nodes give to each other.

They travel over the server's relay API, in requests that the node signs like all others.
"""

from __future__ import annotations

import base64
import hashlib
import time
from typing import IO, Dict, Optional
from urllib.parse import quote, quote_plus

from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import Refused, Unreachable
from quarterdeck_agent.facts import full_hostname
from quarterdeck_agent.keys import Key

_PREFIX = "/rudder/relay-api/1"
#: Longest file that is shared with another node: it is held in memory to be signed.
MAX_SHARED_BYTES = 50 * 1024 * 1024 - 64 * 1024


class Exchange:
    """What methods ask the server for. Everything raises Refused, Unreachable, Untrusted."""

    def __init__(self, client: Client, key: Key, node: str) -> None:
        self._client = client
        self._key = key
        self._node = node

    def folder_has(self, source: str, digest: str, algorithm: str) -> Optional[bool]:
        """Whether a file of the shared folder has this digest (hex); None when there is no such file."""
        query = f"?hash={digest}&hash_type={algorithm}" if digest else ""
        status = self._look(f"{_folder(source)}{query}")
        return None if status == 404 else status == 304

    def fetch_from_folder(self, source: str, target: IO[bytes]) -> None:
        """Write a file of the shared folder into a stream."""
        self._client.download(_folder(source), target)

    def list_folder(self, source: str, levels: Optional[int]) -> Optional[Dict[str, str]]:
        """What is at a path of the shared folder, to `levels` below it (None: all); None when there is nothing.

        By path below the source ("" for itself): the SHA-256 of a file (hex), or "" for a directory. Every path stays
        below the source, whoever answers.
        """
        depth = "inf" if levels is None else str(levels)
        try:
            document = self._client.document(f"{_PREFIX}/shared-folder-tree/{quote(source.strip('/'))}?depth={depth}")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        entries = document.get("entries")
        if not isinstance(entries, dict) or not all(_stays_below(path) for path in entries):
            raise Unreachable("The server did not list its shared folder as agreed.")
        return {path: str(digest) for path, digest in entries.items()}

    def is_shared(self, target: str, source: str, name: str, digest: str) -> bool:
        """Whether a file that one node gives another has this SHA-512 (hex) already."""
        return self._look(f"{_shared(target, source, name)}?hash={digest}") == 200

    def share(self, target: str, name: str, ttl: str, content: bytes) -> None:
        """Give a file to another node for a time."""
        lines = {
            "header": "rudder-signature-v1",
            "algorithm": "sha512",
            "digest": self._key.sign(content).hex(),
            "hash_value": hashlib.sha512(content).hexdigest(),
            "short_pubkey": "".join(self._key.public_pem().strip().splitlines()[1:-1]),
            "hostname": full_hostname(),
            "keydate": time.strftime("%Y-%m-%d %H:%M:%S +0000", time.gmtime()),
            "keyid": hashlib.sha256(base64.b64encode(self._key.public_pem().encode())).hexdigest()[:8].upper(),
        }
        head = "".join(f"{key}={value}\n" for key, value in lines.items())
        path = f"{_shared(target, self._node, name)}?ttl={quote_plus(ttl)}"
        self._client.put(path, head.encode() + b"\n" + content)

    def fetch_shared(self, source: str, name: str, target: IO[bytes]) -> None:
        """Write a file that another node gives this one into a stream."""
        path = f"{_PREFIX}/own-shared-files/{quote(source, safe='')}/{quote(name, safe='')}"
        self._client.download(path, target)

    @property
    def node(self) -> str:
        """The id of this node."""
        return self._node

    def _look(self, path: str) -> int:
        """The status of a HEAD request that finds something or not."""
        try:
            return self._client.head(path)
        except Refused as refusal:
            if refusal.status == 404:
                return 404
            raise


def _folder(source: str) -> str:
    return f"{_PREFIX}/shared-folder/{quote(source.strip('/'))}"


def _stays_below(path: str) -> bool:
    if not path:
        return True
    return "\0" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def _shared(target: str, source: str, name: str) -> str:
    return f"{_PREFIX}/shared-files/{quote(target, safe='')}/{quote(source, safe='')}/{quote(name, safe='')}"
