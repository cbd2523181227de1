# SPDX-License-Identifier: Apache-2.0
"""Who may call what: this machine, nodes from networks that are allowed, and nodes that prove who they are.

A node proves itself by signing the request with its key, or by a TLS client certificate that a trusted proxy passes on
in a header; from anybody else that header never gets here. What is compared is the key, with the one that is known of
the node: who signed a certificate says nothing.
"""

from __future__ import annotations

import enum
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from quarterdeck.core.agent_requests import Signed
from quarterdeck.core.errors import Forbidden, Invalid, Unauthenticated
from quarterdeck.core.ids import NodeId
from quarterdeck.formats import agent, nodes_list, signature
from quarterdeck.relaying.agent_requests import Gate
from quarterdeck.relaying.nodes_list import NodesList
from quarterdeck.web.operation import Operation, Request

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Raises Unauthenticated for a token that is none, Forbidden when its holder lacks the right.
Authorize = Callable[[str, str], None]

CERTIFICATE_HEADER = "x-ssl-client-cert"
TOKEN_HEADER = "x-api-token"  # noqa: S105  # the name of a header
_BEARER = "bearer "
#: What nginx and Apache pass on for a client that shows none.
_NO_CERTIFICATE = ("", "(null)")
_FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip")
_SIGNED = (agent.HEADER_NODE, agent.HEADER_TIME, agent.HEADER_NONCE, agent.HEADER_SIGNATURE)


class UnknownCertificate(Forbidden):
    """The client shows a certificate that is no node's here, which proves nothing."""


class Callers(enum.StrEnum):
    """Whom an operation is for; stands on its row."""

    #: this machine, and holders of the row's right
    HOST = "host"
    #: those, and the policy server above this relay; on the root, its own workers
    UPSTREAM = "upstream"
    #: the policy server above this relay alone, by its signature; on the root, its own workers
    SERVER = "server"
    #: nodes from allowed networks, or that prove who they are
    NODES = "nodes"
    #: nodes from allowed networks that prove who they are
    PROVEN = "proven"
    #: everybody
    ANYONE = "anyone"


