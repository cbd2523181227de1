# SPDX-License-Identifier: Apache-2.0
"""What the agent's contract and policy generation must agree on."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import policies, policy_items
from quarterdeck.formats import agent

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_canonical_json_is_the_agents(document: Any) -> None:
    assert policy_items.canonical(document) == agent.canonical(document)


def test_the_format_of_policies_is_the_agents() -> None:
    assert policies.FORMAT == agent.FORMAT


def test_the_agents_methods_are_read_without_the_question_marks() -> None:
    permissions = agent.methods()["permissions"]

    assert permissions.parameters == ("path", "mode", "owner", "group")
    assert permissions.optional == {"mode", "owner", "group"}
    assert permissions.class_parameter == "path"
