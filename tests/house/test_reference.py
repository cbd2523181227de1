# SPDX-License-Identifier: Apache-2.0
"""The published reference is a test: each of its operations is exactly one row, done or named as not yet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from quarterdeck.core.accounts import RIGHTS
from quarterdeck.dialects.native.chapters import OPERATIONS as NATIVE
from quarterdeck.dialects.relay.chapters import OPERATIONS as RELAY
from quarterdeck.dialects.rudder import not_yet
from quarterdeck.dialects.rudder.chapters import OPERATIONS as RUDDER
from quarterdeck.dialects.rundeck.chapters import OPERATIONS as RUNDECK
from quarterdeck.dialects.rundeck.chapters import PAGES as RUNDECK_PAGES
from quarterdeck.web.operation import Operation

REFERENCE = Path(__file__).parent.parent / "reference"
#: How many operations of the Rudder reference are not served yet. Lower it when it shrinks; never raise it.
NOT_YET = 78


def shape(method: str, path: str) -> tuple[str, str]:
    """Method and path with every parameter called the same."""
    segments = path.strip("/").split("/")
    return method, "/".join("{}" if segment.startswith("{") else segment for segment in segments)


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("name", "count"), [("rudder-18.csv", 154), ("rundeck-1.csv", 24)])
def test_a_reference_has_all_its_operations(name: str, count: int) -> None:
    assert len(rows(name)) == count


@pytest.mark.parametrize("row", rows("rudder-18.csv"), ids=lambda row: f"{row['number']}-{row['operation']}")
def test_every_operation_of_the_reference_is_one_row(row: dict[str, str]) -> None:
    # The reference prints one path with its prefix by mistake.
    wanted = shape(row["method"], row["path"].removeprefix("/api"))

    found = [one for one in RUDDER if shape(one.method, one.path) == wanted]

    assert len(found) == 1


@pytest.mark.parametrize("row", rows("rundeck-1.csv"), ids=lambda row: f"{row['number']}-{row['operation']}")
def test_every_operation_of_the_rundeck_reference_is_one_row_that_is_served(row: dict[str, str]) -> None:
    wanted = shape(row["method"], row["path"])

    found = [one for one in (*RUNDECK, *RUNDECK_PAGES) if shape(one.method, one.path) == wanted]

    assert [one.name for one in found] == [row["operation"]]
    assert found[0].since == 1


def test_the_list_of_what_is_not_served_only_shrinks() -> None:
    assert len(not_yet.section.operations) <= NOT_YET


def test_every_operation_of_the_relay_reference_is_one_row() -> None:
    with (REFERENCE / "relay-1.csv").open() as file:
        wanted = sorted((row["operation"], *shape(row["method"], row["path"])) for row in csv.DictReader(file))

    assert len(wanted) == 12
    assert sorted((one.name, *shape(one.method, one.path)) for one in RELAY if one.documented) == wanted


@pytest.mark.parametrize(
    "operations", [RUDDER, NATIVE, (*RUNDECK, *RUNDECK_PAGES)], ids=["rudder", "native", "rundeck"]
)
def test_every_row_names_an_existing_right_and_says_what_it_does(operations: tuple[Operation, ...]) -> None:
    for one in operations:
        assert one.right is None or one.right in RIGHTS, one.name
        assert one.summary, one.name


def test_only_these_operations_need_no_token() -> None:
    # Agents sign their requests; what they ask for is checked in services/agent_requests.py.
    free = {f"{one.method} {one.path}" for one in (*RUDDER, *NATIVE) if one.right is None}

    assert {one for one in free if "/agent/" not in one} == {"GET /status", "GET /openapi.json"}


def test_of_the_rundeck_api_nothing_is_served_without_a_login_but_its_pages() -> None:
    # Pages that show something look for a session themselves: tests/dialects/rundeck/test_login.py.
    assert [one.name for one in RUNDECK if one.right is None] == []
    assert [one.name for one in RUNDECK_PAGES if one.right is not None] == []
