# SPDX-License-Identifier: Apache-2.0
"""Steps as commands: scripts that travel as input, run in the shells that real machines have."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from quarterdeck.core import job_context
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_context import Line
from quarterdeck.core.jobs import Exec, Script
from quarterdeck.engine import steps
from quarterdeck.engine.transports import Command

#: Shells in which a line may arrive on a node, as far as this machine has them.
LOGIN_SHELLS = [shell for shell in ("sh", "dash", "bash", "zsh", "ksh", "tcsh", "csh", "fish") if shutil.which(shell)]


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """A directory for scripts, with a name that needs quotes."""
    directory = tmp_path / "copies of scripts"
    directory.mkdir()
    return directory


def perform(command: Command, *, shell: str = "sh") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **command.environment}
    argv = [shell, "-c", command.line]
    return subprocess.run(argv, input=command.stdin, env=environment, capture_output=True, timeout=30, check=False)


def script_of(text: str, arguments: str, copies: Path, **options: str) -> Command:
    values = job_context.context(options, {})
    return steps.command_of(Script(text, arguments), values, copy_directory=str(copies))


def test_an_exec_step_is_the_line_with_its_values_quoted() -> None:
    values = job_context.context({"name": "a b;reboot"}, {})

    command = steps.command_of(Exec("echo ${option.name}"), values, copy_directory="/nowhere")

    assert command.line == "echo 'a b;reboot'"
    assert command.stdin == b""
    assert command.environment["RD_OPTION_NAME"] == "a b;reboot"


@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_a_script_runs_and_leaves_nothing_behind(shell: str, copies: Path) -> None:
    command = script_of('echo "hello $1 of $# in $0"\nexit 7\n', "you 'and me!'", copies)

    done = perform(command, shell=shell)

    assert done.stdout.startswith(b"hello you of 2 in " + os.fsencode(copies) + b"/.quarterdeck-")
    assert (done.returncode, done.stderr) == (7, b"")
    assert list(copies.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    ["a;touch hacked", "$(touch hacked)", "`touch hacked`", "'", '"', "a\nb", "!!", "\\", "\\n", "-n", "", "# no", "ü"],
)
@pytest.mark.parametrize("shell", LOGIN_SHELLS)
def test_an_argument_is_one_word_whatever_it_holds(shell: str, value: str, copies: Path) -> None:
    arguments = "x ${option.value} \"${option.value}\" '${option.value}' $(echo y)"
    command = script_of('printf "%s|" "$@"\n', arguments, copies, value=value)

    done = perform(command, shell=shell)

    first = f"x|{value}|" if value else "x||"
    assert done.stdout.decode() == f"{first}{value}|{value}|y|", done.stderr
    assert not list(copies.parent.glob("**/hacked"))


def test_tokens_in_the_text_of_a_script_are_replaced(copies: Path) -> None:
    done = perform(script_of("echo @option.color@ $RD_OPTION_COLOR", "", copies, color="red"))

    assert done.stdout == b"red red\n"


def test_a_script_is_run_by_the_program_of_its_first_line(copies: Path) -> None:
    text = f"#!{sys.executable} -I\nimport sys\nprint(sys.argv[1:], sys.flags.isolated)\n"

    done = perform(script_of(text, "1 '2 3'", copies))

    assert done.stdout == b"['1', '2 3'] 1\n"


@pytest.mark.parametrize(
    "first_line",
    [
        "#!/usr/bin/env bash",
        "#! /bin/bash -e",
        "#!bash",
        "#!/bin/bash\r",
        "#!/usr/bin/env -S bash -e",
        "#!\t/bin/bash ",
    ],
)
def test_first_lines_are_read_as_the_kernel_reads_them(first_line: str, copies: Path) -> None:
    script = f"{first_line}\necho ${{BASH_VERSION:+bash}}\n".encode()

    done = perform(steps.script_command(script, Line("", ""), {}, copy_directory=str(copies)))

    assert (done.stdout, done.returncode) == (b"bash\n", 0), done.stderr


def test_a_program_is_run_as_such(copies: Path) -> None:
    program = Path("/bin/echo").read_bytes()

    done = perform(steps.script_command(program, Line("", "hi"), {}, copy_directory=str(copies)))

    assert (done.stdout, done.returncode) == (b"hi\n", 0), done.stderr
    assert list(copies.iterdir()) == []


def test_the_text_of_a_short_script_arrives_unchanged(copies: Path) -> None:
    script = b'cat "$0"\nexit\n  -n %s \\n \\\n\t*\\ \n\n\n-e\r\n'

    done = perform(steps.script_command(script, Line("", ""), {}, copy_directory=str(copies)))

    assert done.stdout == script


def test_bytes_of_a_script_arrive_unchanged(copies: Path) -> None:
    content = bytes(range(256)) * 4000
    script = b'tail -c 1024000 "$0"\nexit\n' + content

    done = perform(steps.script_command(script, Line("", ""), {}, copy_directory=str(copies)))

    assert done.stdout == content


def test_only_its_user_may_read_a_script(copies: Path) -> None:
    text = 'stat -c %a "$0"; umask; echo >"$1"; echo again >"$1"'

    done = perform(script_of(text, str(copies.parent / "kept").replace(" ", "\\ "), copies))

    before = os.umask(0)
    os.umask(before)
    assert done.stdout.decode().split() == ["600", f"{before:04o}"]
    assert done.stderr == b""


def test_a_script_has_no_input(copies: Path) -> None:
    done = perform(script_of("wc -c", "", copies))

    assert done.stdout.strip() == b"0"


def test_a_script_that_is_asked_to_end_leaves_nothing_behind(copies: Path) -> None:
    command = script_of("echo begun; sleep 30; echo not reached", "", copies)
    with subprocess.Popen(["sh", "-c", command.line], stdin=-1, stdout=-1, stderr=-1, process_group=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(command.stdin)
        process.stdin.close()
        assert process.stdout.readline() == b"begun\n"
        found = list(copies.iterdir())

        os.killpg(process.pid, signal.SIGTERM)

        assert process.wait(10) == 143
    assert [stat.S_IMODE(path.stat().st_mode) if path.exists() else "gone" for path in found] == ["gone"]


def test_a_missing_directory_is_told(copies: Path) -> None:
    done = perform(script_of("echo not reached", "", copies / "missing"))

    assert (done.returncode, done.stdout) == (steps.NOT_COPIED, b"")
    assert b"\nquarterdeck: the script cannot be brought to the node, there is no directory" in done.stderr


def test_a_directory_that_cannot_be_written_to_is_told() -> None:
    done = perform(script_of("echo not reached", "", Path("/proc")))

    assert (done.returncode, done.stdout) == (steps.NOT_COPIED, b"")
    assert b"quarterdeck: the script c" in done.stderr


def test_a_first_line_that_is_no_text_is_refused(copies: Path) -> None:
    with pytest.raises(Invalid, match="not text"):
        steps.script_command(b"#!/bin/\xff\n", Line("", ""), {}, copy_directory=str(copies))


def test_a_broken_argument_ends_the_step_and_leaves_nothing_behind(copies: Path) -> None:
    done = perform(script_of("echo not reached", "'", copies))

    assert done.returncode != 0
    assert done.stdout == b""
    assert list(copies.iterdir()) == []
