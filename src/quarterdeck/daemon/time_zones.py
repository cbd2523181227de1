# SPDX-License-Identifier: Apache-2.0
"""Which time zone schedules follow that name none: the one of the settings, else this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from quarterdeck.core.errors import Invalid

_LOCALTIME = Path("/etc/localtime")


def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name. Raises Invalid."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(
            f"The setting schedules.time_zone is wrong: '{name}' is no time zone like Europe/Berlin."
        ) from None


def default(environment: Mapping[str, str], localtime: Path = _LOCALTIME) -> ZoneInfo:
    """The zone of this machine by TZ or by where /etc/localtime points to; UTC when neither tells its name."""
    for name in (environment.get("TZ", "").removeprefix(":"), _behind(localtime)):
        if not name:
            continue
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    return ZoneInfo("UTC")


def _behind(localtime: Path) -> str:
    """The name of the zone that a link means: what stands behind `zoneinfo/` in its target."""
    try:
        target = str(localtime.resolve(strict=True))
    except (OSError, RuntimeError):
        return ""
    name = target.rpartition("/zoneinfo/")[2] if "/zoneinfo/" in target else ""
    return name.removeprefix("posix/").removeprefix("right/")
