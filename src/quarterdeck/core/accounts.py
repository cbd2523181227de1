# SPDX-License-Identifier: Apache-2.0
"""Accounts, rights and roles: who may do what, whichever dialect they speak.

A right is `subject.verb`. `--access read` gives every reading right, `--access write` every reading and
writing right except the DANGEROUS ones, which only a role gives; `admin` gives all.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from quarterdeck.core.errors import Forbidden, Invalid
from quarterdeck.core.ids import AccountId

_SUBJECTS = (
    "administration",
    "compliance",
    "directive",
    "group",
    "inventory",
    "job",
    "node",
    "parameter",
    "project",
    "rule",
    "settings",
    "technique",
    "account",
    "execution",
    "event",
)
READING = frozenset(f"{subject}.read" for subject in _SUBJECTS if subject != "account") | {"system.read"}
WRITING = frozenset(f"{subject}.write" for subject in _SUBJECTS if subject not in ("compliance", "event")) | {
    "system.write",
    "node.accept",
    "policy.generate",
}
#: Each of these lets its holder run code of their choice on nodes, or read or hand out what is secret.
DANGEROUS = frozenset(
    {
        "adhoc.run",
        "job.run",
        "node.command",
        "technique.write",
        "secret.read",
        "secret.write",
        "account.read",
        "account.write",
        "administration.write",
        "enrolment.write",
    }
)
RIGHTS = READING | WRITING | DANGEROUS

_CONFIGURATION = frozenset(
    f"{subject}.{verb}" for subject in ("rule", "directive", "parameter") for verb in ("read", "write")
) | {"technique.read", "technique.write", "group.read", "node.read", "compliance.read", "policy.generate"}
_INVENTORY = frozenset({"node.read", "group.read", "inventory.read", "group.write"})
#: What RunDeck's users may do: look, run jobs and commands, and end them.
_RUNBOOKS = frozenset({"project.read", "job.read", "job.run", "adhoc.run", "execution.read", "execution.write"}) | {
    "event.read",
    "node.read",
    "system.read",
}

#: Role -> rights. The names of the first block are Rudder's; `user`, `admin` and `api` are RunDeck's, too.
ROLES: dict[str, frozenset[str]] = {
    "administrator": RIGHTS,
    "administration_only": frozenset(
        {"administration.read", "administration.write", "settings.read", "settings.write", "account.read"}
        | {"account.write", "system.read", "system.write"}
    ),
    "configuration": _CONFIGURATION,
    "rule_only": frozenset({"rule.read", "rule.write", "compliance.read", "policy.generate"}),
    "inventory": _INVENTORY,
    "compliance": frozenset({"compliance.read", "rule.read", "node.read", "directive.read", "group.read"}),
    "read_only": READING,
    "user": _CONFIGURATION | _INVENTORY | _RUNBOOKS | {"node.write", "node.accept"},
    "no_rights": frozenset(),
    "admin": RIGHTS,
    "operator": READING | _RUNBOOKS | {"node.command"},
    "api": READING | (WRITING - DANGEROUS) | {"job.run", "adhoc.run"},
}


class LacksRight(Forbidden):
    """The account's rights do not cover it; what an operator's policy forbids is another refusal."""


class Access(enum.StrEnum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user or a token. `access` is None for users, whose rights come from roles alone."""

    id: AccountId
    name: str
    #: "token", "user" or "system"
    kind: str = "token"
    access: Access | None = None
    roles: frozenset[str] = frozenset()
    enabled: bool = True
    created_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def rights(self) -> frozenset[str]:
        """Everything this account may do."""
        granted = frozenset[str]()
        if self.access is Access.READ:
            granted = READING
        elif self.access is Access.WRITE:
            granted = READING | (WRITING - DANGEROUS)
        return granted.union(*(ROLES.get(role, frozenset()) for role in self.roles))

    def usable(self, now: datetime) -> bool:
        """Whether the account may act at all at this moment."""
        return self.enabled and (self.expires_at is None or now < self.expires_at)


#: The server itself, when a task acts.
SYSTEM = Account(id=AccountId("quarterdeck"), name="quarterdeck", kind="system", roles=frozenset({"admin"}))


def require(account: Account, right: str) -> None:
    """Raises LacksRight when the account lacks the right."""
    if right not in account.rights:
        raise LacksRight(f"'{account.name}' lacks the right {right}.")


def check_roles(roles: frozenset[str]) -> frozenset[str]:
    """The roles, when all of them exist. Raises Invalid."""
    unknown = sorted(roles - ROLES.keys())
    if unknown:
        raise Invalid(f"There is no role '{unknown[0]}'. Roles: {', '.join(sorted(ROLES))}.")
    return roles
