# SPDX-License-Identifier: Apache-2.0
"""`quarterdeckd serve`: one small process that starts the others, keeps them alive, and takes them along when it ends.

It owns the data directory (a lock) and the listening sockets (so that a port in use is known early and connections
wait while the API restarts). Children are started at once, load their modules while the database comes up, and get the
settings when their turn has come: preparation, then API and workers. It imports as little as it can, for it stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.core.errors import Invalid, Unavailable
from quarterdeck.daemon import config as settings
from quarterdeck.daemon.config import Config, Told
from quarterdeck.daemon.places import Unreadable, listening, own_data_directory
from quarterdeck.relaying import kept_files
from quarterdeck.storage import embedded

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
#: A child that ran this long has recovered: its next failure is a first one again.
RECOVERED_SECONDS = 60.0
API_STOP_SECONDS = 15.0
WORKER_STOP_SECONDS = 20.0
CERTIFICATE_CHECK_SECONDS = 12 * 3600.0
PATIENCE_SECONDS = 5.0
TOLD_FILE = "serve.json"
#: While something is awaited that no descriptor tells about.
STEP_SECONDS = 0.02


def serve(config: Config, told: Mapping[str, Any], *, migrate: bool) -> None:
    """Run everything until SIGTERM or SIGINT. Raises Unavailable or Conflict when the start fails.

    `told` is what the command line said; other commands find it by `told_to_serve`.
    """
    with own_data_directory(config.data), contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listening(*address)) for address in config.addresses]
        kept_files.replace(config.data / TOLD_FILE, msgspec.json.encode(told))
        Supervisor(config, listeners, migrate=migrate, reread=lambda: _settings(config.data_dir, told)).run()


def _settings(data_dir: str, told: Mapping[str, Any]) -> Config:
    values = {**told, "data_dir": data_dir}
    file = values.pop("config_file", None)
    return settings.load(values, os.environ, Path(file) if file else None)


def told_to_serve(data_dir: Path) -> dict[str, Any]:
    """What the command line of the last `serve` on this data directory said; empty when there was none."""
    try:
        return msgspec.json.decode((data_dir / TOLD_FILE).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}


# --- children --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Child:
    """A process that is started, fed with the settings, and started again when it ends."""

    name: str
    arguments: list[str]
    inherited: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    #: Whether it has closed its output.
    silent: bool = False
    started_at: float = 0.0
    #: When to start it again; None while it runs.
    due: float | None = None
    pause: float = FIRST_PAUSE_SECONDS
    _fed: bool = False
    _unread: bytes = field(default=b"", repr=False)

    def start(self) -> None:
        """Start the process; it loads its modules and waits for the settings."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quarterdeck.daemon.main", *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self.inherited,
            start_new_session=True,  # Ctrl-C is the supervisor's to handle
        )
        self.started_at, self.due = time.monotonic(), None
        self.ready = self.silent = self._fed = False
        self._unread = b""

    def feed(self, config: Config) -> None:
        """Give the process its settings, once."""
        if self.process is None or self._fed or self.process.poll() is not None:
            return
        assert self.process.stdin is not None
        self._fed = True
        with contextlib.suppress(BrokenPipeError):  # it has just ended; that is noticed elsewhere
            self.process.stdin.write(msgspec.json.encode(config) + b"\n")
            self.process.stdin.flush()

    def tell(self, told: Told) -> None:
        """Tell a process that has its settings what is new."""
        if self.process is None or not self._fed or self.process.poll() is not None:
            return
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(msgspec.json.encode(told) + b"\n")
            self.process.stdin.flush()

    def messages(self) -> list[dict[str, Any]]:
        """What it has said since the last time; call when its output is readable, or after it has ended."""
        assert self.process is not None
        assert self.process.stdout is not None
        read = os.read(self.process.stdout.fileno(), 1 << 20)
        self.silent = not read
        self._unread += read
        *lines, self._unread = self._unread.split(b"\n")
        said = [json.loads(line) for line in lines]
        self.ready = self.ready or any("ready" in message for message in said)
        return said

    def ended(self) -> bool:
        """Whether the process has run and is over."""
        return self.process is not None and self.process.poll() is not None

    def bury(self) -> int:
        """Forget a process that is over; the answer is its exit status."""
        assert self.process is not None
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        status, self.process = self.process.returncode, None
        return status

    def again_later(self) -> float:
        """Plan the next start, the later the more often it failed; the answer is the pause in seconds."""
        if time.monotonic() - self.started_at > RECOVERED_SECONDS:
            self.pause = FIRST_PAUSE_SECONDS
        pause, self.pause = self.pause, min(self.pause * 2, LONGEST_PAUSE_SECONDS)
        self.due = time.monotonic() + pause
        return pause

    def stop(self, patience: float) -> None:
        """End the process: kindly, and after `patience` seconds not."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                say(f"{self.name} did not end within {patience:.0f} s; killed.")
                self.process.kill()
                self.process.wait()
        self.bury()


def say(text: str) -> None:
    """One line for the log of the service."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    print(f"{now} quarterdeckd: {text}", file=sys.stderr, flush=True)


