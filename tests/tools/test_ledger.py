# SPDX-License-Identifier: Apache-2.0
"""The generated documents say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import ledger

from quarterdeck.dialects.native.chapters import OPERATIONS as NATIVE
from quarterdeck.dialects.relay.chapters import OPERATIONS as RELAY
from quarterdeck.dialects.rudder.chapters import OPERATIONS as RUDDER
from quarterdeck.dialects.rundeck.chapters import OPERATIONS as RUNDECK
from quarterdeck.dialects.rundeck.chapters import PAGES as RUNDECK_PAGES
from quarterdeck.web.operation import Operation


@pytest.mark.parametrize("path", ledger.documents(), ids=lambda path: path.name)
def test_generated_documents_are_current(path: Path) -> None:
    assert path.read_text() == ledger.documents()[path], "run `make ledger`"


@pytest.mark.parametrize(
    ("name", "operations"),
    [("rudder", RUDDER), ("native", NATIVE), ("relay", RELAY), ("rundeck", (*RUNDECK, *RUNDECK_PAGES))],
)
def test_every_operation_has_one_row(name: str, operations: tuple[Operation, ...]) -> None:
    page = next(text for path, text in ledger.documents().items() if path.stem == name)

    assert page.count("\n| `") == len(operations)
