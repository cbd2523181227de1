# SPDX-License-Identifier: Apache-2.0
"""Commands, accounts, packages and services beyond the table: limits, secrets, the real dpkg-query."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.agent.methods.casebook import Scratch
from tests.agent.methods.system_cases import DPKG_QUERY, accounts, apt, systemd

from quarterdeck_agent.methods import account_files, conditions, package_managers, processes, system
from quarterdeck_agent.methods.package_managers import Package
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import METHODS, Facts, MethodCall, State


@pytest.mark.skipif(not Path("/usr/bin/dpkg-query").exists(), reason="only where dpkg is")
def test_the_real_dpkg_query_tells_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(system.SYSROOT, raising=False)
    apt_itself = package_managers.MANAGERS["apt"]

    assert apt_itself.installed(Package("dpkg"))
    assert apt_itself.installed(Package("dpkg", architecture="no-such")) == []
    assert apt_itself.installed(Package("no-such-package-at-all")) == []
    found = METHODS["package_check_installed"].audit(MethodCall({"name": "dpkg"}, Facts()))
    assert found.state is State.COMPLIANT


def test_dpkg_is_asked_again_only_after_its_database_has_changed(scratch: Scratch) -> None:
    apt("htop 1.0 amd64 installed")(scratch)
    scratch.tool("dpkg-query", "echo asked >> {work}/log\n" + DPKG_QUERY)
    scratch.file("/var/lib/dpkg/status", "1")

    states = [scratch.audit("package_present", name=name).state for name in ("htop", "vim", "htop:amd64", "htop:arm64")]
    scratch.enforce("package_present", name="vim")
    scratch.file("/var/lib/dpkg/status", "12")
    states.append(scratch.audit("package_present", name="vim").state)

    assert [state is State.COMPLIANT for state in states] == [True, False, True, False, True]
    assert scratch.read("log") == "asked\n" * 2


def test_looking_for_the_newest_version_writes_no_cache(scratch: Scratch) -> None:
    apt("htop 1.0 amd64 installed")(scratch)
    before = scratch.snapshot()

    found = scratch.audit("package_present", name="htop", version="latest")

    assert found.state is State.DRIFT
    assert scratch.snapshot() == before


def test_a_stopped_service_is_not_called_compliant(scratch: Scratch) -> None:
    for state in ("inactive", "failed", "activating", "deactivating"):
        shutil.rmtree(scratch.root / "run", ignore_errors=True)
        systemd(f"{state} enabled")(scratch)

        assert scratch.audit("service_started", name="x").state is State.DRIFT


def test_a_command_that_takes_too_long_is_stopped_with_all_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "COMMAND_SECONDS", 0.2)
    started = time.monotonic()

    with pytest.raises(UnableError, match="was stopped after"):
        processes.shell("sleep 60 & sleep 60")

    assert time.monotonic() - started < 10


def test_a_daemon_that_a_command_leaves_behind_does_not_hold_the_run() -> None:
    started = time.monotonic()

    done = processes.shell("sleep 5 & echo started")

    assert (done.code, done.out) == (0, "started\n")
    assert time.monotonic() - started < 4


def test_a_command_that_closes_its_output_is_still_waited_for() -> None:
    assert processes.shell("exec >&- 2>&-; sleep 0.2; exit 7").code == 7


def test_endless_output_is_read_but_not_kept() -> None:
    done = processes.shell("head -c 3000000 /dev/zero | tr '\\0' x")

    assert done.code == 0
    assert len(done.out) == processes.OUTPUT_LIMIT


def test_a_command_of_another_account_has_none_of_our_rights(scratch: Scratch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    name = pwd.getpwuid(65534).pw_name

    found = scratch.enforce(
        "command_execution_as_user",
        command=f'test "$(/usr/bin/id -un) $HOME $USER" = "{name} {pwd.getpwnam(name).pw_dir} {name}" && ! test -r /etc/shadow',
        user=name,
    )

    assert found.state is State.REPAIRED, found.message


def test_a_command_that_ran_once_never_runs_again(scratch: Scratch) -> None:
    call = {"command": "echo x >> {work}/f", "unique_id": "u"}

    assert scratch.enforce("command_execution_once", **call).state is State.REPAIRED
    assert scratch.enforce("command_execution_once", **call).state is State.COMPLIANT
    assert scratch.read("f") == "x\n"


@pytest.mark.parametrize(("until", "runs"), [("any", 1), ("ok", 2)])
def test_a_failed_command_runs_again_only_until_ok(scratch: Scratch, until: str, runs: int) -> None:
    for _ in range(2):
        scratch.enforce("command_execution_once", command="echo x >> {work}/f; exit 1", until=until)

    assert scratch.read("f") == "x\n" * runs


def test_a_persistent_condition_holds_in_later_runs_until_it_expires(scratch: Scratch) -> None:
    scratch.facts.conditions.add("a")
    scratch.enforce("condition_from_expression_persistent", condition="c", expression="a", duration="5")

    assert conditions.persistent(str(scratch.state)) == {"c_true"}
    assert conditions.persistent(str(scratch.state), now=time.time() + 301) == set()

    scratch.facts.conditions.clear()
    scratch.enforce("condition_from_expression_persistent", condition="c", expression="a", duration="5")

    assert scratch.facts.conditions == {"c_true"}


def test_a_condition_is_true_at_the_first_run_only(scratch: Scratch) -> None:
    scratch.enforce("condition_once", condition="c")
    scratch.enforce("condition_once", condition="c")

    assert scratch.facts.conditions == {"c_false"}


def test_a_password_hash_never_shows_and_the_rest_of_the_file_stays(scratch: Scratch) -> None:
    accounts(scratch)
    before = scratch.read("/etc/shadow")

    found = [
        scratch.audit("user_password_hash", login="ann", password="$6$new"),
        scratch.enforce("user_password_hash", login="ann", password="$6$new"),
        scratch.audit("user_password_hash", login="ann", password="$6$new"),
    ]

    assert not any("$6$" in one.message for one in found)
    today = int(time.time() // 86400)
    assert scratch.read("/etc/shadow") in [
        before.replace("$6$old:19000", f"$6$new:{day}") for day in (today, today - 1)
    ]
    assert (scratch.root / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert not (scratch.state / "backups").exists()


def test_accounts_are_not_changed_while_somebody_else_changes_them(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts(scratch)
    monkeypatch.setattr(account_files, "LOCK_SECONDS", 0)
    script = "import fcntl, sys; s = open(sys.argv[1], 'w'); fcntl.lockf(s, fcntl.LOCK_EX); print(flush=True); input()"
    argv = [sys.executable, "-c", script, str(scratch.root / "etc/.pwd.lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()

        found = scratch.enforce("user_password_hash", login="ann", password="$6$new")

        other.stdin.write(b"\n")

    assert found.state is State.ERROR
    assert "Somebody else" in found.message


def test_forcing_secondary_groups_removes_the_others_and_keeps_the_primary_one(scratch: Scratch) -> None:
    accounts(scratch)

    scratch.enforce("user_secondary_groups", login="ann", groups="ops", force="true")

    found = account_files.user("ann")
    assert found
    assert account_files.groups_of(found) == {"ann", "ops"}


def test_a_new_account_gets_no_home_directory(scratch: Scratch) -> None:
    accounts(scratch)

    scratch.enforce("user_present", login="bob")

    assert account_files.user("bob")
    assert not (scratch.root / "home").exists()
