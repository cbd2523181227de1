# SPDX-License-Identifier: Apache-2.0
"""Global parameters: named values that every node's policy may use, the lowest level of properties."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import ParameterName

_NAME = re.compile(r"[\-a-zA-Z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """`inherit_mode` and `provider` are None when nobody set them; `value` is any JSON value."""

    name: ParameterName
    value: Any
    description: str = ""
    inherit_mode: str | None = None
    provider: str | None = None


def parse_name(text: str) -> ParameterName:
    """A valid parameter name. Raises Invalid."""
    if not _NAME.fullmatch(text):
        raise Invalid(f"'id' is mandatory and must match pattern '[\\-a-zA-Z0-9_]+' but was: '{text}'")
    return ParameterName(text)
