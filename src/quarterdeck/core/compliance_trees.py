# SPDX-License-Identifier: Apache-2.0
"""The tree of statuses of a directive on a node: made from a run, or for a node without one; stored and read back.

Blocks count as their logic says; the same trees of many nodes are gathered by component for the views by rule
and by directive. The arithmetic of counters is `compliance.py`, the matching of reports `expected_reports.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from quarterdeck.core import compliance
from quarterdeck.core.compliance import Counts, Status
from quarterdeck.core.expected_reports import (
    NO_IDS,
    USUAL,
    ExpectedBlock,
    ExpectedComponent,
    ExpectedDirective,
    ExpectedItem,
    Found,
    Matcher,
    Matching,
    Outcome,
    ReceivedReport,
)
from quarterdeck.core.ids import DirectiveId, NodeId, RuleId


class ValueStatus(NamedTuple):
    value: str
    outcomes: tuple[Outcome, ...]


class ComponentStatus(NamedTuple):
    """Components of one name that stand side by side are one, with the values of all."""

    name: str
    values: tuple[ValueStatus, ...]
    counts: Counts


class BlockStatus(NamedTuple):
    """`counts` is what the block contributes, after its logic."""

    name: str
    logic: str
    children: tuple[ItemStatus, ...]
    counts: Counts


ItemStatus = ComponentStatus | BlockStatus


class DirectiveStatus(NamedTuple):
    rule: RuleId
    directive: DirectiveId
    items: tuple[ItemStatus, ...]
    counts: Counts


class Row(NamedTuple):
    """One outcome as it is stored. `path` is the names of the blocks around the component, then its own.

    `ordinal` tells outcomes of one path, value and report id apart.
    """

    path: tuple[str, ...]
    value: str
    report_id: str
    ordinal: int
    status: Status
    message: str


class NodeValues(NamedTuple):
    node: NodeId
    values: tuple[ValueStatus, ...]
    counts: Counts


class GatheredComponent(NamedTuple):
    """One component of a directive, over nodes."""

    name: str
    nodes: tuple[NodeValues, ...]
    counts: Counts


class GatheredBlock(NamedTuple):
    name: str
    logic: str
    children: tuple[GatheredItem, ...]
    counts: Counts


GatheredItem = GatheredComponent | GatheredBlock


class _Part(NamedTuple):
    """What one expected item comes to, before components of one name are put together."""

    id: str
    name: str
    counts: Counts
    worst: Status | None
    #: How many outcomes lie below.
    size: int
    found: list[Found]
    block: BlockStatus | None


def match_run(
    promises: Iterable[ExpectedDirective], reports: Iterable[ReceivedReport], matching: Matching = USUAL
) -> tuple[DirectiveStatus, ...]:
    """Every expected directive with its reports, then those that nobody expected, as `unexpected`."""
    sorted_out: dict[tuple[str, str], list[ReceivedReport]] = {}
    for report in reports:
        sorted_out.setdefault((report.rule, report.directive), []).append(report)
    statuses = [match(one, sorted_out.pop((one.rule, one.directive), ()), matching) for one in promises]
    statuses.extend(unexpected(rest) for rest in sorted_out.values())
    return tuple(statuses)


def match(promise: ExpectedDirective, reports: Sequence[ReceivedReport], matching: Matching = USUAL) -> DirectiveStatus:
    """One directive with the reports that came for it. Reports that match no value of it are dropped."""
    return _walk(promise, Matcher(promise.mode, reports, matching).find)


@functools.lru_cache(maxsize=2_000)
def uniform(promise: ExpectedDirective, status: Status) -> DirectiveStatus:
    """The directive with one status for every value: pending, no report, reports disabled, missing.

    Remembered: after a generation whole fleets are pending with the same directives.
    """
    return _walk(
        promise, lambda level: [[(one.name, one.value, [Outcome(status, "", one.report_id)])] for one in level]
    )


def unexpected(reports: Sequence[ReceivedReport]) -> DirectiveStatus:
    """Reports of one rule and directive, at least one, that nothing expected."""
    found: list[Found] = [
        (one.component, one.value, [Outcome(Status.UNEXPECTED, one.message, one.report_id)]) for one in reports
    ]
    items = _put_together(found)
    counts = compliance.total(item.counts for item in items)
    return DirectiveStatus(RuleId(reports[0].rule), DirectiveId(reports[0].directive), items, counts)


def replaced(promises: Iterable[ExpectedDirective], reports: Iterable[ReceivedReport]) -> tuple[DirectiveStatus, ...]:
    """After a run for another configuration: all that is expected is missing, all that came is unexpected."""
    statuses = {(one.rule, one.directive): uniform(one, Status.MISSING) for one in promises}
    sorted_out: dict[tuple[RuleId, DirectiveId], list[ReceivedReport]] = {}
    for report in reports:
        sorted_out.setdefault((RuleId(report.rule), DirectiveId(report.directive)), []).append(report)
    for key, came in sorted_out.items():
        odd = unexpected(came)
        missing = statuses.get(key)
        if missing is not None:
            counts = compliance.total((missing.counts, odd.counts))
            odd = DirectiveStatus(*key, (*missing.items, *odd.items), counts)
        statuses[key] = odd
    return tuple(statuses.values())


def rows(status: DirectiveStatus) -> Iterator[Row]:
    """Everything below a directive, flat."""
    seen: dict[tuple[tuple[str, ...], str, str], int] = {}
    for path, value, outcome in _leaves(status.items, ()):
        key = (path, value, outcome.report_id)
        ordinal = seen.get(key, 0)
        seen[key] = ordinal + 1
        yield Row(path, value, outcome.report_id, ordinal, outcome.status, outcome.message)


def _leaves(items: Iterable[ItemStatus], around: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Outcome]]:
    for item in items:
        path = (*around, item.name)
        if isinstance(item, BlockStatus):
            yield from _leaves(item.children, path)
            continue
        for value, outcomes in item.values:
            for outcome in outcomes:
                yield path, value, outcome


def restore(promise: ExpectedDirective, stored: Iterable[Row]) -> DirectiveStatus:
    """The tree again from its rows, in any order. Rows that belong to nothing expected stand at its end."""
    by_id: dict[str, list[Row]] = {}
    by_value: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(stored, key=lambda row: row.ordinal):
        if row.report_id in NO_IDS:
            by_value.setdefault((row.path[-1], row.value), []).append(row)
        else:
            by_id.setdefault(row.report_id, []).append(row)

    def find(level: Sequence[ExpectedComponent]) -> list[list[Found]]:
        return [
            _found(by_value.pop((one.name, one.value), []) if one.report_id in NO_IDS else by_id.pop(one.report_id, []))
            for one in level
        ]

    known = _walk(promise, find)
    rest = _put_together(_found(row for group in (*by_id.values(), *by_value.values()) for row in group))
    counts = compliance.total((known.counts, *(item.counts for item in rest)))
    return DirectiveStatus(known.rule, known.directive, (*known.items, *rest), counts)


def _found(stored: Iterable[Row]) -> list[Found]:
    grouped: dict[tuple[str, str], list[Outcome]] = {}
    for row in stored:
        outcome = Outcome(row.status, row.message, row.report_id)
        grouped.setdefault((row.path[-1], row.value), []).append(outcome)
    return [(name, value, outcomes) for (name, value), outcomes in grouped.items()]


def gather(trees: Iterable[tuple[NodeId, Sequence[ItemStatus]]]) -> tuple[GatheredItem, ...]:
    """One directive's trees on several nodes, turned round: components first, then nodes."""
    grouped: dict[tuple[bool, str], list[tuple[NodeId, ItemStatus]]] = {}
    for node, items in trees:
        for item in items:
            grouped.setdefault((isinstance(item, BlockStatus), item.name), []).append((node, item))
    return tuple(_gathered(name, entries) for (_, name), entries in grouped.items())


