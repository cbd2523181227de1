# SPDX-License-Identifier: Apache-2.0
"""Things that happened, past tense. `services/reactions.py` says what follows from each."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.ids import DirectiveId, GroupId, NodeId, ParameterName, RuleId
from quarterdeck.core.targets import Target
from quarterdeck.core.techniques import TechniqueKey


@dataclass(frozen=True, slots=True)
class RuleChanged:
    """`targets_before` is what the rule applied to until now, so that nodes it leaves are concerned too."""

    rule: RuleId
    targets_before: tuple[Target, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectiveChanged:
    directive: DirectiveId


@dataclass(frozen=True, slots=True)
class TechniqueChanged:
    technique: TechniqueKey


@dataclass(frozen=True, slots=True)
class GroupChanged:
    """The definition of a group: its query, its name, its properties."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class GroupMembersChanged:
    group: GroupId


@dataclass(frozen=True, slots=True)
class ParameterChanged:
    parameter: ParameterName


@dataclass(frozen=True, slots=True)
class SettingsChanged:
    pass


@dataclass(frozen=True, slots=True)
class NodeAccepted:
    node: NodeId


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """What an administrator set on a node."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    node: NodeId


@dataclass(frozen=True, slots=True)
class InventoryChanged:
    """An accepted node sent an inventory that differs from the one before."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class ExecutionEnded:
    """An execution of a job or an ad-hoc command has its final state."""

    execution: int


Event = (
    RuleChanged
    | DirectiveChanged
    | TechniqueChanged
    | GroupChanged
    | GroupMembersChanged
    | ParameterChanged
    | SettingsChanged
    | NodeAccepted
    | NodeChanged
    | NodeRemoved
    | InventoryChanged
    | ExecutionEnded
)
