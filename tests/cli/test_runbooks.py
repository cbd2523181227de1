# SPDX-License-Identifier: Apache-2.0
"""Projects, jobs and executions with `quarterdeck`, against the whole application and a worker."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine, Running
from tests.daemon.servers import environment
from tests.engine.worlds import World, until

from quarterdeck.cli import following, run
from quarterdeck.core.connections import Address
from quarterdeck.core.resources import Resource
from quarterdeck.daemon import sites, tls
from quarterdeck.services import projects, resources
from quarterdeck.storage.database import Database

#: They share one server.
pytestmark = pytest.mark.xdist_group("cli runbooks")

# The worker and the API load it in different orders, here in one process and at the same time.
importlib.import_module("pgqueuer.queries")

JOBS = """
- name: restart
  group: web/tier1
  description: Restarts a service
  loglevel: INFO
  options:
    service: {required: true}
  sequence:
    commands:
    - exec: echo restarting ${option.service}
- name: fail
  description: ''
  loglevel: INFO
  sequence:
    commands:
    - exec: exit 7
"""


@pytest.fixture(scope="module")
def world(running: Running) -> Iterator[World]:
    """The server has a project `ops` and a worker."""
    secret = tls.secret(running.config.data)
    database = Database(running.config.database_url, pool_size=12, secret_key=secret)
    world = World(database, sites.site(running.config))
    world.do(lambda ctx: projects.create(ctx, "ops"))
    with world.worker():
        yield world
    database.close()


@pytest.fixture
def ops(operator: CommandLine, world: World) -> CommandLine:
    return operator


def loaded(ops: CommandLine) -> dict[str, str]:
    """Ids of the jobs by name."""
    done = ops("jobs", "load", ops.file("jobs.yaml", JOBS), "-p", "ops", "--json")
    assert done.code == 0, done.err
    return {one["name"]: str(one["id"]) for one in json.loads(done.out)["succeeded"]}


# -- run ------------------------------------------------------------------------------------------


def test_a_command_is_followed_and_its_output_stands_behind_the_node(ops: CommandLine, world: World) -> None:
    here = world.site.node.name

    done = ops("run", "-p", "ops", "--", "echo", "it's  fine", "$HOME")

    assert (done.code, done.out) == (0, f"{here}: it's  fine $HOME\n")
    assert re.search(rf"^{re.escape(here)} +succeeded +1 +0", done.err, re.MULTILINE), done.err
    assert re.search(r"Execution \d+ succeeded: 1 of 1 nodes succeeded\.", done.err)


def test_a_single_word_is_a_command_line(ops: CommandLine) -> None:
    assert ops("run", "-p", "ops", "--", "echo a b | tr a-z A-Z").out.endswith(": A B\n")


def test_the_exit_status_is_that_of_the_worst_node(ops: CommandLine) -> None:
    done = ops("run", "-p", "ops", "--", "echo out; echo err >&2; exit 42")

    assert done.code == 42
    assert ": out\n" in done.out
    assert ": err\n" not in done.out
    assert ": err\n" in done.err


@pytest.mark.parametrize(
    ("state", "statuses", "expected"),
    [
        ("succeeded", [0, 0], 0),
        ("failed", [3, 9, 0], 9),
        ("failed", [255], 1),
        ("failed", [None], 1),
        ("failed", [], 1),
        ("aborted", [0], 1),
        ("failed", [126, 125], 125),
    ],
)
def test_exit_statuses_of_nodes_become_one(state: str, statuses: list[int | None], expected: int) -> None:
    nodes = [{"state": "succeeded" if one == 0 else "failed", "exitStatus": one} for one in statuses]

    assert following.status(state, nodes) == expected


def test_a_script_runs_with_its_arguments(ops: CommandLine) -> None:
    script = ops.file("greet.sh", '#!/bin/sh\nprintf "%s;" "$@"\n')

    done = ops("run", "-p", "ops", "--script", script, "--", "a b", "c")

    assert (done.code, done.out.partition(": ")[2]) == (0, "a b;c;\n"), done.err


def test_every_event_is_json_on_demand(ops: CommandLine) -> None:
    done = ops("run", "-p", "ops", "--json", "--", "echo hello; exit 5")

    events = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (5, "")
    assert "hello\n" in [one["text"] for one in events if one["type"] == "output"]
    assert (events[-1]["type"], events[-1]["state"]) == ("end", "failed")


def test_a_run_can_be_left_alone_and_followed_later(ops: CommandLine) -> None:
    started = json.loads(ops("run", "-p", "ops", "--detach", "--json", "--", "echo later").out)

    done = ops("executions", "follow", str(started["id"]))

    assert (done.code, done.out.partition(": ")[2]) == (0, "later\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["web1"], {"name": "web1"}),
        (["web.*", "name=db1"], {"name": "web.*|db1"}),
        (["tags=web+eu", "tags=db"], {"tags": "web+eu,db"}),
        (["os-family=unix", "exclude-name=web2"], {"os-family": "unix", "exclude-name": "web2"}),
        (["tags=x", "exclude-precedence=false"], {"tags": "x", "exclude-precedence": "false"}),
    ],
)
def test_filters_are_understood(words: list[str], expected: dict[str, str] | None) -> None:
    assert run.filter_of(words) == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--", "true"], "--project"),
        (["run", "-p", "ops"], "Say what to run"),
        (["run", "-p", "ops", "-F", "colour=red", "--", "true"], "There is no filter 'colour'"),
        (["run", "-p", "ops", "-C", "0", "--", "true"], "-C"),
        (["jobs", "run", "restart"], "in which project"),
        (["jobs", "run", "1", "-o", "service"], "NAME=VALUE"),
        (["nodes", "list", "-F", "web"], "--project"),
        (["host-keys", "approve", "web1"], "FINGERPRINT"),
    ],
)
def test_wrong_usage_is_code_2(ops: CommandLine, arguments: list[str], said: str) -> None:
    done = ops(*arguments)

    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_the_servers_refusal_is_code_1(ops: CommandLine) -> None:
    done = ops("run", "-p", "nowhere", "--", "true")

    assert (done.code, done.err) == (1, "quarterdeck: project does not exist: nowhere\n")


def test_nobody_logged_in_is_code_4(quarterdeck: CommandLine) -> None:
    assert quarterdeck("run", "-p", "ops", "--", "true").code == 4


def program(ops: CommandLine, *arguments: str, output: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """`quarterdeck` in a process of its own."""
    kept = {name: os.environ[name] for name in ("XDG_CONFIG_HOME", "QUARTERDECK_URL") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "quarterdeck.cli.main", *arguments],
        stdout=output,
        stderr=output,
        text=True,
        env=environment() | kept | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )


def test_ctrl_c_asks_the_run_to_end_and_waits_for_it(ops: CommandLine, world: World) -> None:
    with program(ops, "run", "-p", "ops", "--", "echo begun; sleep 600") as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(": begun\n")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "Asking it to end" in err
    assert re.search(r"Execution \d+ aborted by admin: 0 of 1 nodes succeeded\.", err)


def test_a_second_ctrl_c_leaves_at_once(ops: CommandLine, world: World) -> None:
    with program(ops, "run", "-p", "ops", "--", "trap '' TERM; echo begun; sleep 600 & wait; sleep 600") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Asking it to end" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 130


# -- jobs -----------------------------------------------------------------------------------------


def test_jobs_are_loaded_listed_exported_and_deleted(ops: CommandLine) -> None:
    ids = loaded(ops)
    again = ops("jobs", "load", ops.file("again.yaml", JOBS), "-p", "ops")
    xml = ops("jobs", "export", "-p", "ops", "--format", "xml", ids["restart"])
    skipped = ops("jobs", "load", ops.file("again.xml", xml.out), "-p", "ops", "--duplicates", "skip")

    assert again.out.splitlines()[0] == f"succeeded web/tier1/restart (id {ids['restart']})"
    assert skipped.out.startswith(f"skipped web/tier1/restart (id {ids['restart']}): ")
    listed = ops("jobs", "list", "-p", "ops", "--group", "web")
    assert "web/tier1/restart" in listed.out
    assert "fail" not in listed.out
    exported = ops("jobs", "export", "-p", "ops").out
    assert "exit 7" in exported
    assert "restarting" in exported
    [definition] = json.loads(ops("jobs", "export", "-p", "ops", ids["fail"], "--json").out)
    assert definition["definition"]["sequence"]["commands"] == [{"exec": "exit 7"}]
    assert ops("jobs", "delete", "fail", "-p", "ops").out == f"deleted fail (id {ids['fail']})\n"
    purged = ops("jobs", "purge", "-p", "ops", "--group", "web", "--yes")
    assert purged.out == f"deleted web/tier1/restart (id {ids['restart']})\n"
    assert ops("jobs", "list", "-p", "ops").out == "There is no job.\n"


def test_a_document_with_a_bad_job_is_code_1_and_says_which(ops: CommandLine) -> None:
    done = ops("jobs", "load", ops.file("bad.yaml", "- {name: bad, description: ''}"), "-p", "ops")

    assert done.code == 1
    assert done.err.startswith("failed bad: ")
    assert ops("jobs", "load", ops.file("worse.xml", "<jobs"), "-p", "ops").code == 1


def test_a_job_is_run_by_its_group_and_name_and_followed(ops: CommandLine) -> None:
    ids = loaded(ops)

    named = ops("jobs", "run", "web/tier1/restart", "-p", "ops", "-o", "service=my web", "--follow")
    numbered = ops("jobs", "run", ids["fail"], "--follow")
    started = json.loads(ops("jobs", "run", ids["restart"], "-o", "service=x", "--json").out)
    ops("executions", "follow", str(started["id"]))

    assert (named.code, named.out.partition(": ")[2]) == (0, "restarting my web\n")
    assert numbered.code == 7
    assert "Option 'service' is required" in ops("jobs", "run", ids["restart"]).err
    assert ops("jobs", "run", "web/restart", "-p", "ops").err.startswith("quarterdeck: No job is called 'web/restart'")


# -- executions, projects and what belongs to them ---------------------------------------------


def test_executions_are_listed_shown_tried_again_and_aborted(ops: CommandLine, world: World) -> None:
    assert ops("run", "-p", "ops", "--", "exit 6").code == 6
    newest = json.loads(ops("executions", "list", "-p", "ops", "--state", "failed", "--json").out)[0]["id"]

    shown = ops("executions", "show", str(newest))
    again = ops("executions", "retry-failed", str(newest), "--follow")
    late = ops("executions", "abort", str(newest))

    assert "what: exit 6\n" in shown.out
    assert re.search(r" failed +1 +6$", shown.out, re.MULTILINE)
    assert again.code == 6
    assert (late.code, "not running" in late.err) == (1, True)
    assert re.search(rf"^{newest} +failed +exit 6 ", ops("executions", "list", "-p", "ops").out, re.MULTILINE)
    assert "exit 6" in ops("history", "-p", "ops", "--status", "failed").out
    started = json.loads(ops("run", "-p", "ops", "--detach", "--json", "--", "sleep 600").out)["id"]
    until(lambda: world.execution(started).owner is not None)
    assert ops("executions", "abort", str(started)).out == f"Execution {started} is to end.\n"
    assert ops("executions", "follow", str(started)).code == 1


class Relay:
    """A way to the server that can be cut: whoever was connected is not any more, and may connect again."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for one in (self.listener, *self.sockets):
            one.close()


