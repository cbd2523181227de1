# SPDX-License-Identifier: Apache-2.0
"""Secrets: values with a name that others refer to and only few may read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """`value` is never printed."""

    name: str
    description: str = ""
    value: str = field(default="", repr=False)
