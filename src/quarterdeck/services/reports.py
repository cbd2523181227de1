# SPDX-License-Identifier: Apache-2.0
"""Reports of agents: taken onto the spool at once, into the database in batches.

What a request proved is checked before the spool; what can only be known from the database when a batch is kept
(does the node exist, is its key still the one) is checked again there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from quarterdeck.core.agent_requests import BadSignature, Signed
from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import NodeStatus
from quarterdeck.core.run_states import RunState
from quarterdeck.formats import agent, report_files, run_documents, signature
from quarterdeck.formats.run_documents import Run
from quarterdeck.relaying.spool import Rejection, Spool
from quarterdeck.services import compliance, run_logs
from quarterdeck.services.agent_requests import Gate
from quarterdeck.services.context import Context
from quarterdeck.storage.agent_requests import KnownKey
from quarterdeck.storage.compliance import Subject
from quarterdeck.storage.reports import Known, ReportKey, RunRow, StateRow, StatusRow

#: Runs of a day lie in one partition; these many are made ahead, and these many are kept.
DAYS_AHEAD = 3
DAYS_KEPT = 4
#: A run that claims to begin later than this after its arrival is nobody's.
_MOST_AHEAD = timedelta(days=1)


#: What the files of one batch hold at most, unpacked, before it is better done in parts; a file may lie about that.
_MOST_UNPACKED = 64 * 1024 * 1024


class BatchTooLong(Exception):
    """The records of a batch unpack to more than is wise to hold at once; nothing of it was kept."""


class Slip(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands in front of a spooled parcel, or of a genuine agent's file, whose name is `file` then.

    `key` is the digest of the key that verified a parcel; files are verified when they are kept.
    """

    node: str
    nonce: str
    #: Unix time of arrival
    at: float
    key: str
    file: str = ""


def key_digest(pem: str) -> str:
    """Tells one key from another."""
    return hashlib.sha256(pem.encode()).hexdigest()[:32]


def receive(ctx: Context, gate: Gate, spool: Spool, signed: Signed, data: bytes) -> None:
    """Take a report parcel; it is durable when this returns.

    Raises the errors of `Gate.admit_reporter`, Invalid when the parcel itself is at fault, Unavailable.
    """
    known = gate.admit_reporter(ctx, signed)
    try:
        parcel = agent.open_parcel(data)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    if parcel.kind != "report":
        raise Invalid(f"The parcel is a {parcel.kind}, not a report.")
    if parcel.node != signed.node:
        raise BadSignature("A node can only report about itself.")
    if not signature.verify(known.pem, parcel.message(), signature.decode_base64(parcel.signature)):
        raise Invalid("The report is not signed with this node's key.")
    slip = Slip(node=signed.node, nonce=signed.nonce, at=gate.clock(), key=key_digest(known.pem))
    spool.append(pack(slip, data))


def pack(slip: Slip, parcel: bytes) -> bytes:
    """A record of the spool."""
    return msgspec.json.encode(slip) + b"\n" + parcel


def announced_bytes(record: bytes) -> int:
    """About how much a record unpacks to, as far as it says so itself."""
    end = record.find(b"\n")
    if b'"file":' not in record[:end]:
        return run_documents.announced_bytes(record)
    try:
        return report_files.announced_bytes(unpack(record[: end + 1])[0].file, record)
    except Invalid:
        return len(record)


def pack_file(name: str, node: str, at: float, content: bytes) -> bytes:
    """A record of the spool that holds a genuine agent's file, which arrived at a Unix time."""
    return pack(Slip(node=node, nonce="", at=at, key="", file=name), content)


def unpack(record: bytes) -> tuple[Slip, bytes]:
    """Slip and parcel of a record. Raises Invalid."""
    line, _, parcel = record.partition(b"\n")
    try:
        return msgspec.json.decode(line, type=Slip), parcel
    except msgspec.MsgspecError as error:
        raise Invalid(f"The record's first line is not a slip: {error}") from error


# -- a batch, from the spool into the database --------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Arrival:
    """One record of a batch. `at` is when the run began, but never later than its arrival."""

    position: int
    slip: Slip
    parcel: bytes
    run: Run

    @property
    def at(self) -> datetime:
        return min(self.run.start, datetime.fromtimestamp(self.slip.at, UTC))


def ingest(ctx: Context, records: Sequence[bytes], *, keep_raw: bool = True) -> list[Rejection]:
    """Keep a batch of spooled reports; those that can never be kept."""
    arrivals, rejected = _read(ctx, records)
    nodes = sorted({one.run.node for one in arrivals})
    ctx.store.reports.lock(nodes)
    arrivals = _vouched(ctx, arrivals, rejected)
    ctx.store.agent_requests.remember_nonces(
        (one.slip.node, one.slip.nonce, datetime.fromtimestamp(one.slip.at, UTC)) for one in arrivals if one.slip.nonce
    )
    arrivals = _without_parts(ctx, arrivals)
    known = ctx.store.reports.known(nodes)
    fresh = _keep_runs(ctx, arrivals)
    _keep_contents(ctx, fresh, known, keep_raw=keep_raw)
    latest = _latest(fresh, known)
    _keep_states(ctx, [one for one in latest if one.run.digest != known[NodeId(one.run.node)].run_digest])
    _judge(ctx, latest, known)
    return rejected


