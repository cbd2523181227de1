# SPDX-License-Identifier: Apache-2.0
"""The agent as one file: the installed `quarterdeck_agent` package packed as a zipapp.

Equal sources give equal bytes, so the digest that an enrolment line prints can be checked anywhere.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path

_SHEBANG = b"#!/usr/bin/env python3\n"
_TIME = (1980, 1, 1, 0, 0, 0)
_MAIN = "import sys\nfrom quarterdeck_agent.__main__ import main\n\nsys.exit(main())\n"


def agent_file() -> bytes:
    """The zipapp. Raises FileNotFoundError when the package is not installed as files."""
    spec = importlib.util.find_spec("quarterdeck_agent")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The package quarterdeck_agent is not installed.")
    return pack(Path(spec.origin).parent)


def pack(package: Path) -> bytes:
    """The zipapp of the package in the directory `package`, its Python sources only."""
    members = {"__main__.py": _MAIN.encode()}
    for path in package.rglob("*.py"):
        members[f"{package.name}/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    target = io.BytesIO()
    target.write(_SHEBANG)
    with zipfile.ZipFile(target, "a", zipfile.ZIP_STORED) as archive:  # zlib versions compress differently
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # the same bytes on every system
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, members[name])
    return target.getvalue()
