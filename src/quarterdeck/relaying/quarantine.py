# SPDX-License-Identifier: Apache-2.0
"""All that was set aside, wherever it lies: what it is and why, another try, and forgetting it.

Each place keeps its things in its own form; outside they are known by an id, which for files of reports is the one
that stands in the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from quarterdeck.core.errors import Conflict, Invalid, NotFound
from quarterdeck.formats import report_files
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Spool

#: What is shown of a file's content, in bytes.
HEAD_BYTES = 64 * 1024


class Entry(NamedTuple):
    """One thing that was set aside. `at` is since when, as Unix time; `kind` is `error` or `invalid`."""

    id: str
    place: str
    name: str
    path: Path
    size: int
    at: float
    reason: str
    kind: str = "error"


class Place(Protocol):
    """Where things lie that were set aside on one way."""

    def entries(self) -> Iterator[Entry]:
        """What lies there."""

    def retry(self, entry: Entry) -> None:
        """Put a thing back to where it came from. Raises FileNotFoundError, Conflict, Unavailable."""

    def remove(self, entry: Entry) -> None:
        """Forget a thing."""


class Quarantine:
    """Several places as one."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places

    def entries(self) -> list[Entry]:
        """All that was set aside, the latest first."""
        return sorted((one for place in self._places for one in place.entries()), key=lambda one: one.at, reverse=True)

    def get(self, entry_id: str) -> Entry:
        """One thing. Raises NotFound."""
        return self._find(entry_id)[1]

    def head(self, entry: Entry) -> str:
        """The beginning of what is in a file, as text. Raises NotFound."""
        try:
            content = entry.path.read_bytes()
        except FileNotFoundError:
            raise _gone(entry.id) from None
        with contextlib.suppress(Invalid):
            content = report_files.unpacked(entry.name, content)
        return content[:HEAD_BYTES].decode("utf-8", errors="replace")

    def retry(self, entry_id: str) -> Entry:
        """Put a thing back, so that it is tried again. Raises NotFound, Conflict, Unavailable."""
        place, entry = self._find(entry_id)
        try:
            place.retry(entry)
        except FileNotFoundError:
            raise _gone(entry_id) from None
        return entry

    def retry_all(self) -> list[Entry]:
        """Put back all that lies there now and that nothing is in the way of; what that was. Raises Unavailable."""
        tried = []
        for place in self._places:
            for entry in list(place.entries()):
                with contextlib.suppress(Conflict):
                    with contextlib.suppress(FileNotFoundError):  # it went with another that it belongs to
                        place.retry(entry)
                    tried.append(entry)
        return tried

    def remove(self, entry_id: str) -> Entry:
        """Forget a thing. Raises NotFound."""
        place, entry = self._find(entry_id)
        place.remove(entry)
        return entry

    def _find(self, entry_id: str) -> tuple[Place, Entry]:
        for place in self._places:
            for entry in place.entries():
                if entry.id == entry_id:
                    return place, entry
        raise _gone(entry_id)


def _gone(entry_id: str) -> NotFound:
    return NotFound(f"Nothing in quarantine has the id '{entry_id}'.")


class ReportFiles:
    """Genuine agents' files of reports, or others; tried again in the directory into which they are dropped."""

    def __init__(
        self,
        failed: FailedFiles,
        incoming: Path,
        *,
        name: str = "reports",
        unit: Callable[[str], str] | None = None,
    ) -> None:
        """`unit` is the same for the names of files that belong together; without it none do."""
        self._failed = failed
        self._incoming = incoming
        self._name = name
        self._unit = unit

    def entries(self) -> Iterator[Entry]:
        """What lies there."""
        for name in self._failed.names():
            path, why = self._failed.directory / name, self._failed.reason(name)
            size, at = _status(path)
            called = why.called(name)
            yield Entry(
                report_files.queue_id(called), self._name, called, path, size, why.at or at, why.reason, why.kind
            )

    def retry(self, entry: Entry) -> None:
        """Drop it again, and what belongs to it. Raises FileNotFoundError, Conflict."""
        self._incoming.mkdir(mode=0o770, parents=True, exist_ok=True)
        beside = list(self._beside(entry))
        _require_free(self._incoming, [entry.name, *(called for _, called in beside)])
        self._failed.release(entry.path.name, self._incoming / entry.name)
        for name, called in beside:
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                self._failed.release(name, self._incoming / called)

    def _beside(self, entry: Entry) -> Iterator[tuple[str, str]]:
        """The files that belong to one: what they are called here, and were before."""
        if self._unit is None:
            return
        for name in self._failed.names():
            called = self._failed.reason(name).called(name)
            if name != entry.path.name and self._unit(called) == self._unit(entry.name):
                yield name, called

    def remove(self, entry: Entry) -> None:
        """Forget it."""
        self._failed.remove(entry.path.name)


