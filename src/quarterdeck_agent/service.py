# SPDX-License-Identifier: Apache-2.0
"""`service`: regular runs by a systemd timer, or by cron where systemd does not run.

The interval is the cached policy's. A run that finds another interval in its policy rewrites what
was installed here (see `follow`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import List

from quarterdeck_agent import policy, storing
from quarterdeck_agent.errors import AgentError
from quarterdeck_agent.state import StateDirectory

UNIT_DIRECTORY = "/etc/systemd/system"
CRON_FILE = "/etc/cron.d/quarterdeck-agent"
_NAME = "quarterdeck-agent"
_DEFAULT_MINUTES = 5


def install(state: StateDirectory, cron_file: str = CRON_FILE) -> str:
    """Install or rewrite the schedule; a sentence about it. Raises AgentError, OSError."""
    minutes = _interval(state)
    command = run_command(state.path)
    if os.path.isdir("/run/systemd/system"):
        storing.write(os.path.join(UNIT_DIRECTORY, f"{_NAME}.service"), service_unit(command).encode(), mode=0o644)
        storing.write(os.path.join(UNIT_DIRECTORY, f"{_NAME}.timer"), timer_unit(minutes).encode(), mode=0o644)
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", f"{_NAME}.timer")
        kind = "systemd timer"
    elif os.path.isdir(os.path.dirname(cron_file)):
        storing.write(cron_file, cron_entry(command, minutes).encode(), mode=0o644)
        kind = "cron entry"
    else:
        raise AgentError("There is neither systemd nor /etc/cron.d on this machine; run the agent by other means.")
    state.remember(service_minutes=minutes)
    return f"A {kind} runs the agent every {minutes} minutes."


def follow(state: StateDirectory, minutes: int, cron_file: str = CRON_FILE) -> None:
    """Rewrite what `install` wrote, if it did, when the policy wants another interval. Raises AgentError, OSError."""
    if state.memory().get("service_minutes", minutes) != minutes:
        install(state, cron_file)


def remove(state: StateDirectory, cron_file: str = CRON_FILE) -> str:
    """Remove the schedule; a sentence about it. Raises AgentError, OSError."""
    timer = os.path.join(UNIT_DIRECTORY, f"{_NAME}.timer")
    if os.path.exists(timer):
        _systemctl("disable", "--now", f"{_NAME}.timer")
    for path in (timer, os.path.join(UNIT_DIRECTORY, f"{_NAME}.service"), cron_file):
        storing.remove(path)
    state.forget("service_minutes")
    return "The agent does not run regularly any more."


def run_command(state_directory: str) -> List[str]:
    """How this very agent is started: the interpreter, the file it came from, the state directory."""
    started = os.path.abspath(sys.argv[0])
    program = ["-m", "quarterdeck_agent"] if os.path.basename(started) == "__main__.py" else [started]
    return [sys.executable, *program, "run", "--splay", "--state-dir", state_directory]


def service_unit(command: List[str]) -> str:
    """The unit that does one run."""
    quoted = " ".join('"' + part.replace("%", "%%").replace('"', '\\"') + '"' for part in command)
    return (
        "[Unit]\nDescription=Quarterdeck agent run\nAfter=network-online.target\nWants=network-online.target\n\n"
        f"[Service]\nType=oneshot\nExecStart={quoted}\nSuccessExitStatus=2 4\n"
    )


def timer_unit(minutes: int) -> str:
    """The timer that starts the unit every `minutes`."""
    return (
        "[Unit]\nDescription=Quarterdeck agent, regular runs\n\n"
        f"[Timer]\nOnBootSec=1min\nOnUnitActiveSec={minutes}min\nAccuracySec=1s\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def cron_entry(command: List[str], minutes: int) -> str:
    """The cron entry; cron can only do minutes that divide an hour, or whole hours that divide a day."""
    when = f"*/{minutes} * * * *" if minutes < 60 else f"0 */{max(1, min(23, minutes // 60))} * * *"
    quoted = " ".join("'" + part.replace("'", "'\\''").replace("%", "\\%") + "'" for part in command)
    return f"# written by quarterdeck-agent service install\n{when} root {quoted} >/dev/null 2>&1\n"


def _interval(state: StateDirectory) -> int:
    found = policy.cached(state, state.node_id(), state.settings().policy_key)
    return found["schedule"]["interval_minutes"] if found else _DEFAULT_MINUTES


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        raise AgentError(f"systemctl {' '.join(arguments)} failed: {done.stderr.decode(errors='replace').strip()}")
