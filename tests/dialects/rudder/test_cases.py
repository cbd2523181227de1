# SPDX-License-Identifier: Apache-2.0
"""Plays every story of `cases/` against the Rudder dialect on a real database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.dialects.case_tables import Story, play, stories
from tests.served import Served


@pytest.mark.parametrize("story", list(stories(Path(__file__).parent / "cases")), ids=lambda story: story.id)
def test_story(story: Story, served: Served) -> None:
    play(story, served.client, served.tokens)
