# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd backup` and `restore`: one tar file with the database's dump, the keys, settings and access policies.

The keys are in it in the clear, so the file has mode 600. Restoring makes a new data directory, whole or not at all.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import quarterdeck
from quarterdeck.core.errors import Conflict, Invalid, NotFound, Unavailable
from quarterdeck.daemon import administration, tls
from quarterdeck.daemon.config import FILE_NAME, Config
from quarterdeck.storage import dumps, embedded, migrate

FORMAT = 1
MANIFEST = "manifest.json"
DUMP = "database.dump"
KEYS = "keys"
#: Without them a restored server would allow more than the one that was saved.
POLICIES = "acl"
_POLICY_FILE = re.compile(rf"{POLICIES}/[^/\0]+\.aclpolicy")


def backup(config: Config, target: Path) -> None:
    """Write a backup to `target`, while the server runs or not. Raises Conflict when the file exists."""
    if target.exists():
        raise Conflict(f"{target} exists already: name another file.")
    if not target.absolute().parent.is_dir():
        raise NotFound(f"There is no directory {target.absolute().parent} to write the backup to.")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="quarterdeck-backup-", dir=target.absolute().parent) as work,
            administration.database_url(config) as url,
        ):
            dumps.dump(url, Path(work) / DUMP)
            part = Path(work) / "backup.tar"
            _pack(config, Path(work) / DUMP, part)
            part.rename(target)
    except OSError as error:
        raise Unavailable(f"The backup cannot be written to {target}: {error.strerror}.") from error


def _pack(config: Config, dump: Path, part: Path) -> None:
    manifest = {
        "format": FORMAT,
        "quarterdeck": quarterdeck.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=2).encode())
            for path in tls.files(config.data).all():
                if path.exists():
                    _add(archive, f"{KEYS}/{path.name}", path.read_bytes())
            settings = config.data / FILE_NAME
            if settings.exists():
                _add(archive, FILE_NAME, settings.read_bytes())
            for path in sorted((config.data / POLICIES).glob("*.aclpolicy")):
                _add(archive, f"{POLICIES}/{path.name}", path.read_bytes())
            archive.add(dump, DUMP)
        file.flush()
        os.fsync(file.fileno())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    entry.mtime = int(datetime.now(UTC).timestamp())
    archive.addfile(entry, io.BytesIO(content))


def restore(config: Config, source: Path) -> None:
    """Make the data directory of `config` from the backup `source`. Raises Conflict when it holds something."""
    target = config.data
    if target.exists() and any(target.iterdir()):
        raise Conflict(f"{target} is not empty: restore into a new directory with --data-dir.")
    # Beside the target, one rename then makes all of it appear at once. Who may not write there (a system user below
    # /var/lib) restores inside.
    place = target if target.exists() and not os.access(target.parent, os.W_OK) else target.parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.restoring-", dir=place))
    except OSError as error:
        raise Unavailable(f"Nothing can be written to {place}: {error.strerror}.") from error
    try:
        _unpack(source, fresh)
        if config.database_url:
            _fill(config.database_url, fresh / DUMP)
        else:
            with embedded.running(fresh) as url:
                _fill(url, fresh / DUMP)
        (fresh / DUMP).unlink()
        if place is target:
            for entry in fresh.iterdir():
                entry.rename(target / entry.name)
        else:
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _fill(url: str, dump: Path) -> None:
    dumps.restore(url, dump)
    migrate.upgrade(url)


def _unpack(source: Path, fresh: Path) -> None:
    for name in (KEYS, POLICIES):
        (fresh / name).mkdir(mode=0o700)
    wanted = {DUMP, FILE_NAME} | {f"{KEYS}/{path.name}" for path in tls.files(fresh).all()}
    try:
        with tarfile.open(source, "r:") as archive:
            _check_manifest(archive, source)
            for entry in archive:
                ours = entry.name in wanted or _POLICY_FILE.fullmatch(entry.name)
                if ours and entry.isfile():  # nothing else is, whatever its name
                    content = archive.extractfile(entry)
                    assert content is not None
                    with (fresh / entry.name).open("xb") as file:
                        (fresh / entry.name).chmod(0o600)
                        shutil.copyfileobj(content, file)
    except FileNotFoundError:
        raise NotFound(f"There is no backup {source}.") from None
    except (tarfile.TarError, OSError) as error:
        raise Invalid(f"{source} is no readable backup: {error}.") from error
    if not (fresh / DUMP).exists():
        raise Invalid(f"{source} is no backup of quarterdeckd: it holds no database.")


def _check_manifest(archive: tarfile.TarFile, source: Path) -> None:
    try:
        entry = archive.extractfile(MANIFEST)
        manifest = msgspec.json.decode(entry.read() if entry else b"", type=dict[str, str | int])
    except (KeyError, msgspec.DecodeError):
        raise Invalid(f"{source} is no backup of quarterdeckd.") from None
    if manifest.get("format") != FORMAT:
        version = manifest.get("quarterdeck")
        raise Invalid(f"{source} was made by Quarterdeck {version} in a form this version does not know.")
