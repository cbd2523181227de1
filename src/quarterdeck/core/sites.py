# SPDX-License-Identifier: Apache-2.0
"""What one server is and what its operator decided in its settings, as far as services need to know.

Made once by wiring from the daemon's settings; a unit of work carries it in its context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import PurePosixPath
from zoneinfo import ZoneInfo

from quarterdeck.core.access_policies import AccessPolicy
from quarterdeck.core.connections import Defaults
from quarterdeck.core.notifications import Mail
from quarterdeck.core.resources import Resource


def _no_policies() -> tuple[AccessPolicy, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """`node` is the server's own machine, which every project has. Directories and patterns are as configured."""

    base_url: str = "https://localhost:8443"
    node: Resource = field(default_factory=lambda: Resource("localhost", hostname="localhost"))
    #: where scripts on the server and `file:` addresses may lie, and keys for nodes
    allowed_paths: tuple[PurePosixPath, ...] = ()
    #: patterns of addresses from which resource documents may be fetched, besides a project's own
    allowed_urls: tuple[str, ...] = ()
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    loglevel: str = "INFO"
    ssh: Defaults = field(default_factory=Defaults)
    #: the system user that local steps run as; "" for the daemon's own, and then only the role admin may run them
    local_user: str = ""
    #: how late a scheduled run may begin
    misfire_seconds: float = 60.0
    mail: Mail = field(default_factory=Mail)
    #: patterns of addresses that webhooks may have; none: all but those of this machine and its link
    allowed_webhooks: tuple[str, ...] = ()
    #: longest log of one execution
    log_bytes: int = 2 * 1024**3
    #: how long executions that ended are kept, with their output and the history of projects
    executions_kept: timedelta = timedelta(days=90)
    #: the operator's access policies as they stand now; none: the roles alone decide
    policies: Callable[[], tuple[AccessPolicy, ...]] = _no_policies
