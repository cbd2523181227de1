# SPDX-License-Identifier: Apache-2.0
"""How a job goes over its nodes: order, how many at once, what a failure stops, options, references to other jobs."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine import worlds
from tests.engine.worlds import HERE, PROJECT, World, everywhere, local, remote
from tests.sshd import Sshd

from quarterdeck.core.errors import Conflict, Invalid
from quarterdeck.core.executions import State
from quarterdeck.core.jobs import Dispatch, Exec, Job, JobRef, Option, Script, ScriptFile, Sequence, Step
from quarterdeck.core.node_filters import NodeFilter, Side
from quarterdeck.services import executions, host_keys, jobs

NODES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def shared(postgres_server: str, postgres_template: str) -> Iterator[World]:
    """One world with a worker for all stories here; each has a job of its own."""
    from tests.postgres import database_from

    with database_from(postgres_server, postgres_template, "dispatch") as url, worlds.made(url) as world:
        world.here(*NODES)
        with world.worker():
            yield world


@pytest.fixture
def world(shared: World) -> World:
    shared.nodes(*(local(name, rank=str(9 - place)) for place, name in enumerate(NODES)))
    return shared


def job(
    *steps: Step, name: str = "job", keepgoing: bool = False, strategy: str = "node-first", **changes: object
) -> Job:
    sequence = Sequence(steps=steps, keepgoing=keepgoing, strategy=strategy)  # type: ignore[arg-type]  # as documents
    made = Job(name, PROJECT, node_filter=everywhere(), multiple_executions=True, sequence=sequence)
    return replace(made, **changes)  # type: ignore[arg-type]  # the caller names fields


def run(world: World, one: Job, argstring: str = "") -> int:
    """Run the job to its end; the execution's number."""
    execution = world.run(world.save(one), argstring)
    world.ended(execution)
    return execution


def traced(trace: Path, step: int) -> Exec:
    return Exec(f"echo {step}${{node.name}} >>{trace}")


# -- order, and how many at once --------------------------------------------------------------


