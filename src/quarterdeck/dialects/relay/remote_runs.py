# SPDX-License-Identifier: Apache-2.0
"""Remote run chapter: agents of one node, of some, or of all run now, and what they print is streamed back."""

from __future__ import annotations

import logging

from quarterdeck.core import remote_runs
from quarterdeck.core.errors import Invalid, NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.core.remote_runs import Form
from quarterdeck.dialects.relay import envelope, version
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.web import forms
from quarterdeck.web.operation import Answer, Request, Section

log = logging.getLogger(__name__)

section = Section("Remote run", {"callers": Callers.UPSTREAM, "max_body": 1024 * 1024})

_LINES_OF_JSON = ("Content-Type", "application/x-ndjson; charset=utf-8")
#: Proxies that wait for more before they pass a line on would spoil it.
_AT_ONCE = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))


@section.operation("remoteRunNode", "POST", "/remote-run/nodes/{nodeId}", right="node.command", since=1)
def remote_run_node(visit: Visit, request: Request) -> Answer:
    """Have the agent of one node run."""
    _require_enabled(visit)
    return _asked(visit, _form(request), (NodeId(version.lossily(request.params["nodeId"])),))


@section.operation("remoteRunNodes", "POST", "/remote-run/nodes", right="node.command", since=1)
def remote_run_nodes(visit: Visit, request: Request) -> Answer:
    """Have the agents of some nodes run."""
    _require_enabled(visit)
    form = _form(request)
    return _asked(visit, form, remote_runs.listed_nodes(form))


@section.operation("remoteRunAll", "POST", "/remote-run/all", right="node.command", since=1)
def remote_run_all(visit: Visit, request: Request) -> Answer:
    """Have the agents of all nodes run."""
    _require_enabled(visit)
    return _asked(visit, _form(request), None)


def _require_enabled(visit: Visit) -> None:
    if visit.parts.remote_runs is None or not visit.parts.remote_runs.enabled:
        log.warning("A remote run was asked for from %s; it is switched off here", visit.caller.address)
        raise NotFound("Remote runs are switched off here.")


def _asked(visit: Visit, form: dict[str, str], nodes: tuple[NodeId, ...] | None) -> Answer:
    assert visit.parts.remote_runs is not None
    wanted = remote_runs.wanted(form, nodes)
    kind = envelope.TEXT if wanted.form is Form.TEXT else _LINES_OF_JSON
    return Answer(headers=(kind, *_AT_ONCE), body=visit.parts.remote_runs.ask(wanted))


def _form(request: Request) -> dict[str, str]:
    """The fields of the body. For peers, a body that is no form means that there is no such operation."""
    if request.body and request.content_type not in ("", forms.URLENCODED):
        raise NotFound("The body is not a form.", detail=f"its type is {request.content_type[:80]}")
    try:
        return dict(forms.fields(request.body))
    except Invalid as error:
        raise NotFound(error.message, detail=error.message) from error
