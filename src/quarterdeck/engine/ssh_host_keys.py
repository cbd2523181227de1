# SPDX-License-Identifier: Apache-2.0
"""Which keys a host may show: files in OpenSSH's known_hosts format, found by name without reading every key.

A file is cut into lines once and again when it changes. Only the lines of a host are ever read as keys, so that ten
thousand known hosts cost a connection as little as one. Comparing keys is `ssh_links.py`'s.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.core.connections import Address
from quarterdeck.engine.ssh_access import NoWay

_logger = logging.getLogger(__name__)

_MARKERS = ("@cert-authority", "@revoked")
_SPECIAL = frozenset("*?!/")
#: Answers are remembered for this many names: a hashed file has to be hashed as a whole for each.
_REMEMBERED = 20_000


@dataclass(slots=True)
class _Lines:
    """The lines of all files by the way in which they name hosts. A line is its marker and its key."""

    exact: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    hashed: list[tuple[bytes, bytes, tuple[str, str]]] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)


class KnownHosts:
    """The known_hosts files of the server. `generation` rises with each change of a file."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self._paths = tuple(paths)
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._lines = _Lines()
        self.generation = 0

    def refresh(self) -> int:
        """Read the files if they have changed; the generation. Raises NoWay when one cannot be read."""
        if not self._paths:
            return 0
        try:
            seen = tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in map(Path.stat, self._paths))
            if seen != self._seen:
                self._lines = _read(self._paths)
                self._seen = seen
                self.generation += 1
        except OSError as error:
            raise NoWay("refused", f"The known_hosts file {error.filename} cannot be read: {error.strerror}") from error
        return self.generation

    def text_for(self, address: Address) -> str:
        """The lines of known_hosts that may concern the host, as a file that holds nothing else."""
        lines = [*self._named(address.host.lower())]
        if address.port != 22:
            lines += self._named(f"[{address.host.lower()}]:{address.port}")
        return "\n".join([*lines, *self._lines.patterns])

    def _named(self, name: str) -> list[str]:
        found = self._lines.found
        if name not in found:
            if len(found) >= _REMEMBERED:
                found.clear()
            found[name] = [f"{marker} {name} {key}".lstrip() for marker, key in self._matching(name)]
        return found[name]

    def _matching(self, name: str) -> Iterator[tuple[str, str]]:
        yield from self._lines.exact.get(name, ())
        encoded = name.encode()
        for salt, digest, line in self._lines.hashed:
            if hmac.digest(salt, encoded, "sha1") == digest:
                yield line


def _read(paths: Sequence[Path]) -> _Lines:
    lines = _Lines()
    for path in paths:
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            text = line.strip()
            if text and not text.startswith("#") and not _add(lines, text):
                _logger.warning("%s: line %d is no entry of known_hosts and is left out", path, number)
    return lines


def _add(lines: _Lines, text: str) -> bool:
    """Whether the line is an entry."""
    marker, _, rest = text.partition(" ") if text.startswith("@") else ("", "", text)
    names, _, key = rest.strip().partition(" ")
    if not key or marker not in ("", *_MARKERS):
        return False
    if names.startswith("|"):
        return _add_hashed(lines, names, (marker, key))
    if _SPECIAL.isdisjoint(names):
        for name in names.lower().split(","):
            lines.exact.setdefault(name, []).append((marker, key))
    else:
        lines.patterns.append(f"{marker} {names.lower()} {key}".lstrip())
    return True


def _add_hashed(lines: _Lines, name: str, line: tuple[str, str]) -> bool:
    try:
        empty, version, salt, digest = name.split("|")
        if empty or version != "1":
            return False
        lines.hashed.append((base64.b64decode(salt), base64.b64decode(digest), line))
    except (ValueError, binascii.Error):
        return False
    return True
