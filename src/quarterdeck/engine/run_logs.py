# SPDX-License-Identifier: Apache-2.0
"""From the directory into which genuine agents' run logs are dropped to the spool of reports, on a thread.

What is dropped is acknowledged by its removal, once the spool has it; `intake.py` does the rest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.formats import report_files
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import FAILED, INCOMING, Consume, DropDirectory, Dropped
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.spool import Rejection, Spool
from quarterdeck.services import reports

log = logging.getLogger(__name__)


def into(spool: Spool) -> Consume:
    """Hands dropped files over to the spool."""

    def consume(files: Sequence[Dropped]) -> Sequence[Rejection]:
        spool.append_all(
            [reports.pack_file(one.name, report_files.node_of(one.name), one.at, one.content) for one in files]
        )
        if log.isEnabledFor(logging.DEBUG):
            for one in files:
                log.debug("[%s] took %s", report_files.queue_id(one.name), one.name)
        return ()

    return consume


def run(directory: Path, spool: Path, stop: threading.Event, *, retention_seconds: float, counters: Counters) -> None:
    """Take what is dropped into `incoming` of a directory until told to stop. Blocks; give it a thread of its own."""
    failed = FailedFiles(directory / FAILED)
    taking = DropDirectory(
        directory / INCOMING, failed, into(Spool(spool)), retention_seconds=retention_seconds, counters=counters
    )
    taking.run(stop)
