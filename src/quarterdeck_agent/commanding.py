# SPDX-License-Identifier: Apache-2.0
"""`listen --commands`: wait for commands of the server, carry them out, send what they print.

A command is obeyed only if the server signed it, with the key that signs policies, for this node, not long ago, and if
it never came before: ids are kept on disk until much later orders came, and older ones are refused from then on.
Several run at the same time, beside a run of the policies. Nothing that they print is left out: what is not taken stays
in the command's pipe, and the command waits. A command runs in a session of its own and carries a mark in its
environment, by which all that it started is found when it is to stop.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import math
import os
import pwd
import re
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import IO, Any, Dict, List, NamedTuple, Optional, Tuple, Union

from quarterdeck_agent import documents, keys, storing
from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import AgentError, Refused, Untrusted
from quarterdeck_agent.listening import Listener, waiting_time
from quarterdeck_agent.state import StateDirectory, is_node_id

#: Commands at the same time; more wait on the server.
MOST_COMMANDS = 8
#: After it was asked to end, a command has so long until it is killed.
TERM_SECONDS = 2.0
KILL_SECONDS = 2.0
#: How long output is read after the command itself has ended, if somebody in the background keeps it open.
GRACE_SECONDS = 1.0
#: A command whose server does not answer for so long is ended.
GIVE_UP_SECONDS = 120.0
MARK = "QUARTERDECK_COMMAND"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KIND = "command"
_LOOK_SECONDS = 0.25
_KEPT = "orders"
#: What a claim is called: when the order expires, and its id.
_CLAIM = re.compile(r"([0-9]+)\.(.+)")
_TWICE = "The command came before; it is not obeyed twice."
#: of fcntl.h; Python has it from 3.10 on
_F_SETPIPE_SZ = 1031
#: An order that is good for longer is none of ours: it would have to be remembered for longer.
_LONGEST_LIFE = documents.ORDER_SECONDS + 2 * documents.CLOCK_TOLERANCE_SECONDS
#: Orders are remembered until others came that expire so much later; those that are good now differ by less.
_REMEMBERED_SECONDS = 2 * _LONGEST_LIFE


class Order(NamedTuple):
    """An order that may be obeyed."""

    id: str
    expires: int
    line: str
    stdin: bytes
    environment: Dict[str, str]
    seconds: float
    user: str


# -- which orders are obeyed --------------------------------------------------------------


def verified(parcel: bytes, node: str, policy_key: str, now: float) -> Order:
    """The order in a parcel. Raises Untrusted unless the server signed it for `node`, and it is good `now`."""
    try:
        opened = documents.open_parcel(parcel)
        signature = base64.b64decode(opened.signature, validate=True)
    except (documents.BadDocument, binascii.Error) as error:
        raise Untrusted(f"The command cannot be read: {error}") from error
    message = documents.parcel_message(_KIND, node, opened.body)
    if opened.kind != _KIND or not signature or not keys.verify(policy_key, message, signature):
        raise Untrusted("The command is not signed for this node by its server; it was not obeyed.")
    try:
        document = opened.payload()
    except documents.BadDocument as error:
        raise Untrusted(f"The signed command cannot be read: {error}") from error
    if document.get("format") != documents.FORMAT:
        raise Untrusted(f"The command is not of format {documents.FORMAT}; update the agent.")
    if document.get("node") != node:
        raise Untrusted(f"The command is for node {document.get('node')}; it was not obeyed.")
    order = _order(document)
    if order.expires <= now:
        raise Untrusted(f"The command has expired {now - order.expires:.0f} s ago; it was not obeyed.")
    if order.expires > now + _LONGEST_LIFE:
        raise Untrusted("The command is valid for too long; it was not obeyed.")
    return order


def _order(document: Dict[str, Any]) -> Order:
    """Raises Untrusted for a document that cannot be meant so."""
    order, expires, seconds = document.get("id"), document.get("expires"), document.get("seconds")
    line, user, environment = document.get("line"), document.get("user"), document.get("environment")
    try:
        stdin = base64.b64decode(document["stdin"], validate=True)
    except (KeyError, TypeError, ValueError):
        stdin = None
    if (
        not (isinstance(order, str) and is_node_id(order) and isinstance(expires, int) and isinstance(line, str))
        or not (isinstance(user, str) and isinstance(environment, dict) and stdin is not None)
        or not all(isinstance(text, str) for pair in environment.items() for text in pair)
        or not (isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds >= 0)
    ):
        raise Untrusted("The signed command is not complete; it was not obeyed.")
    return Order(order, expires, line, stdin, environment, float(seconds), user)


def claim(state: StateDirectory, order: str, expires: int) -> None:
    """Remember that an order came, durably. Raises Untrusted when it came before, or may have; OSError."""
    directory = state.at(_KEPT)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    known = [(int(found[1]), found[2]) for found in map(_CLAIM.fullmatch, os.listdir(directory)) if found]
    # By the server's own times: what a relay says of the clock must not make an order new again.
    oldest = max((other for other, _ in known), default=expires) - _REMEMBERED_SECONDS
    if expires < oldest:
        raise Untrusted(
            "The command is much older than one that came before, so that it may have come, too; it was not obeyed. "
            f"If the clock of the server was set back, remove {directory}."
        )
    for other, claimed in known:
        if claimed == order:
            raise Untrusted(_TWICE)
        if other < oldest:
            storing.remove(os.path.join(directory, f"{other}.{claimed}"))
    try:
        os.close(os.open(os.path.join(directory, f"{expires}.{order}"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise Untrusted(_TWICE) from None
    storing.sync_directory(directory)


# -- waiting for them ---------------------------------------------------------------------


class Taker(Listener):
    """Holds a request for commands open, also while some are carried out."""

    def __init__(self, state: StateDirectory) -> None:
        super().__init__(state)
        self._id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._running: Dict[str, _Carrying] = {}

    def take(self) -> None:
        """Until the process ends; what nobody expected ends it, so that whoever keeps it listening starts it anew."""
        try:
            self.go_on()
        except BaseException as error:
            _say(f"commands are not waited for any more: {error!r}")
            os._exit(1)

    def _once(self) -> float:
        client = self._connected()
        with self._lock:
            room = MOST_COMMANDS - len(self._running)
        answer = client.wake_commands(self._id, max(0, room))
        pause = self._heard(answer["status"])
        if pause:
            return pause
        order = str(answer.get("command", ""))
        if answer["status"] == "stop":
            with self._lock:
                running = self._running.get(order)
            if running is not None:
                running.stop("aborted")
            return 0.001
        if answer["status"] == "command" and is_node_id(order):
            self._begin(client, order, answer.get("order", ""))
            return 0.001  # at once: the server may have more
        return 0.0

    def _begin(self, client: Client, order: str, text: str) -> None:
        with self._lock:
            if order in self._running:
                return  # it was given again before the server heard that it begins
            carrying = _Carrying(self._state, order, text, client.offset, self._ended)
            self._running[order] = carrying
        try:
            carrying.start()
        except RuntimeError as error:  # no thread to be had: the server gives the order again
            self._ended(order)
            raise AgentError(f"A command cannot be carried out: {error}") from error

    def _ended(self, order: str) -> None:
        with self._lock:
            del self._running[order]


class _Carrying(threading.Thread):
    """One order: looked at, carried out, told of."""

    def __init__(self, state: StateDirectory, order: str, text: str, offset: int, ended: Any) -> None:
        super().__init__(name=f"command {order}", daemon=True)
        self._state, self._id, self._text = state, order, text
        self._offset = offset
        self._ended = ended
        self._lock = threading.Lock()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._mark = f"{MARK}={secrets.token_hex(16)}"
        #: why it is to end: aborted | timeout
        self._why = ""
        #: TERM and KILL have been sent and had their time
        self._all_done = threading.Event()

    def run(self) -> None:
        try:
            settings = self._state.settings()
            client = Client(settings.server, settings.pin, keys.load(self._state.path), self._state.node_id())
            client.offset = self._offset
            try:
                teller = _Teller(client, self._id, self.stop)
                self._carry_out(teller, settings.policy_key)
            finally:
                client.close()
        except (AgentError, OSError) as error:
            _say(f"command {self._id}: {error}")
        except Exception as error:
            _say(f"command {self._id}: internal error: {error!r}")
        finally:
            self._ended(self._id)

    def stop(self, why: str) -> None:
        """Have it end; from any thread, and at once."""
        with self._lock:
            process = self._process
            if self._why or (process is not None and process.poll() is not None):
                return
            self._why = why
        if process is not None:
            threading.Thread(target=self._end, args=(process,), daemon=True).start()

    def _carry_out(self, teller: _Teller, policy_key: str) -> None:
        try:
            order = self._obeyable(policy_key)
            started = _Start(order, self._mark)
        except (Untrusted, LookupError, OSError, ValueError) as error:
            _say(f"command {self._id} is refused: {error}")
            teller.end("refused", str(error))
            return
        if not teller.begins():
            started.drop()
            return
        if self._why:
            started.drop()
            teller.end("aborted", "It was stopped before it began.")
            return
        try:
            process = started.go()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            teller.end("refused", f"The command cannot be started: {error}")
            return
        # For whoever looks after this machine; the line itself may hold what nobody else is to see.
        _say(f"command {self._id} of the server begins as {started.user}")
        with self._lock:
            self._process, why = process, self._why
        if why:  # it was to stop in the meantime
            threading.Thread(target=self._end, args=(process,), daemon=True).start()
        limit = threading.Timer(order.seconds, self.stop, ("timeout",)) if order.seconds else None
        if limit is not None:
            limit.daemon = True
            limit.start()
        try:
            self._pump(process, teller)
        finally:
            if limit is not None:
                limit.cancel()

    def _obeyable(self, policy_key: str) -> Order:
        """Raises Untrusted, OSError."""
        now = time.time() + self._offset
        try:
            parcel = base64.b64decode(self._text, validate=True)
        except (binascii.Error, ValueError):
            raise Untrusted("The command cannot be read.") from None
        order = verified(parcel, self._state.node_id(), policy_key, now)
        if order.id != self._id:
            raise Untrusted("The command came under another id; it was not obeyed.")
        claim(self._state, order.id, order.expires)
        return order

    def _pump(self, process: subprocess.Popen[bytes], teller: _Teller) -> None:
        """Send all that is printed, then the end."""
        assert process.stdout is not None
        assert process.stderr is not None
        for pipe in (process.stdout, process.stderr):
            with contextlib.suppress(OSError):  # the more is read at once, the fewer requests
                fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, documents.MAX_COMMAND_PIECE_BYTES)
        with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
            selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(process.stderr, selectors.EVENT_READ, "stderr")
            ended = 0.0
            while selector.get_map() or process.poll() is None:
                for key, _ in selector.select(_LOOK_SECONDS):
                    if data := _read(key.fileobj):
                        teller.output(key.data, data)
                    else:
                        selector.unregister(key.fileobj)
                if not selector.get_map():
                    self._wait_a_little(process)
                if process.poll() is not None:
                    ended = ended or time.monotonic()
                    if time.monotonic() - ended >= GRACE_SECONDS:
                        break
                teller.beat()
                if teller.given_up and self._all_done.is_set():
                    return  # nobody wants to know, and it does not end
        status = process.poll() or 0
        reason = f"It was ended by signal {-status} ({signal.strsignal(-status)})." if status < 0 else ""
        status = status if status >= 0 else 128 - status
        _say(f"command {self._id} {self._why or 'ended'}, exit status {status}")
        teller.end(self._why or "ended", "" if self._why else reason, status)

    @staticmethod
    def _wait_a_little(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """TERM, then KILL, to the command and everything it started."""
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            end = time.monotonic() + seconds
            _signal(process, self._mark, number)
            while _members(process, self._mark) and time.monotonic() < end:
                time.sleep(0.05)
                if number == signal.SIGKILL:
                    _signal(process, self._mark, number)  # who was just being started
        self._all_done.set()


class _Start:
    """A process that is prepared."""

    def __init__(self, order: Order, mark: str) -> None:
        """Raises LookupError, in a sentence, when its user is unknown or cannot be become."""
        if any("\0" in text for text in (order.line, *order.environment, *order.environment.values())):
            raise ValueError("A command line or its environment holds a NUL character.")
        self._order = order
        self._entry, self._identity = _account(order.user)
        self.user = self._entry.pw_name
        name, _, value = mark.partition("=")
        self._environment = {**_environment(self._entry), **order.environment, name: value}
        self._stdin: Optional[IO[bytes]] = _input(order.stdin)

    def go(self) -> subprocess.Popen[bytes]:
        """Raises OSError, ValueError, SubprocessError."""
        home = self._entry.pw_dir or "/"
        try:
            return subprocess.Popen(
                # What the command line is must not be an argument of two programs.
                [
                    "/bin/sh",
                    "-c",
                    'cd "$2" 2>/dev/null; unset OLDPWD; exec /bin/sh -c "$1"',
                    "sh",
                    self._order.line,
                    home,
                ],
                stdin=self._stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=self._environment,
                start_new_session=True,
                **self._identity,
            )
        finally:
            self.drop()

    def drop(self) -> None:
        """Let go of its input."""
        if self._stdin is not None:
            self._stdin.close()
            self._stdin = None


class _Teller:
    """Tells the server of one command, in order, each piece until it is taken."""

    def __init__(self, client: Client, order: str, stop: Any) -> None:
        self._client, self._order, self._stop = client, order, stop
        self._number = 0
        self._told = time.monotonic()
        #: the server does not want to know any more, or does not answer
        self.given_up = False

    def begins(self) -> bool:
        """Whether the command may begin."""
        self._send(b"")
        return not self.given_up

    def output(self, stream: str, data: bytes) -> None:
        self._send(data, stream=stream)

    def beat(self) -> None:
        """That there is nothing new, when it was said long ago."""
        if time.monotonic() - self._told >= documents.BEAT_SECONDS:
            self._send(b"")

    def end(self, ending: str, reason: str, status: int = 0) -> None:
        self._send(reason.encode(errors="replace"), ending=ending, status=status)

    def _send(self, data: bytes, *, stream: str = "", ending: str = "", status: int = 0) -> None:
        give_up, failures = time.monotonic() + GIVE_UP_SECONDS, 0
        path = documents.command_output_path(
            self._order, self._number, stream=stream, ending=ending, status=min(status, 255)
        )
        while not self.given_up:
            try:
                taken = self._client.send_command_output(path, data)
            except Refused as error:
                taken = {"status": "", "stop": False}
                if error.status < 500:
                    self._give_up()
            except (AgentError, OSError):
                taken = {"status": "", "stop": False}
            if taken["stop"]:
                self._stop("aborted")
            if taken["status"] == "received":
                self._number += 1
                self._told = time.monotonic()
                return
            if taken["status"] == "again":
                give_up, failures = time.monotonic() + GIVE_UP_SECONDS, 0
            elif time.monotonic() > give_up:
                self._give_up()
            elif not self.given_up:
                time.sleep(min(5.0, waiting_time(failures)))
                failures += 1

    def _give_up(self) -> None:
        self.given_up = True
        self._stop("aborted")


# -- processes ----------------------------------------------------------------------------


def _account(user: str) -> Tuple[pwd.struct_passwd, Dict[str, Any]]:
    own = os.geteuid()
    try:
        entry = pwd.getpwnam(user) if user else pwd.getpwuid(own)
    except KeyError:
        raise LookupError(f"There is no user {user or own} on this node.") from None
    if entry.pw_uid == own:
        return entry, {}
    if own != 0:
        raise LookupError(f"Only an agent that runs as root can run commands as the user {user}.")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return entry, {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _environment(entry: pwd.struct_passwd) -> Dict[str, str]:
    known = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **known,
        "PATH": _PATH,
        "HOME": entry.pw_dir or "/",
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell or "/bin/sh",
    }


def _input(content: bytes) -> IO[bytes]:
    """A file in memory: what a command reads may be secret, and is never written to a disk."""
    file = os.fdopen(os.memfd_create("input"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def _read(pipe: Union[int, Any]) -> bytes:
    """What is there now, of pieces that came one after another."""
    return os.read(pipe if isinstance(pipe, int) else pipe.fileno(), documents.MAX_COMMAND_PIECE_BYTES)


def _signal(process: subprocess.Popen[bytes], mark: str, number: int) -> None:
    group = process.pid if process.poll() is None else 0
    marked = _marked(mark)
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for pid in marked:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) != group:
                os.kill(pid, number)


def _members(process: subprocess.Popen[bytes], mark: str) -> bool:
    """Whether anybody of it lives."""
    return process.poll() is None or bool(_marked(mark))


def _marked(mark: str) -> List[int]:
    """The processes that carry a mark in their environment, as far as they may be looked at."""
    wanted, found = mark.encode(), []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found


def _say(text: str) -> None:
    print(f"quarterdeck-agent: {text}", file=sys.stderr, flush=True)
