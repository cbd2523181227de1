# SPDX-License-Identifier: Apache-2.0
"""How each node of an execution stands, told from its steps: what lists and live views show of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quarterdeck.core.executions import NodeStep, StepState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """`step` is the one that says it, "" before the first. A step that failed says it also when later ones did not."""

    node: str
    state: StepState
    step: str = ""
    exit_status: int | None = None
    reason: str = ""


def of_nodes(nodes: Iterable[str], steps: Iterable[NodeStep]) -> list[NodeState]:
    """One state for each of the nodes, in their order; nodes that only steps name follow."""
    by_node: dict[str, list[NodeStep]] = {node: [] for node in nodes}
    for one in steps:
        if "/" not in one.step:
            by_node.setdefault(one.node, []).append(one)
    return [_of_node(node, found) for node, found in by_node.items()]


def _of_node(node: str, steps: list[NodeStep]) -> NodeState:
    if not steps:
        return NodeState(node=node, state=StepState.WAITING)
    ordered = sorted(steps, key=lambda one: one.begun)
    telling = next((one for one in ordered if one.state is StepState.BEGUN), None)
    if telling is None:
        bad = [one for one in ordered if one.state is not StepState.SUCCEEDED]
        telling = bad[0] if bad else ordered[-1]
    return NodeState(
        node=node,
        state=telling.state,
        step=telling.step,
        exit_status=telling.exit_status,
        reason=telling.reason,
    )
