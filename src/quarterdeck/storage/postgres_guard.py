# SPDX-License-Identifier: Apache-2.0
"""The guard of the embedded PostgreSQL: a small process between a supervisor and `postgres`.

Run as a script (`python -I -S postgres_guard.py UID GID LOG -- postgres …`), standard library only. Its standard input
is a named pipe that every user of the database holds open; when the last one closes it, also by being killed, the guard
stops the database: a fast shutdown, after a while an immediate one. Closing its standard output says it has begun to.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

FAST_SHUTDOWN_SECONDS = 60.0
IMMEDIATE_SHUTDOWN_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Run `argv` = UID GID LOG -- COMMAND… until it ends or nobody needs it; return its exit status."""
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    stop_signals: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stop_signals.append(received))
    process = _start(argv)
    watched = select.poll()
    watched.register(0, 0)  # only the hang-up counts: nobody writes
    watched.register(wake_read, select.POLLIN)
    while process.poll() is None:
        ready = [descriptor for descriptor, _ in watched.poll()]
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready or stop_signals:
            return _stop(process)
    return _status(process)


def _start(argv: list[str]) -> subprocess.Popen[bytes]:
    user, group, log, separator, *command = argv
    assert separator == "--"
    libc = ctypes.CDLL(None, use_errno=True)

    def end_with_guard() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGINT))  # the guard itself may be killed: fast shutdown then, too

    drop = os.geteuid() == 0
    inherited = [int(number) for number in os.environ.pop("QUARTERDECK_GUARD_FDS", "").split(",") if number]
    with open(log, "ab") as output:  # noqa: PTH123  # a start-up that imports as little as it can
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            preexec_fn=end_with_guard,  # noqa: PLW1509  # this process has one thread
            user=int(user) if drop else None,
            group=int(group) if drop else None,
            extra_groups=[] if drop else None,
        )


def _stop(process: subprocess.Popen[bytes]) -> int:
    os.close(0)  # whoever attaches from now on sees that there is nobody
    os.close(1)
    for number, patience in ((signal.SIGINT, FAST_SHUTDOWN_SECONDS), (signal.SIGQUIT, IMMEDIATE_SHUTDOWN_SECONDS)):
        process.send_signal(number)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if process.poll() is not None:
                return _status(process)
            time.sleep(0.02)
    process.kill()
    process.wait()
    return _status(process)


def _status(process: subprocess.Popen[bytes]) -> int:
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