#: Rows that are not for nodes.
_UNASKED = (Callers.HOST, Callers.UPSTREAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls: the node where it proved itself; `upstream` when it is the server above this one."""

    address: str
    node: NodeId | None = None
    upstream: bool = False


@dataclass(kw_only=True)
class Door:
    """Lets callers in, or not.

    `networks` are those that nodes may come from, besides this machine; without any, nodes that sign their requests may
    come from everywhere. `upstream` are the addresses of this relay's own policy server, none on the root.
    """

    nodes: NodesList
    networks: Sequence[Network] = ()
    upstream: frozenset[str] = frozenset()
    authorize: Authorize | None = None
    certificate_header: str = CERTIFICATE_HEADER
    clock: Callable[[], float] = time.time
    #: on the root, which has no server above: a list that names itself as that, with the key that its workers sign with
    own: NodesList | None = None
    gate: Gate = field(init=False)
    server_gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.nodes, self.clock)
        self.server_gate = Gate(self.own or self.nodes, self.clock)

    def glance(self, operation: Operation, request: Request) -> None:
        """Refuse whom nothing can help, before anybody reads what they send. Raises Forbidden, Unauthenticated."""
        callers = operation.options["callers"]
        if callers == Callers.ANYONE:
            return
        if callers == Callers.SERVER:
            if not self._claims_server(callers, request):
                raise Forbidden("This is for the server above.")
            return
        if callers in _UNASKED:
            if not (self._needs_no_token(callers, request) or self._claims_server(callers, request) or _token(request)):
                raise Forbidden("This is for this machine, or for holders of a token.")
        elif not self._may_come(request):
            raise Forbidden(f"Nodes may not come from {request.client}.")

    def admit(self, operation: Operation, request: Request) -> Caller:
        """Who calls, when they may call this. Raises Forbidden, Unauthenticated, Invalid."""
        self.glance(operation, request)
        callers = operation.options["callers"]
        if callers == Callers.ANYONE:
            return self._caller(request, None)
        if callers == Callers.SERVER:
            return self._caller(request, self.server_gate.admit(_signed(request)))
        if callers in _UNASKED:
            if self._claims_server(callers, request):
                return self._caller(request, self.server_gate.admit(_signed(request)))
            if not self._needs_no_token(callers, request):
                self._require_right(request, operation.right or "")
            return self._caller(request, None)
        need = callers == Callers.PROVEN or not self._is_allowed(request)
        node = self._proven(request) if need else self._proven_if_it_can_be(request)
        if node is None and need:
            raise Forbidden("This is for nodes that prove who they are.")
        return self._caller(request, node)

    def _needs_no_token(self, callers: Callers, request: Request) -> bool:
        return _is_this_machine(request) or (callers == Callers.UPSTREAM and request.client in self.upstream)

    def _claims_server(self, callers: Callers, request: Request) -> bool:
        """Whether the server above signs this, or somebody who says to be it."""
        if callers not in (Callers.UPSTREAM, Callers.SERVER) or not _claims_to_sign(request):
            return False
        listing = (self.own or self.nodes).current()
        return request.headers.get(agent.HEADER_NODE.lower(), "") == listing.server

    def _caller(self, request: Request, node: NodeId | None) -> Caller:
        upstream = request.client in self.upstream or (node is not None and node == self._server())
        return Caller(address=request.client, node=node, upstream=upstream)

    def _server(self) -> NodeId | None:
        """The server above this one, where it signs its requests."""
        return self.nodes.current().server

    def _require_right(self, request: Request, right: str) -> None:
        if self.authorize is None:
            raise Forbidden("This relay knows no tokens; call it from its own machine.")
        self.authorize(_token(request), right)

    def _may_come(self, request: Request) -> bool:
        if self._is_allowed(request) or not _claims_to_sign(request):
            return self._is_allowed(request)
        return not self.networks or request.headers.get(agent.HEADER_NODE.lower(), "") == self._server()

    def _is_allowed(self, request: Request) -> bool:
        """Whether a node may come from this address."""
        if _is_this_machine(request) or request.client in self.upstream:
            return True
        address = _address(request.client)
        return address is not None and any(address in network for network in self.networks)

    def _proven(self, request: Request) -> NodeId | None:
        if _claims_to_sign(request):
            return self.gate.admit(_signed(request))
        if not shows_certificate(request, self.certificate_header):
            return None
        return self._certified(request.headers[self.certificate_header])

    def _proven_if_it_can_be(self, request: Request) -> NodeId | None:
        """The same where no proof is needed: nodes that are not accepted yet show certificates, too."""
        try:
            return self._proven(request)
        except UnknownCertificate:
            return None

    def _certified(self, text: str) -> NodeId:
        """The node whose certificate this is. Raises UnknownCertificate unless the key in it is known as the node's."""
        try:
            certificate = x509.load_pem_x509_certificate(_unwrapped(text).encode())
            node, public = nodes_list.certified_node(certificate), nodes_list.public_key_of(certificate)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise UnknownCertificate("The client certificate cannot be read.", detail=str(error)) from error
        if node is None or not self.nodes.current().is_key_of(node, public):
            raise UnknownCertificate("The client certificate is no node's of this server.", detail=f"its UID is {node}")
        return node


def _unwrapped(text: str) -> str:
    """A PEM text as nginx passes it on (percent-encoded), or Apache (its lines put together)."""
    text = unquote(text).strip()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    inside = text.removeprefix(begin).removesuffix(end)
    return "\n".join((begin, *inside.split(), end, ""))


def _is_this_machine(request: Request) -> bool:
    """Whether the caller sits at this machine, and not behind a proxy on it."""
    address = _address(request.client)
    return address is not None and address.is_loopback and not any(name in request.headers for name in _FORWARDED)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _token(request: Request) -> str:
    bearer = request.headers.get("authorization", "")
    if bearer.lower().startswith(_BEARER):
        return bearer[len(_BEARER) :].strip()
    return request.headers.get(TOKEN_HEADER, "")


def shows_certificate(request: Request, header: str) -> bool:
    """Whether a trusted proxy has passed on a client certificate, whosesoever."""
    return request.headers.get(header, "") not in _NO_CERTIFICATE


def _claims_to_sign(request: Request) -> bool:
    return agent.HEADER_SIGNATURE.lower() in request.headers


def _signed(request: Request) -> Signed:
    values = [request.headers.get(name.lower(), "") for name in _SIGNED]
    for name, value in zip(_SIGNED, values, strict=True):
        if not value:
            raise Unauthenticated(f"The request lacks the header {name}; requests of agents are signed.")
    node, moment, nonce, signed = values
    digest = request.body_digest or agent.digest(request.body)
    message = agent.request_message_of(request.method, request.target, node, moment, nonce, digest)
    return Signed(
        node=NodeId(node), time=moment, nonce=nonce, signature=signature.decode_base64(signed), message=message
    )


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks from their texts. Raises Invalid."""
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise Invalid(f"{error}.") from error
