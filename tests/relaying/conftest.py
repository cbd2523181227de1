# SPDX-License-Identifier: Apache-2.0
"""The server above a relay, for the modules that play one with answers of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.relaying.upstreams import Upstream, upstream


@pytest.fixture
def server() -> Iterator[Upstream]:
    with upstream() as made:
        yield made