def _read(ctx: Context, records: Sequence[bytes]) -> tuple[list[_Arrival], list[Rejection]]:
    opened, rejected = [], list[Rejection]()
    for position, record in enumerate(records):
        try:
            opened.append((position, *unpack(record)))
        except Invalid as error:
            rejected.append(Rejection(position, error.message))
    keys = run_logs.keys(ctx, {slip.node for _, slip, _ in opened if slip.file})
    arrivals: list[_Arrival] = []
    room = _MOST_UNPACKED
    for position, slip, data in opened:
        try:
            if slip.file:
                text = run_logs.text_of(keys, slip.node, slip.file, data)
                room -= len(text)
                if room < 0 and arrivals:
                    raise BatchTooLong
                run = run_logs.run_of(slip.node, text)
            else:
                run = _run_of(slip, data)
            arrived = _timely(ctx.now, slip, run)
            _require_past(run, arrived)
            arrivals.append(_Arrival(position=position, slip=arrived, parcel=data, run=run))
        except run_logs.Stranger as error:
            rejected.append(Rejection(position, error.message, "invalid"))
        except Invalid as error:
            rejected.append(Rejection(position, error.message))
    return arrivals, rejected


def _run_of(slip: Slip, data: bytes) -> Run:
    """The run that a parcel of our own agent tells of."""
    try:
        parcel = agent.open_parcel(data)
    except agent.BadDocument as error:
        raise Invalid(str(error)) from error
    run = run_documents.decode(parcel.body)
    if not slip.node == parcel.node == run.node:
        raise Invalid(f"The report of node {parcel.node} is about node {run.node}.")
    return run


def _timely(now: datetime, slip: Slip, run: Run) -> Slip:
    """The slip, as of now when it comes from a relay that took the report long before it was made.

    Its clock was behind, as that of a machine without a battery is, and nobody above was there to tell it the time.
    """
    if slip.nonce or run.start <= datetime.fromtimestamp(slip.at, UTC) + _MOST_AHEAD:
        return slip
    return msgspec.structs.replace(slip, at=now.timestamp())


def _require_past(run: Run, slip: Slip) -> None:
    if run.start > datetime.fromtimestamp(slip.at, UTC) + _MOST_AHEAD:
        raise Invalid(f"The run claims to have begun at {run.start.isoformat()}, after it arrived.")


def _vouched(ctx: Context, arrivals: list[_Arrival], rejected: list[Rejection]) -> list[_Arrival]:
    """Those whose node is accepted and has the key that verified them, or one that verifies them now."""
    keys = ctx.store.agent_requests.keys({one.slip.node for one in arrivals})
    kept = []
    for one in arrivals:
        known = keys.get(NodeId(one.slip.node))
        if known is None or known.status is not NodeStatus.ACCEPTED:
            rejected.append(Rejection(one.position, f"There is no accepted node {one.slip.node}.", "invalid"))
        elif problem := _doubt(one, known):
            rejected.append(Rejection(one.position, problem))
        else:
            kept.append(one)
    return kept


def _doubt(one: _Arrival, known: KnownKey) -> str:
    if not one.slip.file and key_digest(known.pem) != one.slip.key:
        parcel = agent.open_parcel(one.parcel)
        signed = signature.decode_base64(parcel.signature)
        if not known.pem or not signature.verify(known.pem, parcel.message(), signed):
            return f"Node {one.slip.node} has another key by now than the one that signed the report."
    return ""


def _without_parts(ctx: Context, arrivals: Sequence[_Arrival]) -> list[_Arrival]:
    """The whole runs. Of a part, such as one directive asked for by hand, only the original is kept."""
    parts = [one for one in arrivals if not one.run.complete]
    ctx.store.reports.add_originals([(one.run.node, one.run.start, True, one.parcel) for one in parts])
    return [one for one in arrivals if one.run.complete]


def _keep_runs(ctx: Context, arrivals: Sequence[_Arrival]) -> list[_Arrival]:
    """Keep the runs; those that were not there yet, each once, oldest first."""
    rows = {(one.run.node, one.run.start): one for one in arrivals}
    added = ctx.store.reports.add_runs(
        [
            RunRow(one.run.node, one.run.start, one.run.duration_ms, one.run.config_id, one.run.digest)
            for one in rows.values()
        ]
    )
    return sorted((rows[key] for key in added), key=lambda one: one.run.start)


