# SPDX-License-Identifier: Apache-2.0
"""The private PostgreSQL: starts, is shared, is bound to its user, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from quarterdeck.core.errors import Unavailable
from quarterdeck.storage import embedded

HOLD = """
import sys, time
from pathlib import Path
from quarterdeck.storage import embedded
server = embedded.attach_or_start(Path(sys.argv[1]), throwaway=True)
print(server.guard.pid if server.guard else 0, flush=True)
time.sleep(60)
"""


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """True as soon as `condition` holds, False when it does not within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def postmaster(data_dir: Path) -> int:
    """The process id of the running `postgres`."""
    return int((data_dir / "pg" / "18" / "postmaster.pid").read_text().split("\n", 1)[0])


def ended(pid: int) -> bool:
    """True when the process is gone, or dead and only waiting for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def holder(reachable_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that started the database in `reachable_dir` and keeps it; its first line is the guard's pid."""
    command = [sys.executable, "-c", HOLD, str(reachable_dir)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


def test_a_database_is_made_once_and_starts_again(reachable_dir: Path) -> None:
    with embedded.running(reachable_dir) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    with embedded.running(reachable_dir) as url, psycopg.connect(url) as connection:
        row = connection.execute("SELECT answer, current_setting('fsync') FROM kept").fetchone()

    assert row == (42, "on")


def test_a_relative_path_is_as_good(reachable_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reachable_dir)

    with embedded.running(Path("data")) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    assert (reachable_dir / "data" / "pg" / "18" / "PG_VERSION").exists()


def test_it_stops_with_its_only_user(reachable_dir: Path) -> None:
    with embedded.running(reachable_dir):
        pid = postmaster(reachable_dir)

    assert ended(pid)


def test_a_second_user_attaches_and_may_stay_longer(reachable_dir: Path) -> None:
    first = embedded.attach_or_start(reachable_dir)
    second = embedded.attach_or_start(reachable_dir)
    pid = postmaster(reachable_dir)
    first.release()

    with psycopg.connect(second.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    second.release()

    assert eventually(lambda: ended(pid))


def test_killing_its_only_user_stops_it(reachable_dir: Path, holder: subprocess.Popen[str]) -> None:
    assert holder.stdout is not None
    guard = int(holder.stdout.readline())
    pid = postmaster(reachable_dir)

    holder.kill()

    assert eventually(lambda: ended(pid) and ended(guard))


def test_killing_the_guard_stops_it(reachable_dir: Path) -> None:
    server = embedded.attach_or_start(reachable_dir)
    assert server.guard is not None
    pid = postmaster(reachable_dir)

    server.guard.kill()

    assert eventually(lambda: ended(pid))
    server.release()


def test_everything_killed_mid_write_recovers_what_was_committed(reachable_dir: Path) -> None:
    server = embedded.attach_or_start(reachable_dir)
    assert server.guard is not None
    pid = postmaster(reachable_dir)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (number integer)")
        for number in range(200):
            connection.execute("INSERT INTO rows VALUES (%s)", [number])
        server.guard.kill()
        os.kill(pid, signal.SIGKILL)
    server.release()

    with embedded.running(reachable_dir) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (200,)


def test_nobody_else_may_enter(reachable_dir: Path) -> None:
    with embedded.running(reachable_dir) as url:
        sockets = reachable_dir / "pg" / "run"
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(url, user="postgres")
        with psycopg.connect(url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_a_long_path_gets_a_short_socket(reachable_dir: Path) -> None:
    deep = reachable_dir / ("d" * 90)

    with embedded.running(deep) as url, psycopg.connect(url) as connection:
        assert connection.info.host != str(deep / "pg" / "run")
        assert len(connection.info.host) < 60
        socket_directory = Path(connection.info.host)

    assert stat.S_IMODE(socket_directory.stat().st_mode) == 0o700
    socket_directory.rmdir()


def test_a_half_made_database_is_made_again(reachable_dir: Path) -> None:
    (reachable_dir / "pg" / "18.new-half" / "base").mkdir(parents=True)

    with embedded.running(reachable_dir) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    assert not (reachable_dir / "pg" / "18.new-half").exists()


def test_killing_the_first_start_while_it_makes_the_database_spoils_nothing(reachable_dir: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(reachable_dir)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    ) as process:
        assert eventually(lambda: any((reachable_dir / "pg").glob("18.new-*/base")))
        process.kill()

    with embedded.running(reachable_dir) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_another_major_version_is_refused_with_the_commands_to_run(reachable_dir: Path) -> None:
    (reachable_dir / "pg" / "17").mkdir(parents=True)

    with pytest.raises(Unavailable, match=r"written by PostgreSQL 17 .* `quarterdeckd backup .* `quarterdeckd restore"):
        embedded.attach_or_start(reachable_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a stand-in")
def test_root_is_told_which_directory_is_closed_to_its_stand_in(reachable_dir: Path) -> None:
    closed = reachable_dir / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(Unavailable, match=f"because {closed} is closed to it"):
        embedded.attach_or_start(closed / "data")


def test_a_broken_database_says_why(reachable_dir: Path) -> None:
    with embedded.running(reachable_dir):
        pass
    (reachable_dir / "pg" / "18" / "global" / "pg_control").unlink()

    with pytest.raises(Unavailable, match=r"did not start: .*pg_control"):
        embedded.attach_or_start(reachable_dir)


def test_each_test_database_stands_alone(postgres_url: str, fresh_postgres_url: str, empty_postgres_url: str) -> None:
    names = set()
    for url in (postgres_url, fresh_postgres_url, empty_postgres_url):
        with psycopg.connect(url) as connection:
            names.add(connection.info.dbname)

    assert len(names) == 3
