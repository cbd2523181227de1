# SPDX-License-Identifier: Apache-2.0
"""Projects, users of a RunDeck server and resting workers, from the server's own machine."""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.daemon.servers import here, quarterdeckd
from tests.engine.worlds import World, until
from tests.postgres import temporary_directory

from quarterdeck.core.executions import State
from quarterdeck.daemon import config, first_start, tls
from quarterdeck.services import accounts, adhoc, projects
from quarterdeck.services.adhoc import Manner
from quarterdeck.storage import embedded
from quarterdeck.storage.database import Database

# The worker and the commands load it in different orders, here in one process and at the same time.
importlib.import_module("pgqueuer.queries")


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """The data directory of a server that does not run, as its first start leaves it."""
    with temporary_directory() as directory:
        data = directory / "data"
        with embedded.running(data) as url:
            values = {"data_dir": str(data), "database_url": url, "listen": "127.0.0.1:8443"}
            first_start.prepare(config.load(values, {}), migrate=True)
        yield data


@pytest.fixture
def world(stopped: Path) -> Iterator[World]:
    """The database of the server runs."""
    with embedded.running(stopped) as url:
        database = Database(url, pool_size=12, secret_key=tls.secret(stopped))
        yield World(database)
        database.close()


def rundeck_project(directory: Path, properties: str, **files: str) -> Path:
    """A project's directory as a RunDeck server leaves it."""
    etc = directory / "etc"
    etc.mkdir(parents=True)
    (etc / "project.properties").write_text(properties)
    for name, text in files.items():
        (etc / name.replace("_", ".")).write_text(text)
    return directory


XML = '<project><node name="web1" hostname="web1.example.com" username="deploy" tags="web"/></project>'
YAML = "web1: {hostname: web1.example.com, username: deploy, tags: web}\ndb1: {hostname: db1, username: root}\n"


def test_a_project_is_made_and_listed_while_the_server_does_not_run(stopped: Path) -> None:
    place = ("--data-dir", str(stopped))
    made = quarterdeckd("project", "create", "plain", "--description", "A plain one", "--property", "a.b=c=d", *place)
    again = here("project", "create", "plain", *place)
    listed = here("project", "list", *place)

    assert made.stdout == "The project 'plain' is made.\n", made.stderr
    assert (again.returncode, again.stderr) == (1, "quarterdeckd: There is already a project 'plain'.\n")
    assert re.search(r"^plain +A plain one$", listed.stdout, re.MULTILINE)
    assert here("project", "create", "x", "--property", "nothing", *place).returncode == 2


@pytest.mark.parametrize(
    ("name", "properties", "files", "nodes"),
    [
        ("by-default", "", {"resources_xml": XML}, ["web1"]),
        ("named", "project.resources.file=${project.dir}/nodes.yaml\n", {"nodes_yaml": YAML}, ["db1", "web1"]),
        ("moved", "project.resources.file=/var/rundeck/projects/x/etc/r.xml\n", {"r_xml": XML}, ["web1"]),
        ("bare", "", {}, []),
    ],
)
def test_a_project_of_a_rundeck_server_comes_with_its_nodes(
    world: World, stopped: Path, tmp_path: Path, name: str, properties: str, files: dict[str, str], nodes: list[str]
) -> None:
    shared = "project.name=old\nproject.description=Old one\nproject.ssh-keypath=/keys/old\n"
    directory = rundeck_project(tmp_path / "old", shared + properties, **files)
    options = ("--import", str(directory), "--property", "project.ssh-keypath=/keys/new")

    done = here("project", "create", name, *options, "--data-dir", str(stopped))

    assert done.returncode == 0, done.stderr
    made = world.do(lambda ctx: projects.get(ctx, name))
    assert (made.description, made.properties["project.ssh-keypath"]) == ("Old one", "/keys/new")
    assert [one.name for one in world.do(lambda ctx: ctx.store.resources.of(name))] == nodes
    assert ("There is no node document" in done.stderr) is not bool(nodes)


def test_a_directory_that_is_none_or_has_bad_nodes_makes_no_project(stopped: Path, tmp_path: Path) -> None:
    place = ("--data-dir", str(stopped))
    empty = tmp_path / "empty"
    empty.mkdir()
    bad = rundeck_project(tmp_path / "bad", "", resources_xml="<project><node/></project>")

    sentences = [here("project", "create", "no", "--import", str(one), *place).stderr for one in (empty, bad)]

    assert "is no project of a RunDeck server" in sentences[0]
    assert sentences[1].startswith(f"quarterdeckd: {bad}/etc/resources.xml: ")
    assert not re.search(r"^no ", here("project", "list", *place).stdout, re.MULTILINE)


