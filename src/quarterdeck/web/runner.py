# SPDX-License-Identifier: Apache-2.0
"""Requests of accounts on the database: authenticate, check the right, open the unit of work, call, commit.

The one place of the web room that commits. The rest of a request's way is `edges.py`; each request's handler has one
unit of work, and the answer is written when the connection is back in its pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from quarterdeck.core import accounts
from quarterdeck.core.accounts import Account
from quarterdeck.core.ids import AccountId
from quarterdeck.core.sites import Site
from quarterdeck.services import reactions
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance, Store
from quarterdeck.web.edges import Edge, Grammar
from quarterdeck.web.operation import Answer, Operation, Reply, Request


class Dialect(Grammar, Protocol):
    """What a dialect brings; everything else is the same for all."""

    def authenticate(self, store: Store, request: Request, operation: Operation) -> Account:
        """Who asks. Raises Unauthenticated."""

    def reason(self, request: Request) -> str:
        """Why they say they ask."""


@dataclass(kw_only=True)
class Runner(Edge):
    """An ASGI application for one dialect, mounted at `prefix`."""

    grammar: Dialect
    database: Database
    site: Site = field(default_factory=Site)

    def work(self, operation: Operation, request: Request) -> Reply | Answer:
        """Everything that needs a thread; the unit of work opens at first use and commits once, here."""
        with self.database.unit_of_work(Provenance(actor="", request_id=request.request_id)) as store:
            account = self.grammar.authenticate(store, request, operation) if operation.right is not None else NOBODY
            if operation.right is not None:
                accounts.require(account, operation.right)
            # Only now: the reason may stand in the body, which nobody reads for strangers.
            reason = self.grammar.reason(request)
            store.by = Provenance(actor=account.name, reason=reason, request_id=request.request_id)
            ctx = Context(account=account, store=store, site=self.site)
            reply = operation.handler(ctx, request)
            reactions.follow(ctx)
            store.commit()
        return reply


#: Who asks where no login is needed.
NOBODY = Account(id=AccountId(""), name="anonymous", kind="system")
