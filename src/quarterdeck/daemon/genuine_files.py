# SPDX-License-Identifier: Apache-2.0
"""Files of genuine agents, at a server and at a relay: where they are put, and how a relay passes them on; wired here.

A relay without a database loads this. What the server does with the files: `engine/run_logs.py`, and its inventory
watcher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
from starlette.routing import BaseRoute

from quarterdeck.core.ids import NodeId
from quarterdeck.daemon import paths as directories
from quarterdeck.daemon.config import Config
from quarterdeck.daemon.mounts import Below
from quarterdeck.dialects.relay import intake
from quarterdeck.dialects.relay.callers import Door
from quarterdeck.dialects.relay.intake import Inlet, IntakeEdge, IntakeGrammar
from quarterdeck.formats import report_files
from quarterdeck.relaying import file_forwarding, run_log_batches
from quarterdeck.relaying.counters import Counters
from quarterdeck.relaying.drop_directory import (
    FAILED,
    INCOMING,
    INVENTORIES,
    REPORTS,
    Consume,
    DropDirectory,
    Rejected,
    Rules,
)
from quarterdeck.relaying.failed_files import FailedFiles
from quarterdeck.relaying.file_forwarding import Check, FileForwarder, Send
from quarterdeck.relaying.links import Link
from quarterdeck.relaying.mirror import Mirror
from quarterdeck.relaying.quarantine import Parcels, Quarantine, ReportFiles
from quarterdeck.relaying.run_log_batches import RunLogBatches
from quarterdeck.relaying.spool import Rejection
from quarterdeck.relaying.uploads import Uploads

#: Where nodes that were accepted put their inventories.
UPDATES = "accepted-nodes-updates"
#: Failed files lie in a directory each, so that each goes back to where it came from.
_FAILED_UPDATES = "failed-updates"


class Way(NamedTuple):
    """One kind of files: at which path they are put, here and above, and where they lie in between.

    `is_for_all` is where nodes come that know no password of ours yet.
    """

    name: str
    path: str
    incoming: Path
    failed: Path
    rules: Rules
    is_for_all: bool = False

    @property
    def holds_reports(self) -> bool:
        """Reports, and not inventories."""
        return self.path == intake.REPORTS


def ways(config: Config) -> tuple[Way, ...]:
    """All kinds there are."""
    reports, inventories = directories.reports_directory(config), config.data / "inventories"
    updates = Way(
        "inventory-updates",
        intake.INVENTORY_UPDATES,
        inventories / UPDATES,
        inventories / _FAILED_UPDATES,
        INVENTORIES,
    )
    return (
        Way("run-logs", intake.REPORTS, reports / INCOMING, reports / FAILED, REPORTS),
        Way(
            "inventories",
            intake.INVENTORIES,
            inventories / INCOMING,
            inventories / FAILED,
            INVENTORIES,
            is_for_all=True,
        ),
        updates,
    )


def edge(config: Config, door: Door) -> IntakeEdge:
    """Where genuine agents put reports and inventories. The directories are those that somebody watches."""
    settings = config.relay

    def inlet(way: Way) -> Inlet:
        user, password = settings.report_user, settings.report_password
        if way.is_for_all:
            user, password = intake.NEW_USER, settings.inventory_password
        return Inlet(uploads=Uploads(way.incoming, way.rules), user=user, password=password)

    return IntakeEdge(
        grammar=IntakeGrammar(),
        door=door,
        inlets={way.path: inlet(way) for way in ways(config)},
        prefix="",
        threads=anyio.CapacityLimiter(config.threads),
        body_directory=config.data / "spool" / "bodies",
    )


def routes(edge: IntakeEdge) -> list[BaseRoute]:
    """Where agents put reports and inventories. Peers that pass them on write two slashes in front."""
    return [Below(f"{more}{path}", app=edge) for path in intake.PATHS for more in ("", "/")]


# -- at a relay ------------------------------------------------------------------------------------


def carriers(
    config: Config, links: Sequence[Link], counters: Counters, is_known: Callable[[str], bool]
) -> dict[str, DropDirectory]:
    """What carries the files of each kind to the server above; one link for each, so that none holds up another."""
    return {
        way.name: _carrier(config, way, link, counters, is_known) for way, link in zip(ways(config), links, strict=True)
    }


def link_to(config: Config, link: Link) -> Link:
    """The way to where the files go: `link`, to the server above, unless the settings name another one."""
    link.rest_seconds = 0.0  # whoever carries waits by itself
    if not config.relay.upstream_url:
        return link
    link.url, link.pin = config.relay.upstream_url.rstrip("/"), config.relay.upstream_pin
    return link


def _carrier(
    config: Config, way: Way, link: Link, counters: Counters, is_known: Callable[[str], bool]
) -> DropDirectory:
    settings = config.relay
    foreign = bool(settings.upstream_url)
    password = settings.upstream_password or settings.report_password
    send: Send = link.ask
    if foreign:  # it knows neither our signatures nor need its nodes be ours
        send = link.pass_on
    check: Check = file_forwarding.check_inventory
    if way.holds_reports:
        check = file_forwarding.check_report((lambda _: True) if foreign else is_known)
    arrived, most = _counting_arrivals(way, counters), file_forwarding.BATCH_FILES
    consume: Consume = FileForwarder(
        path=way.path,
        user=settings.upstream_user,
        password=settings.upstream_default_password if way.is_for_all else password,
        send=send,
        check=check,
        arrived=arrived,
    )
    if way.holds_reports and not foreign:
        consume = RunLogBatches(ask=link.ask, check=check, alone=consume, times=link.times, arrived=arrived)
        most = run_log_batches.BATCH_FILES
    return DropDirectory(
        way.incoming,
        FailedFiles(way.failed),
        consume,
        rules=way.rules,
        retention_seconds=settings.retention_seconds,
        counters=counters,
        rejected=_counting_rejections(way, counters),
        max_files=most,
    )


def _counting_arrivals(way: Way, counters: Counters) -> Callable[[str], None]:
    def arrived(name: str) -> None:
        if way.holds_reports:
            counters.report("forward_ok")
        elif not report_files.is_signature(name):
            counters.inventory("forward_ok")
        counters.succeeded(time.time())

    return arrived


def _counting_rejections(way: Way, counters: Counters) -> Rejected:
    def rejected(name: str, rejection: Rejection) -> None:
        if way.holds_reports:
            counters.report("invalid" if rejection.kind == "invalid" else "forward_error")
        elif not report_files.is_signature(name):
            counters.inventory("forward_error")

    return rejected


def is_known_to(mirror: Mirror, me: NodeId) -> Callable[[str], bool]:
    """Whether a node is below this relay; one that is not gets the benefit of a look at the list above."""

    def is_known(node: str) -> bool:
        if node == me or node in mirror.nodes.current().topology.nodes:
            return True
        mirror.refresh_nodes()
        return node in mirror.nodes.current().topology.nodes

    return is_known


def quarantine(config: Config) -> Quarantine:
    """All that a relay sets aside."""
    files = [
        ReportFiles(
            FailedFiles(way.failed),
            way.incoming,
            name=way.name,
            unit=None if way.holds_reports else way.rules.unit,
        )
        for way in ways(config)
    ]
    spool = config.data / "spool"
    return Quarantine([*files, Parcels(FailedFiles(spool / FAILED), spool / "parcels")])
