# SPDX-License-Identifier: Apache-2.0
"""What changes when a later version of the API is switched on, and that answers carry the newest one."""

from __future__ import annotations

import pytest
from tests.dialects.rundeck import states
from tests.served_rundeck import Rundeck

from quarterdeck.dialects.rundeck import version
from quarterdeck.dialects.rundeck.version import TooOldVersion, UnsupportedVersion


@pytest.fixture
def max_version() -> int:
    return 2


def test_answers_carry_the_newest_version_whichever_was_asked_for(rundeck: Rundeck) -> None:
    for asked in ("1", "2"):
        answer = rundeck.ask("GET", f"/api/{asked}/projects")
        assert answer.text.startswith('<result success="true" apiversion="2">')
    refused = rundeck.ask("GET", "/api/3/projects")
    assert 'apiversion="2"' in refused.text
    assert "Reason: Current version: 2" in refused.text


def test_exact_filters_of_jobs_come_with_version_two(rundeck: Rundeck) -> None:
    states.two_jobs(rundeck)

    def count(query: str) -> str:
        return rundeck.ask("GET", f"/api/2/jobs?project=test&{query}").text.partition('count="')[2][0]

    assert count("jobExactFilter=deploy") == "1"
    assert count("jobExactFilter=deplo") == "0"
    assert count("groupPathExact=apps/web") == "1"
    assert count("groupPathExact=apps") == "0"
    assert count("groupPathExact=-") == "1"
    assert rundeck.ask("GET", "/api/1/jobs?project=test&jobExactFilter=x").status_code == 400


@pytest.mark.parametrize("text", ["", "0", "01", "3", "1.0", "-1", "x", "1 ", "１"])
def test_what_is_no_version_that_is_served(text: str) -> None:
    with pytest.raises(UnsupportedVersion, match="Current version: 2"):
        version.check(text, "/api", 2)


def test_what_came_later_says_with_which_version() -> None:
    version.require(2, 2, "/p")
    with pytest.raises(TooOldVersion) as raised:
        version.require(1, 5, "/p")
    assert raised.value.message == (
        'Unsupported API Version "1". API Request: /p. Reason: Minimum supported version: 5'
    )
