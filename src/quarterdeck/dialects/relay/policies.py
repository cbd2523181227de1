# SPDX-License-Identifier: Apache-2.0
"""Policies chapter: a node's own files, files for all nodes, and who this server is; peers' web servers give these.

A node gets what stands under its own id, and that id must be the one that it proves, letter by letter.
"""

from __future__ import annotations

from quarterdeck.core.errors import Forbidden, Invalid, NotFound
from quarterdeck.core.ids import NodeId
from quarterdeck.dialects.relay import envelope, version
from quarterdeck.dialects.relay.callers import Callers
from quarterdeck.dialects.relay.parts import Visit
from quarterdeck.relaying.policy_files import ARCHIVE, GivenFile
from quarterdeck.web import files
from quarterdeck.web.operation import Answer, Excerpt, Request, Section

section = Section("Policies", {"callers": Callers.PROVEN, "max_body": 64 * 1024})

#: On a relay a policy may have to be fetched first; such requests take turns with each other.
LINE = "policies"
_DSC = "/policies/{nodeId}/" + ARCHIVE
_OWN = "/policies/{nodeId}/{path}"
_COMMON = "/common/{path}"


@section.operation("headDscPolicies", "HEAD", _DSC, right=None, since=1, documented=False, long=LINE)
@section.operation("getDscPolicies", "GET", _DSC, right=None, since=1, long=LINE)
def get_dsc_policies(visit: Visit, request: Request) -> Answer:
    """Download the archive of the policies of the node that asks."""
    return _answer(request, visit.parts.policies.open(_own_id(visit, request), ARCHIVE))


@section.operation("headPolicyFile", "HEAD", _OWN, right=None, documented=False, beside=True, long=LINE)
@section.operation("getPolicyFile", "GET", _OWN, right=None, documented=False, beside=True, long=LINE)
def get_policy_file(visit: Visit, request: Request) -> Answer:
    """Download a file of the node that asks, its archive or another; beside the prefix."""
    node = _own_id(visit, request)
    try:
        file = visit.parts.policies.open(node, version.exactly(request.params["path"]))
    except Invalid as error:
        raise NotFound(error.message, detail=error.detail) from error
    return _answer(request, file)


@section.operation("headCommonFile", "HEAD", _COMMON, right=None, documented=False, beside=True, callers=Callers.NODES)
@section.operation("getCommonFile", "GET", _COMMON, right=None, documented=False, beside=True, callers=Callers.NODES)
def get_common_file(visit: Visit, request: Request) -> Answer:
    """Download a file that is for all nodes; beside the prefix."""
    try:
        file = visit.parts.policies.open_common(version.exactly(request.params["path"]))
    except Invalid as error:
        raise NotFound(error.message, detail=error.detail) from error
    return _answer(request, file)


@section.operation("headUuid", "HEAD", "/uuid", right=None, documented=False, beside=True, callers=Callers.ANYONE)
@section.operation("getUuid", "GET", "/uuid", right=None, documented=False, beside=True, callers=Callers.ANYONE)
def get_uuid(visit: Visit, request: Request) -> Answer:
    """Tell this server's id as a node; beside the prefix."""
    return Answer(headers=(envelope.TEXT,), body=f"{visit.parts.nodes.current().topology.me}\n".encode())


def _own_id(visit: Visit, request: Request) -> NodeId:
    """The id in the path, when it is the one of the node that asks. Raises Forbidden."""
    asked = version.lossily(request.params["nodeId"])
    if not asked or asked != visit.caller.node:
        raise Forbidden("A node gets its own policies, and nobody else's.", detail=f"{visit.caller.node} asks")
    return NodeId(asked)


def _answer(request: Request, file: GivenFile) -> Answer:
    excerpt = Excerpt(descriptor=file.descriptor, start=0, length=file.size)
    return files.answer(request, excerpt, file.modified_ns, file.name, file.tag)
