# SPDX-License-Identifier: Apache-2.0
"""The demo: it plays, it proves, and it touches nothing it does not own."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.daemon.servers import ROOT, environment, eventually, family, free_port
from tools import demo_policies
from tools.demo_world import DemoFailed, Places, snapshot, tied


@pytest.mark.timeout(300)
def test_the_demo_plays_all_steps_and_leaves_no_process(reachable_dir: Path) -> None:
    command = [sys.executable, "-m", "tools.demo", "--once", "--dir", str(reachable_dir / "demo")]

    done = subprocess.run(
        [*command, "--port", str(free_port())],
        cwd=ROOT,
        env=environment() | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "16/16 ✓" in done.stdout
    assert "came back through the relay" in done.stdout
    assert "not ready" in done.stdout
    assert "2 nodes succeeded, 1 failed" in done.stdout
    assert "nothing was touched" in done.stdout
    assert "found and repaired" in done.stdout
    machine = reachable_dir / "demo" / "machine"
    demo_policies.verify(machine, (machine / "app.conf").read_text().partition("host = ")[2].partition("\n")[0])
    assert [one for one in family(1) if str(reachable_dir) in one.command] == []


def test_a_step_that_cannot_happen_ends_the_demo_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("not the demo's\n")

    done = subprocess.run(
        [sys.executable, "-m", "tools.demo", "--once", "--dir", str(tmp_path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert "was not made by the demo" in done.stdout
    assert (tmp_path / "theirs").exists()


def test_a_demo_that_still_serves_keeps_its_directory(tmp_path: Path) -> None:
    places = Places(tmp_path / "demo")
    places.renew()
    places.server.mkdir()
    with (places.server / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(DemoFailed, match="still runs"):
            places.renew()

    places.renew()
    assert not places.server.exists()


@pytest.mark.parametrize("change", ["content", "mode", "time", "new file", "gone", "replaced"])
def test_a_snapshot_notices(tmp_path: Path, change: str) -> None:
    path = tmp_path / "deep" / "file"
    path.parent.mkdir()
    path.write_text("one")
    before = snapshot(tmp_path)
    assert snapshot(tmp_path) == before
    changes: dict[str, Callable[[], object]] = {
        "content": lambda: path.write_text("two"),
        "mode": lambda: path.chmod(0o600),
        "time": lambda: os.utime(path, (1, 1)),
        "new file": (path.parent / "other").touch,
        "gone": path.unlink,
        "replaced": lambda: (path.parent / "new").write_text("one") and (path.parent / "new").replace(path),
    }

    changes[change]()

    assert snapshot(tmp_path) != before


def test_what_the_demo_starts_ends_with_it_also_when_it_is_killed() -> None:
    starter = (
        "import subprocess, sys; from tools.demo_world import tied; "
        "child = subprocess.Popen(tied([sys.executable, '-c', 'import time; time.sleep(300)'])); "
        "print(child.pid, flush=True); child.wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    (child,) = family(int(parent.stdout.readline()))
    # The request to the kernel is made once the sleeper is what runs.
    assert eventually(
        lambda: "sleep(300)" in family(child.pid)[0].command and "prctl" not in family(child.pid)[0].command
    )

    parent.kill()
    parent.wait()
    parent.stdout.close()

    assert eventually(child.ended, 10)


def test_a_process_whose_parent_has_gone_already_does_not_begin() -> None:
    command = tied([sys.executable, "-c", "print('begun')"])
    command[5] = "1"  # as if this process had ended in between
    started = time.monotonic()

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert (done.returncode, done.stdout) == (1, "")
    assert time.monotonic() - started < 30