def _gathered(name: str, entries: list[tuple[NodeId, ItemStatus]]) -> GatheredItem:
    counts = compliance.total(item.counts for _, item in entries)
    components = [(node, item) for node, item in entries if isinstance(item, ComponentStatus)]
    if components:
        nodes = tuple(NodeValues(node, one.values, one.counts) for node, one in components)
        return GatheredComponent(name, nodes, counts)
    blocks = [(node, item) for node, item in entries if isinstance(item, BlockStatus)]
    logic = blocks[0][1].logic
    for _, block in blocks[1:]:
        logic = compliance.stricter(logic, block.logic)
    return GatheredBlock(name, logic, gather((node, block.children) for node, block in blocks), counts)


# -- the tree of statuses ------------------------------------------------------------

_Find = Callable[[Sequence[ExpectedComponent]], list[list[Found]]]


def _walk(promise: ExpectedDirective, find: _Find) -> DirectiveStatus:
    parts = _parts(promise.items, find)
    counts = compliance.total(part.counts for part in parts)
    return DirectiveStatus(promise.rule, promise.directive, _items(parts), counts)


def _parts(items: Sequence[ExpectedItem], find: _Find) -> list[_Part]:
    components = [item for item in items if isinstance(item, ExpectedComponent)]
    found = iter(find(components))
    return [
        _component_part(item, next(found)) if isinstance(item, ExpectedComponent) else _block_part(item, find)
        for item in items
    ]