class Parcels:
    """What a relay could not pass on of its spool, as files; tried again at the end of that spool."""

    def __init__(self, failed: FailedFiles, spool: Path, *, name: str = "parcels") -> None:
        self._failed = failed
        self._spool = spool
        self._name = name

    def entries(self) -> Iterator[Entry]:
        """What lies there."""
        for name in self._failed.names():
            path, why = self._failed.directory / name, self._failed.reason(name)
            size, at = _status(path)
            yield Entry(_id(self._name, name), self._name, name, path, size, why.at or at, why.reason, why.kind)

    def retry(self, entry: Entry) -> None:
        """Append it to the spool. Raises FileNotFoundError, Unavailable."""
        Spool(self._spool).append(entry.path.read_bytes())
        self.remove(entry)

    def remove(self, entry: Entry) -> None:
        """Forget it."""
        self._failed.remove(entry.path.name)


class Records:
    """Records of a spool; tried again at its end."""

    def __init__(self, directory: Path, spool: Spool, *, name: str = "parcels") -> None:
        self._directory = directory
        self._spool = spool
        self._name = name

    def entries(self) -> Iterator[Entry]:
        """What lies there."""
        for path in sorted(self._directory.glob("*.record")):
            size, at = _status(path)
            name = path.stem
            yield Entry(_id(self._name, name), self._name, name, path, size, at, _reason(path.with_suffix(".json")))

    def retry(self, entry: Entry) -> None:
        """Append it to the spool. Raises FileNotFoundError, Unavailable."""
        self._spool.append(entry.path.read_bytes())
        self.remove(entry)

    def remove(self, entry: Entry) -> None:
        """Forget it."""
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix(".json").unlink(missing_ok=True)


_LOG = re.compile(r"(.*)\.reject-[0-9TZ]+\.log")
_SIGNATURE = re.compile(r"\.sign(\.gz)?$")


class Inventories:
    """Inventories, each with its signature, beside logs that say what was wrong; tried again where new ones come."""

    def __init__(self, failed: Path, incoming: Path, *, name: str = "inventories") -> None:
        self._directory = failed
        self._incoming = incoming
        self._name = name

    def entries(self) -> Iterator[Entry]:
        """What lies there."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(path.name for path in self._directory.iterdir())
            logs = {found[1]: found[0] for found in map(_LOG.fullmatch, names) if found is not None}
            for name in names:
                if _LOG.fullmatch(name) is None and not self._is_beside_inventory(name):
                    path = self._directory / name
                    size, at = _status(path)
                    # The log's name has the beginning of the file's.
                    log = next((logs[start] for start in sorted(logs, key=len) if name.startswith(start)), None)
                    why = _text(self._directory / log).strip() if log is not None else ""
                    yield Entry(_id(self._name, name), self._name, name, path, size, at, why)

    def retry(self, entry: Entry) -> None:
        """Drop it again, its signature first. Raises FileNotFoundError, Conflict."""
        paths = (*self._signatures(entry.name), entry.path)
        _require_free(self._incoming, [path.name for path in paths])
        for path in paths:
            path.rename(self._incoming / path.name)

    def remove(self, entry: Entry) -> None:
        """Forget it and its signature."""
        for path in (*self._signatures(entry.name), entry.path):
            path.unlink(missing_ok=True)

    def _signatures(self, name: str) -> list[Path]:
        names = (f"{base}.sign{more}" for base in {name, name.removesuffix(".gz")} for more in ("", ".gz"))
        return [path for path in map(self._directory.joinpath, names) if path.is_file()]

    def _is_beside_inventory(self, name: str) -> bool:
        of = _SIGNATURE.sub("", name)
        return of != name and any((self._directory / f"{of}{more}").is_file() for more in ("", ".gz"))


def _require_free(directory: Path, names: Sequence[str]) -> None:
    """Raises Conflict when one of the names is taken: what waits there came later than what was set aside."""
    for name in names:
        if os.path.lexists(directory / name):
            raise Conflict(f"A newer file called {name} waits to be taken; try this one again when that one has gone.")


def _id(place: str, name: str) -> str:
    return report_files.queue_id(f"{place}/{name}")


def _status(path: Path) -> tuple[int, float]:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0, 0.0
    return found.st_size, found.st_mtime


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _reason(path: Path) -> str:
    try:
        return str(json.loads(_text(path))["reason"])
    except (ValueError, KeyError, TypeError):
        return ""
