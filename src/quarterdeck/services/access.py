# SPDX-License-Identifier: Apache-2.0
"""What a caller may do with projects, jobs and nodes, beside what their rights say of operations.

The operator's access policies only narrow what the rights allow.

Without any policy the rights alone decide; the role admin is never narrowed. What a policy says is decided in
`core/access_policies.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.core import access_policies, policy_steps
from quarterdeck.core.access_policies import APPLICATION, Caller, Target
from quarterdeck.core.accounts import Account
from quarterdeck.core.errors import Forbidden
from quarterdeck.core.jobs import Job, JobHead
from quarterdeck.core.resources import Resource
from quarterdeck.services.context import Context

#: The group of everybody who comes with a token, besides their roles.
TOKEN_GROUP = "api_token_group"  # noqa: S105  # the name that policy files use
_UNNARROWED = frozenset({"admin", "administrator"})


def allows(ctx: Context, scope: str, kind: str, target: Target, action: str) -> bool:
    """Whether the policies let the caller do this; `scope` is a project, or APPLICATION."""
    if _is_unnarrowed(ctx.account):
        return True
    policies = ctx.site.policies()
    return not policies or access_policies.allows(policies, caller(ctx.account), scope, kind, target, action)


def caller(account: Account) -> Caller:
    """The account as policies know it: its name, its roles as groups."""
    groups = account.roles | ({TOKEN_GROUP} if account.kind == "token" else set())
    return Caller(account.name, frozenset(groups))


def may_read_project(ctx: Context, name: str) -> bool:
    """Whether the caller may see the project."""
    return allows(ctx, APPLICATION, "project", {"name": name}, "read")


def require_project(ctx: Context, name: str) -> None:
    """Raises Forbidden when the caller may not see the project."""
    if not may_read_project(ctx, name):
        raise _refusal("Read", f"Project {name}")


def may_job(ctx: Context, job: Job | JobHead, action: str) -> bool:
    """Whether the caller may do this with a job: create, read, update, delete, run or kill."""
    return allows(ctx, job.project, "job", access_policies.job_target(job.name, job.group), action)


def require_job(ctx: Context, job: Job | JobHead, action: str) -> None:
    """Raises Forbidden when the caller may not do this with the job."""
    if not may_job(ctx, job, action):
        raise _refusal(action.capitalize(), f"Job ID {job.id if job.id is not None else job.full_name}")


def require_steps(account: Account, job: Job) -> None:
    """Raises Forbidden when a step of the job needs a right beside that to run jobs, which the account lacks."""
    if policy_steps.applies_policies(job.sequence.steps) and policy_steps.RIGHT not in account.rights:
        raise Forbidden(
            f"'{account.name}' lacks the right {policy_steps.RIGHT}, "
            f"which is needed to run {job.full_name}: a step of it applies policies."
        )


def may_adhoc(ctx: Context, project: str, action: str) -> bool:
    """Whether the caller may run, or kill, ad-hoc commands in the project."""
    return allows(ctx, project, "adhoc", {}, action)


def require_adhoc(ctx: Context, project: str, action: str) -> None:
    """Raises Forbidden when the caller may not run, or kill, ad-hoc commands in the project."""
    if not may_adhoc(ctx, project, action):
        raise _refusal(action.capitalize(), f"Adhoc {project}")


def require_kind(ctx: Context, project: str, kind: str, action: str) -> None:
    """Raises Forbidden when the caller may not do this with the kind of thing (job, node, event) in the project."""
    if not allows(ctx, project, "resource", {"kind": kind}, action):
        raise _refusal(action.capitalize(), f"{kind.capitalize()} {project}")


def nodes(ctx: Context, project: str, some: Iterable[Resource], action: str) -> list[Resource]:
    """Those of the nodes with which the caller may do this, read or run."""
    if _is_unnarrowed(ctx.account) or not ctx.site.policies():
        return list(some)
    return [one for one in some if _may_node(ctx, project, one, action)]


def _may_node(ctx: Context, project: str, node: Resource, action: str) -> bool:
    target = access_policies.node_target(node, is_server=node.name == ctx.site.node.name)
    return allows(ctx, project, "node", target, action)


def _is_unnarrowed(account: Account) -> bool:
    return account.kind == "system" or bool(account.roles & _UNNARROWED)


def _refusal(action: str, what: str) -> Forbidden:
    return Forbidden(f'Not authorized for action "{action}" for {what}')
