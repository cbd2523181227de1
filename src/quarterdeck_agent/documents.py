# SPDX-License-Identifier: Apache-2.0
"""The contract between agent and server: every document that crosses the wire, and its bytes.

The server reaches this module through `quarterdeck.formats.agent` only. Nothing here reads a file,
a clock or a socket. All signatures are RSA PKCS#1 v1.5 with SHA-512 over the byte strings that the
functions below build; all digests are SHA-256 in lower-case hex.

A signed request carries four headers (see `HEADER_*`); a report or an inventory is a *parcel*: one
line of JSON, a line feed, the gzip-compressed JSON payload. The parcel is signed by the node's own
key, so whoever carries it cannot alter it; the request that carries it is signed too.

A policy travels as its canonical JSON bytes, with the server's signature over `policy_message()`
in the `HEADER_SIGNATURE` header. The agent obeys nothing whose signature it could not verify.

A command travels as a parcel of the kind "command" with an `Order` inside, signed by the server
with the key that signs policies: a relay on its way can neither make nor change one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, TypedDict, Union

FORMAT = 1

HEADER_NODE = "Quarterdeck-Node"
#: Unix time in whole seconds, decimal.
HEADER_TIME = "Quarterdeck-Time"
#: 32 hex digits, never used twice within the accepted clock window.
HEADER_NONCE = "Quarterdeck-Nonce"
#: base64 of the RSA signature.
HEADER_SIGNATURE = "Quarterdeck-Signature"

#: The server refuses a request whose time differs more than this from its own.
CLOCK_TOLERANCE_SECONDS = 300

PATH_PREFIX = "/quarterdeck/agent/1"
PATH_ENROLL = PATH_PREFIX + "/enroll"
PATH_POLICY = PATH_PREFIX + "/policy"
PATH_REPORTS = PATH_PREFIX + "/reports"
PATH_INVENTORIES = PATH_PREFIX + "/inventories"
PATH_AGENT_FILE = PATH_PREFIX + "/quarterdeck-agent.pyz"
#: Below it, files of techniques by their SHA-256.
PATH_RESOURCES = PATH_PREFIX + "/resources"
#: An agent that listens holds a POST here (no body); answered with a `Wake` within HOLD_SECONDS.
PATH_WAKE = PATH_PREFIX + "/wake"
#: Below it, what a run prints goes to `<run id>/output` (see `output_path`); answered with a `Taken`.
PATH_REMOTE_RUNS = PATH_PREFIX + "/remote-runs"

#: An agent that takes commands holds a POST here (see `commands_path`); answered with a `CommandWake`. Below it, what a
#: command prints goes to `<order id>/output` (see `command_output_path`); answered with a `CommandTaken`.
PATH_COMMANDS = PATH_PREFIX + "/commands"

HOLD_SECONDS = 55
#: At least this often an agent at work sends a piece of output, perhaps an empty one.
BEAT_SECONDS = 20
#: Longest piece of output.
MAX_PIECE_BYTES = 64 * 1024
#: The same of a command's output.
MAX_COMMAND_PIECE_BYTES = 256 * 1024
#: An order is good for so long after it was signed; twice what clocks may differ.
ORDER_SECONDS = 2 * CLOCK_TOLERANCE_SECONDS
#: Longest order, as the parcel that it travels in.
MAX_ORDER_BYTES = 16 * 1024 * 1024
#: How a command may end, as agents tell it; `refused`: it was not begun.
COMMAND_ENDINGS = ("ended", "refused", "timeout", "aborted")

#: Largest payload, in bytes after decompression, that either side reads.
MAX_PAYLOAD_BYTES = 64 * 1024 * 1024

REPORT_STATUSES = (
    "result_success",
    "result_repaired",
    "result_na",
    "result_error",
    "audit_compliant",
    "audit_noncompliant",
    "audit_na",
    "audit_error",
)


class Call(TypedDict):
    """One method call of a policy, variables already expanded by the server."""

    type: str  # "call"
    id: str  # report id, unique within the policy item
    component: str
    method: str
    #: Class-parameter value, what reports carry as `value`.
    value: str
    params: Dict[str, str]
    #: Condition expression; "any" is always.
    condition: str
    #: False: run it, send no report.
    report: bool


class Block(TypedDict):
    """A group of calls with a condition and a reporting logic of its own."""

    type: str  # "block"
    id: str
    component: str
    condition: str
    #: weighted | worst-case-weighted-one | worst-case-weighted-sum | focus:<child id or component>
    logic: str
    items: List[Union[Call, Block]]


class Resource(TypedDict):
    """A file that comes with a technique; its methods say `${resources_dir}/path`."""

    #: With slashes, below the technique's directory.
    path: str
    sha256: str
    size: int


class _Files(TypedDict, total=False):
    #: Absent when the technique has none.
    resources: List[Resource]


class PolicyItem(_Files):
    """One directive, as one rule brings it to the node."""

    rule: str
    directive: str
    name: str
    technique: str
    version: str
    #: "audit" or "enforce"
    mode: str
    items: List[Union[Call, Block]]


class Schedule(TypedDict):
    """When the agent runs, in minutes."""

    interval_minutes: int
    start_minute: int
    start_hour: int
    splay_minutes: int


class Policy(TypedDict):
    """Everything that one node must do, in order."""

    format: int
    node: str
    config_id: str
    schedule: Schedule
    #: full-compliance | changes-only | reports-disabled
    reporting: str
    heartbeat_runs: int
    #: Names of conditions that hold on this node because of its groups: group_<id>, group_<name>.
    conditions: List[str]
    #: Merged properties, for ${node.properties[..]} left to the agent.
    properties: Dict[str, Any]
    policies: List[PolicyItem]


class Report(TypedDict):
    """The outcome of one component value; several may share id and value."""

    rule: str
    directive: str
    id: str
    component: str
    value: str
    #: one of REPORT_STATUSES
    status: str
    message: str


class Run(TypedDict):
    """Payload of a "report" parcel: one whole agent run. Times are RFC 3339 with offset."""

    format: int
    node: str
    run_id: str
    config_id: str
    start: str
    end: str
    agent_version: str
    reports: List[Report]
    #: Lines of the run's log, level warning and above: {"time", "level", "message"}
    log: List[Dict[str, str]]


class Inventory(TypedDict, total=False):
    """Payload of an "inventory" parcel. Sizes in bytes; lists may be absent when unknown.

    Keys inside the lists are those of the node's fields in the Rudder API (`name`, `version`,
    `mountPoint`, `totalSpace` ...), so that one vocabulary serves the whole way.
    """

    format: int
    node: str
    hostname: str
    fqdn: str
    #: RFC 3339
    date: str
    agent: Dict[str, str]  # {"version": ...}
    #: {"type","name","version","fullName","kernelVersion","servicePack"?}; names as the Rudder API spells them
    os: Dict[str, str]
    architecture: str
    ram: int
    swap: int
    #: {"id","type","provider"?,"manufacturer"?,"serialNumber"?}
    machine: Dict[str, str]
    timezone: Dict[str, str]  # {"name","offset"}
    ip_addresses: List[str]
    accounts: List[str]
    environment: Dict[str, str]
    #: custom properties found on the node, provider "inventory"
    properties: Dict[str, Any]
    software: List[Dict[str, Any]]
    file_systems: List[Dict[str, Any]]
    network_interfaces: List[Dict[str, Any]]
    processes: List[Dict[str, Any]]
    processors: List[Dict[str, Any]]
    memories: List[Dict[str, Any]]
    storage: List[Dict[str, Any]]
    bios: List[Dict[str, Any]]
    virtual_machines: List[Dict[str, Any]]
    software_updates: List[Dict[str, Any]]
    controllers: List[Dict[str, Any]]
    ports: List[Dict[str, Any]]
    slots: List[Dict[str, Any]]
    sounds: List[Dict[str, Any]]
    videos: List[Dict[str, Any]]


class Enrolment(TypedDict, total=False):
    """Body of POST PATH_ENROLL (JSON), signed with the key of the certificate it carries."""

    node: str
    hostname: str
    #: PEM, self-signed, subject UID = node id
    certificate: str
    token: str
    agent_version: str


class Enrolled(TypedDict):
    """Answer to an enrolment."""

    #: pending | accepted
    status: str
    #: PEM of the public key that signs policies
    policy_key: str


class Wake(TypedDict, total=False):
    """Answer to an agent that waits."""

    #: idle: nothing to do, ask again | run: the keys below | replaced: another process of this node asks
    status: str
    run: str
    #: What is defined during the run, beside all else.
    conditions: List[str]
    #: True: change nothing, send no report.
    audit: bool
    #: False: nobody wants to read what the run prints.
    output: bool


class Taken(TypedDict):
    """Answer to a piece of output."""

    #: received | unwanted: nobody reads any more, go on without output | again: send the same piece again
    status: str


class FolderListing(TypedDict):
    """Answer to the question what is at a path of the shared folder, and some levels below it."""

    #: path below the one asked for ("" for that itself) -> SHA-256 of a file (hex), or "" for a directory
    entries: Dict[str, str]


class Order(TypedDict):
    """Payload of a "command" parcel: a command that one node is to carry out once, signed by the server."""

    format: int
    node: str
    #: UUID; an agent obeys each once
    id: str
    #: Unix time after which it is not obeyed any more
    expires: int
    #: for /bin/sh -c
    line: str
    #: what it reads, base64
    stdin: str
    environment: Dict[str, str]
    #: how long it may take; 0: no limit
    seconds: float
    #: the user of the node that it runs as; "": the agent's own
    user: str


class CommandWake(TypedDict, total=False):
    """Answer to an agent that waits for commands."""

    #: idle: nothing to do, ask again | command: carry `order` out | stop: end `command` | replaced: as in `Wake`
    status: str
    #: id of the order
    command: str
    #: the parcel, base64
    order: str


class CommandTaken(TypedDict):
    """Answer to a piece of a command's output."""

    #: received | again: there was no room for it, send the same piece again
    status: str
    #: True: end the command
    stop: bool


