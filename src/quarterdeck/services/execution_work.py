# SPDX-License-Identifier: Apache-2.0
"""What a worker asks for while it runs executions: taking one, its nodes and the ways to them, jobs it refers to.

A run has the rights of the account that started it, as they are when it begins. What is decided here is kept by the
caller's unit of work; running is the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from quarterdeck.core import (
    accounts,
    connections,
    executions,
    job_context,
    job_references,
    node_filters,
    options,
    policy_steps,
)
from quarterdeck.core.accounts import Account
from quarterdeck.core.connections import Address, AgentWay, Connection
from quarterdeck.core.errors import Forbidden, Invalid
from quarterdeck.core.executions import Execution, NodeStep, State
from quarterdeck.core.job_context import Context as Values
from quarterdeck.core.jobs import Job, JobRef
from quarterdeck.core.logs import LogEntry
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource
from quarterdeck.core.secrets import Secret
from quarterdeck.formats import log_blocks
from quarterdeck.services import access, resources
from quarterdeck.services import executions as all_executions
from quarterdeck.services.context import Context
from quarterdeck.storage.logs import LogBlock

LOST = "The worker that ran it is gone; a step that had begun is not run again."
_NOT_ALLOWED = "Running on this node is not allowed to {user} any more."
_RIGHTS = {"job": "job.run", "adhoc": "adhoc.run"}


@dataclass(frozen=True, slots=True)
class Local:
    """The server's own machine; `user` "" is the daemon's own."""

    user: str


@dataclass(frozen=True, slots=True)
class NoWay:
    """Why no command can be run on a node. `forbidden`: nothing else is to happen there either."""

    reason: str
    forbidden: bool = False


@dataclass(frozen=True, slots=True)
class NodeWay:
    """A node of a run and how it is reached; `more` are the ways to try when the first does not get there."""

    resource: Resource
    way: Connection | AgentWay | Local | NoWay
    more: tuple[Connection | AgentWay, ...] = ()

    @property
    def tries(self) -> tuple[NodeWay, ...]:
        """Each way by itself, in order."""
        return (replace(self, more=()), *(NodeWay(self.resource, way) for way in self.more))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The nodes of a run in order of dispatch, and what opens the ways to them."""

    nodes: tuple[NodeWay, ...] = ()
    #: nodes of the inventory that nobody told us how to reach
    left_out: tuple[str, ...] = ()
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    host_keys: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An execution that is this worker's in `epoch`. `steps` is what an earlier owner left."""

    execution: Execution
    job: Job
    options: Mapping[str, str] = field(repr=False)
    epoch: int
    account: Account
    selection: Selection
    steps: tuple[NodeStep, ...] = ()
    #: this worker took it from one that is gone, or steps of its own are abandoned
    taken_over: bool = False
    #: number of the next block of the log, and bytes before it
    log_end: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a worker sees when it looks round.

    `registered`: it is still listed. `running`: epoch, and who wants an abort if somebody does, of those asked for that
    have not ended. `waiting`: what it may take. `owned`: owner of every execution that has begun and not ended.
    `gone`: those of the owners that do not live.
    """

    registered: bool
    draining: bool
    running: Mapping[int, tuple[int, str | None]]
    waiting: Sequence[int]
    owned: Mapping[int, int]
    gone: frozenset[int]


def look(ctx: Context, worker: int, running: Sequence[int], room: int) -> Look:
    """Everything that a worker wants to know from time to time; `room` is how many executions it would take."""
    store = ctx.store
    record = store.workers.find(worker)
    draining = record is not None and record.draining
    owned = {} if draining else store.executions.owned()
    return Look(
        registered=record is not None,
        draining=draining,
        running=store.executions.epochs(running) if running else {},
        waiting=store.executions.waiting(room) if room and not draining else (),
        owned=owned,
        gone=frozenset(owner for owner in set(owned.values()) - {worker} if store.workers.is_gone(owner)),
    )


def claim(ctx: Context, execution_id: int, worker: int) -> Claimed | None:
    """Take an execution that waits; None when somebody else has it or it is over."""
    epoch = ctx.store.executions.claim(execution_id, worker, from_owner=None)
    return None if epoch is None else _claimed(ctx, execution_id, epoch, taken_over=False)


def take_over(ctx: Context, execution_id: int, owner: int, worker: int) -> Claimed | None:
    """Take an execution from a worker that is gone; what had begun there is ended as abandoned. None if it lives.

    `owner` may be the worker itself, for what it has without knowing of it.
    """
    if owner != worker and not ctx.store.workers.is_gone(owner):
        return None
    epoch = ctx.store.executions.claim(execution_id, worker, from_owner=owner)
    if epoch is None:
        return None
    abandoned = ctx.store.executions.abandon_steps(execution_id, LOST)
    return _claimed(ctx, execution_id, epoch, taken_over=owner != worker or bool(abandoned))


def fail(ctx: Context, execution_id: int, worker: int, owner: int | None, reason: str) -> bool:
    """End what cannot be run at all; False when somebody else has it or it is over. `owner`: who has it now."""
    epoch = ctx.store.executions.claim(execution_id, worker, from_owner=owner)
    if epoch is None:
        return False
    number, offset, _ = ctx.store.logs.end(execution_id)
    text = reason.encode(errors="backslashreplace") + b"\n"
    data = log_blocks.encode([LogEntry(ctx.now, "ERR", "", "", "", text)])
    block = LogBlock(
        execution_id=execution_id, number=number, at=ctx.now, offset=offset, size=len(text), lines=1, data=data
    )
    ctx.store.logs.append([block])
    return all_executions.finish(ctx, execution_id, epoch, State.FAILED)


def _claimed(ctx: Context, execution_id: int, epoch: int, *, taken_over: bool) -> Claimed:
    work = ctx.store.executions.work(execution_id)
    account = _account(ctx, work.execution)
    _require_right(account, work.execution)
    access.require_steps(account, work.job)
    mine = replace(ctx, account=account, events=[])
    selection = select(mine, work.job, work.options, work.execution.nodes)
    if work.execution.nodes is None:
        ctx.store.executions.set_nodes(execution_id, epoch, [one.resource.name for one in selection.nodes])
    # Of what nobody had before there is neither a log nor a step.
    is_new = epoch == 1
    number, offset, _ = (0, 0, None) if is_new else ctx.store.logs.end(execution_id)
    return Claimed(
        execution=work.execution,
        job=work.job,
        options=work.options,
        epoch=epoch,
        account=account,
        selection=selection,
        steps=() if is_new else tuple(ctx.store.executions.steps(execution_id)),
        taken_over=taken_over,
        log_end=(number, offset),
    )


def _account(ctx: Context, execution: Execution) -> Account:
    """Whoever started it; without any right when the account is gone or may not act any more."""
    if execution.account_id == accounts.SYSTEM.id:
        return accounts.SYSTEM
    found = ctx.store.accounts.find(execution.account_id)
    if found is None or not found.usable(ctx.now):
        return Account(id=execution.account_id, name=execution.user)
    return found


def _require_right(account: Account, execution: Execution) -> None:
    """Raises Forbidden: an account may lose its rights while the execution waits, or before a schedule is due."""
    if _RIGHTS[execution.kind] not in account.rights:
        raise Forbidden(f"'{execution.user}', who started it, has not the right {_RIGHTS[execution.kind]} any more.")


def is_draining(ctx: Context, worker: int) -> bool:
    """Whether a worker is to begin nothing more."""
    found = ctx.store.workers.find(worker)
    return found is not None and found.draining


# -- nodes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fleet:
    """A project with its nodes, as they were at one moment."""

    project: Project
    nodes: tuple[Resource, ...]


def fleet(ctx: Context, name: str) -> Fleet | None:
    """The project with its nodes; None when it is gone."""
    project = ctx.store.projects.find(name)
    return None if project is None else Fleet(project, tuple(resources.of_project(ctx, project)))


def select(
    ctx: Context,
    job: Job,
    values: Mapping[str, str],
    preset: Sequence[str] | None = None,
    *,
    known: Fleet | None = None,
) -> Selection:
    """The nodes that a job runs on, or those named in `preset`, in order, as far as the caller may run there.

    `known` are the nodes of the project if somebody has just looked.
    """
    known = known or fleet(ctx, job.project)
    if known is None:
        return Selection()
    project = known.project
    if preset is not None:
        return _opened(ctx, tuple(_preset(ctx, known, preset)), ())
    allowed = access.nodes(ctx, project.name, _filtered(ctx, job, values, known.nodes), "run")
    ways = [_node_way(ctx, project, one) for one in allowed]
    unreachable = set()
    if not policy_steps.needs_no_shell(job.sequence.steps):
        unreachable = {
            one.resource.name for one in ways if isinstance(one.way, NoWay) and _is_inventoried(one.resource)
        }
    kept = tuple(one for one in ways if one.resource.name not in unreachable)
    return _opened(ctx, kept, tuple(sorted(unreachable)))


def _preset(ctx: Context, known: Fleet, names: Sequence[str]) -> Iterator[NodeWay]:
    """In this order; a node that is not in the project any more keeps its place, so that its end is told."""
    by_name = {one.name: one for one in known.nodes}
    found = [by_name.get(name) or Resource(name) for name in names]
    allowed = {one.name for one in access.nodes(ctx, known.project.name, found, "run")}
    for one in found:
        refused = NoWay(_NOT_ALLOWED.format(user=ctx.account.name), forbidden=True)
        yield _node_way(ctx, known.project, one) if one.name in allowed else NodeWay(one, refused)


def _filtered(ctx: Context, job: Job, values: Mapping[str, str], known: Sequence[Resource]) -> list[Resource]:
    if job.node_filter is None:
        return [one for one in known if one.name == ctx.site.node.name]
    groups = job_context.context(values, {})
    wanted = node_filters.replaced(job.node_filter, lambda text: job_context.replaced(text, groups))
    return node_filters.order(
        node_filters.select(wanted, known),
        job.dispatch.rank_attribute,
        descending=job.dispatch.rank_order == "descending",
    )


def _is_inventoried(resource: Resource) -> bool:
    return resource.node is not None


def _node_way(ctx: Context, project: Project, resource: Resource) -> NodeWay:
    is_server = resource.name == ctx.site.node.name
    kind = resources.executor(ctx, project, resource)
    match kind:
        case "local":
            return NodeWay(resource, _local(ctx))
        case "":
            return NodeWay(resource, _local(ctx)) if is_server else _remote(ctx, project, resource)
        case "ssh" | "jsch-ssh":
            return _remote(ctx, project, resource)
    return NodeWay(resource, NoWay(f"There is no node executor '{kind}'; there are ssh and local."))


def _local(ctx: Context) -> Local | NoWay:
    if ctx.site.local_user or ctx.account.kind == "system" or ctx.account.roles & {"admin", "administrator"}:
        return Local(ctx.site.local_user)
    return NoWay(
        "Steps on the server's own machine run as the server itself, and so for the role admin only: "
        "let the setting local_node.user name a system user for them."
    )


def _remote(ctx: Context, project: Project, resource: Resource) -> NodeWay:
    """The ways in the order of tries, as far as they are open; if none is, why the first is not."""
    try:
        kinds = connections.kinds(resource, project)
    except Invalid as error:
        return NodeWay(resource, NoWay(error.message))
    found = [
        _over_agent(ctx, project, resource) if kind == "agent" else _over_ssh(ctx, project, resource) for kind in kinds
    ]
    open_ones = [way for way in found if not isinstance(way, NoWay)]
    return NodeWay(resource, open_ones[0], tuple(open_ones[1:])) if open_ones else NodeWay(resource, found[0])


def _over_agent(ctx: Context, project: Project, resource: Resource) -> AgentWay | NoWay:
    try:
        return connections.agent_way(resource, project, ctx.site.ssh)
    except Invalid as error:
        return NoWay(error.message)


def _over_ssh(ctx: Context, project: Project, resource: Resource) -> Connection | NoWay:
    try:
        found = connections.connection(resource, project, ctx.site.ssh)
    except Invalid as error:
        return NoWay(error.message)
    if found.key_path and found.key_path != ctx.site.ssh.key_path and not is_allowed(ctx, found.key_path):
        return NoWay(f"The key {found.key_path} is in none of the directories of the setting allowed_paths.")
    if not (found.key_path or found.key_secret or found.agent):
        return NoWay(f"No key is configured to connect to remote node '{resource.name}'")
    return found


def is_allowed(ctx: Context, path: str) -> bool:
    """Whether a file of the server lies where the operator lets projects look. Links are the reader's to follow."""
    wanted = PurePosixPath(path)
    return (
        wanted.is_absolute()
        and ".." not in wanted.parts
        and any(wanted.is_relative_to(one) for one in ctx.site.allowed_paths)
    )


