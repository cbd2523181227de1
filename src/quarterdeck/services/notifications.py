# SPDX-License-Identifier: Apache-2.0
"""Who is told of an execution's end, and how each delivery stands. How a message travels is the engine's.

Deliveries are asked for together with the end itself. One is made at least once: whoever dies between a delivery and
its note leaves it to be made again. What becomes of one never changes the execution.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from quarterdeck.core import job_context, notifications
from quarterdeck.core.events import Event, ExecutionEnded
from quarterdeck.core.notifications import Delivery, Mail, Message
from quarterdeck.services.context import Context
from quarterdeck.storage import queue

#: The queue's name of the task; its payload is the number of a delivery.
TASK = "deliver notification"

NO_MAIL_SERVER = "No mail server is configured: the setting mail.host is empty."
NOT_ALLOWED = "The address fits no pattern of the setting webhooks.allowed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message on its way. `confined`: a webhook that may go to public addresses and private networks only."""

    delivery: Delivery
    message: Message
    target: str  #: with its references replaced
    mail: Mail
    confined: bool


def request(ctx: Context, events: list[Event]) -> None:
    """Let everybody hear who is to hear of these ends."""
    for event in events:
        if isinstance(event, ExecutionEnded):
            _request(ctx, event.execution)


def _request(ctx: Context, execution_id: int) -> None:
    execution = ctx.store.executions.get(execution_id)
    if execution.kind != "job":
        return
    job = ctx.store.executions.job_of(execution_id)
    trigger = notifications.trigger_of(execution.state)
    for kind, target in notifications.targets(job.notification, trigger):
        delivery = ctx.store.notifications.add(execution_id, trigger=trigger, kind=kind, target=target)
        queue.defer(ctx.store, TASK, {"delivery": delivery})


def prepare(ctx: Context, delivery_id: int) -> Outgoing | None:
    """What to send now; None when there is nothing (any more), or when it can never be sent, which is noted."""
    delivery = ctx.store.notifications.find(delivery_id)
    if delivery is None or delivery.state != "waiting":
        return None
    execution = ctx.store.executions.get(delivery.execution_id)
    job_id = execution.job_id
    message = Message(
        trigger=delivery.trigger,
        execution=execution,
        job=ctx.store.executions.job_of(execution.id),
        head=ctx.store.jobs.heads_of([job_id]).get(job_id) if job_id is not None else None,
        base_url=ctx.site.base_url,
    )
    target = delivery.target
    if delivery.kind == "webhook":
        target = job_context.url(target, notifications.values(message))
    if problem := _never(ctx, delivery, target):
        ctx.store.notifications.attempted(delivery_id, "failed", problem)
        return None
    return Outgoing(
        delivery=delivery, message=message, target=target, mail=ctx.site.mail, confined=not ctx.site.allowed_webhooks
    )


def _never(ctx: Context, delivery: Delivery, target: str) -> str:
    if delivery.kind == "email":
        return "" if ctx.site.mail.host else NO_MAIL_SERVER
    patterns = ctx.site.allowed_webhooks
    return NOT_ALLOWED if patterns and not notifications.is_allowed_url(target, patterns) else ""


def delivered(ctx: Context, delivery_id: int, message: str) -> None:
    """Note that the target took the message; `message` is what it said."""
    ctx.store.notifications.attempted(delivery_id, "delivered", message)


def undelivered(
    ctx: Context, delivery_id: int, problem: str, *, final: bool = False, chance: Callable[[], float] = random.random
) -> None:
    """Note an attempt in vain and ask for the next one, unless it was the last, or nothing can help (`final`)."""
    before = ctx.store.notifications.find(delivery_id)
    if before is None or before.state != "waiting":
        return
    now = replace(before, attempts=before.attempts + 1)
    if final or now.attempts >= notifications.MOST_ATTEMPTS:
        ctx.store.notifications.attempted(delivery_id, "failed", problem)
        return
    ctx.store.notifications.attempted(delivery_id, "waiting", problem)
    queue.defer(ctx.store, TASK, {"delivery": delivery_id}, delay=notifications.pause(now.attempts, chance()))
