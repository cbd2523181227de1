# SPDX-License-Identifier: Apache-2.0
"""Which nodes a run reaches, how, and for whom; and that a run has no more rights than its starter has now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import pytest

from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.connections import Address, AgentWay, Connection, Defaults
from quarterdeck.core.errors import Forbidden, Invalid
from quarterdeck.core.ids import AccountId, NodeId
from quarterdeck.core.jobs import Exec, Job, JobRef, Sequence
from quarterdeck.core.node_filters import EVERYTHING, NodeFilter, Side
from quarterdeck.core.nodes import Node
from quarterdeck.core.projects import Project
from quarterdeck.core.properties import Property
from quarterdeck.core.resources import Resource
from quarterdeck.core.sites import Site
from quarterdeck.formats import aclpolicy
from quarterdeck.services import adhoc, execution_work, jobs, projects
from quarterdeck.services.adhoc import Manner
from quarterdeck.services.context import Context
from quarterdeck.services.execution_work import Local, NoWay, Selection
from quarterdeck.storage.database import Database, Provenance

HERE = Resource("here", hostname="localhost")
KEYS = PurePosixPath("/srv/keys")
OPERATOR = Account(id=AccountId("u-1"), name="olga", kind="user", roles=frozenset({"operator"}))


@dataclass
class Bench:
    ctx: Context

    def site(self, **changes: object) -> None:
        self.ctx.site = replace(self.ctx.site, **changes)  # type: ignore[arg-type]  # the caller names fields

    def nodes(self, *some: Resource) -> None:
        self.ctx.store.resources.replace("ops", some)

    def select(self, wanted: NodeFilter | None = EVERYTHING) -> Selection:
        job = Job("job", "ops", node_filter=wanted)
        return execution_work.select(self.ctx, job, {})

    def ways(self) -> dict[str, Connection | AgentWay | Local | NoWay]:
        return {one.resource.name: one.way for one in self.select().nodes}


@pytest.fixture
def bench(postgres_url: str) -> Iterator[Bench]:
    database = Database(postgres_url, pool_size=1, secret_key=bytes(32))
    site = Site(node=HERE, allowed_paths=(KEYS,), ssh=Defaults(username="deploy", key_path="/etc/quarterdeck/key"))
    with database.unit_of_work(Provenance(actor="tests")) as store:
        store.projects.add(Project("ops"))
        yield Bench(Context(account=SYSTEM, store=store, site=site))
    database.close()


def node(name: str, **attributes: str) -> Resource:
    return Resource(name, hostname=f"{name}.example.org", attributes=attributes)


def policies(rule: str) -> bytes:
    return (
        f"context: {{project: ops}}\nfor: {{node: [{rule}], job: [{{allow: '*'}}]}}\nby: {{group: operator}}\n".encode()
    )


def test_a_node_is_reached_with_what_the_server_s_settings_say(bench: Bench) -> None:
    bench.nodes(node("web"))

    way = bench.ways()["web"]

    assert isinstance(way, Connection)
    assert (way.hop.username, way.key_path) == ("deploy", "/etc/quarterdeck/key")


@pytest.mark.parametrize("path", ["/etc/ssh/ssh_host_ed25519_key", "/srv/keys/../secret", "key", "/srv/keyser/x"])
def test_a_key_outside_of_the_allowed_directories_is_refused(bench: Bench, path: str) -> None:
    bench.nodes(node("web", **{"ssh-keypath": path}))

    way = bench.ways()["web"]

    assert way == NoWay(f"The key {path} is in none of the directories of the setting allowed_paths.")


def test_a_key_in_an_allowed_directory_is_taken(bench: Bench) -> None:
    bench.nodes(node("web", **{"ssh-keypath": "/srv/keys/web"}))

    assert isinstance(bench.ways()["web"], Connection)


@pytest.mark.parametrize("role", ["operator", "api"])
def test_as_the_server_itself_only_admins_may_run_commands_on_it(bench: Bench, role: str) -> None:
    bench.ctx.account = replace(OPERATOR, roles=frozenset({role}))

    way = bench.ways()["here"]

    assert isinstance(way, NoWay)
    assert "for the role admin only" in way.reason


def test_admins_may_run_commands_as_the_server_itself(bench: Bench) -> None:
    bench.ctx.account = replace(OPERATOR, roles=frozenset({"admin"}))

    assert bench.ways()["here"] == Local("")


def test_with_a_user_of_their_own_everybody_may_run_commands_on_the_server(bench: Bench) -> None:
    bench.ctx.account = OPERATOR
    bench.site(local_user="nobody")

    assert bench.ways()["here"] == Local("nobody")


def test_any_other_node_that_asks_for_the_server_is_treated_the_same(bench: Bench) -> None:
    bench.ctx.account = OPERATOR
    bench.nodes(node("sly", **{"node-executor": "local"}))

    assert isinstance(bench.ways()["sly"], NoWay)


def test_nodes_of_the_inventory_that_nobody_told_how_to_reach_are_left_out_and_counted(bench: Bench) -> None:
    bench.ctx.store.projects.replace(Project("ops", properties={"project.inventory.source": "all"}))
    bench.site(ssh=Defaults())
    for name in ("n1", "n2"):
        bench.ctx.store.nodes.add(Node(id=NodeId(name), hostname=f"{name}.example.org"))
    known = tuple(
        Property(name=name, value=value) for name, value in (("ssh-user", "root"), ("ssh-keypath", "/srv/keys/k"))
    )
    bench.ctx.store.nodes.add(Node(id=NodeId("n3"), hostname="n3.example.org", properties=known))
    bench.nodes(node("documented"))

    found = bench.select()

    assert found.left_out == ("n1.example.org", "n2.example.org")
    assert [one.resource.name for one in found.nodes] == ["documented", "here", "n3.example.org"]
    documented = found.nodes[0].way
    assert documented == NoWay("Username must be set to connect to remote node 'documented'")


def inventoried(bench: Bench, properties: dict[str, str], *nodes: Node) -> None:
    """A project on these nodes of the inventory."""
    known = {"project.inventory.source": "all", **properties}
    bench.ctx.store.projects.replace(Project("ops", properties=known))
    for one in nodes:
        bench.ctx.store.nodes.add(one)


def test_nodes_of_the_inventory_without_ssh_are_reached_over_their_agents(bench: Bench) -> None:
    bench.site(ssh=Defaults())
    own = (Property(name="agent-user", value="deploy"),)
    inventoried(
        bench,
        {"project.node-transport": "agent", "project.ssh-command-timeout": "30"},
        Node(id=NodeId("n1"), hostname="n1.example.org"),
        Node(id=NodeId("n2"), hostname="n2.example.org", properties=own),
    )

    found = bench.select()

    assert found.left_out == ()
    assert {one.resource.name: (one.way, one.more) for one in found.nodes if one.resource.name != "here"} == {
        "n1.example.org": (AgentWay(node=NodeId("n1"), run_seconds=30.0), ()),
        "n2.example.org": (AgentWay(node=NodeId("n2"), run_seconds=30.0, user="deploy"), ()),
    }


@pytest.mark.parametrize(
    ("order", "kinds"), [("ssh, agent", ["Connection", "AgentWay"]), ("agent,ssh", ["AgentWay", "Connection"])]
)
def test_a_project_says_in_which_order_the_ways_are_tried(bench: Bench, order: str, kinds: list[str]) -> None:
    inventoried(bench, {"project.node-transport": order}, Node(id=NodeId("n1"), hostname="n1.example.org"))

    (node_way,) = [one for one in bench.select().nodes if one.resource.name != "here"]

    assert [type(one.way).__name__ for one in node_way.tries] == kinds
    users = [
        one.way.hop.username if isinstance(one.way, Connection) else one.way.user
        for one in node_way.tries
        if isinstance(one.way, Connection | AgentWay)
    ]
    assert users == ["deploy", "deploy"]


def test_a_node_may_have_a_way_of_its_own(bench: Bench) -> None:
    own = (Property(name="node-transport", value="ssh"),)
    inventoried(
        bench, {"project.node-transport": "agent"}, Node(id=NodeId("n1"), hostname="n1.example.org", properties=own)
    )

    assert isinstance(bench.ways()["n1.example.org"], Connection)


def test_a_document_cannot_name_a_node_whose_agent_is_to_obey(bench: Bench) -> None:
    inventoried(
        bench,
        {"project.node-transport": "agent", "project.inventory.source": "none"},
        Node(id=NodeId("n1"), hostname="n1.example.org"),
    )
    bench.nodes(node("n1", **{"node-id": "n1"}))

    assert bench.ways()["n1"] == NoWay("'n1' is no node of the inventory, so that no agent speaks for it")


def test_a_way_that_there_is_not_is_refused_where_it_is_set(bench: Bench) -> None:
    with pytest.raises(Invalid, match="node-transport is ssh, agent, or both"):
        projects.update(bench.ctx, "ops", properties={"project.node-transport": "telnet"})


def test_policies_narrow_the_nodes_of_a_run(bench: Bench) -> None:
    bench.ctx.account = OPERATOR
    bench.nodes(replace(node("web"), tags=frozenset({"free"})), node("db"))
    found = aclpolicy.read(
        policies("{contains: {tags: free}, allow: [read, run]}, {match: {nodename: db}, allow: read}")
    )
    bench.site(policies=lambda: tuple(found))

    assert [one.resource.name for one in bench.select().nodes] == ["web"]


def test_there_may_be_more_nodes_than_a_statement_has_parameters(bench: Bench) -> None:
    here = Address("h7.example.org")
    bench.ctx.store.host_keys.see(here, "ssh-ed25519 AAAA", trusted=True)
    addresses = [Address(f"h{number}.example.org") for number in range(70_000)]

    assert [one.address for one in bench.ctx.store.host_keys.of(addresses)] == [here]


def test_without_a_filter_nobody_but_the_server_is_meant(bench: Bench) -> None:
    bench.nodes(node("web"))

    assert [one.resource.name for one in bench.select(None).nodes] == ["here"]


def test_a_job_that_one_may_not_run_is_not_run_by_reference(bench: Bench) -> None:
    jobs.save_new(bench.ctx, Job("inner", "ops", sequence=Sequence(steps=(Exec("true"),))))
    denying = aclpolicy.read(
        b"context: {project: ops}\nfor: {job: [{match: {name: inner}, allow: read}]}\nby: {group: operator}\n"
    )
    bench.site(policies=lambda: tuple(denying))
    bench.ctx.account = OPERATOR

    with pytest.raises(Forbidden, match='Not authorized for action "Run"'):
        execution_work.refer(bench.ctx, JobRef("inner"), "ops", {}, ())


def started(bench: Bench, wanted: NodeFilter) -> tuple[int, int]:
    """An execution and a worker."""
    execution = adhoc.run_command(bench.ctx, "ops", "true", Manner(node_filter=wanted)).id
    return execution, bench.ctx.store.workers.add("host", 1)


def test_a_run_of_an_account_that_lost_its_right_is_not_begun(bench: Bench) -> None:
    bench.ctx.store.accounts.add(replace(OPERATOR, roles=frozenset({"read_only"}), created_at=bench.ctx.now))
    bench.ctx.account = OPERATOR
    execution, worker = started(bench, EVERYTHING)

    with pytest.raises(Forbidden, match=r"'olga', who started it, has not the right adhoc\.run any more"):
        execution_work.claim(bench.ctx, execution, worker)


def test_a_run_of_an_account_that_is_gone_is_not_begun(bench: Bench) -> None:
    bench.ctx.account = OPERATOR
    execution, worker = started(bench, EVERYTHING)

    with pytest.raises(Forbidden, match=r"has not the right adhoc\.run any more"):
        execution_work.claim(bench.ctx, execution, worker)


def test_a_node_that_went_meanwhile_keeps_its_place_in_what_is_taken_over(bench: Bench) -> None:
    bench.nodes(node("web"), node("db"))
    execution, worker = started(bench, NodeFilter(include=Side(name="web|db")))
    execution_work.claim(bench.ctx, execution, worker)
    bench.nodes(node("db"))

    claimed = execution_work.take_over(bench.ctx, execution, worker, bench.ctx.store.workers.add("host", 2))

    assert claimed is not None
    assert (claimed.epoch, claimed.taken_over) == (2, True)
    ways = {one.resource.name: one.way for one in claimed.selection.nodes}
    assert isinstance(ways["db"], Connection)
    assert ways["web"] == NoWay("Hostname must be set to connect to remote node 'web'")
    assert bench.ctx.store.executions.get(execution).nodes == ("db", "web")


def test_of_two_workers_one_gets_an_execution(bench: Bench) -> None:
    execution, worker = started(bench, EVERYTHING)
    other = bench.ctx.store.workers.add("host", 2)

    claims = [execution_work.claim(bench.ctx, execution, one) for one in (worker, other)]

    assert [claimed is not None for claimed in claims] == [True, False]


def test_what_cannot_be_run_fails_with_a_reason(bench: Bench) -> None:
    execution, worker = started(bench, EVERYTHING)

    assert execution_work.fail(bench.ctx, execution, worker, None, "It is broken.")
    assert not execution_work.fail(bench.ctx, execution, worker, worker, "Again.")

    found = bench.ctx.store.executions.get(execution)
    assert (found.state, found.nodes_failed) == ("failed", 0)
