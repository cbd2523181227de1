# SPDX-License-Identifier: Apache-2.0
"""What can go wrong around a run, each as one sentence for the person in front of the terminal.

What goes wrong inside a method is a report, not an exception, and never reaches this tree.
"""

from __future__ import annotations

from typing import Optional


class AgentError(Exception):
    """The command cannot go on; the text says why and what to do."""


class NotEnrolled(AgentError):
    """The state directory knows no server yet."""


class Locked(AgentError):
    """Another run holds the lock."""


class NoProvider(AgentError):
    """Nothing on this machine can do the cryptography asked for."""


class Unreachable(AgentError):
    """No answer from the server, or none that can be trusted."""


class Untrusted(AgentError):
    """A policy or a server key that does not verify."""


class Refused(AgentError):
    """The server understood the request and refused it."""

    def __init__(self, message: str, code: str, status: int, server_time: Optional[int] = None) -> None:
        super().__init__(message)
        #: one of the codes of `documents.Refusal`, or "" when the answer had none
        self.code = code
        self.status = status
        self.server_time = server_time
