# SPDX-License-Identifier: Apache-2.0
"""The guard of local commands: a small process that ends them when the worker that runs them is killed.

Run as a script (`python -I -S local_guard.py`), standard library only. Its standard input is a pipe of the worker,
which writes a line when a process group begins (`+1234`) and when its command has ended (`-1234`). When the pipe
closes, whatever the reason, the groups that are left get TERM, a second later KILL.
"""

from __future__ import annotations

import os
import signal
import sys
import time

PATIENCE_SECONDS = 1.0


def main() -> None:
    """Keep the list of groups until the worker is gone; then end them."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its worker, not with the terminal
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        if line.startswith(b"+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    left = {group for group in groups if _signalled(group, signal.SIGTERM)}
    end = time.monotonic() + PATIENCE_SECONDS
    while left and time.monotonic() < end:
        time.sleep(0.02)
        left = {group for group in left if _signalled(group, 0)}
    for group in left:
        _signalled(group, signal.SIGKILL)


def _signalled(group: int, number: int) -> bool:
    """Send a signal to a group; whether there is still somebody in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # all that is left of it has become somebody else's
        return False
    return True


if __name__ == "__main__":
    main()
