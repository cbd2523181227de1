# SPDX-License-Identifier: Apache-2.0
"""Properties of nodes and groups and global parameters: the value type, providers, updates and inheritance.

Levels, lowest precedence first: global parameter, groups (through the sub-group relation), node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The provider that is not printed.
DEFAULT_PROVIDER = "default"
#: objects merge, arrays and strings are replaced
DEFAULT_INHERIT_MODE = "moo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One named value. `inherit_mode` and `provider` are None when nobody set them."""

    name: str
    value: Any
    description: str = ""
    inherit_mode: str | None = None
    provider: str | None = None
