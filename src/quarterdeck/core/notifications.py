# SPDX-License-Identifier: Apache-2.0
"""Notifications: who hears of an execution's end, in which way, where messages may go, and when one is tried again."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from quarterdeck.core import bounded_regexes
from quarterdeck.core.errors import Invalid
from quarterdeck.core.executions import Execution, State
from quarterdeck.core.job_context import Context
from quarterdeck.core.jobs import Job, JobHead, Notification

Trigger = Literal["success", "failure"]
Kind = Literal["email", "webhook"]
NotificationState = Literal["waiting", "delivered", "failed"]
Security = Literal["none", "starttls", "tls"]

#: With the pauses between them about ten minutes.
MOST_ATTEMPTS = 6
_FIRST_PAUSE = timedelta(seconds=20)
_DEFAULT_PORTS: dict[Security, int] = {"none": 25, "starttls": 587, "tls": 465}
#: Where clouds tell a machine its own credentials, outside of the link-local networks.
_METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one target: an email address or a webhook's URL. `message` is what the last attempt met."""

    id: int
    execution_id: int
    trigger: Trigger
    kind: Kind
    target: str
    state: NotificationState
    attempts: int
    message: str
    updated: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """The mail server that takes our messages; without a host there is none."""

    host: str = ""
    port: int = 0  #: 0: the usual one for this security
    user: str = ""
    password: str = field(default="", repr=False)
    sender: str = ""
    security: Security = "starttls"

    @property
    def real_port(self) -> int:
        """The port to connect to."""
        return self.port or _DEFAULT_PORTS[self.security]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be told, of which the formats make a document: `execution` has ended."""

    trigger: Trigger
    execution: Execution
    job: Job  #: as it was when the execution began
    head: JobHead | None = None  #: of the job as it is now, if it still exists
    base_url: str = ""


def trigger_of(state: State) -> Trigger:
    """Everything but success is a failure."""
    return "success" if state is State.SUCCEEDED else "failure"


def targets(notification: Notification, trigger: Trigger) -> list[tuple[Kind, str]]:
    """Who is to hear of it, each once."""
    success = trigger == "success"
    emails = notification.on_success_emails if success else notification.on_failure_emails
    urls = notification.on_success_urls if success else notification.on_failure_urls
    found: list[tuple[Kind, str]] = [("email", one) for one in emails]
    found += [("webhook", one) for one in urls]
    return list(dict.fromkeys(found))


def values(message: Message) -> Context:
    """What URLs of webhooks may refer to."""
    execution, job = message.execution, message.job
    return {
        "job": {
            "id": str(execution.job_id) if execution.job_id is not None else "",
            "name": job.name,
            "group": job.group,
            "project": execution.project,
        },
        "execution": {"id": str(execution.id), "status": execution.state.value, "user": execution.user},
        "notification": {"trigger": message.trigger},
    }


def pause(attempts: int, chance: float) -> timedelta:
    """How long to wait after so many attempts: twice as long each time, a quarter more or less by `chance` (0 to 1)."""
    return _FIRST_PAUSE * 2.0 ** (attempts - 1) * (0.75 + chance / 2)


def is_allowed_url(url: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (regular expressions, whole URLs, whatever their case) has this address."""
    return any(_fits(pattern, url) for pattern in patterns)


def _fits(pattern: str, url: str) -> bool:
    try:
        return bounded_regexes.compiled(f"(?i){pattern}").fullmatch(url)
    except Invalid:
        return False


def is_public(address: str) -> bool:
    """Whether an IP address may be called without leave: not this machine, its link, or what tells credentials there.

    Private networks are fine; that is where chats and build servers live.
    """
    one = ipaddress.ip_address(address.partition("%")[0])
    inner = one.ipv4_mapped or one.sixtofour if isinstance(one, ipaddress.IPv6Address) else None
    one = inner or one
    wrong = one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast or one.is_reserved
    return not wrong and one not in _METADATA
