# SPDX-License-Identifier: Apache-2.0
"""A scratch machine for one test, and the form of the cases that every method must have.

A scratch machine is a directory: `root` is what methods take for the real root, `bin` is the whole
PATH (programs standing in for real ones are scripts there), `work` is for files named by policies.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from quarterdeck_agent.outcome import METHODS, Facts, Finding, Method, MethodCall, State

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

COMPLIANT, DRIFT, ERROR = State.COMPLIANT, State.DRIFT, State.ERROR
NOT_APPLICABLE, REPAIRED = State.NOT_APPLICABLE, State.REPAIRED


@dataclass
class Scratch:
    """One scratch machine."""

    home: Path
    facts: Facts = field(default_factory=Facts)
    #: More words that `filled` replaces, as {word}.
    words: dict[str, str] = field(default_factory=dict)
    #: What is closed at the end of the test.
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        for name in ("root/etc", "root/proc/sys", "bin", "work", "state"):
            (self.home / name).mkdir(parents=True)

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def state(self) -> Path:
        return self.home / "state"

    def file(self, name: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        """A file below `work`, or with a leading slash below the root."""
        path = self.root / name[1:] if name.startswith("/") else self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def tool(self, name: str, script: str) -> Path:
        """A program on the machine's PATH: a shell script, which may use {root}, {work} and {bin}."""
        path = self.home / "bin" / name
        path.write_text("#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n" + self.filled(script))
        path.chmod(0o755)
        return path

    def real_tool(self, *paths: str) -> None:
        """Programs of this machine that the scratch machine has too."""
        for path in paths:
            (self.home / "bin" / Path(path).name).symlink_to(path)

    def filled(self, text: str) -> str:
        """The text with {work}, {root}, {bin} and {state} replaced."""
        for name in ("work", "root", "bin", "state"):
            text = text.replace("{" + name + "}", str(self.home / name))
        for name, word in self.words.items():
            text = text.replace("{" + name + "}", word)
        return text

    def call(self, **params: str) -> MethodCall:
        filled = {name: self.filled(value) for name, value in params.items()}
        return MethodCall(filled, self.facts, backups=str(self.state / "backups"), state=str(self.state))

    def audit(self, method: str, **params: str) -> Finding:
        return METHODS[method].audit(self.call(**params))

    def enforce(self, method: str, **params: str) -> Finding:
        """Like the engine: enforcement after an audit that found drift."""
        known = METHODS[method]
        assert known.enforce
        if not known.blind:
            assert self.audit(method, **params).state is DRIFT
        return known.enforce(self.call(**params))

    def read(self, name: str) -> str:
        path = self.root / name[1:] if name.startswith("/") else self.work / name
        return path.read_bytes().decode("utf-8", "surrogateescape")

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Everything that an audit must not change, of every file of the machine."""
        return {str(path): _look(path) for path in _walk(self.home)}


def _walk(directory: Path) -> Iterator[Path]:
    yield directory
    for path in sorted(directory.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _look(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    facts = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink)
    if stat.S_ISLNK(status.st_mode):
        return (*facts, str(path.readlink()))
    if stat.S_ISREG(status.st_mode):
        return (*facts, path.read_bytes(), sorted(os.listxattr(path)))
    return facts


def _nothing(_scratch: Scratch) -> None:
    pass


@dataclass
class Case:
    """One call of a method on a prepared machine, and what must come of it."""

    method: str
    params: dict[str, str]
    #: What the audit finds.
    found: State = DRIFT
    #: What enforcement says, when the audit found drift or the method is blind.
    then: State = COMPLIANT
    prepare: Callable[[Scratch], object] = _nothing
    #: Files afterwards (as in Scratch.read) and their content; None: the file is absent.
    files: dict[str, str | None] = field(default_factory=dict)
    #: Conditions and variables that the call defines.
    conditions: set[str] = field(default_factory=set)
    variables: dict[str, object] = field(default_factory=dict)
    #: Part of the audit's message.
    says: str = ""
    #: Enforcement needs rights that only root has.
    root: bool = False

    @property
    def id(self) -> str:
        words = ",".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.method}({words})"[:100].encode("unicode_escape").decode()

    @property
    def known(self) -> Method:
        return METHODS[self.method]
