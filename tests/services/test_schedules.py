# SPDX-License-Identifier: Apache-2.0
"""Jobs whose schedule is due: started once, in the name of who saved them, or told in the history."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

import pytest

from quarterdeck.core.access_policies import AccessPolicy
from quarterdeck.core.accounts import SYSTEM, Account
from quarterdeck.core.activities import Activity, ActivityQuery
from quarterdeck.core.executions import State
from quarterdeck.core.ids import AccountId
from quarterdeck.core.sites import Site
from quarterdeck.formats import job_yaml
from quarterdeck.services import jobs, projects, schedules
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance
from quarterdeck.storage.executions import ExecutionQuery

T = TypeVar("T")
PROJECT = "ops"
START = datetime(2027, 1, 10, 12, 0, tzinfo=UTC)
OPERATOR = Account(id=AccountId("op"), name="olga", kind="user", roles=frozenset({"operator"}), created_at=START)
JOB = """
- name: {name}
  group: night
  project: ops
  schedule: {{crontab: '{crontab}'}}
  multipleExecutions: {several}
  {more}
  sequence: {{commands: [{{exec: echo tick}}]}}
"""


@dataclass
class World:
    database: Database
    site: Site = field(default_factory=Site)
    now: datetime = START

    def do(self, function: Callable[[Context], T], account: Account = SYSTEM) -> T:
        with self.database.unit_of_work(Provenance(actor="tests")) as store:
            store.now = self.now
            answer = function(Context(account=account, store=store, site=self.site))
            store.commit()
        return answer

    def job(
        self,
        name: str = "tick",
        crontab: str = "0 * * * * ? *",
        more: str = "",
        account: Account = SYSTEM,
        *,
        several: bool = True,
    ) -> int:
        """A scheduled job, kept; one of this name is replaced."""
        text = JOB.format(name=name, crontab=crontab, several=str(several).lower(), more=more)
        return self.imported(text, account)

    def imported(self, text: str, account: Account = SYSTEM) -> int:
        (done,) = self.do(lambda ctx: jobs.import_all(ctx, job_yaml.read(text.encode()), "update"), account)
        assert done.problems == ()
        assert done.id is not None
        return done.id

    def fire(self, at: datetime) -> int:
        self.now = at
        return self.do(schedules.fire_due)

    def started(self) -> list[datetime]:
        """When executions began, oldest first."""
        return sorted(one.started for one in self.do(lambda ctx: ctx.store.executions.matching(ExecutionQuery())))

    def next_due(self) -> datetime | None:
        return self.do(lambda ctx: ctx.store.jobs.next_due())

    def activities(self) -> list[Activity]:
        return self.do(lambda ctx: ctx.store.activities.find(ActivityQuery(project=PROJECT)))[0]


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=3, secret_key=bytes(32))
    world = World(database)
    world.do(lambda ctx: projects.create(ctx, PROJECT))
    yield world
    database.close()


def test_a_job_is_started_when_it_is_due_and_planned_anew(world: World) -> None:
    world.job()

    early = world.fire(START + timedelta(seconds=59))
    fired = world.fire(START + timedelta(seconds=60, milliseconds=7))
    again = world.fire(START + timedelta(seconds=61))

    assert (early, fired, again) == (0, 1, 0)
    assert world.started() == [START + timedelta(seconds=60, milliseconds=7)]
    assert world.next_due() == START + timedelta(minutes=2)


def test_a_run_is_its_last_savers(world: World) -> None:
    world.do(lambda ctx: ctx.store.accounts.add(OPERATOR))
    world.job(account=OPERATOR)

    world.fire(START + timedelta(minutes=1))

    (one,) = world.do(lambda ctx: ctx.store.executions.matching(ExecutionQuery()))
    assert (one.user, one.account_id, one.kind) == ("olga", "op", "job")


def test_a_run_that_is_a_little_late_begins_and_an_older_one_is_missed(world: World) -> None:
    world.site = Site(misfire_seconds=30)
    world.job(crontab="0 0 * * * ? *")

    world.fire(START + timedelta(hours=1, seconds=30))
    world.fire(START + timedelta(hours=2, seconds=31))

    assert world.started() == [START + timedelta(hours=1, seconds=30)]
    assert [(one.status, one.title) for one in world.activities()] == [("missed", "night/tick")]
    assert world.next_due() == START + timedelta(hours=3)


def test_a_long_downtime_is_told_once_and_nothing_is_made_up_for(world: World) -> None:
    job_id = world.job()

    world.fire(START + timedelta(days=3, seconds=1))

    (told,) = world.activities()
    assert told.summary == "The run that was due at 2027-01-10 12:01:00+00:00 and later ones could not begin in time."
    assert (told.user, told.job_id, told.started) == ("quarterdeck", str(job_id), START + timedelta(minutes=1))
    assert world.started() == []
    assert world.next_due() == START + timedelta(days=3, minutes=1)


def test_a_time_at_which_the_job_still_runs_is_left_out_without_a_trace(world: World) -> None:
    world.job(several=False)

    world.fire(START + timedelta(minutes=1))
    world.fire(START + timedelta(minutes=2))

    assert len(world.started()) == 1
    assert world.activities() == []
    assert world.next_due() == START + timedelta(minutes=3)


def test_a_job_whose_required_option_has_no_value_fails_visibly_and_its_schedule_goes_on(world: World) -> None:
    world.job(more="options: {target: {required: true}}")

    world.fire(START + timedelta(minutes=1))
    world.fire(START + timedelta(minutes=2))

    summary = "The scheduled run did not begin: Option 'target' is required."
    assert [(one.status, one.summary) for one in world.activities()] == [("failed", summary)] * 2
    assert world.next_due() == START + timedelta(minutes=3)


def _remove(ctx: Context) -> None:
    ctx.store.accounts.remove(OPERATOR.id)


def _replace(**changes: object) -> Callable[[Context], None]:
    return lambda ctx: ctx.store.accounts.replace(dataclasses.replace(OPERATOR, **changes))  # type: ignore[arg-type]  # of several types


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_remove, "The account 'olga', which saved the job last, is gone."),
        (_replace(enabled=False), "The account 'olga', which saved the job last, is disabled or has expired."),
        (_replace(expires_at=START), "The account 'olga', which saved the job last, is disabled or has expired."),
        (_replace(roles=frozenset({"read_only"})), "'olga' lacks the right job.run."),
    ],
)
def test_an_account_that_may_not_run_it_any_more_starts_nothing(
    world: World, change: Callable[[Context], None], reason: str
) -> None:
    world.do(lambda ctx: ctx.store.accounts.add(OPERATOR))
    world.job(account=OPERATOR)
    world.do(change)

    world.fire(START + timedelta(minutes=1))

    assert world.started() == []
    assert [one.summary for one in world.activities()] == [f"The scheduled run did not begin: {reason}"]


def test_access_policies_count_for_scheduled_runs(world: World) -> None:
    world.do(lambda ctx: ctx.store.accounts.add(OPERATOR))
    job_id = world.job(account=OPERATOR)
    world.site = Site(policies=lambda: (AccessPolicy(project=".*", usernames=frozenset({"olga"})),))

    world.fire(START + timedelta(minutes=1))

    assert world.started() == []
    summary = f'The scheduled run did not begin: Not authorized for action "Run" for Job ID {job_id}'
    assert [one.summary for one in world.activities()] == [summary]


def test_a_job_that_cannot_start_does_not_keep_others_from_starting(world: World) -> None:
    world.job(name="broken", more="options: {target: {required: true}}")
    world.job(name="sound")

    fired = world.fire(START + timedelta(minutes=1))

    assert fired == 2
    assert len(world.started()) == 1


def test_a_job_that_cannot_be_read_any_more_does_not_keep_others_from_starting(world: World) -> None:
    world.job(name="unreadable", more="options: {pass: {secure: true, value: hunter2}}")
    other = Database(world.database.url, pool_size=3, secret_key=bytes(range(32)))
    later = World(other)
    later.job(name="sound")

    later.do(schedules.replan)
    later.fire(START + timedelta(minutes=1))
    later.fire(START + timedelta(minutes=2))
    runs, told = later.started(), later.activities()[0]
    other.close()

    assert len(runs) == 2
    assert (told.status, told.title, told.user) == ("failed", "night/unreadable", "quarterdeck")
    assert told.summary.startswith("The schedule ends: A secret was encrypted with another key")


def test_deleting_a_job_and_dropping_its_schedule_end_it(world: World) -> None:
    gone = world.job(name="gone")
    kept = world.job(name="kept")

    world.do(lambda ctx: jobs.delete(ctx, str(gone)))
    unscheduled = world.imported(
        "- {name: kept, group: night, project: ops, sequence: {commands: [{exec: echo tick}]}}"
    )

    assert unscheduled == kept
    assert world.next_due() is None
    assert world.fire(START + timedelta(minutes=1)) == 0


def test_two_units_of_work_do_not_get_the_same_job(world: World) -> None:
    world.job(name="one")
    world.job(name="two")
    world.now = START + timedelta(minutes=1)
    by = Provenance(actor="tests")

    with world.database.unit_of_work(by) as first, world.database.unit_of_work(by) as second:
        first.now = second.now = world.now
        counts = [
            schedules.fire_due(Context(account=SYSTEM, store=first), most=1),
            schedules.fire_due(Context(account=SYSTEM, store=second)),
        ]
        first.commit()
        counts.append(schedules.fire_due(Context(account=SYSTEM, store=second)))
        second.commit()

    assert counts == [1, 1, 0]
    assert len(world.started()) == 2


def test_a_new_default_time_zone_moves_future_times_and_no_past_ones(world: World) -> None:
    world.job(name="future", crontab="0 0 3 * * ? *")
    world.job(name="own zone", crontab="0 0 3 * * ? *", more="timeZone: Europe/Berlin")
    world.job(name="past", crontab="0 1 12 * * ? *")
    world.now = START + timedelta(minutes=2)
    world.site = Site(zone=ZoneInfo("America/New_York"))

    changed = world.do(schedules.replan)

    assert changed == 1
    assert world.next_due() == START + timedelta(minutes=1)
    assert world.do(lambda ctx: ctx.store.jobs.at(PROJECT, "night", "future")[0].next_run) == datetime(
        2027, 1, 11, 8, tzinfo=UTC
    )


def test_a_time_zone_that_is_not_known_any_more_ends_the_schedule_visibly(world: World) -> None:
    job_id = world.job(more="timeZone: Europe/Berlin")

    def forget_zone(ctx: Context) -> None:
        kept = ctx.store.jobs.get(job_id)
        schedule = dataclasses.replace(kept.job.schedule, zone="Europe/Atlantis")  # type: ignore[type-var]  # is set
        ctx.store.jobs.replace(dataclasses.replace(kept, job=dataclasses.replace(kept.job, schedule=schedule)))

    world.do(forget_zone)
    world.fire(START + timedelta(minutes=1))

    assert [one.summary for one in world.activities()] == ["The schedule ends: Time zone is not known: Europe/Atlantis"]
    assert world.next_due() is None


# -- days on which the clock changes ----------------------------------------------------------


def _live(world: World, until: datetime) -> list[datetime]:
    """Fire at each time that is due, as it comes; returns when runs began."""
    while (due := world.next_due()) is not None and due < until:
        world.fire(due)
    assert world.activities() == []
    return world.started()


@pytest.mark.parametrize(
    ("zone", "day", "crontab", "expected"),
    [
        # 02:00 -> 03:00 local; 02:30 does not exist and happens at 03:00.
        ("America/New_York", "2027-03-14", "0 30 2 * * ? *", ["03:00:00-04:00"]),
        ("America/New_York", "2027-03-14", "0 0,20,40 2 * * ? *", ["03:00:00-04:00"]),
        ("Europe/Berlin", "2027-03-28", "0 30 2 * * ? *", ["03:00:00+02:00"]),
        # Half an hour: 02:00 -> 02:30.
        ("Australia/Lord_Howe", "2027-10-03", "0 15 2 * * ? *", ["02:30:00+11:00"]),
        ("Australia/Lord_Howe", "2027-10-03", "0 45 2 * * ? *", ["02:45:00+11:00"]),
        # Twice there, once served, and that the first time.
        ("America/New_York", "2027-11-07", "0 30 1 * * ? *", ["01:30:00-04:00"]),
        ("Europe/Berlin", "2027-10-31", "0 30 2 * * ? *", ["02:30:00+02:00"]),
        ("Australia/Lord_Howe", "2027-04-04", "0 45 1 * * ? *", ["01:45:00+11:00"]),
    ],
)
def test_each_time_of_a_day_with_a_clock_change_is_served_once(
    world: World, zone: str, day: str, crontab: str, expected: list[str]
) -> None:
    place = ZoneInfo(zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=place)
    world.now = begin.astimezone(UTC)
    world.site = Site(zone=place)
    world.job(crontab=crontab)

    runs = _live(world, (begin + timedelta(days=1)).astimezone(UTC))

    assert [one.astimezone(place).isoformat() for one in runs] == [f"{day}T{time}" for time in expected]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2027-03-14", 23),
        ("America/New_York", "2027-11-07", 25),
        ("Europe/Berlin", "2027-10-31", 25),
        ("Australia/Lord_Howe", "2027-04-04", 24.5),
        ("Australia/Lord_Howe", "2027-10-03", 23.5),
    ],
)
def test_a_schedule_for_every_half_hour_has_no_pause_and_no_double_run(
    world: World, zone: str, day: str, hours: float
) -> None:
    place = ZoneInfo(zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=place)
    world.now = begin.astimezone(UTC) - timedelta(seconds=1)
    world.site = Site(zone=place)
    world.job(crontab="0 0/30 * * * ? *")

    runs = _live(world, (begin + timedelta(days=1)).astimezone(UTC))

    assert len(runs) == hours * 2
    assert {later - earlier for earlier, later in itertools.pairwise(runs)} == {timedelta(minutes=30)}


def test_a_year_of_nights_has_as_many_runs_as_nights(world: World) -> None:
    place = ZoneInfo("Europe/Berlin")
    world.now = datetime(2027, 1, 1, tzinfo=place).astimezone(UTC)
    world.site = Site(zone=place)
    world.job(crontab="0 30 2 * * ? *")

    runs = _live(world, datetime(2028, 1, 1, tzinfo=place).astimezone(UTC))

    assert len({one.astimezone(place).date() for one in runs}) == len(runs) == 365


def test_an_execution_that_ended_makes_room_for_the_next(world: World) -> None:
    world.job(several=False)
    world.fire(START + timedelta(minutes=1))

    def end(ctx: Context) -> None:
        (one,) = ctx.store.executions.matching(ExecutionQuery(state=State.RUNNING))
        ctx.store.executions.finish(one.id, 0, succeeded=True)

    world.do(end)
    world.fire(START + timedelta(minutes=2))

    assert len(world.started()) == 2
