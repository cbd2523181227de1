# SPDX-License-Identifier: Apache-2.0
"""The service managers this agent knows (systemd, OpenRC, System V scripts): how to look, how to act."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from typing import Callable, List

from quarterdeck_agent.methods import processes, system
from quarterdeck_agent.methods.system import UnableError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:\\-]*")
_ACTION = re.compile(r"[a-z][a-z-]*")


@dataclass(frozen=True)
class Manager:
    """One service manager; argument lists are complete commands."""

    name: str
    running: Callable[[str], bool]
    exists: Callable[[str], bool]
    #: Started at boot, and not started at boot: both hold for a service that only others start.
    enabled: Callable[[str], bool]
    disabled: Callable[[str], bool]
    act: Callable[[str, str], List[str]]
    enable: Callable[[str], List[List[str]]]
    disable: Callable[[str], List[List[str]]]


def choose() -> Manager:
    """The manager that runs this node. Raises UnableError when there is none that the agent knows."""
    if os.path.isdir(system.path("/run/systemd/system")) and system.find_tool("systemctl"):
        return _SYSTEMD
    if system.find_tool("rc-service"):
        return _OPENRC
    if os.path.isdir(system.path("/etc/init.d")) and system.find_tool("service"):
        return _SYSTEM_V
    raise UnableError("This node is not run by a service manager that the agent knows (systemd, OpenRC, System V).")


def checked(name: str) -> str:
    """The name, when it can be one of a service. Raises UnableError."""
    if not _NAME.fullmatch(name):
        raise UnableError(f"{name} is not the name of a service.")
    return name


def checked_action(action: str) -> str:
    """The action, when it is a plain word. Raises UnableError."""
    if not _ACTION.fullmatch(action):
        raise UnableError(f"{action} is not an action of a service manager.")
    return action


def _show(name: str, field: str) -> str:
    done = processes.query(system.tool("systemctl"), "show", f"--property={field}", "--", name)
    if done.code != 0:
        raise UnableError(f"systemctl returned {done.code}{done.told}")
    return done.out.strip().partition("=")[2]


def _systemd_enabled(name: str) -> bool:
    return processes.query(system.tool("systemctl"), "is-enabled", "--", name).code == 0


def _systemd_disabled(name: str) -> bool:
    done = processes.query(system.tool("systemctl"), "is-enabled", "--", name)
    return done.code != 0 or done.out.strip() in ("static", "indirect")


def _systemctl(*words: str) -> List[str]:
    return [system.tool("systemctl"), "--no-ask-password", *words]


_SYSTEMD = Manager(
    "systemd",
    running=lambda name: _show(name, "ActiveState") in ("active", "reloading"),
    exists=lambda name: _show(name, "LoadState") not in ("not-found", ""),
    enabled=_systemd_enabled,
    disabled=_systemd_disabled,
    act=lambda name, action: _systemctl(action, "--", name),
    enable=lambda name: [_systemctl("enable", "--", name)],
    disable=lambda name: [_systemctl("disable", "--", name)],
)


def _has_script(name: str) -> bool:
    return os.path.exists(system.path(f"/etc/init.d/{name}"))


def _openrc_enabled(name: str) -> bool:
    return bool(glob.glob(os.path.join(glob.escape(system.path("/etc/runlevels")), "*", glob.escape(name))))


_OPENRC = Manager(
    "OpenRC",
    running=lambda name: _has_script(name) and processes.query(system.tool("rc-service"), name, "status").code == 0,
    exists=_has_script,
    enabled=_openrc_enabled,
    disabled=lambda name: not _openrc_enabled(name),
    act=lambda name, action: [system.tool("rc-service"), name, action],
    enable=lambda name: [[system.tool("rc-update"), "add", name, "default"]],
    disable=lambda name: [[system.tool("rc-update"), "--all", "del", name]],
)


def _system_v_enabled(name: str) -> bool:
    pattern = f"rc[2-5S].d/S[0-9][0-9]{glob.escape(name)}"
    places = (system.path("/etc"), system.path("/etc/rc.d"))
    return any(glob.glob(os.path.join(glob.escape(place), pattern)) for place in places)


def _system_v_enable(name: str) -> List[List[str]]:
    if system.find_tool("update-rc.d"):
        program = system.tool("update-rc.d")
        return [[program, name, "defaults"], [program, name, "enable"]]
    return [[system.tool("chkconfig"), name, "on"]]


def _system_v_disable(name: str) -> List[List[str]]:
    if system.find_tool("update-rc.d"):
        return [[system.tool("update-rc.d"), name, "disable"]]
    return [[system.tool("chkconfig"), name, "off"]]


_SYSTEM_V = Manager(
    "System V",
    running=lambda name: _has_script(name) and processes.query(system.tool("service"), name, "status").code == 0,
    exists=_has_script,
    enabled=_system_v_enabled,
    disabled=lambda name: not _system_v_enabled(name),
    act=lambda name, action: [system.tool("service"), name, action],
    enable=_system_v_enable,
    disable=_system_v_disable,
)
