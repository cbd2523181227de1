# SPDX-License-Identifier: Apache-2.0
"""The agent's documents, as the server sees them: the one module that imports `quarterdeck_agent`.

The rest of the server names what it needs of the contract from here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import NamedTuple

from quarterdeck_agent import outcome as _outcome
from quarterdeck_agent.documents import (
    BEAT_SECONDS,
    CLOCK_TOLERANCE_SECONDS,
    COMMAND_ENDINGS,
    FORMAT,
    HEADER_NODE,
    HEADER_NONCE,
    HEADER_SIGNATURE,
    HEADER_TIME,
    HOLD_SECONDS,
    MAX_COMMAND_PIECE_BYTES,
    MAX_ORDER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_PIECE_BYTES,
    ORDER_SECONDS,
    PATH_AGENT_FILE,
    PATH_COMMANDS,
    PATH_ENROLL,
    PATH_INVENTORIES,
    PATH_POLICY,
    PATH_PREFIX,
    PATH_REMOTE_RUNS,
    PATH_REPORTS,
    PATH_RESOURCES,
    PATH_WAKE,
    REPORT_STATUSES,
    BadDocument,
    Block,
    Call,
    CommandTaken,
    CommandWake,
    Enrolled,
    Enrolment,
    FolderListing,
    Inventory,
    Order,
    Parcel,
    Policy,
    PolicyItem,
    Refusal,
    Report,
    Run,
    Schedule,
    Taken,
    Wake,
    agent_file_message,
    canonical,
    command_output_path,
    commands_path,
    decode_payload,
    digest,
    open_parcel,
    output_path,
    pack_payload,
    parcel_message,
    policy_message,
    request_message,
    request_message_of,
    spki_of_certificate,
    wrap_parcel,
)

__all__ = [
    "BEAT_SECONDS",
    "CLOCK_TOLERANCE_SECONDS",
    "COMMAND_ENDINGS",
    "FORMAT",
    "HEADER_NODE",
    "HEADER_NONCE",
    "HEADER_SIGNATURE",
    "HEADER_TIME",
    "HOLD_SECONDS",
    "MAX_COMMAND_PIECE_BYTES",
    "MAX_ORDER_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PIECE_BYTES",
    "ORDER_SECONDS",
    "PATH_AGENT_FILE",
    "PATH_COMMANDS",
    "PATH_ENROLL",
    "PATH_INVENTORIES",
    "PATH_POLICY",
    "PATH_PREFIX",
    "PATH_REMOTE_RUNS",
    "PATH_REPORTS",
    "PATH_RESOURCES",
    "PATH_WAKE",
    "REPORT_STATUSES",
    "AgentMethod",
    "BadDocument",
    "Block",
    "Call",
    "CommandTaken",
    "CommandWake",
    "Enrolled",
    "Enrolment",
    "FolderListing",
    "Inventory",
    "Order",
    "Parcel",
    "Policy",
    "PolicyItem",
    "Refusal",
    "Report",
    "Run",
    "Schedule",
    "Taken",
    "Wake",
    "agent_file_message",
    "canonical",
    "command_output_path",
    "commands_path",
    "decode_payload",
    "digest",
    "methods",
    "open_parcel",
    "output_path",
    "pack_payload",
    "parcel_message",
    "policy_message",
    "request_message",
    "request_message_of",
    "spki_of_certificate",
    "wrap_parcel",
]


class AgentMethod(NamedTuple):
    """A method as our own agent has it; parameters that may be empty stand in `optional`."""

    name: str
    parameters: tuple[str, ...]
    optional: frozenset[str]
    prefix: str
    class_parameter: str


@functools.cache
def methods() -> Mapping[str, AgentMethod]:
    """The methods that our own agent can run, by name."""
    importlib.import_module("quarterdeck_agent.methods")  # here: some thirty modules that only this needs
    found = {}
    for method in _outcome.METHODS.values():
        names = tuple(name.rstrip("?") for name in method.parameters)
        optional = frozenset(name[:-1] for name in method.parameters if name.endswith("?"))
        found[method.name] = AgentMethod(method.name, names, optional, method.prefix, method.class_parameter)
    return found
