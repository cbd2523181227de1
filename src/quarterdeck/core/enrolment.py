# SPDX-License-Identifier: Apache-2.0
"""Enrolment tokens: what lets a machine that nobody knows yet ask to become a node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quarterdeck.core.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentToken:
    """The secret itself is not here; only its digest is kept, in storage."""

    id: str
    name: str
    #: Nodes that present it are accepted at once.
    accept: bool
    #: None: as often as wanted
    uses_left: int | None = None
    created_at: datetime
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise Invalid("An enrolment token needs a name.")
        if self.uses_left is not None and self.uses_left < 0:
            raise Invalid("The number of uses of an enrolment token cannot be negative.")

    def usable(self, now: datetime) -> bool:
        """Whether a machine may still enrol with it at this moment."""
        return self.uses_left != 0 and (self.expires_at is None or now < self.expires_at)
