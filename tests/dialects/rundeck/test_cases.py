# SPDX-License-Identifier: Apache-2.0
"""Plays every story of `cases/` against the RunDeck dialect on a real database.

Two projects are there: `test` with three nodes and `other` with none, beside the server's own node `server`. A story's
`setup` names a state to begin with.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.dialects.case_tables import Story, play, stories
from tests.dialects.rundeck.states import SETUPS
from tests.served_rundeck import Rundeck


@pytest.mark.parametrize("story", list(stories(Path(__file__).parent / "cases")), ids=lambda story: story.id)
def test_story(story: Story, rundeck: Rundeck) -> None:
    if story.setup:
        SETUPS[story.setup](rundeck)
    play(story, rundeck.client, rundeck.tokens, token_header="X-RunDeck-Auth-Token")
