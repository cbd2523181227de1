# SPDX-License-Identifier: Apache-2.0
"""Work is committed at the edges only (docs/adr/0004-one-transaction.md)."""

from __future__ import annotations

import re

from tests.daemon.servers import ROOT

SOURCES = ROOT / "src" / "quarterdeck"
EDGES = {"web/runner.py", "engine/tasks.py", "engine/intake.py", "daemon/administration.py"}
#: Below the unit of work: the connection's own transaction.
INNER = {"storage/database.py", "storage/migrate.py"}


def test_only_the_edges_commit() -> None:
    committing = {
        str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.py") if re.search(r"\.commit\(\)", path.read_text())
    }

    assert committing == EDGES | INNER


def test_core_reads_no_clock() -> None:
    reading = [
        str(path.relative_to(SOURCES))
        for path in (SOURCES / "core").rglob("*.py")
        if re.search(r"\b(datetime|date)\.(now|today|utcnow)\(|\btime\.(time|monotonic)\(", path.read_text())
    ]

    assert reading == []
