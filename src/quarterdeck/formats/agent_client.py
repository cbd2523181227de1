# SPDX-License-Identifier: Apache-2.0
"""The agent's own side of its protocol, for relays: each is a node of the server above it.

Beside `agent.py`, which has the documents, the only module that imports `quarterdeck_agent`.
"""

from __future__ import annotations

from typing import NamedTuple

from quarterdeck_agent import enrolment as _enrolment
from quarterdeck_agent import keys as _keys
from quarterdeck_agent.client import PinnedConnection
from quarterdeck_agent.errors import AgentError, NotEnrolled, Refused, Untrusted
from quarterdeck_agent.state import StateDirectory

__all__ = ["AgentError", "Identity", "NotEnrolled", "PinnedConnection", "Refused", "Untrusted", "enroll", "identity"]


class Identity(NamedTuple):
    """A node that was enrolled: who it is, and at which server. `key` and `certificate` are PEM."""

    node: str
    key: bytes
    certificate: str
    server: str
    pin: str
    #: PEM of the key that signs policies, and the root's requests to relays
    policy_key: str


def identity(directory: str) -> Identity:
    """The node of a state directory. Raises AgentError, NotEnrolled before its enrolment."""
    state = StateDirectory(directory)
    settings = state.settings()
    certificate = _keys.load(directory).certificate
    with open(state.at(_keys.KEY_FILE), "rb") as file:  # noqa: PTH123  # the agent names its files with texts
        key = file.read()
    return Identity(state.node_id(), key, certificate, settings.server, settings.pin, settings.policy_key)


def enroll(directory: str, server: str, pin: str, token: str, accept_wait: float) -> tuple[str, str, list[str]]:
    """Enrol the node of a state directory: its id, its status and what went less well. Raises AgentError."""
    done = _enrolment.enroll(StateDirectory(directory), server, pin, token, accept_wait)
    return done.node, done.status, done.problems