# --- the loop --------------------------------------------------------------------------------------------------------


class Supervisor:
    """The state of one `serve`: which processes run, what they know, and what comes next."""

    def __init__(
        self, config: Config, listeners: Sequence[socket.socket], *, migrate: bool, reread: Callable[[], Config]
    ) -> None:
        self._config = config
        self._reread = reread
        self._reload_wanted = False
        self._embedded = not config.database_url
        self._database: embedded.Server | None = None
        self._database_ready = not self._embedded
        self._database_due: float | None = 0.0 if self._embedded else None
        self._database_pause = FIRST_PAUSE_SECONDS
        self._database_started_at = 0.0
        self._patience_ends = time.monotonic() + PATIENCE_SECONDS
        migrating = ["--migrate"] if migrate or self._embedded else []
        self._preparation: Child | None = Child("The preparation", ["preparation", *migrating])
        descriptors = tuple(listener.fileno() for listener in listeners)
        self._api = Child("The API process", ["api-process", *map(str, descriptors)], descriptors)
        self._workers = [Child(f"Worker {number}", ["worker-process"]) for number in range(1, config.workers.count + 1)]
        self._banner = ""
        self._answered_once = False
        self._stopping = False
        self._certificate_check = time.monotonic() + CERTIFICATE_CHECK_SECONDS
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    @property
    def _children(self) -> list[Child]:
        return [*([self._preparation] if self._preparation else []), self._api, *self._workers]

    def run(self) -> None:
        """Everything up, then round and round until told to stop, then everything down."""
        with self._signals():
            try:
                self._keep_database()
                for child in filter(None, (self._preparation, self._api)):
                    child.start()
                while not self._stopping:
                    self._round()
            finally:
                self._stop_all()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: Any) -> None:
            self._stopping = True

        def reload(_number: int, _frame: Any) -> None:
            self._reload_wanted = True

        handlers: dict[signal.Signals, Callable[[int, Any], None]] = {
            signal.SIGTERM: stop,
            signal.SIGINT: stop,
            signal.SIGHUP: stop if os.isatty(0) else reload,  # a terminal that is closed means the end
            signal.SIGCHLD: lambda _number, _frame: None,
        }
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
            del handlers[signal.SIGHUP]  # started with nohup
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        waker = signal.set_wakeup_fd(self._wake_write)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _round(self) -> None:
        self._keep_database()
        if self._preparation is not None:
            self._prepare(self._preparation)
        for child in (self._api, *self._workers):
            self._keep(child)
        if time.monotonic() > self._certificate_check:
            self._check_certificate()
        if self._reload_wanted:
            self._reload()
        self._wait()

    def _wait(self) -> None:
        """Sleep until a child ends or says something, a signal comes, or the next thing is due."""
        watched = select.poll()
        watched.register(self._wake_read, select.POLLIN)
        speaking: dict[int, Child] = {}
        for child in self._children:
            if child.process is not None and child.process.stdout is not None and not child.silent:
                speaking[child.process.stdout.fileno()] = child
                watched.register(child.process.stdout, select.POLLIN)
        for descriptor, _ in watched.poll(self._seconds_to_wait() * 1000):
            if descriptor == self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            else:
                self._listen_to(speaking[descriptor])

    def _seconds_to_wait(self) -> float:
        if self._database_due == 0.0 or (self._database is not None and not self._database_ready):
            return STEP_SECONDS
        if any(child.ended() for child in self._children):
            return 0.0
        dues = [child.due for child in self._children if child.due is not None] + [self._certificate_check]
        if self._database_due is not None:
            dues.append(self._database_due)
        return max(0.0, min(dues) - time.monotonic())

    def _listen_to(self, child: Child) -> None:
        for message in child.messages():
            if "error" in message:
                raise (Unreadable if message["unreadable"] else Unavailable)(message["error"])
            self._reload_wanted = self._reload_wanted or "reload" in message
            if "banner" in message:
                self._banner = message["banner"]
        if child is self._api and child.ready and not self._answered_once:
            self._answered_once = True
            print(self._banner, flush=True)

    # The database ----------------------------------------------------------------------------------------------------

    def _keep_database(self) -> None:
        if not self._embedded:
            return
        if self._database is None:
            if self._database_due is not None and time.monotonic() >= self._database_due:
                self._start_database()
        elif not self._database_ready:
            self._await_database(self._database)
        elif not self._database.alive():
            self._database.release()
            self._database, self._database_ready = None, False
            self._plan_database("The embedded PostgreSQL ended")

    def _start_database(self) -> None:
        self._database = embedded.try_start(self._config.data)
        if self._database is None:
            # Its predecessor is ending, or a command has it for a moment; ours is the next turn.
            self._database_due = time.monotonic() + STEP_SECONDS
            self._say_now_and_then("Waiting for another quarterdeckd command to let go of the database.")
        else:
            self._database_due, self._database_started_at = None, time.monotonic()

    def _await_database(self, database: embedded.Server) -> None:
        try:
            self._database_ready = embedded.is_ready(database, self._config.data)
        except Unavailable as error:
            if not self._answered_once:
                raise
            self._database = None
            self._plan_database(error.message)
        if self._database_ready:
            self._config = msgspec.structs.replace(self._config, database_url=database.url)
        else:
            self._say_now_and_then(f"Waiting for the embedded PostgreSQL; see {self._config.data}/pg/postgresql.log.")

    def _say_now_and_then(self, text: str) -> None:
        if time.monotonic() > self._patience_ends:
            self._patience_ends = time.monotonic() + LONGEST_PAUSE_SECONDS
            say(text)

    def _plan_database(self, event: str) -> None:
        if time.monotonic() - self._database_started_at > RECOVERED_SECONDS:
            self._database_pause = FIRST_PAUSE_SECONDS
        self._database_due = time.monotonic() + self._database_pause
        say(f"{event}; starting it again in {self._database_pause:.1f} s.")
        self._database_pause = min(self._database_pause * 2, LONGEST_PAUSE_SECONDS)

    # The children ----------------------------------------------------------------------------------------------------

    def _prepare(self, child: Child) -> None:
        if self._database_ready:
            child.feed(self._config)
        if child.ended():
            self._listen_to(child)
            status = child.bury()
            if status:
                raise Unavailable(f"The preparation ended with status {status}; see above.")
            self._preparation = None
            for worker in self._workers:  # not earlier: two processes that load modules are enough for a small machine
                worker.start()

    def _keep(self, child: Child) -> None:
        if child.ended():
            self._listen_to(child)
            status = child.bury()
            if child is self._api and not self._answered_once:
                raise Unavailable(f"The API process ended with status {status} before it answered; see above.")
            say(f"{child.name} ended with status {status}; starting it again in {child.again_later():.1f} s.")
        elif child.due is not None and time.monotonic() >= child.due:
            child.start()
        if self._preparation is None:
            child.feed(self._config)

    def _reload(self) -> None:
        """Let all processes use the settings that may change without a restart."""
        self._reload_wanted = False
        try:
            log = self._reread().log
        except Invalid as error:
            say(f"The settings stay as they are: {error.message}")
            self._api.tell(Told(problem=error.message))
            return
        self._config = msgspec.structs.replace(self._config, log=log)
        for child in (self._api, *self._workers):
            child.tell(Told(log=log))
        say("The settings are read anew: levels of log lines hold at once, all others from the next start on.")

    def _check_certificate(self) -> None:
        """Renew the server's certificate in time, and let the API process take it up."""
        self._certificate_check = time.monotonic() + CERTIFICATE_CHECK_SECONDS
        if not self._config.tls:
            return
        renewing = [sys.executable, "-m", "quarterdeck.daemon.main", "certificate-renewal"]
        done = subprocess.run(renewing, input=msgspec.json.encode(self._config), check=False, stdout=subprocess.PIPE)
        if done.stdout.strip() == b"renewed":
            say("The server's certificate is renewed; the API process starts again with it.")
            self._api.stop(API_STOP_SECONDS)
            self._api.start()

    def _stop_all(self) -> None:
        """In this order: nobody asks any more, nobody works any more, nothing is kept any more."""
        if self._preparation is not None:
            self._preparation.stop(API_STOP_SECONDS)
        self._api.stop(API_STOP_SECONDS)
        for child in self._workers:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        until = time.monotonic() + WORKER_STOP_SECONDS
        for child in self._workers:
            child.stop(max(0.1, until - time.monotonic()))
        if self._database is not None:
            self._database.stop()


def serving_process(data_dir: Path) -> int | None:
    """The process id of the `serve` that holds the data directory, or None."""
    try:
        with (data_dir / "serve.lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or b"0")
    except FileNotFoundError:
        return None
    return None
