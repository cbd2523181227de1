# SPDX-License-Identifier: Apache-2.0
"""Archives of policies as they were made last, kept so that who asks again costs no packing.

They lie in open files without names, so that nothing of them is left behind however the process ends. What is in them:
`formats/policy_archives.py`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from quarterdeck.formats import policy_archives
from quarterdeck.relaying.copies import PolicyCopy

MOST = 64
MOST_BYTES = 256 * 1024 * 1024
_HASH = "sha256"


class Archive(NamedTuple):
    """An open file, and its SHA-256 in hex."""

    descriptor: int
    size: int
    digest: str


@dataclass(kw_only=True)
class Archives:
    """Those that were asked for last, at most so many and so many bytes. Safe for threads.

    They lie in `directory`; `key` (PEM) is what the policies' signature is checked with.
    """

    directory: Path
    key: str
    most: int = MOST
    most_bytes: int = MOST_BYTES
    _kept: OrderedDict[bytes, Archive] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def open(self, policy: PolicyCopy, resources: Iterable[tuple[str, bytes]]) -> Archive:
        """The archive of a policy; whoever has it closes its descriptor. Raises OSError, and what `resources` raises.

        These are digest and content of the files that the policy names, in order; nothing is taken when the archive is
        kept.
        """
        # The policy names its files by their SHA-256, so that two archives of equal policies are equal.
        known = hashlib.sha256(policy.body + b"\0" + policy.signature.encode()).digest()
        return self._opened(known) or self._made(known, policy, resources)

    def close(self) -> None:
        """Keep none of them any more."""
        with self._lock:
            self._drop(0, 0)

    def _opened(self, known: bytes) -> Archive | None:
        with self._lock:
            kept = self._kept.get(known)
            if kept is None:
                return None
            self._kept.move_to_end(known)
            return kept._replace(descriptor=os.dup(kept.descriptor))

    def _made(self, known: bytes, policy: PolicyCopy, resources: Iterable[tuple[str, bytes]]) -> Archive:
        with tempfile.TemporaryFile(dir=self.directory) as file:
            policy_archives.pack(file, policy.body, policy.signature, self.key, resources)
            size = file.tell()
            file.seek(0)
            made = Archive(os.dup(file.fileno()), size, hashlib.file_digest(file, _HASH).hexdigest())
            if size <= self.most_bytes:
                self._keep(known, made)
            return made

    def _keep(self, known: bytes, made: Archive) -> None:
        with self._lock:
            if known not in self._kept:  # else somebody else made it, too
                self._kept[known] = made._replace(descriptor=os.dup(made.descriptor))
                self._drop(self.most, self.most_bytes)

    def _drop(self, most: int, most_bytes: int) -> None:
        """Forget those that nobody asked for lately; who reads one now goes on reading."""
        while self._kept and (len(self._kept) > most or sum(one.size for one in self._kept.values()) > most_bytes):
            _, kept = self._kept.popitem(last=False)
            os.close(kept.descriptor)
