# SPDX-License-Identifier: Apache-2.0
"""System chapter: what the server says about itself. Where the peer tells of its Java machine, the interpreter stands.

Memory is the machine's (`max`), what is available of it (`free`), and what this process has (`total`).
"""

from __future__ import annotations

from lxml import etree

from quarterdeck import __version__
from quarterdeck.dialects.rundeck import dates, envelope, links, parts
from quarterdeck.dialects.rundeck.envelope import element, moment
from quarterdeck.services import system
from quarterdeck.services.context import Context
from quarterdeck.services.system import SystemFacts
from quarterdeck.web.operation import Reply, Request, Section

section = Section("System")


@section.operation("systemInfo", "GET", "/system/info", right="system.read", since=1, documented=False)
def system_info(ctx: Context, request: Request) -> Reply:
    """Tell version, machine, interpreter, load, memory and how much runs."""
    facts = system.facts(ctx)
    node = ctx.site.node.name
    told = envelope.told(f"System Stats for RunDeck {__version__} on node {node}")
    now = element(
        "timestamp", "", moment("datetime", ctx.now, unixtime=False), epoch=dates.milliseconds(ctx.now), unit="ms"
    )
    server = element(
        "rundeck",
        "",
        element("version", __version__),
        element("build", __version__),
        element("node", node),
        element("base", links.base(request, ctx.site)),
        element("apiversion", str(parts.of(request).max_version)),
    )
    whole = element("system", "", now, server, *_machine(facts), _stats(ctx, request, facts))
    return Reply([told, whole])


def _machine(facts: SystemFacts) -> list[etree._Element]:
    return [
        element(
            "os",
            "",
            element("arch", facts.architecture),
            element("name", facts.os_name),
            element("version", facts.os_version),
        ),
        element(
            "jvm",
            "",
            element("name", facts.interpreter),
            element("vendor", facts.interpreter_vendor),
            element("version", facts.interpreter_version),
        ),
    ]


def _stats(ctx: Context, request: Request, facts: SystemFacts) -> etree._Element:
    begun = parts.of(request).started_at
    since = element("since", "", moment("datetime", begun, unixtime=False), epoch=dates.milliseconds(begun), unit="ms")
    duration = max(0, dates.milliseconds(ctx.now) - dates.milliseconds(begun))
    load = element("loadAverage", str(facts.load_percent), unit="percent")
    memory = (
        element("max", str(facts.memory_of_machine)),
        element("free", str(facts.memory_available)),
        element("total", str(facts.memory_of_process)),
    )
    return element(
        "stats",
        "",
        element("uptime", "", since, duration=duration, unit="ms"),
        element("cpu", "", load, element("processors", str(facts.processors))),
        element("memory", "", *memory, unit="byte"),
        element("scheduler", "", element("running", str(facts.running_executions))),
        element("threads", "", element("active", str(facts.threads))),
    )
