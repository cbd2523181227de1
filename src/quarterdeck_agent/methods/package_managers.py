# SPDX-License-Identifier: Apache-2.0
"""The package managers this agent knows: how to look without locks or caches, how to install and remove.

Which one is asked, and what is wanted, is decided in packages.py.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional, Tuple

from quarterdeck_agent.methods import contents, processes, system
from quarterdeck_agent.methods.system import UnableError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9+._@:-]*")
#: Bytes of the list of all packages; a large workstation has half a megabyte.
_DATABASE_LIMIT = 64 * 1024 * 1024
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.~:_^-]*")


@dataclass(frozen=True)
class Package:
    """What a policy names: `version` and `architecture` are empty when any will do."""

    name: str
    version: str = ""
    architecture: str = ""

    def __post_init__(self) -> None:
        for text, pattern in ((self.name, _NAME), (self.version, _VERSION), (self.architecture, _VERSION)):
            if text and not pattern.fullmatch(text):
                raise UnableError(f"{text} is not a package name, version or architecture.")


@dataclass(frozen=True)
class Manager:
    """One package manager."""

    name: str
    #: Versions of a package that are installed (of the given architecture, any version).
    installed: Callable[[Package], List[str]]
    #: The newest version offered; None: nobody can tell without refreshing or locking a cache.
    newest: Callable[[Package], Optional[str]]
    #: Program and arguments that install or remove a package, before its name.
    install: Callable[[List[str]], List[str]]
    remove: Callable[[List[str]], List[str]]
    #: How an installation names package, version and architecture.
    spelled: Callable[[Package], str]
    #: Program and arguments that fetch the list of packages anew.
    refresh: Callable[[], List[str]]


def choose(provider: str) -> Manager:
    """The manager of that name, or for an empty one or `default` the one that this node has. Raises UnableError."""
    if provider in ("", "default"):
        for programs, name in _SIGNS:
            if all(system.find_tool(program) for program in programs):
                return MANAGERS[name]
        raise UnableError("This node has no package manager that the agent knows (apt, zypper, dnf, yum, apk).")
    if provider not in MANAGERS:
        raise UnableError(f"The package provider {provider} is not supported; supported are {', '.join(MANAGERS)}.")
    return MANAGERS[provider]


def act(argv: List[str]) -> None:
    """Run a transaction without questions. Raises UnableError."""
    processes.act(*argv, environment={"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none"})


def options(text: str) -> List[str]:
    """Options of a package manager as words, quoted as in a shell. Raises UnableError."""
    try:
        return shlex.split(text)
    except ValueError as problem:
        raise UnableError(f"The options {text} cannot be read: {problem}.") from problem


class _Dpkg:
    """dpkg's database; asked once as a whole, and again only after it has changed."""

    FORM = "${Package}\t${Architecture}\t${Version}\t${Status}\n"

    def __init__(self) -> None:
        self._seen: Optional[Tuple[int, ...]] = None
        self._rows: Dict[str, List[Tuple[str, str]]] = {}

    def installed(self, package: Package) -> List[str]:
        """Versions of a package, named with or without `:architecture`, that are installed."""
        name, _, architecture = package.name.partition(":")
        wanted = package.architecture or architecture
        return [version for found, version in self._all().get(name, []) if wanted in ("", found)]

    def _all(self) -> Dict[str, List[Tuple[str, str]]]:
        state = self._state()
        if state is None or state != self._seen:
            self._rows = self._query()
            self._seen = state
        return self._rows

    def _query(self) -> Dict[str, List[Tuple[str, str]]]:
        done = processes.query(system.tool("dpkg-query"), "--show", f"--showformat={self.FORM}", limit=_DATABASE_LIMIT)
        if done.code != 0:
            raise UnableError(f"dpkg-query returned {done.code}{done.told}")
        rows: Dict[str, List[Tuple[str, str]]] = {}
        for name, architecture, version, status in (line.split("\t") for line in done.out.splitlines()):
            if status.endswith(" installed"):
                rows.setdefault(name, []).append((architecture, version))
        return rows

    def _state(self) -> Optional[Tuple[int, ...]]:
        """What changes whenever dpkg has changed its database; None when that cannot be told."""
        try:
            status = os.stat(system.path("/var/lib/dpkg/status"))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def _apt_newest(package: Package) -> Optional[str]:
    # Empty names: the answer is computed in memory, no cache file is written.
    no_cache = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
    name = f"{package.name}:{package.architecture}" if package.architecture else package.name
    done = processes.query(system.tool("apt-cache"), *no_cache, "policy", name)
    found = re.search(r"^\s*Candidate:\s*(\S+)", done.out, re.MULTILINE)
    if done.code != 0 or not found or found[1] == "(none)":
        raise UnableError(f"apt knows no package {name} to install.")
    return found[1]


