# SPDX-License-Identifier: Apache-2.0
"""Commands and scripts that run once, without a job."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.errors import Invalid
from quarterdeck.core.executions import Execution
from quarterdeck.core.jobs import Dispatch, Exec, Job, Script, Sequence, Step
from quarterdeck.core.node_filters import NodeFilter
from quarterdeck.services import access, executions, projects
from quarterdeck.services.context import Context

EMPTY_SCRIPT = "Input script file was empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """On which nodes, and how. Without a filter it runs on the server's node; without a level on the server's."""

    node_filter: NodeFilter | None = None
    threadcount: int = 1
    keepgoing: bool = False
    loglevel: str = ""


def run_command(ctx: Context, project: str, command: str, manner: Manner) -> Execution:
    """Start a command line. Raises NotFound, Forbidden, Invalid."""
    return _run(ctx, project, Exec(command), manner)


def run_script(ctx: Context, project: str, script: str, args: str, manner: Manner) -> Execution:
    """Start a script with arguments. Raises NotFound, Forbidden, Invalid."""
    projects.require(ctx, project)
    if not script.strip():
        raise Invalid(EMPTY_SCRIPT)
    return _run(ctx, project, Script(script.replace("\r\n", "\n"), args), manner)


def _run(ctx: Context, project: str, step: Step, manner: Manner) -> Execution:
    projects.require(ctx, project)
    access.require_adhoc(ctx, project, "run")
    if manner.threadcount < 1:
        problem = "Thread count is a whole number of at least 1"
        raise Invalid("Job configuration was incorrect.", problems={"nodeThreadcount": problem})
    job = Job(
        "",
        project,
        loglevel=manner.loglevel or ctx.site.loglevel,
        node_filter=manner.node_filter,
        dispatch=Dispatch(threadcount=manner.threadcount, keepgoing=manner.keepgoing),
        sequence=Sequence(steps=(step,)),
    )
    return executions.start(ctx, job, {}, kind="adhoc", shown="")
