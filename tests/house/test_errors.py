# SPDX-License-Identifier: Apache-2.0
"""Every kind of error has its look in every dialect, and none carries a status of its own."""

from __future__ import annotations

import pytest

from quarterdeck.core import errors
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dialects.native import errors as native
from quarterdeck.dialects.relay import errors as relay
from quarterdeck.dialects.rudder import errors as rudder
from quarterdeck.dialects.rundeck import errors as rundeck

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, QuarterdeckError)]
KINDS.remove(QuarterdeckError)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_stands_in_the_table_of_each_dialect(kind: type[QuarterdeckError]) -> None:
    assert len(KINDS) >= 8
    assert kind in rudder.TABLE
    assert kind in native.TABLE
    assert kind in relay.TABLE
    assert kind in rundeck.TABLE


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_knows_no_status(kind: type[QuarterdeckError]) -> None:
    assert not [name for name in dir(kind("a message")) if "status" in name or "code" in name]
