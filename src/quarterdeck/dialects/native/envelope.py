# SPDX-License-Identifier: Apache-2.0
"""Answers of this dialect: the data itself as JSON, or an error under one key; agents get their own form."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from quarterdeck.core.agent_requests import ClockSkew
from quarterdeck.core.errors import Invalid, QuarterdeckError
from quarterdeck.dialects.native import errors
from quarterdeck.formats import agent
from quarterdeck.web.operation import Answer, Request

CONTENT_TYPE = ("Content-Type", "application/json; charset=utf-8")


def success(data: Any, *, status: int = 200) -> Answer:
    """The data as it is."""
    return Answer(status=status, headers=(CONTENT_TYPE,), body=msgspec.json.encode(data))


def error(request: Request, problem: QuarterdeckError | None) -> Answer:
    """An error: code, message, and the fields at fault where they are known."""
    look = errors.look_up(problem)
    told: dict[str, Any] = {"code": look.code, "message": _message(request, problem)}
    if isinstance(problem, Invalid) and problem.problems:
        told["problems"] = problem.problems
    return Answer(status=look.status, headers=(CONTENT_TYPE,), body=msgspec.json.encode({"error": told}))


def refusal(request: Request, problem: QuarterdeckError | None) -> Answer:
    """An error as agents read it."""
    look = errors.look_up(problem)
    told: agent.Refusal = {
        "code": look.agent_code,
        "message": _message(request, problem),
        "server_time": problem.now if isinstance(problem, ClockSkew) else int(time.time()),
    }
    return Answer(status=look.status, headers=(CONTENT_TYPE,), body=msgspec.json.encode(told))


def _message(request: Request, problem: QuarterdeckError | None) -> str:
    if problem is None:
        return f"Internal error; the server's log has it under request {request.request_id}."
    return problem.message
