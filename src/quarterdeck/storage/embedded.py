# SPDX-License-Identifier: Apache-2.0
"""The private PostgreSQL below a data directory: made once, started under a guard, shared by whoever needs it.

`pg/18/` holds the database, `pg/run/` its socket (no TCP), `pg/lock` says that some `postgres` runs here,
`pg/keepalive` is the named pipe its users hold open. The first user starts the database, later ones attach; it stops
when the last one has gone (see `postgres_guard.py`) or when `Server.stop` says so. Only program files of the wheel
are used, no code of it.
What the tables are is none of this module's business.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from quarterdeck.core.errors import Unavailable
from quarterdeck.storage import postgres_guard
from quarterdeck.storage.postgres_programs import program

MAJOR = 18
SUPERUSER = "quarterdeck"
DATABASE = "quarterdeck"
#: Root may not run PostgreSQL: a system user of its own does, without login, home or other use.
ROOT_STAND_IN = "quarterdeck-pg"
LONGEST_SOCKET_PATH = 100
SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
#: How long a start may show no sign of life; recovery writes a line to the log every two seconds.
SILENCE_SECONDS = 60.0
LOG_BYTES = 10 * 1024 * 1024

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "cluster_name": "quarterdeck",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "io_method": "sync",  # no idle reader processes
    "wal_level": "minimal",  # backups are dumps; nobody replicates from here
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "synchronous_commit": "on",
    "autovacuum_naptime": "30s",
    "log_startup_progress_interval": "2s",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}
#: For tests only: a crash of the machine loses the database, a crash of the process does not.
THROWAWAY = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


@dataclass(slots=True)
class Server:
    """A running database, and this process's hold on it."""

    url: str
    keepalive: int
    #: The guard, when this process started the database; None when it attached.
    guard: subprocess.Popen[bytes] | None = None
    _released: bool = field(default=False, repr=False)

    def alive(self) -> bool:
        """True while the guard of a database started here runs; an attached one counts as alive."""
        return self.guard is None or self.guard.poll() is None

    def release(self) -> None:
        """Let go; the database stops when nobody else holds it, and then this waits until it has stopped."""
        if self._released:
            return
        self._released = True
        os.close(self.keepalive)
        if self.guard is not None:
            assert self.guard.stdout is not None
            # The guard closes its output when it begins to stop. Silence means that others still hold the database.
            if select.select([self.guard.stdout], [], [], 1.0)[0]:
                self.guard.wait()
            self.guard.stdout.close()
            self.guard.returncode = self.guard.returncode or 0  # left to others: nothing for Popen to complain about

    def stop(self) -> None:
        """Stop a database started here whoever else uses it, and wait until it has stopped."""
        if self.guard is not None and self.guard.poll() is None:
            self.guard.send_signal(signal.SIGTERM)
            self.guard.wait()
        self.release()


@contextlib.contextmanager
def running(data_dir: Path, *, throwaway: bool = False) -> Iterator[str]:
    """The URL of the database below `data_dir`, which runs at least as long as the block."""
    server = attach_or_start(data_dir, throwaway=throwaway)
    try:
        yield server.url
    finally:
        server.release()


def attach_or_start(data_dir: Path, *, throwaway: bool = False) -> Server:
    """Attach to the database of `data_dir` if it runs, else start it; answers when it accepts connections."""
    patience = _Patience(_log_file(data_dir))
    while True:
        lock = _take_lock(data_dir)
        if lock is not None:
            server = _launch(data_dir, lock, throwaway=throwaway)
            wait_until_ready(server, data_dir)
            return server
        server_or_none = _attach(data_dir)
        if server_or_none is not None:
            return server_or_none
        patience.wait("The database of another quarterdeckd process neither answers nor ends; see {log}.")


def try_start(data_dir: Path) -> Server | None:
    """Start the database and do not wait until it is ready; None while another process still runs it."""
    lock = _take_lock(data_dir)
    return None if lock is None else _launch(data_dir, lock, throwaway=False)


def wait_until_ready(server: Server, data_dir: Path) -> None:
    """Wait until the database accepts connections, for as long as it starts or recovers with visible progress."""
    patience = _Patience(_log_file(data_dir))
    while not is_ready(server, data_dir):
        patience.wait("The embedded PostgreSQL does not come up; see {log}.")


