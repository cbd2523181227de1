# SPDX-License-Identifier: Apache-2.0
"""States to begin a story with, made by what really happens: jobs are imported, runs are started and ended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.served_rundeck import Rundeck

from quarterdeck.core.access_policies import AccessPolicy, AccessRule
from quarterdeck.core.executions import State
from quarterdeck.core.jobs import Exec, Job, Option, Sequence
from quarterdeck.core.logs import LogEntry
from quarterdeck.formats import log_blocks
from quarterdeck.services import adhoc, execution_output, executions, jobs
from quarterdeck.services.adhoc import Manner
from quarterdeck.storage.logs import LogBlock

_BEGIN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def two_jobs(rundeck: Rundeck) -> None:
    """Job 1 `deploy` in group `apps/web`, which needs an option, and job 2 `cleanup` without a group."""
    steps = Sequence(steps=(Exec("deploy ${option.version}"), Exec("restart")))
    options = (Option(name="version", required=True, regex="[0-9.]+"),)
    first = Job(
        "deploy", "test", group="apps/web", description="Bring it out", sequence=steps, options=options, uuid="u-1"
    )
    second = Job("cleanup", "test", sequence=Sequence(steps=(Exec("rm -rf /tmp/old"),)), uuid="u-2")
    with rundeck.unit_of_work() as ctx:
        for job in (first, second):
            jobs.save_new(ctx, job)


def ended_runs(rundeck: Rundeck) -> None:
    """Job 2 ran four times: 1 succeeded, 2 failed, 3 was aborted, 4 still runs."""
    two_jobs(rundeck)
    with rundeck.unit_of_work() as ctx:
        for verdict in (State.SUCCEEDED, State.FAILED, State.ABORTED):
            execution = jobs.run(ctx, "2")
            if verdict is State.ABORTED:
                executions.abort(ctx, str(execution.id))
            executions.finish(ctx, execution.id, 0, verdict)
        jobs.run(ctx, "2")


def output(rundeck: Rundeck) -> None:
    """Execution 1, a command that ended, wrote four lines in two blocks."""
    with rundeck.unit_of_work() as ctx:
        execution = adhoc.run_command(ctx, "test", "echo", Manner())
        ctx.store.logs.ensure_partition(_BEGIN.date())
        blocks = ([("INFO", b"first\nsecond <&>\n"), ("ERR", b"caf\xe9\n")], [("INFO", b"last\n")])
        offset = 0
        for number, block in enumerate(blocks):
            at = _BEGIN + timedelta(seconds=number)
            entries = [LogEntry(at, level, "server", "1", "tests", text) for level, text in block]
            size = sum(len(one.text) for one in entries)
            ctx.store.logs.append(
                [
                    LogBlock(
                        execution_id=execution.id,
                        number=number,
                        at=at,
                        offset=offset,
                        size=size,
                        lines=sum(one.text.count(b"\n") for one in entries),
                        data=log_blocks.encode(entries),
                    )
                ]
            )
            offset += size
        executions.finish(ctx, execution.id, 0, State.SUCCEEDED)
        assert execution_output.extent(ctx, execution.id).size == offset


def narrowed(rundeck: Rundeck) -> None:
    """Tokens may read projects and the job `cleanup`, see node web1, and nothing else."""
    two_jobs(rundeck)
    _narrow(rundeck)


def ended_runs_narrowed(rundeck: Rundeck) -> None:
    """Both together."""
    ended_runs(rundeck)
    _narrow(rundeck)


def ended_runs_and_a_worker(rundeck: Rundeck) -> None:
    """Somebody is there to begin with what waits."""
    ended_runs(rundeck)
    rundeck.begin_worker()


def _narrow(rundeck: Rundeck) -> None:
    group = frozenset({"api_token_group"})
    rules = {
        "job": (AccessRule(equals={"name": "cleanup"}, allow=frozenset({"read"})),),
        "resource": (AccessRule(equals={"kind": "node"}, allow=frozenset({"read"})),),
        "node": (AccessRule(equals={"nodename": "web1"}, allow=frozenset({"read"})),),
    }
    projects = {"project": (AccessRule(match={"name": ("te.*",)}, allow=frozenset({"read"})),)}
    rundeck.policies.some = (
        AccessPolicy(project=".*", groups=group, rules=rules),
        AccessPolicy(groups=group, rules=projects),
    )


def documents(rundeck: Rundeck) -> None:
    """At the address of project `test` lies a document of one node; beside it a broken one."""
    base = rundeck.site.base_url
    rundeck.documents.by_address |= {
        f"{base}/r.xml": b'<project><node name="fetched" hostname="fetched.example.com"/></project>',
    }


SETUPS: dict[str, Callable[[Rundeck], None]] = {
    "two jobs": two_jobs,
    "ended runs": ended_runs,
    "output": output,
    "narrowed": narrowed,
    "ended runs and a worker": ended_runs_and_a_worker,
    "ended runs narrowed": ended_runs_narrowed,
    "documents": documents,
}
