# SPDX-License-Identifier: Apache-2.0
"""Projects, jobs and executions from outside; what runs here really runs, on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.dialects.native.conftest import Native
from tests.dialects.native.test_chapters import failed
from tests.engine.worlds import World, until

from quarterdeck.core.resources import Resource
from quarterdeck.services import resources

JOB = """
- name: restart
  group: web
  description: Restarts a service
  project: elsewhere
  loglevel: INFO
  options:
    service: {required: true, value: nginx}
    key: {secure: true, value: hunter2}
  sequence:
    commands:
    - exec: echo restarting ${option.service}
"""


@pytest.fixture
def ops(native: Native) -> Native:
    """There is a project."""
    made = native.ask("PUT", "/projects", "admin", {"name": "ops", "description": "Operations"})
    assert made.status_code == 201, made.text
    return native


def load(native: Native, text: str, query: str = "") -> dict[str, list[dict[str, Any]]]:
    answer = native.client.post(
        f"/quarterdeck/api/1/projects/ops/jobs/import{query}",
        content=text,
        headers={"X-API-Token": native.tokens["admin"]},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@contextmanager
def working(native: Native) -> Iterator[World]:
    world = World(native.database)
    with world.worker():
        yield world


def start(native: Native, command: str, **more: Any) -> int:
    answer = native.ask("POST", "/projects/ops/executions", "admin", {"command": command, **more})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def followed(native: Native, execution: int, offset: int = 0) -> list[dict[str, Any]]:
    answer = native.ask("GET", f"/executions/{execution}/follow?offset={offset}", "read")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def result(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


# -- projects -------------------------------------------------------------------------------


def test_a_project_is_made_changed_and_deleted(ops: Native) -> None:
    changes = {"description": "Ours", "properties": {"project.ssh-user": "deploy", "project.ssh-keypath": "/k"}}
    result(ops.ask("POST", "/projects/ops", "admin", changes))
    result(ops.ask("POST", "/projects/ops", "admin", {"properties": {"project.ssh-keypath": None}}))

    shown = result(ops.ask("GET", "/projects/ops", "read"))
    assert shown == {"name": "ops", "description": "Ours", "properties": {"project.ssh-user": "deploy"}}
    assert result(ops.ask("GET", "/projects", "read")) == [shown]
    assert failed(ops.ask("PUT", "/projects", "admin", {"name": "ops"})) == (409, "already_exists")
    assert failed(ops.ask("PUT", "/projects", "admin", {"name": "no/way"})) == (400, "invalid")
    assert result(ops.ask("DELETE", "/projects/ops", "admin")) == {"deleted": "ops"}
    assert failed(ops.ask("GET", "/projects/ops", "read")) == (404, "not_found")


def test_a_project_that_runs_is_not_deleted(ops: Native) -> None:
    start(ops, "true")

    assert failed(ops.ask("DELETE", "/projects/ops", "admin")) == (409, "conflict")


def test_the_nodes_of_a_project_say_where_they_come_from(ops: Native) -> None:
    some = [Resource("web1", hostname="web1.example.com", tags=frozenset({"web", "eu"})), Resource("db1")]
    with ops.unit_of_work() as ctx:
        resources.replace_document(ctx, "ops", lambda: some)

    everything = result(ops.ask("GET", "/projects/ops/nodes", "read"))
    tagged = result(ops.ask("GET", "/projects/ops/nodes?tags=web%2Beu", "read"))

    assert {one["name"]: one["source"] for one in everything} == {
        "db1": "document",
        "localhost": "server",
        "web1": "document",
    }
    assert [(one["name"], one["tags"]) for one in tagged] == [("web1", ["eu", "web"])]
    assert failed(ops.ask("GET", "/projects/ops/nodes?colour=red", "read")) == (400, "invalid")


# -- jobs -------------------------------------------------------------------------------------


def test_jobs_are_imported_into_the_project_of_the_path(ops: Native) -> None:
    done = load(ops, JOB)

    [made] = done["succeeded"]
    assert (made["name"], made["group"], made["project"], done["failed"]) == ("restart", "web", "ops", [])
    [listed] = result(ops.ask("GET", "/projects/ops/jobs?group=web", "read"))
    assert (listed["id"], listed["uuid"], listed["nextRun"]) == (made["id"], made["uuid"], None)
    assert load(ops, JOB, "?duplicates=skip")["skipped"][0]["id"] == made["id"]
    assert load(ops, JOB, "?duplicates=update")["succeeded"][0]["id"] == made["id"]
    assert load(ops, "- {name: bad}")["failed"][0]["problems"]


def test_a_job_comes_out_as_it_went_in_without_what_is_secret(ops: Native) -> None:
    [made] = load(ops, JOB)["succeeded"]

    exported = {
        form: ops.ask("GET", f"/projects/ops/jobs/export?format={form}&ids={made['id']}", "read")
        for form in ("yaml", "xml")
    }
    shown = result(ops.ask("GET", f"/jobs/{made['uuid']}", "read"))

    for form, answer in exported.items():
        assert "echo restarting ${option.service}" in answer.text
        assert "hunter2" not in answer.text
        again = load(ops, answer.text, f"?format={form}&duplicates=update")
        assert [one["id"] for one in again["succeeded"]] == [made["id"]]
    assert shown["definition"]["options"]["key"]["value"] == "*****"
    with ops.unit_of_work() as ctx:
        kept = {one.name: one.value for one in ctx.store.jobs.get(made["id"]).job.options}
    assert kept["key"] == "hunter2", "coming back, the hidden value means the one that is kept"


@pytest.mark.parametrize("query", ["?format=json", "?duplicates=perhaps"])
def test_an_import_that_cannot_be_understood_is_an_error(ops: Native, query: str) -> None:
    headers = {"X-API-Token": ops.tokens["admin"]}
    answer = ops.client.post(f"/quarterdeck/api/1/projects/ops/jobs/import{query}", content=JOB, headers=headers)

    assert failed(answer) == (400, "invalid")


def test_several_jobs_go_together_or_not_at_all(ops: Native) -> None:
    first, second = (load(ops, JOB.replace("restart\n", f"{name}\n"))["succeeded"][0]["uuid"] for name in "ab")

    assert failed(ops.ask("POST", "/jobs/purge", "admin", {"ids": [first, "nobody"]})) == (404, "not_found")
    assert len(result(ops.ask("GET", "/projects/ops/jobs", "read"))) == 2
    assert len(result(ops.ask("POST", "/jobs/purge", "admin", {"ids": [first, second, first]}))["deleted"]) == 2
    assert result(ops.ask("GET", "/projects/ops/jobs", "read")) == []


@pytest.mark.parametrize("options", [{"service": "apache two"}, "-service 'apache two'"])
def test_a_job_runs_with_its_options(ops: Native, options: Any) -> None:
    [made] = load(ops, JOB)["succeeded"]

    with working(ops):
        started = result(ops.ask("POST", f"/jobs/{made['id']}/run", "admin", {"options": options}))
        events = followed(ops, started["id"])

    assert (started["state"], started["argstring"]) == ("running", "-service 'apache two'")
    assert [one["text"] for one in events if one["type"] == "output"] == ["restarting apache two\n"]
    assert (events[-1]["type"], events[-1]["state"], events[-1]["job"]["name"]) == ("end", "succeeded", "restart")
    assert result(ops.ask("GET", "/projects/ops/jobs", "read"))[0]["averageMilliseconds"] is not None
    assert failed(ops.ask("DELETE", "/jobs/999", "admin")) == (404, "not_found")
    assert result(ops.ask("DELETE", f"/jobs/{made['id']}", "admin"))["deleted"][0]["name"] == "restart"


# -- executions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"command": "true", "script": "true"},
        {"command": "true", "args": "-x"},
        {"command": "true", "filter": {"colour": "red"}},
        {"command": "true", "filter": {}},
        {"command": "true", "threadcount": 0},
        {"command": "true", "loglevel": "LOUD"},
    ],
)
def test_what_cannot_be_run_is_an_error(ops: Native, document: Any) -> None:
    assert failed(ops.ask("POST", "/projects/ops/executions", "admin", document)) == (400, "invalid")


def test_an_execution_is_listed_and_shown_with_its_nodes(ops: Native) -> None:
    with working(ops) as world:
        bad = start(ops, "echo out; exit 4")
        world.ended(bad)
        waiting = start(ops, "true", filter={"name": "nobody"})
        world.ended(waiting)

    shown = result(ops.ask("GET", f"/executions/{bad}", "read"))
    failing = result(ops.ask("GET", "/executions?project=ops&state=failed", "read"))
    assert (shown["state"], shown["nodes"], shown["nodesFailed"]) == ("failed", ["localhost"], 1)
    [node] = shown["nodeStates"]
    assert (node["node"], node["state"], node["step"], node["exitStatus"]) == ("localhost", "failed", "1", 4)
    assert bad in [one["id"] for one in failing]
    assert failed(ops.ask("GET", "/executions?state=odd", "read")) == (400, "invalid")
    assert failed(ops.ask("GET", "/executions/77", "read")) == (404, "not_found")
    assert result(ops.ask("GET", f"/executions/{bad}/notifications", "read")) == []
    history = result(ops.ask("GET", "/projects/ops/history?status=failed", "read"))
    assert bad in [one["executionId"] for one in history["entries"]]
    assert history["total"] == len(history["entries"])


def test_a_script_has_its_arguments(ops: Native) -> None:
    with working(ops) as world:
        document = {"script": '#!/bin/sh\necho "$2 $1"\n', "args": "one two"}
        execution = result(ops.ask("POST", "/projects/ops/executions", "admin", document))["id"]
        world.ended(execution)

    assert result(ops.ask("GET", f"/executions/{execution}/output", "read"))["entries"][0]["text"] == "two one\n"


def test_output_is_read_page_by_page_and_from_its_end(ops: Native) -> None:
    with working(ops) as world:
        execution = start(ops, "for i in 1 2 3 4; do echo line $i; done")
        world.ended(execution)
    texts, offset, completed = "", 0, False

    while not completed:
        page = result(ops.ask("GET", f"/executions/{execution}/output?offset={offset}&bytes=8", "read"))
        texts += "".join(one["text"] for one in page["entries"])
        offset, completed = page["offset"], page["completed"]
    last = result(ops.ask("GET", f"/executions/{execution}/output?lines=2", "read"))

    assert texts == "line 1\nline 2\nline 3\nline 4\n"
    assert "".join(one["text"] for one in last["entries"]) == "line 3\nline 4\n"
    assert (last["offset"], last["size"]) == (len(texts), len(texts))


def test_whoever_follows_sees_everything_once_and_in_order(ops: Native) -> None:
    with working(ops):
        execution = start(ops, "for i in 1 2 3; do echo $i; sleep 0.1; done; exit 3")
        events = followed(ops, execution)
        later = followed(ops, execution, offset=2)

    assert "".join(one["text"] for one in events if one["type"] == "output").startswith("1\n2\n3\n")
    nodes = [(one["state"], one["exitStatus"]) for one in events if one["type"] == "node"]
    assert nodes[-1] == ("failed", 3)
    assert len(nodes) == len(set(nodes))
    assert [one["type"] for one in events].count("end") == 1
    assert events[-1]["state"] == "failed"
    assert "".join(one["text"] for one in later if one["type"] == "output").startswith("2\n3\n")


def test_long_output_is_followed_in_one_piece(ops: Native) -> None:
    with working(ops):
        execution = start(ops, "seq 1 150000")
        texts = "".join(one["text"] for one in followed(ops, execution) if one["type"] == "output")

    assert texts.splitlines() == [str(number) for number in range(1, 150001)]


def test_many_follow_at_once_with_few_threads_until_the_end(ops: Native) -> None:
    endings: list[str] = []
    execution = start(ops, "echo done")
    threads = [threading.Thread(target=lambda: endings.append(followed(ops, execution)[-1]["type"])) for _ in range(12)]
    for one in threads:
        one.start()

    assert ops.ask("GET", "/me", "read").status_code == 200, "twelve who wait hold none of the four threads"
    with working(ops):
        for one in threads:
            one.join(30)

    assert endings == ["end"] * 12


def test_whoever_loses_the_right_hears_no_more(ops: Native) -> None:
    execution = start(ops, "true")
    heard: list[list[dict[str, Any]]] = []
    thread = threading.Thread(target=lambda: heard.append(followed(ops, execution)))
    thread.start()
    until(lambda: bool(ops.parts.follow and _waiting(ops)))

    result(ops.ask("DELETE", "/tokens/read", "admin"))
    result(ops.ask("POST", f"/executions/{execution}/abort", "admin"))
    thread.join(30)

    assert "end" not in [one["type"] for one in heard[0]]


def _waiting(native: Native) -> int:
    follower = getattr(native.parts.follow, "__self__", None)
    return len(follower._waiting) if follower else 0


def test_an_abort_is_asked_for_and_said(ops: Native) -> None:
    with working(ops) as world:
        execution = start(ops, "echo begun; sleep 600")
        until(lambda: bool(world.output(execution)))
        asked = result(ops.ask("POST", f"/executions/{execution}/abort", "admin"))
        events = followed(ops, execution)
        again = result(ops.ask("POST", f"/executions/{execution}/abort", "admin"))

    assert asked == {"abort": "pending", "state": "running", "reason": ""}
    assert (events[-1]["state"], events[-1]["abortedBy"]) == ("aborted", "admin")
    assert (again["abort"], again["state"]) == ("failed", "aborted")


def test_what_failed_is_tried_again(ops: Native) -> None:
    with working(ops) as world:
        good, bad = start(ops, "true"), start(ops, "exit 9")
        world.ended(good)
        world.ended(bad)
        again = result(ops.ask("POST", f"/executions/{bad}/retry-failed", "admin"))
        world.ended(again["id"])

    assert (again["description"], again["nodes"]) == ("exit 9", ["localhost"])
    assert failed(ops.ask("POST", f"/executions/{good}/retry-failed", "admin")) == (409, "conflict")