def is_ready(server: Server, data_dir: Path) -> bool:
    """Whether the database accepts connections by now. Unavailable: it has ended instead, and why."""
    if _answers(data_dir):
        return True
    if not server.alive():
        server.release()
        log = _log_file(data_dir)
        raise Unavailable(f"The embedded PostgreSQL did not start: {_last_words(data_dir)} See {log}.")
    return False


def exists(data_dir: Path) -> bool:
    """Whether a database has been made below `data_dir`, by this or another version."""
    return (data_dir / "pg").is_dir()


# --- finding and keeping the place -----------------------------------------------------------------------------------


def _cluster(data_dir: Path) -> Path:
    return data_dir / "pg" / str(MAJOR)


def _log_file(data_dir: Path) -> Path:
    return data_dir / "pg" / "postgresql.log"


def _take_lock(data_dir: Path) -> int | None:
    """A descriptor that holds the database's lock, or None while some `postgres`, its guard or a starter holds it."""
    place = data_dir / "pg"
    try:
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(_cannot_use(data_dir, error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _cannot_use(data_dir: Path, error: OSError) -> str:
    return f"The data directory {data_dir} cannot be used ({error.strerror}); give its owner's rights or another one."


class _Patience:
    """Waits in small steps; gives up after a time without a sign of life in the database's log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._seen = self._size()
        self._until = time.monotonic() + SILENCE_SECONDS

    def _size(self) -> int:
        try:
            return self.log.stat().st_size
        except FileNotFoundError:
            return 0

    def wait(self, complaint: str) -> None:
        size = self._size()
        if size != self._seen:
            self._seen, self._until = size, time.monotonic() + SILENCE_SECONDS
        if time.monotonic() > self._until:
            raise Unavailable(complaint.format(log=self.log))
        time.sleep(0.02)


def _last_words(data_dir: Path) -> str:
    try:
        lines = _log_file(data_dir).read_text(errors="replace").splitlines()[-20:]
    except FileNotFoundError:
        return "it wrote no log."
    told = [line.partition("] ")[2] for line in lines if re.search(r"FATAL|PANIC|HINT", line)] or lines[-1:]
    return " ".join(told)


# --- starting --------------------------------------------------------------------------------------------------------


def _launch(data_dir: Path, lock: int, *, throwaway: bool) -> Server:
    """Start the guard and `postgres`; both inherit `lock`, which so stays held until the last of them has ended."""
    data_dir = data_dir.absolute()  # the processes below work elsewhere
    try:
        _refuse_other_versions(data_dir)
        account = _account(data_dir)
        _make_reachable(data_dir, account)
        _initialise(data_dir, account, lock)
        _write_access_rules(data_dir, account)
        sockets = _socket_directory(data_dir, account)
        _remove_stale_marks(data_dir, sockets)
        reading, keepalive = _keepalive_pipe(data_dir)
        try:
            guard = _start_guard(data_dir, account, sockets, lock, reading, throwaway=throwaway)
        except BaseException:
            os.close(keepalive)
            raise
        finally:
            os.close(reading)
    finally:
        os.close(lock)
    return Server(_url(sockets), keepalive, guard)


def _start_guard(
    data_dir: Path, account: pwd.struct_passwd, sockets: Path, lock: int, reading: int, *, throwaway: bool
) -> subprocess.Popen[bytes]:
    log = _log_file(data_dir)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    settings = SETTINGS | {"unix_socket_directories": f'"{sockets}"'} | (THROWAWAY if throwaway else {})
    postgres = [str(program("postgres")), "-D", str(_cluster(data_dir))]
    postgres += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    guard = [sys.executable, "-I", "-S", postgres_guard.__file__]
    return subprocess.Popen(
        [*guard, str(account.pw_uid), str(account.pw_gid), str(log), "--", *postgres],
        stdin=reading,
        stdout=subprocess.PIPE,
        cwd="/",
        env=_environment() | {"QUARTERDECK_GUARD_FDS": str(lock)},
        pass_fds=[lock],
        start_new_session=True,  # Ctrl-C is the supervisor's to handle
    )


def _environment() -> dict[str, str]:
    """No PG* variable and no locale of the caller reaches the database."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _keepalive_pipe(data_dir: Path) -> tuple[int, int]:
    path = data_dir / "pg" / "keepalive"
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return reading, os.open(path, os.O_WRONLY | os.O_CLOEXEC)


def _refuse_other_versions(data_dir: Path) -> None:
    if _cluster(data_dir).exists():
        return
    others = sorted(entry.name for entry in (data_dir / "pg").iterdir() if re.fullmatch(r"\d+", entry.name))
    if others:
        raise Unavailable(
            f"The database in {data_dir} was written by PostgreSQL {others[-1]} and this quarterdeckd brings {MAJOR}: "
            f"run `quarterdeckd backup FILE --data-dir {data_dir}` with the release that wrote it, then "
            f"`quarterdeckd restore FILE --data-dir NEW` with this one."
        )


def _account(data_dir: Path) -> pwd.struct_passwd:
    """The user `postgres` runs as: this process's, or as root the owner of the database or a system user for it."""
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid())
        except KeyError:
            raise Unavailable(
                f"The user id {os.geteuid()} has no name in /etc/passwd, which PostgreSQL needs; add one."
            ) from None
    cluster = _cluster(data_dir)
    owner = cluster.stat().st_uid if cluster.exists() else 0
    if owner:
        return pwd.getpwuid(owner)
    return _stand_in()


def _stand_in() -> pwd.struct_passwd:
    for _ in range(50):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(ROOT_STAND_IN)
        useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if useradd is None:
            break
        places = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        command = [useradd, "--system", "--user-group", *places, ROOT_STAND_IN]
        subprocess.run(command, check=False, capture_output=True)  # another process may be at it: look again
        time.sleep(0.05)
    raise Unavailable(
        f"PostgreSQL does not run as root and the system user {ROOT_STAND_IN} cannot be made here: create it, or run "
        "quarterdeckd as an ordinary user, or give --database-url."
    )


def _make_reachable(data_dir: Path, account: pwd.struct_passwd) -> None:
    """As root, let the database's user pass (not read) our own directories; refuse what lies in a closed one."""
    if os.geteuid() != 0:
        (data_dir / "pg").chmod(0o700)
        return
    for ours in (data_dir, data_dir / "pg"):
        ours.chmod(stat.S_IMODE(ours.stat().st_mode) | 0o711)
    for wanted in (data_dir / "pg", program("postgres")):
        for directory in [*reversed(wanted.resolve().parents), wanted]:
            if not _may_pass(directory, account):
                raise Unavailable(
                    f"The system user {account.pw_name}, which runs the database for root, cannot reach "
                    f"{wanted} because {directory} is closed to it: open it or use another place, such as "
                    "/var/lib/quarterdeck."
                )


def _may_pass(path: Path, account: pwd.struct_passwd) -> bool:
    found = path.stat()
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.pw_gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _initialise(data_dir: Path, account: pwd.struct_passwd, lock: int) -> None:
    """Make the database once, aside and then renamed: a kill in between leaves nothing half-made.

    The programs hold the lock, too: when this process is killed, nobody clears away what one of them still writes.
    """
    cluster = _cluster(data_dir)
    if cluster.exists():
        return
    for leftover in cluster.parent.glob(f"{MAJOR}.new-*"):
        shutil.rmtree(leftover)
    fresh = Path(tempfile.mkdtemp(prefix=f"{MAJOR}.new-", dir=cluster.parent))
    _give(fresh, account)
    options = ["--username", SUPERUSER, "--encoding", "UTF8", "--no-locale", "--auth", "peer", "--no-instructions"]
    options += ["--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-sync"]
    _run_as(account, lock, [str(program("initdb")), "-D", str(fresh), *options])
    # The database of the product is made without a server: the single-user mode reads one statement a line.
    single = [str(program("postgres")), "--single", "-D", str(fresh), "-c", "fsync=off", "template1"]
    _run_as(account, lock, single, f"CREATE DATABASE {DATABASE}\n")
    _run_as(account, lock, [str(program("initdb")), "--sync-only", "-D", str(fresh)])
    fresh.rename(cluster)
    descriptor = os.open(cluster.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale_marks(data_dir: Path, sockets: Path) -> None:
    """Every process of a database holds our lock, so a pid file found under it is a dead one's, and so is its socket.

    PostgreSQL itself would refuse to start while that number belongs to any process, an unburied zombie included.
    """
    path = _cluster(data_dir) / "postmaster.pid"
    if path.exists():
        directory = Path("/proc") / path.read_text().partition("\n")[0] / "cwd"
        with contextlib.suppress(OSError):
            if directory.readlink() == _cluster(data_dir).resolve():
                raise Unavailable(f"A PostgreSQL that quarterdeckd did not start runs in {path.parent}; stop it first.")
        path.unlink()
    for mark in sockets.glob(".s.PGSQL.*"):
        mark.unlink()


def _run_as(account: pwd.struct_passwd, lock: int, command: list[str], text: str = "") -> None:
    drop = os.geteuid() == 0
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd="/",
        env=_environment(),
        pass_fds=[lock],
        check=False,
        user=account.pw_uid if drop else None,
        group=account.pw_gid if drop else None,
        extra_groups=[] if drop else None,
    )
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-500:]
        raise Unavailable(f"The embedded PostgreSQL could not be made ready: {reason}")