class Refusal(TypedDict, total=False):
    """Body of every refused agent request (JSON)."""

    #: clock_skew | bad_signature | unknown_node | not_accepted | bad_token | invalid | unavailable
    code: str
    message: str
    #: Unix time of the server, so that the agent can retry once with its offset
    server_time: int


_CONDITION = re.compile("[a-zA-Z0-9][a-zA-Z0-9_]{0,1023}")


class BadDocument(ValueError):
    """A parcel or a document that does not have the agreed form; the message says where."""


class Parcel(NamedTuple):
    """A parcel taken apart, its signature NOT verified yet."""

    kind: str
    node: str
    signature: str
    #: gzip bytes, exactly as signed
    body: bytes

    def message(self) -> bytes:
        """The bytes that the node signed."""
        return parcel_message(self.kind, self.node, self.body)

    def payload(self) -> Dict[str, Any]:
        """The JSON object inside, decompressed to at most MAX_PAYLOAD_BYTES.

        Raises BadDocument when it is not gzip, too large, not JSON or not an object.
        """
        return decode_payload(self.body)


def canonical(document: Any) -> bytes:
    """JSON bytes that are equal for equal documents: sorted keys, no blanks, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(data: bytes) -> str:
    """SHA-256 of `data` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def conditions(text: str) -> Tuple[str, ...]:
    """Names of conditions, a comma between two. Raises BadDocument for what is no name."""
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if not _CONDITION.fullmatch(name):
            raise BadDocument(f"{name[:80]!r} is no condition: letters, digits and _ only, not beginning with _.")
    return names


