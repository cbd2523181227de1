# SPDX-License-Identifier: Apache-2.0
"""Nodes that have policies and run, on a served database. Moments are relative to the present."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.agents import Agent, give_policy
from tests.served import Served

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.directives import Directive
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId, TechniqueId
from quarterdeck.core.modes import PolicyMode
from quarterdeck.core.nodes import Node
from quarterdeck.core.policies import Overridden
from quarterdeck.core.rules import Rule
from quarterdeck.engine.intake import Intake
from quarterdeck.formats import agent
from quarterdeck.services import compliance, reports
from quarterdeck.services.context import Context
from quarterdeck.services.reports import Slip
from quarterdeck.storage.database import Provenance
from quarterdeck.storage.policies import Outline

CONFIG = "20260101-000000-00000001"
OLD_CONFIG = "20251231-000000-00000000"


class Fleet:
    """Nodes with policies, and what the server says of them."""

    def __init__(self, served: Served) -> None:
        self.served = served

    @contextmanager
    def unit_of_work(self) -> Iterator[Context]:
        with self.served.database.unit_of_work(Provenance(actor="tests")) as store:
            yield Context(account=SYSTEM, store=store)
            store.commit()

    def configure(self, *rules: tuple[str, Sequence[str]], modes: dict[str, PolicyMode] | None = None) -> None:
        """Rules with their directives; both are named after their id."""
        with self.unit_of_work() as ctx:
            for directive in sorted({one for _, some in rules for one in some}):
                ctx.store.directives.add(
                    Directive(
                        id=DirectiveId(directive),
                        name=f"The {directive}",
                        technique=TechniqueId("motdConfiguration"),
                        version="3.3",
                        mode=(modes or {}).get(directive),
                    )
                )
            for name, directives in rules:
                ctx.store.rules.add(
                    Rule(
                        id=RuleId(name),
                        name=f"The {name}",
                        directives=frozenset(map(DirectiveId, directives)),
                        targets=(),
                    )
                )

    def node(
        self,
        number: int,
        *items: agent.PolicyItem,
        since: timedelta = timedelta(minutes=1),
        config_id: str = CONFIG,
        overridden: Sequence[Overridden] = (),
        mode: PolicyMode | None = None,
    ) -> Agent:
        """A node that has had this policy for so long."""
        one = Agent(node=f"0000000{number}-0000-4000-8000-000000000000", hostname=f"web{number}.example.com")
        with self.unit_of_work() as ctx:
            node = one.as_node()
            ctx.store.nodes.add(Node(id=node.id, hostname=node.hostname, key=node.key, mode=mode))
        self.give(one, *items, since=since, config_id=config_id, overridden=overridden)
        return one

    def give(
        self,
        one: Agent,
        *items: agent.PolicyItem,
        since: timedelta = timedelta(minutes=1),
        config_id: str = CONFIG,
        overridden: Sequence[Overridden] = (),
    ) -> None:
        with self.unit_of_work() as ctx:
            give_policy(ctx, [one.node], items, config_id=config_id, begin=ctx.now - since)
            if overridden:
                [stored] = ctx.store.policies.load([one.node])
                outline = Outline(
                    fragments=stored.policy.fragments, rules=(), groups=(), overridden=tuple(sorted(overridden))
                )
                ctx.store.policies.put_outlines({outline.digest(): outline})
                ctx.store.policies.reoutline({NodeId(one.node): outline.digest()})
            compliance.configuration_changed(ctx, [one.node])

    def run(
        self, one: Agent, *some: agent.Report, ago: timedelta = timedelta(seconds=30), config_id: str = CONFIG
    ) -> None:
        """A run that began and arrived so long ago."""
        start = datetime.now(UTC) - ago
        slip = Slip(
            node=one.node, nonce=os.urandom(16).hex(), at=start.timestamp(), key=reports.key_digest(one.certificate)
        )
        parcel = one.parcel("report", one.run(some, start=start, config_id=config_id))
        assert Intake(self.served.database, clock=lambda: start).take([reports.pack(slip, parcel)]) == []

    def ask(self, path: str) -> Any:
        """The data of an answer."""
        answer = self.text(path)
        return answer.json()["data"]

    def text(self, path: str) -> Any:
        headers = {"X-API-Token": self.served.tokens["read"]}
        answer = self.served.client.get(f"/rudder/api/latest/compliance{path}", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer

    def rule(self, key: str, query: str = "") -> Any:
        [found] = self.ask(f"/rules/{key}{query}")["rules"]
        return found

    def on_node(self, one: Agent, query: str = "") -> Any:
        [found] = self.ask(f"/nodes/{one.node}{query}")["nodes"]
        return found
