# SPDX-License-Identifier: Apache-2.0
"""Tags of rules and directives: key and value pairs, in which keys may repeat with other values."""

from __future__ import annotations

from typing import NamedTuple


class Tag(NamedTuple):
    """One pair; tags sort by key, then value."""

    key: str
    value: str
