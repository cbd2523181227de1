# SPDX-License-Identifier: Apache-2.0
"""Answers of the relay API: JSON of the system's operations, byte for byte as scripts compare it, and plain text."""

from __future__ import annotations

from typing import Any

import msgspec

from quarterdeck.core.agent_requests import ClockSkew
from quarterdeck.core.errors import QuarterdeckError
from quarterdeck.dialects.relay import errors
from quarterdeck.formats import agent
from quarterdeck.web.operation import Answer

JSON = ("Content-Type", "application/json")
TEXT = ("Content-Type", "text/plain; charset=utf-8")


def success(action: str, data: Any = None) -> Answer:
    """An operation of the system went well. The order of the keys is part of the answer."""
    told = {} if data is None else {"data": data}
    return Answer(headers=(JSON,), body=msgspec.json.encode({**told, "result": "success", "action": action}))


def failure(action: str, problem: QuarterdeckError | None) -> Answer:
    """An operation of the system went wrong."""
    told = {"result": "error", "action": action, "errorDetails": errors.text(problem)}
    return Answer(status=errors.INTERNAL, headers=(JSON,), body=msgspec.json.encode(told))


def error(problem: QuarterdeckError | None) -> Answer:
    """Any other error. Who signed with a clock that is off is told ours, for this grammar has no place for it."""
    clock = ((agent.HEADER_TIME, str(problem.now)),) if isinstance(problem, ClockSkew) else ()
    return Answer(status=errors.status(problem), headers=(TEXT, *clock), body=errors.text(problem).encode())