def output_path(run: str, number: int, status: Optional[int] = None) -> str:
    """Where piece `number` of a run's output is sent, with the exit status when it is the last.

    Pieces are counted from 0; piece 0 is empty and says that the run begins.
    """
    last = "" if status is None else f"&status={status}"
    return f"{PATH_REMOTE_RUNS}/{run}/output?number={number}{last}"


def commands_path(listener: str, room: int) -> str:
    """Where an agent waits that has room for so many more commands; `listener` tells its processes apart."""
    return f"{PATH_COMMANDS}?listener={listener}&room={room}"


def command_output_path(order: str, number: int, *, stream: str = "", ending: str = "", status: int = 0) -> str:
    """Where piece `number` of what a command prints is sent, and its end (see `COMMAND_ENDINGS`).

    Pieces are counted from 0; piece 0 is empty and says that the command begins. The last has the ending, the exit
    status as shells tell it, and as its content a sentence where the status does not say it all.
    """
    what = f"&stream={stream}" if stream else ""
    last = f"&ending={ending}&status={status}" if ending else ""
    return f"{PATH_COMMANDS}/{order}/output?number={number}{what}{last}"


def request_message(method: str, target: str, node: str, time: str, nonce: str, body: bytes) -> bytes:
    """The bytes a request's signature covers; `target` is the path with its query string."""
    return request_message_of(method, target, node, time, nonce, digest(body))


