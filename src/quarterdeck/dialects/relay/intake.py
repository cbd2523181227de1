# SPDX-License-Identifier: Apache-2.0
"""Where agents put reports and inventories: PUT by name with basic authentication or a client certificate, as peers'
web servers take them.

Beside the relay API and not in its reference: it has paths of its own and knows one method. What becomes of the files
is for those who watch the directories.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from quarterdeck.core.errors import NotFound, QuarterdeckError, Unauthenticated
from quarterdeck.dialects.relay import callers, envelope
from quarterdeck.dialects.relay.callers import Callers, Door
from quarterdeck.formats import report_files
from quarterdeck.relaying import uploads
from quarterdeck.relaying.uploads import Uploads
from quarterdeck.web.edges import Edge
from quarterdeck.web.operation import Answer, Operation, Reply, Request, Section
from quarterdeck.web.router import Match

log = logging.getLogger(__name__)

REPORTS = "/reports"
INVENTORIES = "/inventories"
INVENTORY_UPDATES = "/inventory-updates"
PATHS = (REPORTS, INVENTORIES, INVENTORY_UPDATES)
#: Anybody may offer a new node's inventory: every agent comes with this name.
NEW_USER = "rudder"

_CREATED, _REPLACED, _WRONG_METHOD, _UNAUTHENTICATED = 201, 204, 405, 401
_CHALLENGE = ("WWW-Authenticate", 'Basic realm="Quarterdeck"')

section = Section("Intake", {"callers": Callers.NODES})


@dataclass(frozen=True, kw_only=True)
class Inlet:
    """One path: where its files go, and who may put them there besides nodes that prove who they are.

    Without a password nobody may.
    """

    uploads: Uploads
    user: str
    password: str


Inlets = Mapping[str, Inlet]


@section.operation(
    "putFile",
    "PUT",
    "/{name}",
    right=None,
    documented=False,
    stream_body=True,
    max_body=report_files.MAX_INVENTORY_BYTES,
)
def put_file(inlet: Inlet, request: Request) -> Answer:
    """Take a file: 201 when its name is new, 204 when it replaces one."""
    assert request.body_file is not None
    name = request.params["name"]
    new = inlet.uploads.keep(name, request.body_file)
    log.debug("[%s] %s was put by %s", report_files.queue_id(name), request.path, request.client)
    return Answer(status=_CREATED if new else _REPLACED)


@section.operation("refuseMethod", "*", "/{name}", right=None, documented=False, max_body=0)
def refuse_method(inlet: Inlet, request: Request) -> Answer:
    """Tell that there is nothing here but PUT."""
    return Answer(status=_WRONG_METHOD, headers=(envelope.TEXT, ("Allow", "PUT")), body=b"METHOD NOT ALLOWED")


_PUT, _OTHER = section.operations


class IntakeGrammar:
    """How files are put, and what is said of it."""

    max_body = report_files.MAX_INVENTORY_BYTES

    def locate(self, request: Request, segments: tuple[str, ...]) -> Match:
        names = [unquote(one, errors="surrogateescape") for one in _names(request)]
        if len(names) != 1 or not names[0]:
            raise NotFound("There is no such place.")
        return Match(_PUT if request.method == "PUT" else _OTHER, {"name": names[0]})

    def answer(self, operation: Operation, request: Request, reply: Reply) -> Answer:
        return envelope.success(operation.name, reply.data)

    def refuse(self, operation: Operation | None, request: Request, error: QuarterdeckError | None) -> Answer:
        told = envelope.error(error)
        if told.status != _UNAUTHENTICATED:
            return told
        return Answer(status=told.status, headers=(*told.headers, _CHALLENGE), body=told.body)


@dataclass(kw_only=True)
class IntakeEdge(Edge):
    """An ASGI application for all of these paths."""

    grammar: IntakeGrammar
    door: Door
    inlets: Inlets

    def glance(self, operation: Operation, request: Request) -> None:
        """Refuse strangers before they send anything."""
        self.door.glance(operation, request)
        inlet = self._inlet(request)
        if not callers.shows_certificate(request, self.door.certificate_header):
            _require_password(inlet, request)

    def work(self, operation: Operation, request: Request) -> Reply | Answer:
        """Let the caller in, and take what they bring."""
        inlet = self._inlet(request)
        if self.door.admit(operation, request).node is None:
            _require_password(inlet, request)
        reply: Reply | Answer = operation.handler(inlet, request)
        return reply

    def _inlet(self, request: Request) -> Inlet:
        """The place asked for. Raises NotFound."""
        inlet = self.inlets.get(_path(request))
        if inlet is None:
            raise NotFound("There is no such place.")
        return inlet


def _require_password(inlet: Inlet, request: Request) -> None:
    if not uploads.is_let_in(request.headers.get("authorization", ""), inlet.user, inlet.password):
        raise Unauthenticated("This takes a user and a password.")


def _path(request: Request) -> str:
    return f"/{request.target.partition('?')[0].lstrip('/').partition('/')[0]}"


def _names(request: Request) -> list[str]:
    """What stands behind the first segment; peers put two slashes in front of that."""
    return request.target.partition("?")[0].lstrip("/").split("/")[1:]
