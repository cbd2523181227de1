# SPDX-License-Identifier: Apache-2.0
"""What tests of executions share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.engine import worlds
from tests.engine.worlds import World


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    with worlds.made(fresh_postgres_url) as world:
        yield world