def request_message_of(method: str, target: str, node: str, time: str, nonce: str, body_digest: str) -> bytes:
    """The same for a body that is known by its digest."""
    return f"quarterdeck-request-v1\n{method}\n{target}\n{node}\n{time}\n{nonce}\n{body_digest}\n".encode()


def policy_message(node: str, policy: bytes) -> bytes:
    """The bytes the server signs for a policy document given as its exact bytes."""
    return f"quarterdeck-policy-v1\n{node}\n{digest(policy)}\n".encode()


def agent_file_message(file_digest: str) -> bytes:
    """The bytes the server signs for the agent as one file, so that relays pass on no other."""
    return f"quarterdeck-agent-file-v1\n{file_digest}\n".encode()


def parcel_message(kind: str, node: str, body: bytes) -> bytes:
    """The bytes that are signed for a parcel: by a node ("report", "inventory"), or for one ("command")."""
    return f"quarterdeck-parcel-v1\n{kind}\n{node}\n{digest(body)}\n".encode()


def pack_payload(document: Any) -> bytes:
    """Compress a payload; equal documents give equal bytes."""
    return gzip.compress(canonical(document), compresslevel=6, mtime=0)


def decode_payload(body: bytes) -> Dict[str, Any]:
    """Decompress and decode a payload; see `Parcel.payload`."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as stream:
            raw = stream.read(MAX_PAYLOAD_BYTES + 1)
    except (OSError, EOFError) as error:
        raise BadDocument(f"The payload is not gzip: {error}") from error
    if len(raw) > MAX_PAYLOAD_BYTES:
        raise BadDocument(f"The payload is larger than {MAX_PAYLOAD_BYTES} bytes.")
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise BadDocument(f"The payload is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadDocument("The payload is not a JSON object.")
    return document


def wrap_parcel(kind: str, node: str, signature: str, body: bytes) -> bytes:
    """The parcel's bytes on disk and on the wire; `signature` is base64."""
    header = {"format": FORMAT, "kind": kind, "node": node, "signature": signature}
    return canonical(header) + b"\n" + body


def open_parcel(data: bytes) -> Parcel:
    """Take a parcel apart without verifying it.

    Raises BadDocument when its first line is not the agreed header.
    """
    line, found, body = data.partition(b"\n")
    if not found:
        raise BadDocument("A parcel begins with a line of JSON.")
    try:
        header = json.loads(line)
    except ValueError as error:
        raise BadDocument(f"The parcel's first line is not JSON: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise BadDocument(f"The parcel is not of format {FORMAT}.")
    fields: List[Optional[str]] = [header.get(name) for name in ("kind", "node", "signature")]
    kind, node, signature = fields
    if not (isinstance(kind, str) and isinstance(node, str) and isinstance(signature, str)):
        raise BadDocument("The parcel's header lacks kind, node or signature.")
    return Parcel(kind, node, signature, body)


def spki_of_certificate(der: bytes) -> bytes:
    """The SubjectPublicKeyInfo, as DER, of a DER X.509 certificate; what a pin hashes.

    Raises BadDocument when the structure is not that of a certificate.
    """
    try:
        _, start, _ = _der_header(der, 0)
        _, position, _ = _der_header(der, start)
        tag, _, end = _der_header(der, position)
        if tag == 0xA0:  # explicit version
            position = end
        for _ in range(5):  # serial, algorithm, issuer, validity, subject
            _, _, position = _der_header(der, position)
        tag, _, end = _der_header(der, position)
    except IndexError as error:
        raise BadDocument("Not a DER certificate.") from error
    if tag != 0x30:
        raise BadDocument("Not a DER certificate.")
    return der[position:end]


def _der_header(data: bytes, position: int) -> Tuple[int, int, int]:
    """Tag, first byte of the content, and the byte after it, of the DER element at `position`."""
    tag, length, position = data[position], data[position + 1], position + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[position : position + count], "big")
        position += count
    return tag, position, position + length