def test_node_first_goes_through_all_steps_of_a_node_before_the_next(world: World, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    run(world, job(traced(trace, 1), traced(trace, 2)))

    assert trace.read_text().split() == ["1a", "2a", "1b", "2b", "1c", "2c", "1d", "2d"]


def test_step_first_goes_over_all_nodes_before_the_next_step(world: World, tmp_path: Path) -> None:
    trace = tmp_path / "trace"

    run(world, job(traced(trace, 1), traced(trace, 2), strategy="step-first"))

    assert trace.read_text().split() == ["1a", "1b", "1c", "1d", "2a", "2b", "2c", "2d"]


def test_a_rank_attribute_decides_the_order_of_nodes(world: World, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    ranked = job(traced(trace, 1), dispatch=Dispatch(rank_attribute="rank"))

    execution = run(world, ranked)

    assert trace.read_text().split() == ["1d", "1c", "1b", "1a"]
    assert world.execution(execution).nodes == ("d", "c", "b", "a")


@pytest.mark.parametrize("strategy", ["node-first", "step-first"])
def test_never_more_nodes_than_the_threadcount_are_busy_at_once(world: World, tmp_path: Path, strategy: str) -> None:
    busy = Exec(f"echo + >>{tmp_path}/busy; sleep 0.2; echo - >>{tmp_path}/busy")

    run(world, job(busy, busy, strategy=strategy, dispatch=Dispatch(threadcount=3)))

    signs = (tmp_path / "busy").read_text().split()
    level = [signs[: place + 1].count("+") - signs[: place + 1].count("-") for place in range(len(signs))]
    assert max(level) == 3
    assert len(signs) == 16


# -- failures ---------------------------------------------------------------------------------


def failing(trace: Path, where: str) -> Exec:
    return Exec(f"echo ${{node.name}} >>{trace}; [ ${{node.name}} != {where} ]")


@pytest.mark.parametrize(
    ("node_keepgoing", "step_keepgoing", "expected"),
    [
        (False, False, "1a 2a 1b"),
        (True, False, "1a 2a 1b 1c 2c 1d 2d"),
        (False, True, "1a 2a 1b 2b"),
        (True, True, "1a 2a 1b 2b 1c 2c 1d 2d"),
    ],
)
def test_keepgoing_decides_what_a_failure_stops(
    world: World, tmp_path: Path, *, node_keepgoing: bool, step_keepgoing: bool, expected: str
) -> None:
    trace = tmp_path / "trace"
    first = Exec(f"echo 1${{node.name}} >>{trace}; [ ${{node.name}} != b ]")

    execution = run(
        world,
        job(first, traced(trace, 2), keepgoing=step_keepgoing, dispatch=Dispatch(keepgoing=node_keepgoing)),
    )

    assert trace.read_text().split() == expected.split()
    ended = world.execution(execution)
    assert ended.state is State.FAILED
    assert ended.nodes_failed == 1
    assert "b ERR: Command failed with exit status 1" in world.output(execution)


def test_what_failed_can_be_tried_again_on_those_nodes_alone(world: World, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    broken = tmp_path / "broken"
    broken.touch()
    line = f"echo ${{node.name}}-${{option.what}} >>{trace}; [ ${{node.name}} != b ] || [ ! -e {broken} ]"
    with_option = job(Exec(line), options=(Option(name="what", value="x"),), dispatch=Dispatch(keepgoing=True))
    first = run(world, with_option, "-what y")
    broken.unlink()
    trace.unlink()

    again = world.do(lambda ctx: executions.retry_failed(ctx, str(first)))
    ended = world.ended(again.id)

    assert (ended.state, ended.nodes, ended.argstring) == (State.SUCCEEDED, ("b",), "-what y")
    assert trace.read_text().split() == ["b-y"]


def test_nothing_is_tried_again_when_nothing_failed(world: World) -> None:
    done = run(world, job(Exec("true")))

    with pytest.raises(Conflict, match="no node on which it did not succeed"):
        world.do(lambda ctx: executions.retry_failed(ctx, str(done)))


# -- nodes ------------------------------------------------------------------------------------


def test_a_filter_that_means_no_node_fails_and_says_so(world: World) -> None:
    nowhere = job(Exec("true"), node_filter=NodeFilter(include=Side(name="nobody")))

    execution = run(world, nowhere)

    assert world.execution(execution).state is State.FAILED
    assert world.output(execution) == [" ERR: No nodes matched"]


def test_a_filter_may_name_an_option(world: World) -> None:
    chosen = job(
        Exec("echo here"),
        node_filter=NodeFilter(include=Side(name="${option.node}")),
        options=(Option(name="node", required=True),),
    )

    execution = run(world, chosen, "-node c")

    assert world.output(execution) == ["c INFO: here"]


def test_without_a_filter_a_job_runs_on_the_server(world: World) -> None:
    execution = run(world, job(Exec("echo ${node.name}"), node_filter=None))

    assert world.output(execution) == [f"{HERE.name} INFO: {HERE.name}"]


# -- options ----------------------------------------------------------------------------------


def test_values_reach_lines_scripts_and_environments(world: World) -> None:
    with_options = job(
        Exec("echo line ${option.what} by ${job.username} $RD_OPTION_WHAT in $RD_JOB_PROJECT"),
        Script('echo "script @option.what@ $1 $RD_OPTION_WHAT on @node.name@ $RD_NODE_NAME"', "${option.what}"),
        options=(Option(name="what"),),
        node_filter=None,
    )

    execution = run(world, with_options, "-what 'a b'")

    assert world.output(execution) == [
        "here INFO: line a b by quarterdeck a b in ops",
        "here INFO: script a b a b a b on here here",
    ]


def test_a_script_of_the_server_runs_where_it_is_allowed(world: World, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$1 @option.what@"\n')
    with_file = job(ScriptFile(str(script), "${option.what}"), options=(Option(name="what"),), node_filter=None)

    execution = run(world, with_file, "-what x")

    assert world.output(execution) == ["here INFO: x @option.what@"]


def test_a_script_elsewhere_on_the_server_is_refused(world: World) -> None:
    execution = run(world, job(ScriptFile("/etc/passwd"), node_filter=None))

    assert world.execution(execution).state is State.FAILED
    assert world.output(execution) == [
        "here ERR: The file /etc/passwd is in none of the directories of the setting allowed_paths."
    ]


SECRET = "it's 'hidden' & $HOME"  # in a line it stands in pieces, between quotes


def secured(*steps: Step, **changes: object) -> Job:
    return job(*steps, options=(Option(name="pw", secure=True),), **changes)  # type: ignore[arg-type]  # as above


def test_a_secret_is_seen_by_its_command_and_by_nobody_else(world: World, sshd: Sshd) -> None:
    world.nodes(local("near"), remote(sshd, "far", "127.0.3.1"))
    line = "printf %s ${option.pw} | sha256sum; echo said ${option.pw}; echo $RD_OPTION_PW >&2; sleep 0.3; exit 1"
    script = 'printf %s "$RD_OPTION_PW" | sha256sum; echo "$RD_OPTION_PW"; sleep 0.3'
    quoted = SECRET.replace("'", "\\'")

    with watched_arguments() as seen:
        execution = run(
            world,
            secured(Exec(line), Script(script), dispatch=Dispatch(threadcount=2), keepgoing=True),
            f"-pw '{quoted}'",
        )

    told = "\n".join(world.output(execution))
    assert told.count(hashlib.sha256(SECRET.encode()).hexdigest()) == 4
    assert "said *****" in told
    assert "ERR: *****" in told
    assert "hidden" not in told
    assert world.execution(execution).argstring == "-pw *****"
    assert not [line for line in seen if "hidden" in line]


def test_a_line_with_a_secret_is_still_run_by_the_shell_of_the_user(world: World, sshd: Sshd) -> None:
    world.nodes(remote(sshd, "far", "127.0.3.2"))

    execution = run(world, secured(Exec('echo "${BASH_VERSION:+bash} ${SHELL##*/}" >&2; : ${option.pw}')), "-pw geheim")

    login = Path(os.environ.get("SHELL") or "/bin/sh").name
    found = world.output(execution)
    assert re.fullmatch(r"far ERR: (bash bash| (?!bash)\S+)", found[0]), (found, login)


class watched_arguments:  # noqa: N801  # a context manager
    """The arguments of every process of this machine meanwhile."""

    def __enter__(self) -> set[str]:
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self._seen

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self._seen.add(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue


# -- levels, limits ---------------------------------------------------------------------------


def test_a_host_with_another_key_is_refused_until_its_old_key_is_forgotten(
    world: World, sshds: Callable[..., Sshd]
) -> None:
    server = sshds("127.0.3.77")
    world.nodes(remote(server, "far"))
    two_steps = job(Exec("true"), Exec("true"))
    first = run(world, two_steps)
    server.change_host_key()

    refused = run(world, two_steps)
    world.do(lambda ctx: host_keys.forget(ctx, server.address))
    again = run(world, two_steps)

    states = [world.execution(one).state for one in (first, refused, again)]
    assert states == [State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
    told = [line for line in world.output(first) if "for the first time" in line]
    assert len(told) == 1
    assert f"{server.address} showed a host key for the first time, which is trusted from now on: SHA256:" in told[0]


def test_the_level_decides_what_is_kept(world: World) -> None:
    execution = run(world, job(Exec("echo out; echo err >&2"), node_filter=None, loglevel="WARN"))

    assert world.output(execution) == ["here ERR: err"]


def test_a_job_that_takes_too_long_fails_and_says_so(world: World) -> None:
    limited = job(Exec("sleep 60"), Exec("echo never"), node_filter=None, options=(Option(name="t"),))

    execution = run(world, replace(limited, timeout="${option.t}"), "-t 1s")

    ended = world.execution(execution)
    assert ended.state is State.FAILED
    assert world.output(execution) == ["here ERR: It was aborted.", " ERR: The job took longer than 1s"]
    assert world.steps(execution) == {("1", "here"): "failed"}


def test_a_long_log_ends_with_a_mark(fresh_postgres_url: str) -> None:
    with worlds.made(fresh_postgres_url, log_bytes=1000) as world, world.worker():
        execution = world.command("seq 1 1000; echo end >&2")

        ended = world.ended(execution)
        found = world.output(execution)

    assert ended.state is State.SUCCEEDED
    assert found[0] == "here INFO: 1"
    assert sum(len(line) for line in found) < 5000
    assert "The log of this execution is full (1000 bytes)" in found[-1]


# -- references -------------------------------------------------------------------------------


def test_a_referenced_job_runs_once_for_each_node_with_values_of_the_caller(world: World) -> None:
    inner = Exec("echo ${option.to} ${option.with} on ${node.name} in ${job.name}")
    world.save(job(inner, name="inner", group="g", options=(Option(name="to"), Option(name="with")), node_filter=None))
    outer = job(
        JobRef("inner", "g", "-to ${node.name} -with ${option.what}"),
        Exec("echo back in ${job.name}"),
        name="outer",
        options=(Option(name="what"),),
        node_filter=NodeFilter(include=Side(name="[ab]")),
    )

    execution = run(world, outer, "-what 'two words'")

    assert world.output(execution) == [
        "here INFO: a two words on here in inner",
        "a INFO: back in outer",
        "here INFO: b two words on here in inner",
        "b INFO: back in outer",
    ]
    assert world.steps(execution) == {
        ("1", "a"): "succeeded",
        ("1[a]/1", "here"): "succeeded",
        ("2", "a"): "succeeded",
        ("1", "b"): "succeeded",
        ("1[b]/1", "here"): "succeeded",
        ("2", "b"): "succeeded",
    }
    ended = world.execution(execution)
    assert (ended.state, ended.nodes, ended.nodes_succeeded) == (State.SUCCEEDED, ("a", "b"), 2)


def test_a_referenced_job_has_its_own_nodes_and_its_failure_is_the_step_s(world: World) -> None:
    world.save(job(Exec("echo ${node.name}; false"), name="wide", node_filter=NodeFilter(include=Side(name="[cd]"))))

    execution = run(world, job(JobRef("wide"), Exec("echo never"), name="caller", node_filter=None))

    assert world.execution(execution).state is State.FAILED
    assert world.output(execution) == [
        "c INFO: c",
        "c ERR: Command failed with exit status 1",
        "here ERR: Job wide failed",
    ]
    assert world.steps(execution) == {("1", "here"): "failed", ("1[here]/1", "c"): "failed"}


def test_secrets_of_the_caller_stay_hidden_in_a_referenced_job(world: World) -> None:
    world.save(job(Exec("echo ${option.plain} ${option.own}"), name="teller", node_filter=None, options=(
        Option(name="plain"), Option(name="own", secure=True, value="innermost", required=True))))  # fmt: skip

    execution = run(world, secured(JobRef("teller", "", "-plain ${option.pw}"), node_filter=None), "-pw outermost")

    assert world.output(execution) == ["here INFO: ***** *****"]


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        (JobRef("nobody"), "Job ref [nobody] invalid: No Unique Job found for name: nobody, group: , project: ops"),
        (JobRef("twin"), "Job ref [twin] invalid: No Unique Job found for name: twin, group: , project: ops"),
        (JobRef("picky", "", "-n x"), "Option 'n' doesn't match regular expression: '[0-9]+', value: x"),
        (JobRef("picky"), "Option 'n' is required."),
        (JobRef("itself"), "Job ref [itself] invalid: The job refers to itself"),
    ],
)
def test_a_reference_that_cannot_be_followed_fails_its_step(world: World, reference: JobRef, told: str) -> None:
    if not world.do(lambda ctx: ctx.store.jobs.at(PROJECT, "", "twin")):
        world.save(job(Exec("true"), name="twin"))
        world.save(job(Exec("true"), name="twin"))
        world.save(job(Exec("true"), name="picky", options=(Option(name="n", required=True, regex="[0-9]+"),)))
        world.save(job(JobRef("itself"), name="itself", node_filter=None))

    execution = run(world, job(reference, node_filter=None))

    assert world.execution(execution).state is State.FAILED
    assert any(told in line for line in world.output(execution))


# -- one at a time ----------------------------------------------------------------------------


def test_of_two_that_start_a_job_at_once_one_is_told_that_it_runs(world: World) -> None:
    saved = world.save(job(Exec("sleep 600"), node_filter=None, multiple_executions=False))
    started: list[int] = []
    refused: list[Conflict] = []
    barrier = threading.Barrier(4)

    def start() -> None:
        barrier.wait()
        try:
            started.append(world.run(saved))
        except Conflict as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(started) == 1
    running = f"is currently being executed (execution [{started[0]}])"
    assert [error.message for error in refused] == [f'Job "job" [{saved.id}] {running}'] * 3
    with pytest.raises(Conflict, match=re.escape(f"execution [{started[0]}]")):
        world.do(lambda ctx: jobs.delete(ctx, str(saved.id)))
    world.do(lambda ctx: executions.abort(ctx, str(started[0])))
    world.ended(started[0], 10)
    assert world.do(lambda ctx: jobs.delete(ctx, str(saved.id))).id == saved.id


def test_a_job_may_allow_several_at_once(world: World) -> None:
    saved = world.save(job(Exec("true"), node_filter=None))

    both = [world.run(saved), world.run(saved)]

    assert [world.ended(one).state for one in both] == [State.SUCCEEDED, State.SUCCEEDED]


def test_wrong_options_start_nothing(world: World) -> None:
    saved = world.save(job(Exec("true"), options=(Option(name="n", required=True),)))

    with pytest.raises(Invalid, match="Option 'n' is required"):
        world.run(saved)
