# SPDX-License-Identifier: Apache-2.0
"""Run a command with a private PostgreSQL 15 of the system: `python -m tools.postgresql15 pytest tests/storage`.

QUARTERDECK_TEST_DATABASE names the server to the command. It listens on a socket that nobody else reaches, belongs to
an unprivileged user also when root runs this, and is gone afterwards. Exit status: the command's; 0 with a sentence
when there is no PostgreSQL 15 and none can be installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.postgres import EXTERNAL_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path("/usr/lib/postgresql/15/bin")
START_SECONDS = 30.0
_SETTINGS = ("fsync=off", "listen_addresses=", "max_connections=200")


def main(command: list[str]) -> int:
    """Run the command; its exit status."""
    if not _installed():
        print("No PostgreSQL 15 here: the storage tests run on the embedded one only.", file=sys.stderr)
        return 0
    with running() as url:
        return subprocess.run(command, check=False, env={**os.environ, EXTERNAL_VARIABLE: url}).returncode


def _installed() -> bool:
    """Whether there is one, after an attempt to install it where this user may."""
    if not (PROGRAMS / "postgres").exists():
        subprocess.run([ROOT / "tools" / "system-packages", "postgresql-15"], check=False)
    return (PROGRAMS / "postgres").exists()


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A server of its own; the URL of an account that may do everything there."""
    user = "nobody" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="quarterdeck-pg15-"))
    try:
        if user:
            shutil.chown(directory, user)
        data = str(directory / "data")
        making = [str(PROGRAMS / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(making, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
        options = [part for setting in (*_SETTINGS, f"unix_socket_directories={directory}") for part in ("-c", setting)]
        with (directory / "log").open("w") as log:
            server = subprocess.Popen(
                [PROGRAMS / "postgres", "-D", data, *options], user=user, cwd="/", stdout=log, stderr=log
            )
        try:
            _wait(server, directory)
            yield f"postgresql://tester@/postgres?host={directory}"
        finally:
            server.send_signal(2)  # disconnects everybody and ends
            server.wait()
    finally:
        shutil.rmtree(directory)


def _wait(server: subprocess.Popen[bytes], directory: Path) -> None:
    """Until it answers. Raises SystemExit with its log when it does not."""
    end = time.monotonic() + START_SECONDS
    asking = [str(PROGRAMS / "pg_isready"), "-q", "-h", str(directory)]
    while subprocess.run(asking, check=False).returncode:
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"PostgreSQL 15 did not start:\n{(directory / 'log').read_text()}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
