# SPDX-License-Identifier: Apache-2.0
"""Node filters as RunDeck has them: which resources of a project are meant, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One half of a filter, "" where a part is not set. A resource must fit every part that is."""

    hostname: str = ""
    tags: str = ""
    os_name: str = ""
    os_family: str = ""
    os_arch: str = ""
    os_version: str = ""
    name: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether no part is set."""
        return not any(getattr(self, part.name).strip() for part in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """What to take and what to leave out; `exclude_precedence` says which side wins where both fit."""

    include: Side = Side()
    exclude: Side = Side()
    exclude_precedence: bool = True

    @property
    def is_blank(self) -> bool:
        """Whether neither side asks for anything."""
        return self.include.is_blank and self.exclude.is_blank


#: Every node that has a hostname: what a listing without filters means.
EVERYTHING = NodeFilter(include=Side(hostname=".*"))
