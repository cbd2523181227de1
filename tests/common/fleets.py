# SPDX-License-Identifier: Apache-2.0
"""A small fleet with its configuration, built on a database of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from quarterdeck.core.directives import Directive
from quarterdeck.core.events import Event
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, RuleId, TechniqueId
from quarterdeck.core.nodes import Node
from quarterdeck.core.rules import Rule
from quarterdeck.core.targets import Simple
from quarterdeck.core.techniques import Call, Technique, TechniqueParameter
from quarterdeck.engine import generation
from quarterdeck.engine.tasks import Worker
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database
from quarterdeck.storage.generations import Generation
from quarterdeck.storage.policies import StoredPolicy

TECHNIQUE = Technique(
    id=TechniqueId("write_line"),
    version="1.0",
    name="Write a line",
    items=(
        Call(
            id="call-1",
            method="file_content",
            component="A line",
            parameters={"path": "/etc/motd", "lines": "${write_line.text}", "enforce": "true"},
        ),
    ),
    parameters=(TechniqueParameter(id="TEXT", name="text"),),
)


@dataclass(frozen=True, slots=True)
class World:
    """A database with the verbs that tests need; each verb commits, with everything that follows."""

    database: Database

    @contextmanager
    def unit(self) -> Iterator[Context]:
        with Worker(database=self.database, processes=1).unit_of_work("a test") as ctx:
            yield ctx

    def do(self, change: Callable[[Context], Any], *happened: Event) -> Any:
        """Change something, and let follow what follows from these events."""
        with self.unit() as ctx:
            answer = change(ctx)
            for event in happened:
                ctx.emit(event)
        return answer

    def nodes(self, *names: str, **fields: Any) -> list[NodeId]:
        with self.unit() as ctx:
            for name in names:
                ctx.store.nodes.add(Node(id=NodeId(name), hostname=f"{name}.example.org", **fields))
        return [NodeId(name) for name in names]

    def group(self, name: str, members: Iterable[str] = (), **fields: Any) -> GroupId:
        group = Group(id=GroupId(name), name=name, **{"dynamic": False, **fields})

        def add(ctx: Context) -> None:
            ctx.store.groups.add(group)
            ctx.store.memberships.set(group.id, members)

        self.do(add)
        return group.id

    def technique(self, technique: Technique = TECHNIQUE) -> None:
        self.do(lambda ctx: ctx.store.techniques.put(technique))

    def directive(self, name: str, text: str, **fields: Any) -> DirectiveId:
        directive = Directive(
            id=DirectiveId(name),
            name=name,
            technique=TECHNIQUE.id,
            version=TECHNIQUE.version,
            parameters={"TEXT": (text,)},
            **fields,
        )
        self.do(lambda ctx: ctx.store.directives.add(directive))
        return directive.id

    def rule(self, name: str, directives: Iterable[str], *targets: str, **fields: Any) -> RuleId:
        rule = Rule(
            id=RuleId(name),
            name=name,
            directives=frozenset(DirectiveId(one) for one in directives),
            targets=tuple(Simple(target) for target in targets),
            **fields,
        )
        self.do(lambda ctx: ctx.store.rules.add(rule))
        return rule.id

    def ask(self, *, everything: bool = False) -> None:
        """Ask for a generation of all nodes."""
        self.do(lambda ctx: ctx.store.generations.ask(None, afresh=everything))

    def generate(self, processes: int = 1) -> Generation | None:
        """Run what was asked for; returns the row as it ended."""
        claimed = generation.run(self.unit, processes=processes)
        if claimed is None:
            return None
        ended = self.do(lambda ctx: ctx.store.generations.get(claimed.id))
        assert isinstance(ended, Generation)
        return ended

    def policy(self, node: str) -> StoredPolicy | None:
        found = self.do(lambda ctx: ctx.store.policies.find(node))
        assert found is None or isinstance(found, StoredPolicy)
        return found

    def config_ids(self) -> dict[str, str]:
        return dict(self.do(lambda ctx: ctx.store.policies.config_ids()))
