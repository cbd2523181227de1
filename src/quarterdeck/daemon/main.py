# SPDX-License-Identifier: Apache-2.0
"""The program `quarterdeckd`: sends each call to its place and loads no more than that place needs.

What people call is in `commands.py`. The four inner calls are made by the supervisor only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def main() -> None:
    """Run the command of this process's arguments."""
    called, *rest = sys.argv[1:] or [""]
    inner: dict[str, Callable[[list[str]], None]] = {
        "api-process": _api,
        "worker-process": _worker,
        "preparation": _prepare,
        "certificate-renewal": _renew,
    }
    if called in inner:
        inner[called](rest)
    else:
        from quarterdeck.daemon import commands  # deferred: the children do without click

        commands.run()


def _api(arguments: list[str]) -> None:
    from quarterdeck.daemon import child

    child.api([int(descriptor) for descriptor in arguments])


def _worker(_arguments: list[str]) -> None:
    from quarterdeck.daemon import child

    child.worker()


def _prepare(arguments: list[str]) -> None:
    from quarterdeck.daemon import child

    child.prepare(migrate="--migrate" in arguments)


def _renew(_arguments: list[str]) -> None:
    """Renew the server's certificate if it is due; the settings come on standard input."""
    from datetime import UTC, datetime

    import msgspec

    from quarterdeck.daemon import tls
    from quarterdeck.daemon.config import Config

    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    now = datetime.now(UTC)
    if tls.server_certificate_is_due(config.data, config.public_url, now):
        tls.initialise(config.data, config.public_url, now)
        print("renewed")


if __name__ == "__main__":
    main()
