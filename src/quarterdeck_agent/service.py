# SPDX-License-Identifier: Apache-2.0
"""`service`: regular runs by a systemd timer, or by cron where systemd does not run; runs on demand by a unit.

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
_LISTEN = "quarterdeck-agent-listen"
_SYSTEMD = "/run/systemd/system"
_DEFAULT_MINUTES = 5


def install(state: StateDirectory, cron_file: str = CRON_FILE, *, listen: bool = False, commands: bool = False) -> str:
    """Install or rewrite the schedule, and what listens if asked for, with `commands` for those, too; a sentence.

    Raises AgentError, OSError.
    """
    if commands and not listen:
        raise AgentError("Commands come to an agent that listens: give --listen, too.")
    minutes = _interval(state)
    command = run_command(state.path)
    if listen and not os.path.isdir(_SYSTEMD):
        raise AgentError("Only systemd can keep an agent listening; start `quarterdeck-agent listen` by other means.")
    if os.path.isdir(_SYSTEMD):
        storing.write(os.path.join(UNIT_DIRECTORY, f"{_NAME}.service"), service_unit(command).encode(), mode=0o644)
        storing.write(os.path.join(UNIT_DIRECTORY, f"{_NAME}.timer"), timer_unit(minutes).encode(), mode=0o644)
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", f"{_NAME}.timer")
        kind = "systemd timer"
        if listen:
            allowed = ("--commands",) if commands else ()
            unit = listen_unit(agent_command("listen", *allowed, "--state-dir", state.path))
            storing.write(os.path.join(UNIT_DIRECTORY, f"{_LISTEN}.service"), unit.encode(), mode=0o644)
            _systemctl("daemon-reload")
            _systemctl("enable", "--now", f"{_LISTEN}.service")
    elif os.path.isdir(os.path.dirname(cron_file)):
        storing.write(cron_file, cron_entry(command, minutes).encode(), mode=0o644)
        kind = "cron entry"
    else:
        raise AgentError("There is neither systemd nor /etc/cron.d on this machine; run the agent by other means.")
    state.remember(service_minutes=minutes)
    more = ", and the server may ask for more" if listen else ""
    more += " and give commands" if commands else ""
    return f"A {kind} runs the agent every {minutes} minutes{more}."


def follow(state: StateDirectory, minutes: int, cron_file: str = CRON_FILE) -> None:
    """Rewrite what `install` wrote, if it did, when the policy wants another interval. Raises AgentError, OSError."""
    if state.memory().get("service_minutes", minutes) != minutes:
        install(state, cron_file)


def remove(state: StateDirectory, cron_file: str = CRON_FILE) -> str:
    """Remove the schedule; a sentence about it. Raises AgentError, OSError."""
    timer, listen = (os.path.join(UNIT_DIRECTORY, name) for name in (f"{_NAME}.timer", f"{_LISTEN}.service"))
    for path in (timer, listen):
        if os.path.exists(path):
            _systemctl("disable", "--now", os.path.basename(path))
    for path in (timer, listen, os.path.join(UNIT_DIRECTORY, f"{_NAME}.service"), cron_file):
        storing.remove(path)
    state.forget("service_minutes")
    return "The agent does not run regularly any more."


def run_command(state_directory: str) -> List[str]:
    """How this very agent is started for a regular run."""
    return agent_command("run", "--splay", "--state-dir", state_directory)


def agent_command(*arguments: str) -> List[str]:
    """How this very agent is started: the interpreter, the file it came from, what it is to do."""
    started = os.path.abspath(sys.argv[0])
    program = ["-m", "quarterdeck_agent"] if os.path.basename(started) == "__main__.py" else [started]
    return [sys.executable, *program, *arguments]


def service_unit(command: List[str]) -> str:
    """The unit that does one run."""
    return (
        "[Unit]\nDescription=Quarterdeck agent run\nAfter=network-online.target\nWants=network-online.target\n\n"
        f"[Service]\nType=oneshot\nExecStart={_quoted(command)}\nSuccessExitStatus=2 4\n"
    )


def listen_unit(command: List[str]) -> str:
    """The unit that listens. Runs that it began go on when it stops: they may be what stops it."""
    return (
        "[Unit]\nDescription=Quarterdeck agent, runs on demand\n"
        "After=network-online.target\nWants=network-online.target\n\n"
        f"[Service]\nExecStart={_quoted(command)}\nRestart=always\nRestartSec=10s\nKillMode=process\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def _quoted(command: List[str]) -> str:
    return " ".join('"' + part.replace("%", "%%").replace('"', '\\"') + '"' for part in command)


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
