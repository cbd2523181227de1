# SPDX-License-Identifier: Apache-2.0
"""The part of the agent protocol that agents on demand speak: they wait for orders, and send what is printed.

Here they are let in; what they are answered: `run_answers.py`, and of commands `command_answers.py`.
"""

from __future__ import annotations

from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.native import command_answers, parts, run_answers, signed_requests
from quarterdeck.formats import agent
from quarterdeck.services.context import Context
from quarterdeck.web.operation import Answer, Request, Section

section = Section("Agents on demand")


@section.operation("awaitRun", "POST", "/agent/1/wake", right=None, max_body=1024)
def await_run(ctx: Context, request: Request) -> Answer:
    """Wait to be told to run; answered when there is something to do, or after a while."""
    return run_answers.held(parts.of(request).waiting_agents, _admitted(ctx, request))


@section.operation(
    "deliverOutput", "POST", "/agent/1/remote-runs/{id}/output", right=None, max_body=agent.MAX_PIECE_BYTES
)
def deliver_output(ctx: Context, request: Request) -> Answer:
    """Deliver piece `number` of what a run prints, the last with its exit `status`; answered when there is room."""
    return run_answers.delivered(parts.of(request).waiting_agents, _admitted(ctx, request), request)


@section.operation("awaitCommand", "POST", "/agent/1/commands", right=None, max_body=1024)
def await_command(ctx: Context, request: Request) -> Answer:
    """Wait for commands, with `room` for so many; answered when there is one, or one is to stop, or after a while."""
    return command_answers.held(parts.of(request).waiting_commands, _admitted(ctx, request), request)


@section.operation(
    "deliverCommandOutput", "POST", "/agent/1/commands/{id}/output", right=None, max_body=agent.MAX_COMMAND_PIECE_BYTES
)
def deliver_command_output(ctx: Context, request: Request) -> Answer:
    """Deliver piece `number` of what a command prints to a `stream`, or how it ended; answered when there is room."""
    return command_answers.delivered(parts.of(request).waiting_commands, _admitted(ctx, request), request)


def _admitted(ctx: Context, request: Request) -> NodeId:
    signed = signed_requests.read(request)
    parts.of(request).gate.admit_reporter(ctx, signed)
    return signed.node
