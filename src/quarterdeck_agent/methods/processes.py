# SPDX-License-Identifier: Apache-2.0
"""Running programs: argument lists for tools, one shell line for commands that a policy gives.

Every program runs in its own process group, mostly without input, with a C locale and a time limit, after which
the whole group is killed. What it prints is kept up to a limit, so that no program can fill memory.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from quarterdeck_agent.methods import system
from quarterdeck_agent.methods.system import UnableError

#: Seconds a query of a tool may take.
QUERY_SECONDS = 120
#: Seconds a command or a package transaction may take.
COMMAND_SECONDS = 3600
#: Bytes kept of each of the two output streams.
OUTPUT_LIMIT = 1024 * 1024
#: Longest pause between two looks at whether the program has ended.
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """How a program ended: exit code (128 + n for signal n) and what it printed."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """The end of what it printed, errors first, for a report; empty when it was silent."""
        text = (self.err.strip() or self.out.strip())[-1000:]
        return f": {text}" if text else "."


@dataclass(frozen=True)
class Account:
    """Whose rights a program runs with."""

    uid: int
    gid: int
    groups: Sequence[int]
    home: str
    name: str


def query(*argv: str, limit: int = OUTPUT_LIMIT) -> Outcome:
    """Run a tool that only looks, keeping `limit` bytes of what it prints.

    Raises UnableError when it cannot start or takes too long.
    """
    return _run(list(argv), QUERY_SECONDS, {}, limit=limit)


def act(*argv: str, environment: Optional[Mapping[str, str]] = None, stdin: str = "") -> Outcome:
    """Run a tool that changes the machine; raises UnableError when it fails in any way."""
    outcome = _run(list(argv), COMMAND_SECONDS, environment or {}, stdin=stdin)
    if outcome.code != 0:
        raise UnableError(f"{' '.join(argv)} failed with code {outcome.code}{outcome.told}")
    return outcome


def shell(command: str, account: Optional[Account] = None) -> Outcome:
    """Run a command line with /bin/sh, under `account` when given.

    Raises UnableError when it cannot start or takes too long; a failing command is an Outcome.
    """
    return _run(["/bin/sh", "-c", command], COMMAND_SECONDS, {}, account)


def _run(
    argv: List[str],
    seconds: float,
    environment: Mapping[str, str],
    account: Optional[Account] = None,
    limit: int = OUTPUT_LIMIT,
    stdin: str = "",
) -> Outcome:
    identity: Dict[str, Any] = {}
    if account and account.uid != os.geteuid():
        identity = {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}
    source = _source(stdin)
    try:
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(environment, account),
            cwd=account.home if account and os.path.isdir(account.home) else "/",
            start_new_session=True,
            **identity,
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise UnableError(f"{argv[0]} cannot be run: {problem}.") from problem
    finally:
        os.close(source)
    with process:
        out, err = _collect(process, argv, seconds, limit)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Outcome(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _source(text: str) -> int:
    """A descriptor to read `text` from; a file in memory, so that nobody has to feed a pipe."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("input")
    os.write(descriptor, text.encode("utf-8", "surrogateescape"))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _collect(process: subprocess.Popen[bytes], argv: List[str], seconds: float, limit: int) -> Tuple[bytes, bytes]:
    """What the program prints until it ends; a daemon it leaves behind may hold the pipes open forever."""
    streams = [process.stdout, process.stderr]
    kept = {stream: bytearray() for stream in streams}
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            if stream:
                selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ended = process.poll() is not None
            ready = selector.select(0 if ended else POLL_SECONDS)
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                kept[key.fileobj] += data[: limit - len(kept[key.fileobj])]  # type: ignore[index]
            if ended and not ready:
                break
            _stop_when_late(process, argv, seconds, deadline)
    while True:  # it is about to end, or it closed its output and goes on
        try:
            process.wait(POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            _stop_when_late(process, argv, seconds, deadline)
    return bytes(kept[streams[0]]), bytes(kept[streams[1]])


def _stop_when_late(process: subprocess.Popen[bytes], argv: List[str], seconds: float, deadline: float) -> None:
    if time.monotonic() < deadline:
        return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    raise UnableError(f"{argv[-1]} was stopped after {seconds:.0f} seconds.")


def _environment(extra: Mapping[str, str], account: Optional[Account]) -> Dict[str, str]:
    environment = {**os.environ, "LC_ALL": "C", "PATH": os.pathsep.join(system.search_path()), **extra}
    if account:
        environment.update(HOME=account.home, USER=account.name, LOGNAME=account.name)
    return environment


def exit_codes(text: str) -> Set[int]:
    """The numbers of a list like `0, 2`; raises UnableError when one is not a number."""
    codes = set()
    for part in text.replace(",", " ").split():
        if not part.isdigit():
            raise UnableError(f"{part} is not an exit code; give numbers separated by commas.")
        codes.add(int(part))
    return codes
