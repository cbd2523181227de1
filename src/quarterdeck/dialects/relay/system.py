# SPDX-License-Identifier: Apache-2.0
"""System chapter, and the metrics: what a relay says of itself to its own machine, and how it reads its lists anew."""

from __future__ import annotations

from typing import Any

from quarterdeck import __version__
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dialects.relay import envelope
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Check, Visit
from quarterdeck.relaying import metrics
from quarterdeck.web.operation import Answer, Request, Section

section = Section("System", {"callers": Callers.HOST, "max_body": 64 * 1024})


@section.operation("getStatus", "GET", "/system/status", right="system.read", since=1)
def get_status(visit: Visit, request: Request) -> Answer:
    """Tell what of the relay works; the status is 200 also when something does not."""
    told: dict[str, Any] = {name: _tried(check) for name, check in visit.parts.checks.items()}
    if visit.parts.remote_runs is not None:
        told["remoteRun"] = {"status": "success", **visit.parts.remote_runs.told()}
    return envelope.success("getStatus", told)


def _tried(check: Check) -> dict[str, str]:
    try:
        check()
    except QuarterdeckError as error:
        return {"status": "error", "details": error.message}
    return {"status": "success"}


@section.operation("getSystemInfo", "GET", "/system/info", right="system.read", since=1)
def get_system_info(visit: Visit, request: Request) -> Answer:
    """Tell the version."""
    major = ".".join(__version__.split(".")[:2])
    return envelope.success("getSystemInfo", {"major-version": major, "full-version": __version__})


@section.operation("reloadConfiguration", "POST", "/system/reload", right="system.write", since=1, envelope=True)
def reload_configuration(visit: Visit, request: Request) -> Answer:
    """Read the nodes list and the certificates anew; they are in use when this is answered."""
    visit.parts.nodes.reload()
    for reload in visit.parts.reloads:
        reload()
    return envelope.success("reloadConfiguration")


@section.operation("getMetrics", "GET", "/metrics", right="system.read", since=1, beside=True)
def get_metrics(visit: Visit, request: Request) -> Answer:
    """Tell what was counted, for Prometheus."""
    return Answer(headers=(("Content-Type", metrics.CONTENT_TYPE),), body=visit.parts.metrics.text())
