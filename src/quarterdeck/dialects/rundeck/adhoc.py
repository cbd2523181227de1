# SPDX-License-Identifier: Apache-2.0
"""Ad-hoc chapter: a command or a script, once, on the nodes that a filter means."""

from __future__ import annotations

from quarterdeck.core.errors import Invalid
from quarterdeck.core.executions import Execution
from quarterdeck.core.jobs import LOG_LEVELS
from quarterdeck.dialects.rundeck import body, envelope
from quarterdeck.dialects.rundeck.envelope import element
from quarterdeck.services import adhoc
from quarterdeck.services.adhoc import Manner
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Reply, Request, Section

section = Section("Ad-hoc")


@section.operation("runCommand", "GET", "/run/command", right="adhoc.run", since=1)
def run_command(ctx: Context, request: Request) -> Reply:
    """Start a command line; without a filter on the server's own node."""
    project, command = body.required(request, "project"), body.required(request, "exec")
    return _started(adhoc.run_command(ctx, project, command, _manner(request)))


@section.operation("runScript", "POST", "/run/script", right="adhoc.run", since=1)
def run_script(ctx: Context, request: Request) -> Reply:
    """Start a script with arguments; without a filter on the server's own node."""
    project, script = body.required(request, "project"), _script(request)
    return _started(adhoc.run_script(ctx, project, script, body.text(request, "argString"), _manner(request)))


def _script(request: Request) -> str:
    """The script, in a part or a field. An empty one is another error than none, and told by the service."""
    part = body.part(request, "scriptFile")
    if part is None:
        given = body.parameters(request).get("scriptFile")
        if given is None:
            raise Invalid(body.missing("scriptFile"))
        return given
    try:
        return part.content.decode()
    except UnicodeDecodeError as error:
        raise Invalid("The script is not UTF-8.") from error


def _manner(request: Request) -> Manner:
    count = body.integer(request, "nodeThreadcount")
    return Manner(
        node_filter=body.node_filter(request),
        threadcount=1 if count is None else count,
        keepgoing=body.is_true(request, "nodeKeepgoing"),
        loglevel=body.one_of(request, "loglevel", LOG_LEVELS),
    )


def _started(execution: Execution) -> Reply:
    told = envelope.told(f"Immediate execution scheduled ({execution.id})")
    return Reply([told, element("execution", id=execution.id)])