def _opened(ctx: Context, nodes: tuple[NodeWay, ...], left_out: tuple[str, ...]) -> Selection:
    ways = [way for one in nodes for way in (one.way, *one.more) if isinstance(way, Connection)]
    names = {name for way in ways for name in (way.key_secret, way.passphrase_secret) if name}
    addresses = {hop.address for way in ways for hop in (way.hop, *way.jumps)}
    trusted: dict[Address, tuple[str, ...]] = {}
    for record in ctx.store.host_keys.of(addresses) if addresses else ():
        if record.trusted:
            trusted[record.address] = (*trusted.get(record.address, ()), record.key)
    return Selection(
        nodes=nodes,
        left_out=left_out,
        secrets=ctx.store.secrets.among(names) if names else {},
        host_keys=trusted,
    )


# -- jobs that steps refer to -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Referenced:
    """A job that a step runs, with its options and nodes; `chain` is the jobs that are being run, the inmost last."""

    job: Job
    options: Mapping[str, str] = field(repr=False)
    selection: Selection
    chain: tuple[int, ...]
    secrets: tuple[str, ...] = field(default=(), repr=False)


def refer(
    ctx: Context, reference: JobRef, project: str, values: Values, chain: tuple[int, ...], known: Fleet | None = None
) -> Referenced:
    """The job that a step refers to, ready to run in the caller's name. Raises Invalid, Forbidden."""
    candidates = [saved.job for saved in ctx.store.jobs.at(project, reference.group, reference.name)]
    job = job_references.find(reference, project, candidates)
    access.require_job(ctx, job, "run")
    access.require_steps(ctx.account, job)
    inner = job_references.entered(chain, job)
    given = job_references.arguments(reference, job, values)
    hidden = tuple(options.secrets(job.options, given))
    return Referenced(
        job=job, options=given, selection=select(ctx, job, given, known=known), chain=inner, secrets=hidden
    )


def outcomes(steps: Iterable[NodeStep]) -> list[executions.Outcome]:
    """What an earlier owner left, for the plan; steps of referenced jobs are inside of others."""
    return [
        executions.Outcome(executions.Unit(int(one.step), one.node), one.state)
        for one in steps
        if one.step.isdecimal() and one.state.is_final
    ]