def _give(path: Path, account: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        os.chown(path, account.pw_uid, account.pw_gid)


def _write_access_rules(data_dir: Path, account: pwd.struct_passwd) -> None:
    """Only the daemon's user (and root, who can be anybody) reaches the database, and only through the socket."""
    names = sorted({account.pw_name, pwd.getpwuid(os.geteuid()).pw_name, "root"})
    ident = "".join(f'daemon "{name}" {SUPERUSER}\n' for name in names)
    for name, text in (("pg_hba.conf", f"local all {SUPERUSER} peer map=daemon\n"), ("pg_ident.conf", ident)):
        path = _cluster(data_dir) / name
        if path.read_text() != text:
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            # The directory is not root's: what stands at this name must be made here, not followed.
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), account.pw_uid, account.pw_gid)
                file.write(text)
            fresh.replace(path)


def _socket_directory(data_dir: Path, account: pwd.struct_passwd) -> Path:
    """A directory of mode 700 for the socket: below the data directory unless that makes the name too long."""
    wanted = (data_dir / "pg" / "run").resolve()
    if len(os.fsencode(wanted / ".s.PGSQL.5432.lock")) > LONGEST_SOCKET_PATH:
        short = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
        wanted = Path("/run" if os.geteuid() == 0 else tempfile.gettempdir()) / f"quarterdeck-{short}"
    try:
        wanted.mkdir(mode=0o700)
        _give(wanted, account)
    except FileExistsError:
        found = wanted.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {0, account.pw_uid, os.geteuid()}:
            raise Unavailable(
                f"{wanted} is not this user's own; remove it, the database's socket belongs there."
            ) from None
        _give(wanted, account)
        wanted.chmod(0o700)
    return wanted


