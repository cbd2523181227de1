# SPDX-License-Identifier: Apache-2.0
"""The published reference is a test: each of its operations is exactly one row, done or named as not yet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from quarterdeck.core.accounts import RIGHTS
from quarterdeck.dialects.native.chapters import OPERATIONS as NATIVE
from quarterdeck.dialects.rudder import not_yet
from quarterdeck.dialects.rudder.chapters import OPERATIONS as RUDDER
from quarterdeck.web.operation import Operation

REFERENCE = Path(__file__).parent.parent / "reference"
#: How many operations of the Rudder reference are not served yet. Lower it when it shrinks; never raise it.
NOT_YET = 80


def shape(method: str, path: str) -> tuple[str, str]:
    """Method and path with every parameter called the same."""
    segments = path.strip("/").split("/")
    return method, "/".join("{}" if segment.startswith("{") else segment for segment in segments)


def rows() -> list[dict[str, str]]:
    with (REFERENCE / "rudder-18.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_reference_has_all_154_operations() -> None:
    assert len(rows()) == 154


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['number']}-{row['operation']}")
def test_every_operation_of_the_reference_is_one_row(row: dict[str, str]) -> None:
    # The reference prints one path with its prefix by mistake.
    wanted = shape(row["method"], row["path"].removeprefix("/api"))

    found = [one for one in RUDDER if shape(one.method, one.path) == wanted]

    assert len(found) == 1


def test_the_list_of_what_is_not_served_only_shrinks() -> None:
    assert len(not_yet.section.operations) <= NOT_YET


@pytest.mark.parametrize("operations", [RUDDER, NATIVE], ids=["rudder", "native"])
def test_every_row_names_an_existing_right_and_says_what_it_does(operations: tuple[Operation, ...]) -> None:
    for one in operations:
        assert one.right is None or one.right in RIGHTS, one.name
        assert one.summary, one.name


def test_only_these_operations_need_no_token() -> None:
    # Agents sign their requests; what they ask for is checked in services/agent_requests.py.
    free = {f"{one.method} {one.path}" for one in (*RUDDER, *NATIVE) if one.right is None}

    assert {one for one in free if "/agent/" not in one} == {"GET /status", "GET /openapi.json"}
