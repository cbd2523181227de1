# SPDX-License-Identifier: Apache-2.0
"""Contents that a relay mirrors, each a file under its SHA-256 and fetched once: `ab/abcd…`.

Whose contents they are, and which are needed, others say: the shared folder, and the files of techniques.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Container
from pathlib import Path
from typing import Any

from quarterdeck.core.errors import Unavailable
from quarterdeck.relaying import kept_files
from quarterdeck.relaying.links import Link


class Contents:
    """One directory of them. Safe for threads: a content is there whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept_files.sweep(directory)

    def path(self, digest: str) -> Path:
        """Where a content lies, or would lie."""
        return self._directory / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether it is here."""
        return self.path(digest).exists()

    def fetch(self, link: Link, target: str, digest: str, size: int, *, modified_ns: int | None = None) -> None:
        """Fetch a content that is not here. Raises Unavailable, also for another content, or when it cannot be kept."""
        try:
            self._fetch(link, target, digest, size, modified_ns)
        except OSError as error:
            raise _not_kept(error) from error

    def _fetch(self, link: Link, target: str, digest: str, size: int, modified_ns: int | None) -> None:
        place = self.path(digest)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=kept_files.UNFINISHED, dir=self._directory)
        temporary = Path(name)
        try:
            with _Disk(descriptor, "w+b") as file:
                link.download(target, file, size)
                file.seek(0)
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise Unavailable("It changed while it was fetched.")
                os.fsync(file.fileno())
            if modified_ns is not None:
                os.utime(temporary, ns=(modified_ns, modified_ns))
            temporary.rename(place)
        finally:
            temporary.unlink(missing_ok=True)

    # -- what is here --------------------------------------------------------------------------

    def digests(self) -> list[str]:
        """Those that are here."""
        return [found.name for found in self._directory.glob("??/*")]

    def keep_only(self, needed: Container[str], among: list[str] | None = None) -> None:
        """Remove others, or those others `among` some. Who reads one now goes on reading."""
        for digest in self.digests() if among is None else among:
            if digest not in needed:
                self.path(digest).unlink(missing_ok=True)


class _Disk(io.FileIO):
    """A file whose faults are not taken for those of the server that it is downloaded from."""

    def write(self, piece: Any) -> int:
        """All of it, where the system would perhaps write a part. Raises Unavailable."""
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            raise _not_kept(error) from error
        return len(piece)


def _not_kept(error: OSError) -> Unavailable:
    return Unavailable(f"It cannot be kept here: {error.strerror}.", detail=str(error))