def _apt(verb: str) -> Callable[[List[str]], List[str]]:
    def argv(extra: List[str]) -> List[str]:
        keep = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
        return [system.tool("apt-get"), "-y", "-q", *keep, *extra, *verb.split()]

    return argv


def _apt_spelled(package: Package) -> str:
    architecture = f":{package.architecture}" if package.architecture else ""
    return package.name + architecture + (f"={package.version}" if package.version else "")


def _rpm_installed(package: Package) -> List[str]:
    form = "%{EPOCH}\t%{VERSION}\t%{RELEASE}\t%{ARCH}\n"
    done = processes.query(system.tool("rpm"), "--query", f"--queryformat={form}", package.name)
    if done.code != 0:
        if "is not installed" in done.out + done.err:
            return []
        raise UnableError(f"rpm returned {done.code}{done.told}")
    versions = []
    for epoch, version, release, architecture in (line.split("\t") for line in done.out.splitlines()):
        if package.architecture in ("", architecture):
            versions.append(version if package.version == version else f"{version}-{release}")
            if package.version == f"{epoch}:{version}-{release}":
                versions[-1] = package.version
    return versions


def _rpm_spelled(package: Package) -> str:
    name = package.name + (f"-{package.version}" if package.version else "")
    return name + (f".{package.architecture}" if package.architecture else "")


def _zypper_spelled(package: Package) -> str:
    name = package.name + (f".{package.architecture}" if package.architecture else "")
    return name + (f"={package.version}" if package.version else "")


def _yum(verb: str) -> Callable[[List[str]], List[str]]:
    return lambda extra: [system.tool("dnf", "yum"), "-y", "-q", *extra, verb]


def _zypper(verb: str) -> Callable[[List[str]], List[str]]:
    return lambda extra: [system.tool("zypper"), "--non-interactive", "--quiet", *verb.split(), *extra]


def _apk_installed(package: Package) -> List[str]:
    data = contents.read(system.path("/lib/apk/db/installed"))
    if data is None:
        raise UnableError("This node has no database of apk packages.")
    versions = []
    for block in data.decode("utf-8", "replace").split("\n\n"):
        fields = dict(line.split(":", 1) for line in block.splitlines() if line[1:2] == ":")
        if fields.get("P") == package.name and package.architecture in ("", fields.get("A", "")):
            versions.append(fields.get("V", ""))
    return versions


def _apk(verb: str) -> Callable[[List[str]], List[str]]:
    return lambda extra: [system.tool("apk"), verb, *extra]


def _unknown(_package: Package) -> Optional[str]:
    return None


#: Programs that tell which manager a node lives by, first match; rpm alone may be installed on a Debian.
_SIGNS = (
    (("dpkg-query", "apt-get"), "apt"),
    (("rpm", "zypper"), "zypper"),
    (("rpm", "dnf"), "yum"),
    (("rpm", "yum"), "yum"),
    (("apk",), "apk"),
)

MANAGERS: Dict[str, Manager] = {
    "apt": Manager(
        "apt",
        _Dpkg().installed,
        _apt_newest,
        _apt("--allow-downgrades install"),
        _apt("remove"),
        _apt_spelled,
        lambda: [system.tool("apt-get"), "-q", "update"],
    ),
    "yum": Manager(
        "yum",
        _rpm_installed,
        _unknown,
        _yum("install"),
        _yum("remove"),
        _rpm_spelled,
        lambda: [system.tool("dnf", "yum"), "-y", "-q", "makecache"],
    ),
    "zypper": Manager(
        "zypper",
        _rpm_installed,
        _unknown,
        _zypper("install --oldpackage"),
        _zypper("remove"),
        _zypper_spelled,
        lambda: [system.tool("zypper"), "--non-interactive", "--quiet", "refresh"],
    ),
    "apk": Manager(
        "apk",
        _apk_installed,
        _unknown,
        _apk("add"),
        _apk("del"),
        lambda package: package.name + (f"={package.version}" if package.version else ""),
        lambda: [system.tool("apk"), "update"],
    ),
}