def _keep_contents(ctx: Context, fresh: Sequence[_Arrival], known: Mapping[NodeId, Known], *, keep_raw: bool) -> None:
    """Keep what the runs said, once per content, and the originals of those that said something new."""
    by_digest = {one.run.digest: one.run for one in fresh}
    missing = ctx.store.reports.missing_bodies(by_digest)
    ctx.store.reports.add_bodies({digest: by_digest[digest].body() for digest in missing})
    if not keep_raw:
        return
    last = {node: found.run_digest for node, found in known.items()}
    latest = {one.run.node: one for one in fresh}
    originals = []
    for one in fresh:
        node = NodeId(one.run.node)
        changed = last[node] != one.run.digest
        last[node] = one.run.digest
        if changed or latest[node] is one:
            originals.append((one.run.node, one.run.start, changed, one.parcel))
    ctx.store.reports.add_originals(originals)


def _latest(fresh: Sequence[_Arrival], known: Mapping[NodeId, Known]) -> list[_Arrival]:
    """The newest run of each node, where it is newer than what was known."""
    newest = {NodeId(one.run.node): one for one in fresh}
    return [one for node, one in sorted(newest.items()) if (last := known[node].last_run) is None or one.at > last]


def _keep_states(ctx: Context, changed: Sequence[_Arrival]) -> None:
    """Write only the reports that differ from those of the node's run before."""
    before = ctx.store.reports.states([one.run.node for one in changed]) if changed else {}
    gone: list[tuple[str, bytes]] = []
    new: list[tuple[str, bytes, StateRow]] = []
    for one in changed:
        old = before.get(NodeId(one.run.node), {})
        rows = _state_rows(one)
        gone += [(one.run.node, key) for key, row in old.items() if _differs(row, rows.get(key))]
        new += [
            (one.run.node, key, _since(old.get(key), row)) for key, row in rows.items() if _differs(row, old.get(key))
        ]
    if gone or new:
        ctx.store.reports.replace_states(gone, new)


def _state_rows(one: _Arrival) -> dict[bytes, StateRow]:
    ordinals: dict[tuple[str, ...], int] = {}
    rows = {}
    since = one.at
    for report in one.run.received():
        identity = (report.rule, report.directive, report.component, report.value, report.report_id)
        ordinal = ordinals[identity] = ordinals.get(identity, -1) + 1
        key = ReportKey(*identity, ordinal)
        rows[key.digest()] = StateRow(key, run_documents.CODES[report.kind], report.message, since)
    return rows


def _differs(row: StateRow, other: StateRow | None) -> bool:
    """Whether a row has to be written; the message of what is fine may differ."""
    if other is None or row.status != other.status:
        return True
    return row.message != other.message and not run_documents.is_good(agent.REPORT_STATUSES[row.status])


def _since(old: StateRow | None, row: StateRow) -> StateRow:
    """The row with the moment at which its status began."""
    return row._replace(since=old.since) if old is not None and old.status == row.status else row


def _judge(ctx: Context, latest: Sequence[_Arrival], known: Mapping[NodeId, Known]) -> None:
    """Decide about compliance, and note the runs; an unchanged run only counts longer."""
    statuses = []
    anew = []
    for one in latest:
        before = known[NodeId(one.run.node)]
        if _only_later(one, before) and before.valid_until is not None and before.last_run is not None:
            until = one.at + (before.valid_until - before.last_run)
            statuses.append(StatusRow(one.run.node, one.at, one.run.config_id, one.run.digest, until))
        else:
            anew.append(one)
    if anew:
        statuses += _judged_anew(ctx, anew)
    if statuses:
        ctx.store.reports.set_status(statuses)


def _only_later(one: _Arrival, before: Known) -> bool:
    """Whether the run says of the present configuration exactly what the one before said."""
    return (
        before.state == RunState.COMPUTE.value
        and before.run_digest == one.run.digest
        and before.config_id == before.run_config_id == one.run.config_id
    )


def _judged_anew(ctx: Context, anew: Sequence[_Arrival]) -> list[StatusRow]:
    runs = {NodeId(one.run.node): one for one in anew}
    accepted = ctx.store.compliance.subjects(runs)
    subjects = [Subject(one.node, runs[one.node].at, runs[one.node].run.config_id) for one in accepted]
    reports = {node: one.run.received() for node, one in runs.items()}
    verdicts = compliance.judge_all(ctx, subjects, reports)
    ctx.store.compliance.put([verdict.judged for verdict in verdicts])
    until = {verdict.judged.node: verdict.valid_until for verdict in verdicts}
    return [
        StatusRow(one.run.node, one.at, one.run.config_id, one.run.digest, until.get(node))
        for node, one in runs.items()
    ]


# -- partitions and retention ---------------------------------------------------------------


def prepare_partitions(ctx: Context) -> None:
    """Make the partitions of the next days, so that no run ever waits for one."""
    for ahead in range(-1, DAYS_AHEAD + 1):
        ctx.store.reports.ensure_partition((ctx.now + timedelta(days=ahead)).astimezone(UTC).date())


def forget_old_runs(ctx: Context, *, days: int = DAYS_KEPT) -> int:
    """Drop the runs of days that are older than `days`; how many days went. What nodes are now stays."""
    return ctx.store.reports.drop_runs_before((ctx.now - timedelta(days=days)).astimezone(UTC).date())
