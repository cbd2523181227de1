# SPDX-License-Identifier: Apache-2.0
"""`listen`: wait for the server to ask for a run, carry it out as `quarterdeck-agent run` does, send what it prints.

The run is a process of its own, which goes on whatever becomes of this one or of the server. Output is buffered up to
a limit; what nobody takes fast enough is left out, and that is said: a run never waits for a reader.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Callable, Deque, List, NamedTuple, Optional, Tuple

from quarterdeck_agent import documents, keys, service
from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import AgentError, Refused
from quarterdeck_agent.state import Settings, StateDirectory

#: Output that waits to be sent.
BUFFER_BYTES = 1024 * 1024
#: A run that takes longer is ended.
LONGEST_RUN_SECONDS = 3600
#: Between two tries: the first wait, doubled up to the longest, each shortened at random by up to half.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 300.0
#: Another process of this node listens; it may have taken over for good.
_REPLACED_SECONDS = 60.0
_SHORTEST_HOLD_SECONDS = 1.0
#: How long the end of a run is told to a server that does not answer.
_GIVE_UP_SECONDS = 120.0
_KILL_AFTER_SECONDS = 10


class Work(NamedTuple):
    """What the server asks for."""

    run: str
    conditions: Tuple[str, ...]
    audit: bool
    output: bool


def listen(state: StateDirectory, *, commands: bool = False) -> None:
    """Listen until the process is ended, for commands, too, if wanted.

    Raises AgentError only where waiting does not help.
    """
    if commands:
        from quarterdeck_agent import commanding  # what most nodes do not allow need not be there

        threading.Thread(target=commanding.Taker(state).take, name="commands", daemon=True).start()
    Listener(state, commands=commands).go_on()


class Listener:
    """One connection to the server, made anew when the node gets another server."""

    def __init__(self, state: StateDirectory, *, commands: bool = False) -> None:
        """`commands`: whether somebody else takes commands meanwhile, which is only said here."""
        self._state = state
        self._orders = "runs and commands" if commands else "runs, not commands"
        self._settings: Optional[Settings] = None
        self._client: Optional[Client] = None
        self._failures = 0
        self._said = ""

    def go_on(self) -> None:
        while True:
            began = time.monotonic()
            try:
                pause = self._once()
            except (AgentError, OSError) as error:
                self._say(str(error))
                pause = waiting_time(self._failures)
                self._failures += 1
            if not pause and time.monotonic() - began < _SHORTEST_HOLD_SECONDS:
                pause = waiting_time(0)  # a server, or a proxy, that does not hold
            time.sleep(pause)

    def _once(self) -> float:
        """Wait for an order and carry it out; how many seconds to stay away then."""
        client = self._connected()
        answer = client.wake()
        if pause := self._heard(answer["status"]):
            return pause
        if answer["status"] == "run":
            carry_out(client, work_of(answer), service.agent_command, self._state.path)
            return 0.001  # at once: the server may have more
        return 0.0

    def _heard(self, status: str) -> float:
        """The server answers; how many seconds to stay away, because another process of this node listens."""
        self._failures = 0
        replaced = status == "replaced"
        self._say("Another process of this node listens." if replaced else "")
        return _REPLACED_SECONDS * random.uniform(0.5, 1) if replaced else 0.0

    def _connected(self) -> Client:
        settings = self._state.settings()
        if self._client is None or settings != self._settings:
            if self._client is not None:
                self._client.close()
            key = keys.load(self._state.path)
            self._client = Client(settings.server, settings.pin, key, self._state.node_id())
            self._settings = settings
            print(f"quarterdeck-agent: listening to {settings.server} for {self._orders}", file=sys.stderr, flush=True)
        return self._client

    def _say(self, problem: str) -> None:
        """Tell what is wrong, once."""
        if problem != self._said:
            print(f"quarterdeck-agent: {problem or 'listening again'}", file=sys.stderr, flush=True)
        self._said = problem


def waiting_time(failures: int) -> float:
    """Seconds until the next try, after so many that failed before this one; at random, so that nodes do not gather."""
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(failures, 20)) * random.uniform(0.5, 1)


def work_of(answer: documents.Wake) -> Work:
    """The order in an answer. Raises AgentError for one that cannot be meant so."""
    run, names = answer.get("run"), answer.get("conditions")
    if not isinstance(run, str) or not run.replace("-", "").isalnum() or not isinstance(names, list):
        raise AgentError("The server asks for a run in a form that this agent does not know; update the agent.")
    try:
        conditions = documents.conditions(",".join(str(name) for name in names))
    except documents.BadDocument as error:
        raise AgentError(f"The server asks for a run with a condition that is none: {error}") from error
    return Work(run, conditions, answer.get("audit") is True, answer.get("output") is not False)


def carry_out(client: Client, work: Work, command: Callable[..., List[str]], state_directory: str) -> None:
    """Run once and send what is printed. Raises AgentError, without running, when the server takes the order back."""
    begun = client.send_output(work.run, 0, b"")
    if begun not in ("received", "unwanted"):
        raise AgentError("The server does not let the run begin.")
    arguments = ["run", "--verbose", "--state-dir", state_directory]
    if work.audit:
        arguments.append("--audit")
    if work.conditions:
        arguments += ["--define", ",".join(work.conditions)]
    # A session of its own: what stops this process need not stop a run that is under way.
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    output = Output()
    reader = threading.Thread(target=output.read_from, args=(process,), daemon=True)
    reader.start()
    _Sender(client, work.run, output, wanted=work.output and begun == "received").send_all()
    reader.join()


class Output:
    """What a run prints, on its way from a thread that reads to one that sends."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: whole lines each, but for lines that are too long for one piece
        self._pieces: Deque[bytearray] = deque()
        self._size = 0
        self._left_out = 0
        self._status: Optional[int] = None

    def read_from(self, process: subprocess.Popen[bytes]) -> None:
        """Take everything the process prints, until it ends; end it when it takes too long."""
        assert process.stdout is not None
        end = threading.Timer(LONGEST_RUN_SECONDS, _end, (process,))
        end.daemon = True
        end.start()
        rest = b""
        with process.stdout as pipe:
            while piece := os.read(pipe.fileno(), documents.MAX_PIECE_BYTES - len(rest)):
                whole, feed, rest = (rest + piece).rpartition(b"\n")
                if len(rest) == documents.MAX_PIECE_BYTES:
                    whole, rest = rest, b""
                self.add(whole + feed)
        self.add(rest + b"\n" if rest else b"")
        status = process.wait()
        end.cancel()
        with self._changed:
            self._status = status
            self._changed.notify()

    def add(self, text: bytes) -> None:
        """Keep a piece until it is taken; leave it out when too much waits."""
        with self._changed:
            if self._left_out or self._size + len(text) > BUFFER_BYTES:
                self._left_out += len(text)
            elif self._pieces and len(self._pieces[-1]) + len(text) <= documents.MAX_PIECE_BYTES:
                self._pieces[-1] += text
                self._size += len(text)
            elif text:
                self._pieces.append(bytearray(text))
                self._size += len(text)
            self._changed.notify()

    def take(self, seconds: float) -> Tuple[bytes, Optional[int]]:
        """The next piece, empty when there is none for so long; with the last the exit status."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._status is not None, seconds)
            taken = bytes(self._pieces.popleft()) if self._pieces else b""
            self._size -= len(taken)
            if self._left_out and not self._pieces:
                notice = b"[%d bytes of output were left out: they were not taken]\n" % self._left_out
                self._pieces.append(bytearray(notice))
                self._size, self._left_out = len(notice), 0
            return taken, self._status if not self._pieces else None


class _Sender:
    """Sends the output of one run, in order, each piece until it is taken."""

    def __init__(self, client: Client, run: str, output: Output, *, wanted: bool) -> None:
        self._client = client
        self._run = run
        self._output = output
        self._number = 1
        self._wanted = wanted
        self._known = True
        self._sent = time.monotonic()

    def send_all(self) -> None:
        status: Optional[int] = None
        while status is None:
            text, status = self._output.take(documents.BEAT_SECONDS)
            self._send(text, status)

    def _send(self, text: bytes, status: Optional[int]) -> None:
        """One piece. The run goes on whatever comes of it."""
        beat = time.monotonic() - self._sent >= documents.BEAT_SECONDS
        if not self._known or (not self._wanted and status is None and not beat):
            return
        give_up, failures = time.monotonic() + _GIVE_UP_SECONDS, 0
        while True:
            try:
                answer = self._client.send_output(self._run, self._number, text if self._wanted else b"", status)
            except Refused as error:
                if error.status < 500:
                    self._known = False  # the server gave the run up
                    return
                answer = ""
            except (AgentError, OSError):
                answer = ""
            if answer in ("received", "unwanted"):
                self._number += 1
                self._sent = time.monotonic()
                self._wanted = self._wanted and answer == "received"
                return
            if time.monotonic() > give_up:
                self._known = False
                return
            if answer != "again":
                time.sleep(min(10.0, waiting_time(failures)))
                failures += 1


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a run and everything it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_KILL_AFTER_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