def test_users_of_a_realm_are_made_or_named_with_what_to_do(world: World, stopped: Path, tmp_path: Path) -> None:
    realm = tmp_path / "realm.properties"
    realm.write_text(
        "# users\n"
        "ann: long enough,user,admin\n"
        "bob: MD5:5f4dcc3b5aa765d61d8327deb882cf99,user\n"
        "cid: OBF:1v2j1uum1xtv1zej1zer1xtn1uvk1v1v,user\n"
        "dan: admin,admin\n"
        "eve: also long enough,wheel\n"
    )
    place = ("--data-dir", str(stopped))

    done = here("user", "import-realm", str(realm), *place)
    again = here("user", "import-realm", str(realm), *place)

    assert done.returncode == 0, done.stderr
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if not line.startswith("eve: there"))
    assert lines["ann"] == "made with the roles admin, user."
    assert lines["bob"].startswith("skipped, a password of the kind md5 cannot be taken over; run `quarterdeckd user ")
    assert "obfuscated" in lines["cid"]
    assert "at least 8 characters" in lines["dan"]
    assert lines["eve"] == "made with no role."
    assert "eve: there is no role wheel here; roles: " in done.stdout
    assert "ann: skipped, there is an account of this name already." in again.stdout
    assert "long enough" not in done.stdout + done.stderr
    ann = world.do(lambda ctx: accounts.check_password(ctx, "ann", "long enough"))
    assert ann is not None
    assert ann.roles == {"admin", "user"}


# -- drain ----------------------------------------------------------------------------------------


def running(world: World) -> int:
    """An execution that a worker has begun and that takes long."""
    if "drained" not in [one.name for one in world.do(projects.visible)]:
        world.do(lambda ctx: projects.create(ctx, "drained"))
    execution = world.do(lambda ctx: adhoc.run_command(ctx, "drained", "echo begun; sleep 600", Manner()).id)
    until(lambda: bool(world.output(execution)))
    return execution


def test_without_a_worker_there_is_nothing_to_wait_for(stopped: Path) -> None:
    done = here("drain", "--data-dir", str(stopped))

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No worker runs.\n")
    assert here("drain", "--resume", "--abort", "--data-dir", str(stopped)).returncode == 2


def test_a_drain_waits_until_its_timeout_and_is_taken_back(world: World, stopped: Path) -> None:
    place = ("--data-dir", str(stopped))
    with world.worker():
        execution = running(world)
        over = here("drain", "--timeout", "1", *place)
        waiting = world.do(lambda ctx: adhoc.run_command(ctx, "drained", "true", Manner()).id)
        resumed = here("drain", "--resume", *place)
        world.ended(waiting)
        still = world.execution(execution).state
        aborted = here("drain", "--abort", *place)

    assert (over.returncode, still) == (1, State.RUNNING)
    assert over.stderr == f"1 workers still run 1 executions: {execution}\n"
    assert resumed.stdout == "1 workers begin again.\n"
    assert (aborted.returncode, world.execution(execution).state) == (0, State.ABORTED)
    assert aborted.stderr.endswith("1 workers run nothing any more.\n")


def test_a_drain_with_abort_gives_what_runs_its_time_first(world: World, stopped: Path) -> None:
    with world.worker():
        execution = running(world)
        done = here("drain", "--abort", "--timeout", "1", "--data-dir", str(stopped))

    assert done.returncode == 0
    assert done.stderr.splitlines()[:2] == [
        f"1 workers still run 1 executions: {execution}",
        "Asking 1 executions to end.",
    ]
    assert world.execution(execution).state is State.ABORTED


def test_a_drain_ends_when_what_runs_has_ended(world: World, stopped: Path) -> None:
    with world.worker():
        execution = running(world)
        codes: list[int] = []
        arguments = ("drain", "--data-dir", str(stopped))
        thread = threading.Thread(target=lambda: codes.append(quarterdeckd(*arguments).returncode))
        thread.start()
        until(lambda: world.do(lambda ctx: any(one.draining for one in ctx.store.workers.all())), 60)
        assert codes == []
        world.do(lambda ctx: ctx.store.executions.ask_to_abort(execution, "tests"))
        thread.join(60)

    assert codes == [0]
    assert world.execution(execution).ended is not None
