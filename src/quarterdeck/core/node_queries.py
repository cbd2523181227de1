# SPDX-License-Identifier: Apache-2.0
"""The node query language: criteria over the inventory, combined by and/or, possibly inverted.

Here: the query as data, its grammar and its checks. `storage/node_queries.py` compiles it to SQL.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """Names in their canonical spelling; `value` is empty for `exists` and `notExists`."""

    object_type: str
    attribute: str
    comparator: str
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    #: True: policy servers too (`nodeAndPolicyServer`); False: every accepted node except root.
    with_policy_servers: bool = False
    #: "and" or "or"
    composition: str = "and"
    #: True: the complement within the selected universe.
    inverted: bool = False
    criteria: tuple[Criterion, ...] = ()