# --- attaching -------------------------------------------------------------------------------------------------------


def _url(sockets: Path) -> str:
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(sockets), safe='')}"


def _running_sockets(data_dir: Path) -> Path | None:
    """Where the running database listens, from its pid file (line 5 is the directory, line 8 the state)."""
    try:
        lines = (_cluster(data_dir) / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise Unavailable(f"The database in {data_dir} belongs to another user; run this as that user.") from error
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    return Path(lines[4])


def _answers(data_dir: Path) -> bool:
    """True when the pid file says ready and PostgreSQL answers at its socket.

    Asked in its own words (may we encrypt? no), so that a supervisor need not load a database driver.
    """
    sockets = _running_sockets(data_dir)
    if sockets is None:
        return False
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5.0)
        try:
            asking.connect(str(sockets / ".s.PGSQL.5432"))
            asking.sendall(SSL_REQUEST)
            return asking.recv(1) == b"N"
        except OSError:
            return False


def _attach(data_dir: Path) -> Server | None:
    try:
        keepalive = os.open(data_dir / "pg" / "keepalive", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return None
        raise Unavailable(_cannot_use(data_dir, error)) from error
    watched = select.poll()
    watched.register(keepalive, 0)
    sockets = _running_sockets(data_dir)
    if sockets is None or not _answers(data_dir) or watched.poll(0):  # an event here: the guard has closed its end
        os.close(keepalive)
        return None
    return Server(_url(sockets), keepalive)
