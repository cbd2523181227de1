# SPDX-License-Identifier: Apache-2.0
"""Methods that keep packages installed or absent. How a package manager is spoken to: package_managers.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import package_managers
from quarterdeck_agent.methods.package_managers import Manager, Package
from quarterdeck_agent.methods.registration import register
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


@dataclass(frozen=True)
class _Wish:
    """What a call asks for; `latest` goes with an empty version in `package`."""

    manager: Manager
    package: Package
    present: bool
    latest: bool
    options: List[str]


def _wish(call: MethodCall, state: str) -> _Wish:
    state = state.strip().lower() or "present"
    if state not in ("present", "absent"):
        raise UnableError(f"The parameter state must be present or absent, not {state}.")
    version = (call["version"] or call["package_version"]).strip()
    architecture = call["architecture"].strip()
    package = Package(
        call["name"].strip(),
        "" if version in ("any", "latest") else version,
        "" if architecture in ("default", "any") else architecture,
    )
    return _Wish(
        package_managers.choose(call["provider"].strip()),
        package,
        state == "present",
        version == "latest",
        package_managers.options(call["options"]),
    )


def _judge(wish: _Wish) -> Finding:
    name, version = wish.package.name, wish.package.version
    found = wish.manager.installed(wish.package)
    fitting = [one for one in found if version in ("", one)]
    there = f"{name} {', '.join(found)} is installed" if found else f"{name} is not installed"
    if not wish.present:
        return outcome.drift(f"{there}; it should be absent.") if fitting else outcome.compliant(f"{there}.")
    if not fitting:
        return outcome.drift(f"{there}; {f'version {version}' if version else 'it'} is expected.")
    if wish.latest:
        return _judge_latest(wish, found, there)
    return outcome.compliant(f"{there}.")


def _judge_latest(wish: _Wish, found: List[str], there: str) -> Finding:
    newest: Optional[str] = wish.manager.newest(wish.package)
    if newest is None:
        return outcome.not_applicable(
            f"{there}; {wish.manager.name} cannot tell whether that is the latest without changing its cache."
        )
    if newest in found:
        return outcome.compliant(f"{there}, the latest.")
    return outcome.drift(f"{there}; the latest, {newest}, is expected.")


def _change(wish: _Wish) -> Finding:
    manager, package = wish.manager, wish.package
    if not wish.present:
        package_managers.act([*manager.remove(wish.options), package.name])
        return outcome.compliant(f"{package.name} was removed.")
    argv = [*manager.install(wish.options), manager.spelled(package)]
    try:
        package_managers.act(argv)
    except UnableError:  # most often the node's list of packages is too old to fetch from
        package_managers.act(manager.refresh())
        package_managers.act(argv)
    return outcome.compliant(f"{manager.spelled(package)} was installed.")


def _register(name: str, parameters: str, state: str, *, prefix: str = "", look_only: bool = False) -> None:
    """Register a package method; an empty `state` is the parameter of that name."""

    def audit(call: MethodCall) -> Finding:
        return _judge(_wish(call, state or call["state"]))

    def enforce(call: MethodCall) -> Finding:
        return _change(_wish(call, state or call["state"]))

    register(name, parameters, audit, None if look_only else enforce, prefix=prefix)


_FULL = "name version? architecture? provider?"

_register("package_present", _FULL, "present")
_register("package_absent", _FULL, "absent")
_register("package_state", f"{_FULL} state?", "")
_register("package_state_options", f"{_FULL} state? options?", "")
_register("package_check_installed", "name", "present", look_only=True)
_register("package_install", "name", "present")
_register("package_install_version", "name package_version", "present", prefix="package_install")
_register("package_remove", "name", "absent")
_register("package_verify", "name", "present", prefix="package_install", look_only=True)
_register("package_verify_version", "name version", "present", prefix="package_install", look_only=True)