def test_a_lost_connection_is_made_again_at_the_same_place(
    ops: CommandLine, world: World, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, mark = Relay(int(running.url.rpartition(":")[2])), ops.home / "mark"
    command = f"echo one; while [ ! -e {mark} ]; do sleep 0.1; done; echo two"
    started = json.loads(ops("run", "-p", "ops", "--detach", "--json", "--", command).out)["id"]
    monkeypatch.setenv("QUARTERDECK_URL", f"https://127.0.0.1:{relay.port}")

    with program(ops, "executions", "follow", str(started)) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        relay.cut()
        mark.touch()
        out, err = process.communicate(timeout=60)
    relay.close()

    assert (first.partition(": ")[2], out.partition(": ")[2]) == ("one\n", "two\n"), err
    assert process.returncode == 0
    assert len(relay.sockets) > 2


def test_a_terminal_shows_output_in_colours_and_how_far_it_is(ops: CommandLine) -> None:
    master, terminal = pty.openpty()
    arguments = ("run", "-p", "ops", "--", "echo '[bold]literal[/bold]'; sleep 0.5; exit 3")
    said = b""
    with program(ops, *arguments, output=terminal) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # the end of a terminal whose program has gone
            while data := os.read(master, 65536):
                said += data
    os.close(master)

    text = said.decode()
    assert process.returncode == 3
    assert "[bold]literal[/bold]" in text
    assert "\x1b[" in text
    assert "0 of 1 nodes" in text
    assert "failed: 0 of 1 nodes succeeded." in text


def test_projects_and_their_nodes(ops: CommandLine, world: World) -> None:
    made = ops("projects", "create", "spare", "--description", "A spare one", "--property", "project.ssh-user=deploy")
    some = [Resource("web1", hostname="web1.example.com", tags=frozenset({"web"}))]
    world.do(lambda ctx: resources.replace_document(ctx, "spare", lambda: some))

    assert made.out == "The project 'spare' is made.\n"
    assert re.search(r"^spare +A spare one$", ops("projects", "list").out, re.MULTILINE)
    assert re.search(r"^project.ssh-user +deploy$", ops("projects", "show", "spare").out, re.MULTILINE)
    nodes = ops("nodes", "list", "--project", "spare").out
    assert re.search(r"^web1 +web1.example.com .* document +ssh$", nodes, re.MULTILINE)
    assert re.search(r" server +local$", nodes, re.MULTILINE)
    assert len(json.loads(ops("nodes", "list", "-p", "spare", "-F", "tags=web", "--json").out)) == 1
    assert ops("projects", "delete", "spare", "--yes").out == "The project 'spare' is removed.\n"
    assert ops("projects", "show", "spare").code == 1


def test_secrets_come_from_standard_input_and_are_never_shown(
    ops: CommandLine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, kept in (("hunter2\n", "hunter2"), ("-----BEGIN\nkey\n-----END\n", "-----BEGIN\nkey\n-----END\n")):
        source = Path(ops.file("value", given))
        with source.open() as value:
            monkeypatch.setattr(sys, "stdin", value)
            done = ops("secrets", "set", "deploy", "--description", "For nodes")
        assert (done.code, done.out) == (0, "The secret 'deploy' is kept.\n")
        assert world.do(lambda ctx: ctx.store.secrets.get("deploy").value) == kept

    assert ops("secrets", "list").out.split() == ["NAME", "DESCRIPTION", "deploy", "For", "nodes"]
    assert ops("secrets", "remove", "deploy").code == 0
    assert ops("secrets", "list").out == "There is no secret.\n"


def test_host_keys_are_approved_and_forgotten(ops: CommandLine, world: World) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    world.do(lambda ctx: ctx.store.host_keys.see(Address("web1", 2222), key, trusted=False))
    fingerprint = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"

    assert fingerprint in ops("host-keys", "list", "--waiting").out
    approved = ops("host-keys", "approve", "web1", fingerprint, "--port", "2222")
    assert approved.out == f"ssh-ed25519 {fingerprint} of web1 is trusted.\n"
    assert "approved by admin" in ops("host-keys", "list").out
    assert ops("host-keys", "forget", "web1", fingerprint, "--port", "2222").out == "Forgotten: 1 of web1.\n"
    given = ops("host-keys", "approve", "web1", "--key-file", ops.file("key.pub", f"{key} root@web1\n"))
    assert given.code == 0, given.err
    assert ops("host-keys", "forget", "web1").code == 0


def test_workers_are_listed_and_drained(ops: CommandLine) -> None:
    [worker] = [one for one in json.loads(ops("workers", "list", "--json").out) if one["alive"]]

    assert ops("workers", "drain", str(worker["id"])).out == f"Worker {worker['id']}: begins nothing more\n"
    assert "begins nothing more" in ops("workers", "list").out
    assert ops("workers", "resume", str(worker["id"])).out == f"Worker {worker['id']}: works\n"