def _component_part(item: ExpectedComponent, found: list[Found]) -> _Part:
    if len(found) == 1 and len(found[0][2]) == 1:
        status = found[0][2][0].status
        return _Part(item.report_id, item.name, _ONE[status], status, 1, found, None)
    statuses = [one.status for _, _, outcomes in found for one in outcomes]
    counts = compliance.tally(statuses)
    return _Part(item.report_id, item.name, counts, max(statuses, default=None), len(statuses), found, None)


def _block_part(block: ExpectedBlock, find: _Find) -> _Part:
    parts = _parts(block.children, find)
    size = sum(part.size for part in parts)
    kind, _, target = block.logic.partition(":")
    counting = parts
    if kind == compliance.FOCUS:
        counting = [part for part in parts if target in (part.id, part.name)]
    worst = max((part.worst for part in counting if part.worst is not None), default=None)
    counts = compliance.total(part.counts for part in counting)
    if worst is not None and kind == compliance.WORST_ONE:
        counts = _ONE[worst]
    elif worst is not None and kind == compliance.WORST_SUM:
        counts = compliance.units(worst, size)
    status = BlockStatus(block.name, block.logic, _items(parts), counts)
    return _Part(block.id, block.name, counts, worst, size, [], status)


_ONE = tuple(compliance.units(status) for status in Status)


def _items(parts: Iterable[_Part]) -> tuple[ItemStatus, ...]:
    """The parts in their order, components of one name put together where the first of them stands."""
    components: dict[str, list[Found]] = {}
    order: list[str | BlockStatus] = []
    for part in parts:
        if part.block is not None:
            order.append(part.block)
        for one in part.found:
            if one[0] not in components:
                order.append(one[0])
            components.setdefault(one[0], []).append(one)
    return tuple(_component(one, components[one]) if isinstance(one, str) else one for one in order)


def _put_together(found: Iterable[Found]) -> tuple[ComponentStatus, ...]:
    components: dict[str, list[Found]] = {}
    for one in found:
        components.setdefault(one[0], []).append(one)
    return tuple(_component(name, entries) for name, entries in components.items())


def _component(name: str, found: list[Found]) -> ComponentStatus:
    if len(found) == 1 and len(found[0][2]) == 1:
        outcomes = found[0][2]
        return ComponentStatus(name, (ValueStatus(found[0][1], tuple(outcomes)),), _ONE[outcomes[0].status])
    values: dict[str, list[Outcome]] = {}
    for _, value, outcomes in found:
        values.setdefault(value, []).extend(outcomes)
    counts = compliance.tally(one.status for outcomes in values.values() for one in outcomes)
    return ComponentStatus(name, tuple(ValueStatus(value, tuple(all_)) for value, all_ in values.items()), counts)
