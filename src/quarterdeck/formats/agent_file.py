# SPDX-License-Identifier: Apache-2.0
"""The agent as one file: the installed `quarterdeck_agent` package packed as a zipapp.

Equal sources give equal bytes, so the digest that an enrolment line prints can be checked anywhere.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

_SHEBANG = b"#!/usr/bin/env python3\n"
_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = """\
import sys

if sys.version_info < (3, 9):
    sys.exit("quarterdeck-agent needs Python 3.9 or newer.")

from quarterdeck_agent import unpacking

unpacking.prefer_unpacked(sys.path[0], "{digest}")

from quarterdeck_agent.__main__ import main

sys.exit(main())
"""


def agent_file() -> bytes:
    """The zipapp. Raises FileNotFoundError when the package is not installed as files."""
    spec = importlib.util.find_spec("quarterdeck_agent")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The package quarterdeck_agent is not installed.")
    return pack(Path(spec.origin).parent)


def pack(package: Path) -> bytes:
    """The zipapp of the package in the directory `package`, its Python sources only."""
    members = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes() for path in package.rglob("*.py")
    }
    members["__main__.py"] = _MAIN.format(digest=_digest(members)).encode()
    target = io.BytesIO()
    target.write(_SHEBANG)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_STORED) as archive:  # zlib versions compress differently
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # the same bytes on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name])
    return target.getvalue()


def _digest(members: dict[str, bytes]) -> str:
    """Names the sources: what an older agent unpacked is never taken for this one."""
    total = hashlib.sha256()
    for name in sorted(members):
        total.update(f"{name} {hashlib.sha256(members[name]).hexdigest()}\n".encode())
    return total.hexdigest()
