# SPDX-License-Identifier: Apache-2.0
"""Who may run jobs whose steps apply policies, and on which nodes they do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.activities import ActivityQuery
from quarterdeck.core.connections import Defaults
from quarterdeck.core.errors import Forbidden
from quarterdeck.core.executions import State
from quarterdeck.core.ids import AccountId, NodeId
from quarterdeck.core.jobs import ApplyPolicies, Exec, Job, JobRef, SavedJob, Schedule, Sequence, Step
from quarterdeck.core.node_filters import EVERYTHING
from quarterdeck.core.nodes import Node
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.core.sites import Site
from quarterdeck.formats import aclpolicy
from quarterdeck.services import execution_work, executions, jobs, schedules
from quarterdeck.services.context import Context
from quarterdeck.services.execution_work import NoWay
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.storage.executions import ExecutionQuery

PROJECT = "ops"
HERE = Resource("here", hostname="localhost")
#: May run jobs, and not have agents run.
OPERATOR = Account(id=AccountId("u-1"), name="olga", kind="user", roles=frozenset({"operator"}))
#: May do both.
USER = Account(id=AccountId("u-2"), name="uwe", kind="user", roles=frozenset({"user"}))
REFUSAL = r"'olga' lacks the right node\.write, which is needed to run night/{}: a step of it applies policies\."


@dataclass
class Bench:
    ctx: Context

    def by(self, account: Account) -> Context:
        return replace(self.ctx, account=account)

    def save(self, name: str, *steps: Step, account: Account = SYSTEM, crontab: str = "") -> SavedJob:
        job = Job(
            name,
            PROJECT,
            group="night",
            node_filter=EVERYTHING,
            sequence=Sequence(steps=steps),
            schedule=Schedule(crontab) if crontab else None,
        )
        return jobs.save_new(self.by(account), job)

    def started(self) -> int:
        return len(self.ctx.store.executions.matching(ExecutionQuery()))

    def messages(self) -> list[str]:
        """What the history says."""
        found, _ = self.ctx.store.activities.find(ActivityQuery(project=PROJECT))
        return [one.summary for one in found]


@pytest.fixture
def bench(postgres_url: str) -> Iterator[Bench]:
    database = Database(postgres_url, pool_size=1, secret_key=bytes(32))
    with database.unit_of_work(Provenance(actor="tests")) as store:
        for account in (OPERATOR, USER):
            store.accounts.add(replace(account, created_at=store.now))
        store.projects.add(Project(PROJECT, properties={"project.inventory.source": "all"}))
        for name in ("n1", "n2"):
            store.nodes.add(Node(id=NodeId(name), hostname=f"{name}.example.org"))
        yield Bench(Context(account=SYSTEM, store=store, site=Site(node=HERE, ssh=Defaults())))
    database.close()


# -- rights -----------------------------------------------------------------------------------


def test_who_may_only_run_jobs_does_not_start_one_that_applies_policies(bench: Bench) -> None:
    saved = bench.save("apply", Exec("true"), ApplyPolicies(audit="true"))
    plain = bench.save("plain", Exec("true"))

    with pytest.raises(Forbidden, match=REFUSAL.format("apply")):
        jobs.run(bench.by(OPERATOR), str(saved.id))
    jobs.run(bench.by(OPERATOR), str(plain.id))
    jobs.run(bench.by(USER), str(saved.id))

    assert bench.started() == 2


def test_nor_does_their_schedule(bench: Bench) -> None:
    bench.save("apply", ApplyPolicies(), account=OPERATOR, crontab="0 * * * * ? *")

    fired = _later(bench, schedules.fire_due)

    assert (fired, bench.started()) == (1, 0)
    (message,) = bench.messages()
    assert re.fullmatch(f"The scheduled run did not begin: {REFUSAL.format('apply')}", message)


def test_the_schedule_of_those_who_may_does(bench: Bench) -> None:
    bench.save("apply", ApplyPolicies(), account=USER, crontab="0 * * * * ? *")

    assert _later(bench, schedules.fire_due) == 1
    assert bench.started() == 1


def _later(bench: Bench, what: Callable[[Context], int]) -> int:
    store = bench.ctx.store
    before: datetime = store.now
    store.now = before + timedelta(minutes=1)
    return what(bench.ctx)


def test_nor_is_it_tried_again_for_them(bench: Bench) -> None:
    saved = bench.save("apply", ApplyPolicies())
    execution = jobs.run(bench.ctx, str(saved.id)).id
    assert execution_work.fail(bench.ctx, execution, bench.ctx.store.workers.add("host", 1), None, "It is broken.")

    with pytest.raises(Forbidden, match=REFUSAL.format("apply")):
        executions.retry_failed(bench.by(OPERATOR), str(execution))


def test_nor_is_it_run_by_reference(bench: Bench) -> None:
    bench.save("apply", ApplyPolicies())

    with pytest.raises(Forbidden, match=REFUSAL.format("apply")):
        execution_work.refer(bench.by(OPERATOR), JobRef("apply", "night"), PROJECT, {}, ())


def test_a_run_whose_starter_lost_the_right_is_not_begun(bench: Bench) -> None:
    saved = bench.save("apply", ApplyPolicies())
    execution = jobs.run(bench.by(USER), str(saved.id)).id
    bench.ctx.store.accounts.replace(replace(USER, roles=frozenset({"operator"}), created_at=bench.ctx.now))

    with pytest.raises(Forbidden, match=r"'uwe' lacks the right node\.write"):
        execution_work.claim(bench.ctx, execution, bench.ctx.store.workers.add("host", 1))


# -- nodes ------------------------------------------------------------------------------------


def test_nodes_that_no_command_reaches_are_kept_where_only_their_agents_are_asked(bench: Bench) -> None:
    both = Job("both", PROJECT, node_filter=EVERYTHING, sequence=Sequence(steps=(ApplyPolicies(), Exec("true"))))
    alone = replace(both, sequence=Sequence(steps=(ApplyPolicies(), ApplyPolicies(audit="true"))))

    with_commands, policies = (execution_work.select(bench.ctx, one, {}) for one in (both, alone))

    assert with_commands.left_out == ("n1.example.org", "n2.example.org")
    assert policies.left_out == ()
    assert {one.resource.name: one.resource.node for one in policies.nodes} == {
        "here": None,
        "n1.example.org": "n1",
        "n2.example.org": "n2",
    }


def test_a_node_that_one_may_not_use_any_more_is_told_from_one_without_a_way(bench: Bench) -> None:
    saved = bench.save("apply", ApplyPolicies())
    execution = jobs.run(bench.by(USER), str(saved.id)).id
    workers = [bench.ctx.store.workers.add("host", number) for number in (1, 2)]
    assert execution_work.claim(bench.ctx, execution, workers[0]) is not None
    rule = "{match: {nodename: n1.*}, allow: run}, {match: {nodename: n2.*}, deny: run}"
    denying = f"context: {{project: ops}}\nfor: {{node: [{rule}], job: [{{allow: '*'}}]}}\nby: {{group: user}}\n"
    policies = aclpolicy.read(denying.encode())
    bench.ctx.site = replace(bench.ctx.site, policies=lambda: tuple(policies))

    claimed = execution_work.take_over(bench.ctx, execution, workers[0], workers[1])

    assert claimed is not None
    ways = {one.resource.name: one.way for one in claimed.selection.nodes}
    assert isinstance(allowed := ways["n1.example.org"], NoWay)
    assert isinstance(denied := ways["n2.example.org"], NoWay)
    assert (allowed.forbidden, denied.forbidden) == (False, True)
    assert bench.ctx.store.executions.get(execution).state is State.RUNNING
