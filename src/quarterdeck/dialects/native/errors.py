# SPDX-License-Identifier: Apache-2.0
"""How an error looks to a client of this dialect: one table, kind -> HTTP status, our code, the agent's code."""

from __future__ import annotations

from typing import NamedTuple

from quarterdeck.core import agent_requests, errors
from quarterdeck.core.errors import QuarterdeckError


class Look(NamedTuple):
    status: int
    code: str
    #: one of the codes of `Refusal` in the agent's documents
    agent_code: str


#: the most derived kind that fits counts
TABLE: dict[type[QuarterdeckError], Look] = {
    errors.Unauthenticated: Look(401, "unauthenticated", "bad_signature"),
    errors.Forbidden: Look(403, "forbidden", "invalid"),
    errors.NotFound: Look(404, "not_found", "invalid"),
    errors.NoSuchPlace: Look(400, "invalid", "invalid"),
    errors.AlreadyExists: Look(409, "already_exists", "invalid"),
    errors.Invalid: Look(400, "invalid", "invalid"),
    errors.TooLarge: Look(413, "too_large", "invalid"),
    errors.Conflict: Look(409, "conflict", "unavailable"),
    errors.NotImplementedYet: Look(501, "not_implemented", "invalid"),
    errors.Unavailable: Look(503, "unavailable", "unavailable"),
    agent_requests.ClockSkew: Look(401, "clock_skew", "clock_skew"),
    agent_requests.BadSignature: Look(401, "bad_signature", "bad_signature"),
    agent_requests.UnknownNode: Look(404, "unknown_node", "unknown_node"),
    agent_requests.BadToken: Look(403, "bad_token", "bad_token"),
    agent_requests.NotAccepted: Look(404, "not_accepted", "not_accepted"),
}

INTERNAL = Look(500, "internal", "unavailable")


def look_up(error: QuarterdeckError | None) -> Look:
    """How an error looks; None is a fault of ours."""
    if error is None:
        return INTERNAL
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
