# SPDX-License-Identifier: Apache-2.0
"""Context: who asks, why, at what time, at which site, on which unit of work. Every service function takes one first.

What follows from a change is not called here: a service emits an event, and whoever commits the unit
of work lets `reactions.follow` do the rest before it commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from quarterdeck.core import accounts
from quarterdeck.core.accounts import Account
from quarterdeck.core.events import Event
from quarterdeck.core.sites import Site
from quarterdeck.storage.database import Store


@dataclass(slots=True, kw_only=True)
class Context:
    account: Account
    store: Store
    site: Site = field(default_factory=Site)
    events: list[Event] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        """The time of this unit of work, aware, UTC."""
        return self.store.now

    def emit(self, event: Event) -> None:
        """Something happened; what follows from it happens in this same unit of work."""
        self.events.append(event)

    def require(self, right: str) -> None:
        """Raises Forbidden when the account lacks the right."""
        accounts.require(self.account, right)
