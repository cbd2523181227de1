# SPDX-License-Identifier: Apache-2.0
"""The server of a module's stories, for modules that need no more than one as it comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e import relays
from tests.e2e.machines import Site, site
from tests.postgres import temporary_directory


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with temporary_directory() as directory, site(directory) as made:
        yield made


@pytest.fixture(scope="module")
def token(served: Site) -> str:
    """What machines and relays enrol with, accepted at once."""
    return relays.enrolment_token(served)
