# SPDX-License-Identifier: Apache-2.0
"""Who is told of an end, and how a delivery goes on after an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy
from tests.engine.worlds import KEY, PROJECT, World

from quarterdeck.core.executions import State
from quarterdeck.core.jobs import Job
from quarterdeck.core.notifications import MOST_ATTEMPTS, Mail
from quarterdeck.core.sites import Site
from quarterdeck.services import executions, jobs, notifications, projects
from quarterdeck.services.context import Context
from quarterdeck.storage import queue
from quarterdeck.storage.database import Database

JOB = """
- name: tell & all
  project: ops
  options: {pass: {secure: true, value: hunter2}}
  notification:
    onsuccess: {recipients: 'a@example.org,b@example.org', urls: 'http://good.example/'}
    onfailure: {urls: 'http://bad.example/${job.name}/${job.group}/${execution.status}/${notification.trigger}/${x.y}'}
  sequence: {commands: [{exec: echo tick}]}
"""
MAIL = Mail(host="mail.example.org", sender="q@example.org")


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=3, secret_key=KEY)
    world = World(database, Site(mail=MAIL))
    world.do(lambda ctx: projects.create(ctx, PROJECT))
    yield world
    database.close()


def _end(world: World, job: Job, verdict: State) -> int:
    execution_id = world.run(job)
    assert world.do(lambda ctx: executions.finish(ctx, execution_id, 0, verdict))
    return execution_id


def _told(world: World, execution_id: int) -> list[tuple[str, str, str]]:
    found = world.do(lambda ctx: executions.deliveries(ctx, execution_id))
    return [(one.trigger, one.kind, one.target) for one in found]


def _tasks(world: World) -> int:
    return world.do(lambda ctx: queue.waiting(ctx.store)).get(notifications.TASK, 0)


def _waits(ctx: Context) -> list[timedelta]:
    """How long the tasks of deliveries wait from their making."""
    query = "SELECT execute_after - created AS wait FROM pgqueuer WHERE entrypoint = :task ORDER BY id"
    return [row.wait for row in ctx.store.run(sqlalchemy.text(query), {"task": notifications.TASK}).all()]


def test_each_target_of_the_trigger_gets_a_delivery_and_a_task(world: World) -> None:
    (job,) = world.load(JOB)

    execution_id = _end(world, job, State.SUCCEEDED)

    assert _told(world, execution_id) == [
        ("success", "email", "a@example.org"),
        ("success", "email", "b@example.org"),
        ("success", "webhook", "http://good.example/"),
    ]
    assert _tasks(world) == 3


def test_an_abort_is_a_failure(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = world.run(job)

    world.do(lambda ctx: executions.abort(ctx, str(execution_id)))
    world.do(lambda ctx: executions.end_aborted(ctx, execution_id))

    assert [trigger for trigger, _, _ in _told(world, execution_id)] == ["failure"]
    outgoing = world.do(lambda ctx: notifications.prepare(ctx, executions.deliveries(ctx, execution_id)[0].id))
    assert outgoing is not None
    assert outgoing.target == "http://bad.example/tell%20%26%20all//aborted/failure/${x.y}"


def test_an_end_that_is_rolled_back_tells_nobody(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = world.run(job)

    def fail(ctx: Context) -> None:
        executions.finish(ctx, execution_id, 0, State.SUCCEEDED)
        notifications.request(ctx, ctx.events)
        raise RuntimeError("as planned")

    with pytest.raises(RuntimeError):
        world.do(fail)

    assert (_told(world, execution_id), _tasks(world)) == ([], 0)


def test_a_job_that_was_deleted_meanwhile_is_told_of_without_its_head(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.FAILED)
    world.do(lambda ctx: jobs.delete(ctx, str(job.id)))

    outgoing = world.do(lambda ctx: notifications.prepare(ctx, executions.deliveries(ctx, execution_id)[0].id))

    assert outgoing is not None
    assert (outgoing.message.head, outgoing.message.job.name) == (None, "tell & all")


def test_values_of_secure_options_are_neither_kept_open_nor_told(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.FAILED)

    outgoing = world.do(lambda ctx: notifications.prepare(ctx, executions.deliveries(ctx, execution_id)[0].id))

    assert outgoing is not None
    assert "hunter2" not in repr(outgoing.message.execution)
    assert "hunter2" not in repr(outgoing.message.job)
    query = sqlalchemy.text("SELECT string_agg(definition::text, '') FROM executions")
    assert "hunter2" not in world.do(lambda ctx: ctx.store.run(query).scalar_one())


def test_without_a_mail_server_a_mail_fails_at_once(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.SUCCEEDED)
    world.site = Site()

    delivery = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0].id)
    outgoing = world.do(lambda ctx: notifications.prepare(ctx, delivery))

    now = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0])
    assert outgoing is None
    assert (now.state, now.attempts, now.message) == ("failed", 1, notifications.NO_MAIL_SERVER)


def test_a_webhook_that_fits_no_pattern_fails_at_once_and_one_that_does_is_not_confined(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.FAILED)
    delivery = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0].id)

    confined = world.do(lambda ctx: notifications.prepare(ctx, delivery))
    world.site = Site(allowed_webhooks=("http://bad\\.example/.*",))
    free = world.do(lambda ctx: notifications.prepare(ctx, delivery))
    world.site = Site(allowed_webhooks=("http://other/.*",))
    refused = world.do(lambda ctx: notifications.prepare(ctx, delivery))

    now = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0])
    assert confined is not None
    assert confined.confined
    assert free is not None
    assert not free.confined
    assert refused is None
    assert (now.state, now.message) == ("failed", notifications.NOT_ALLOWED)


def test_an_attempt_in_vain_is_noted_and_the_next_one_asked_for_until_the_last(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.FAILED)
    delivery = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0].id)

    seen = []
    for _ in range(MOST_ATTEMPTS):
        world.do(lambda ctx: notifications.undelivered(ctx, delivery, "503", chance=lambda: 0.5))
        now = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0])
        seen.append((now.state, now.attempts, now.message))

    assert seen == [("waiting", number, "503") for number in range(1, MOST_ATTEMPTS)] + [("failed", 6, "503")]
    waits = world.do(_waits)
    assert [round(wait.total_seconds()) for wait in waits] == [0, 20, 40, 80, 160, 320]
    assert world.execution(execution_id).state is State.FAILED


def test_what_is_delivered_is_not_sent_again(world: World) -> None:
    (job,) = world.load(JOB)
    execution_id = _end(world, job, State.FAILED)
    delivery = world.do(lambda ctx: executions.deliveries(ctx, execution_id)[0].id)

    world.do(lambda ctx: notifications.delivered(ctx, delivery, "200"))

    assert world.do(lambda ctx: notifications.prepare(ctx, delivery)) is None
    assert world.do(lambda ctx: notifications.prepare(ctx, delivery + 1_000)) is None
