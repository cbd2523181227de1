# SPDX-License-Identifier: Apache-2.0
"""The zone of schedules that name none."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import time_zones


@pytest.fixture
def localtime(tmp_path: Path) -> Path:
    """A link as distributions have it."""
    there = tmp_path / "share" / "zoneinfo" / "Europe" / "Berlin"
    there.parent.mkdir(parents=True)
    there.touch()
    link = tmp_path / "localtime"
    link.symlink_to(there)
    return link


def test_the_environment_tells_the_zone_first(localtime: Path) -> None:
    assert time_zones.default({"TZ": "Asia/Tokyo"}, localtime).key == "Asia/Tokyo"
    assert time_zones.default({"TZ": ":Asia/Tokyo"}, localtime).key == "Asia/Tokyo"


def test_the_link_tells_it_where_the_environment_does_not(localtime: Path) -> None:
    assert time_zones.default({}, localtime).key == "Europe/Berlin"
    assert time_zones.default({"TZ": "CET-1CEST,M3.5.0"}, localtime).key == "Europe/Berlin"


def test_it_is_utc_where_nothing_tells_it(tmp_path: Path) -> None:
    copied = tmp_path / "localtime"
    copied.write_bytes(b"TZif2")

    assert time_zones.default({}, copied).key == "UTC"
    assert time_zones.default({}, tmp_path / "nothing").key == "UTC"


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../etc/passwd", ""])
def test_a_zone_that_does_not_exist_is_told(name: str) -> None:
    with pytest.raises(Invalid, match=r"schedules\.time_zone is wrong"):
        time_zones.zone(name)
