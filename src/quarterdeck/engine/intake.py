# SPDX-License-Identifier: Apache-2.0
"""Takes what agents reported out of the spool, batch by batch, one unit of work each.

One process at a time drains a spool, whichever holds its lock; the others wait for it to leave.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.relaying.spool import Drain
from quarterdeck.services import reactions, reports
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance


def drain(database_url: str, directory: Path, stop: threading.Event, *, keep_raw: bool = True) -> None:
    """Take reports until told to stop."""
    database = Database(database_url, pool_size=1)

    def take(records: Sequence[bytes]) -> Sequence[tuple[int, str]]:
        with database.unit_of_work(Provenance(actor=SYSTEM.name, reason="reports")) as store:
            ctx = Context(account=SYSTEM, store=store)
            rejected = reports.ingest(ctx, records, keep_raw=keep_raw)
            reactions.follow(ctx)
            store.commit()
        return rejected

    try:
        Drain(directory, take).run(stop)
    finally:
        database.close()
