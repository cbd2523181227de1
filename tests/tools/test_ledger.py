# SPDX-License-Identifier: Apache-2.0
"""The generated documents say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools import ledger

from quarterdeck.dialects.native.chapters import OPERATIONS as NATIVE
from quarterdeck.dialects.relay.chapters import OPERATIONS as RELAY
from quarterdeck.dialects.rudder.chapters import OPERATIONS as RUDDER


@pytest.mark.parametrize("path", ledger.documents(), ids=lambda path: path.name)
def test_generated_documents_are_current(path: Path) -> None:
    assert path.read_text() == ledger.documents()[path], "run `make ledger`"


def test_every_operation_has_one_row() -> None:
    documents = {path.stem: text for path, text in ledger.documents().items()}

    assert documents["rudder"].count("\n| `") == len(RUDDER)
    assert documents["native"].count("\n| `") == len(NATIVE)
    assert documents["relay"].count("\n| `") == len(RELAY)
