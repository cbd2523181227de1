# SPDX-License-Identifier: Apache-2.0
"""What a relay counts, under the names that dashboards for relays know; and how long what waits on disk has waited.

One `Metrics` per process, with a registry of its own. Everything is there, at zero, from the start. What becomes of
reports is counted in `counters.py`, perhaps by another process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.relaying import counters
from quarterdeck.relaying.counters import Counters, InventoryStatus, ReportStatus
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.relaying.waiting_commands import WaitingCommands

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Series that only say when another one began are known to no dashboard, and would double each counter.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the package has no types there


class Metrics:
    """Counters, and what is looked up when somebody asks: the nodes, and the queues (name -> directory of files)."""

    def __init__(
        self,
        nodes: NodesList,
        queues: Mapping[str, Path],
        clock: Callable[[], float] = time.time,
        *,
        counted: Callable[[], Mapping[str, float]] | None = None,
        waiting: Callable[[], int] = lambda: 0,
        commands: WaitingCommands | None = None,
    ) -> None:
        """`counted` gives the numbers of whoever takes reports here; without it they are those counted through this.

        `waiting` says how many agents wait to be told to run, `commands` has those that take commands.
        """
        self.registry = CollectorRegistry()
        self._counters = Counters()
        self.registry.register(_Counted(counted or self._counters.snapshot))
        self._requests = Counter(
            "quarterdeck_relay_requests_total", "Requests answered", ["operation", "status"], registry=self.registry
        )
        self.registry.register(_Nodes(nodes))
        Gauge(
            "quarterdeck_waiting_agents", "Agents that wait here to be told to run", registry=self.registry
        ).set_function(waiting)
        if commands is not None:
            for name, text, tell in (
                ("quarterdeck_command_agents", "Agents that wait here for commands", lambda: commands.count),
                ("quarterdeck_commands", "Commands that agents here carry out", lambda: commands.under_way),
            ):
                Gauge(name, text, registry=self.registry).set_function(tell)
        self.registry.register(_Queues(queues, clock))
        prometheus_client.ProcessCollector(registry=self.registry)

    def report(self, status: ReportStatus) -> None:
        """One report came to an end."""
        self._counters.report(status)

    def inventory(self, status: InventoryStatus) -> None:
        """One inventory was passed on, or could not be."""
        self._counters.inventory(status)

    def processed(self, seconds: float) -> None:
        """One report was worked on for so long, with or without success."""
        self._counters.processed(seconds)

    def request(self, operation: str, status: int) -> None:
        """One request was answered."""
        self._requests.labels(operation, str(status)).inc()

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)


class _Counted(Collector):
    def __init__(self, counted: Callable[[], Mapping[str, float]]) -> None:
        self._counted = counted

    def collect(self) -> Iterable[Metric]:
        numbers = self._counted()
        reports = CounterMetricFamily("rudder_relayd_reports", "Agent run reports", labels=["status"])
        inventories = CounterMetricFamily("rudder_relayd_inventories", "Agent inventories", labels=["status"])
        for name, number in numbers.items():
            family, _, status = name.partition(".")
            if family in ("reports", "inventories"):
                (reports if family == "reports" else inventories).add_metric([status], number)
        durations = HistogramMetricFamily("rudder_relayd_reports_processing_duration_seconds", "Reports processing")
        durations.add_metric([], counters.buckets(numbers), numbers["seconds.sum"])
        failures = CounterMetricFamily(
            "quarterdeck_transient_failures", "Things that will be tried again", value=numbers["transient_failures"]
        )
        aside = CounterMetricFamily("quarterdeck_quarantined", "Things set aside", value=numbers["quarantined"])
        success = GaugeMetricFamily(
            "quarterdeck_last_success_timestamp_seconds", "When a report was kept last", value=numbers["last_success"]
        )
        return (reports, inventories, durations, failures, aside, success)


class _Nodes(Collector):
    def __init__(self, nodes: NodesList) -> None:
        self._nodes = nodes

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            topology = self._nodes.current().topology
            managed, below = len(topology.neighbours), len(topology.nodes)
        except QuarterdeckError:
            managed = below = 0  # never read so far, which the status tells
        yield GaugeMetricFamily("rudder_relayd_managed_nodes_total", "Managed Nodes", value=managed)
        yield GaugeMetricFamily("rudder_relayd_sub_nodes_total", "Nodes behind this policy server", value=below)


class _Queues(Collector):
    def __init__(self, queues: Mapping[str, Path], clock: Callable[[], float]) -> None:
        self._queues = queues
        self._clock = clock

    def collect(self) -> Iterable[GaugeMetricFamily]:
        files = GaugeMetricFamily("quarterdeck_queue_files", "Files that wait", labels=["queue"])
        size = GaugeMetricFamily("quarterdeck_queue_bytes", "Bytes of the files that wait", labels=["queue"])
        oldest = GaugeMetricFamily(
            "quarterdeck_queue_oldest_seconds", "Age of the file that has waited longest", labels=["queue"]
        )
        for name, directory in self._queues.items():
            count, total, since = _waiting(directory)
            files.add_metric([name], count)
            size.add_metric([name], total)
            oldest.add_metric([name], max(0.0, self._clock() - since) if since is not None else 0.0)
        return (files, size, oldest)


def queued(queues: Iterable[Path], now: float) -> tuple[int, float]:
    """How many files wait in some queues together, and for how many seconds the one that has waited longest."""
    found = [_waiting(directory) for directory in queues]
    since = [oldest for _, _, oldest in found if oldest is not None]
    return sum(count for count, _, _ in found), max(0.0, now - min(since)) if since else 0.0


#: How the spool's locks are called, and what is written under a passing name.
_NOT_WAITING = (".lock", ".tmp")


def _waiting(directory: Path) -> tuple[int, int, float | None]:
    """Files directly in a directory, their bytes, and when the oldest was written last."""
    count, total, since = 0, 0, None
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return 0, 0, None
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(_NOT_WAITING) or not entry.is_file(follow_symlinks=False):
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # taken meanwhile
        count, total = count + 1, total + status.st_size
        since = status.st_mtime if since is None else min(since, status.st_mtime)
    return count, total, since
