# SPDX-License-Identifier: Apache-2.0
"""A relay's copy of the agent's file, as the root has and signed it: what machines that enrol through it download.

Before the first copy came, the agent of the relay's own installation stands in; it carries no signature.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.formats import agent, signature
from quarterdeck.relaying import kept_files
from quarterdeck.relaying.copies import refusal
from quarterdeck.relaying.links import Link

log = logging.getLogger(__name__)


class AgentFile(NamedTuple):
    """The agent as one file; the root's signature is base64, empty when there is none."""

    body: bytes
    digest: str
    signature: str = ""


class _Kept(msgspec.Struct, frozen=True):
    signature: str
    body: bytes


class AgentCopy:
    """One copy. `policy_key` (PEM) is the root's; `own` gives the file that stands in. Safe for threads."""

    def __init__(self, path: Path, link: Link, policy_key: str, own: Callable[[], bytes]) -> None:
        self._path = path
        self._link = link
        self._policy_key = policy_key
        self._own = own
        self._file = self._load()

    def file(self) -> AgentFile:
        """What machines get now."""
        if self._file is None:
            body = self._own()
            self._file = AgentFile(body, agent.digest(body))
        return self._file

    def refresh(self) -> bool:
        """Fetch the file if it changed; whether it did. Raises Unavailable, also for one that the root did not sign."""
        present = self.file()
        condition = {"If-None-Match": f'"{present.digest}"'} if present.signature else {}
        told = self._link.ask("GET", agent.PATH_AGENT_FILE, b"", condition)
        if told.status == 304 and condition:
            return False
        if told.status != 200:
            raise Unavailable(refusal(agent.PATH_AGENT_FILE, told))
        kept = _Kept(told.headers.get(agent.HEADER_SIGNATURE.lower(), ""), told.body)
        fresh = self._verified(kept)
        if fresh is None:
            raise Unavailable("The agent that the server above gives is not signed by the root.")
        kept_files.replace(self._path, msgspec.msgpack.encode(kept))
        self._file = fresh
        return fresh.digest != present.digest

    def _load(self) -> AgentFile | None:
        body = kept_files.content(self._path)
        if body is None:
            return None
        try:
            found = self._verified(msgspec.msgpack.decode(body, type=_Kept))
        except msgspec.MsgspecError:
            found = None
        if found is None:
            log.warning("The copy of the agent cannot be used; it is fetched anew.")
        return found

    def _verified(self, kept: _Kept) -> AgentFile | None:
        digest = agent.digest(kept.body)
        try:
            signed = signature.decode_base64(kept.signature)
            is_ours = signature.verify(self._policy_key, agent.agent_file_message(digest), signed)
        except Invalid:
            return None
        return AgentFile(kept.body, digest, kept.signature) if is_ours else None
