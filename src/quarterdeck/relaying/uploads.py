# SPDX-License-Identifier: Apache-2.0
"""Files that agents upload by name into a directory that somebody watches, and the password that lets them."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.relaying.drop_directory import UPLOADING, Rules
from quarterdeck.relaying.group_syncs import GroupSync
from quarterdeck.relaying.kept_files import sync_directory

RESERVE_BYTES = 256 * 1024 * 1024
_SCHEME = "basic "


@dataclass(slots=True)
class _Upload:
    """A file whose content is on disk, and which has no name yet; then, what came of that."""

    temporary: Path
    path: Path
    is_new: bool = False
    fault: OSError | None = None


class Uploads:
    """One such directory. Safe for threads and processes."""

    def __init__(self, directory: Path, rules: Rules, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """`reserve_bytes` of the disk are left free for others."""
        self.directory = directory
        self.rules = rules
        self._reserve = reserve_bytes
        self._naming = GroupSync(self._name_all)

    def keep(self, name: str, content: IO[bytes]) -> bool:
        """Keep an upload, there whole or not at all, and durable when this returns. Whether the name is new.

        Raises Invalid for a name that nobody would take, Unavailable.
        """
        if not self.rules.is_ours(name):
            raise Invalid(f"'{name}' is not the name of a file that is accepted here.")
        self.rules.check_name(name)
        try:
            return self._keep(name, content)
        except OSError as error:
            raise Unavailable("The file could not be kept on disk.", detail=str(error)) from error

    def _keep(self, name: str, content: IO[bytes]) -> bool:
        self.directory.mkdir(mode=0o770, parents=True, exist_ok=True)
        found = os.statvfs(self.directory)
        if found.f_bavail * found.f_frsize < self._reserve:
            message = f"less than {self._reserve} bytes are free below {self.directory}"
            raise OSError(message)
        upload = _Upload(self.directory / f"{UPLOADING}{secrets.token_hex(8)}", self.directory / name)
        try:
            with upload.temporary.open("xb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fdatasync(file.fileno())  # the kernel makes one sync of those that threads ask for together
            self._naming.take(upload)
        except BaseException:
            upload.temporary.unlink(missing_ok=True)
            raise
        if upload.fault is not None:
            upload.temporary.unlink(missing_ok=True)
            raise upload.fault
        return upload.is_new

    def _name_all(self, uploads: Sequence[_Upload]) -> None:
        """Give files their names, durably."""
        for one in uploads:
            try:
                one.is_new = not os.path.lexists(one.path)
                one.temporary.rename(one.path)
            except OSError as error:
                one.fault = error
        sync_directory(self.directory)


def is_let_in(authorization: str, user: str, password: str) -> bool:
    """Whether a header of basic authentication names this user and password; without a password nobody is let in."""
    if not password or not authorization.lower().startswith(_SCHEME):
        return False
    try:
        given = base64.b64decode(authorization[len(_SCHEME) :].strip(), validate=True)
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(given, f"{user}:{password}".encode())
