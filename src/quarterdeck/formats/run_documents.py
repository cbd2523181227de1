# SPDX-License-Identifier: Apache-2.0
"""The payload of a report parcel, decoded strictly and within bounds, and what of it is the same from run to run."""

from __future__ import annotations

import hashlib
import zlib
from datetime import datetime
from functools import cached_property

import msgspec

from quarterdeck.core.errors import Invalid
from quarterdeck.core.expected_reports import NO_VALUE, ReceivedReport
from quarterdeck.formats import agent, runlog
from quarterdeck.formats.runlog import RunLog

MAX_BYTES = 16 * 1024 * 1024
MAX_REPORTS = 50_000
MAX_LOG_LINES = 10_000
DIGEST_BYTES = 16

#: status -> the small number that is stored
CODES = {status: code for code, status in enumerate(agent.REPORT_STATUSES)}
#: Their messages may differ from run to run without telling anything.
_GOOD = frozenset({"result_success", "result_na", "audit_compliant", "audit_na"})


class Report(msgspec.Struct, frozen=True):
    """The outcome of one component value."""

    rule: str
    directive: str
    id: str
    component: str
    value: str
    status: str
    message: str


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A warning or worse of the run itself; what genuine agents say of a report in particular names it, too."""

    level: str = ""
    message: str = ""
    rule: str = ""
    directive: str = ""
    id: str = ""
    component: str = ""
    value: str = ""


class _Payload(msgspec.Struct, frozen=True):
    format: int
    node: str
    config_id: str
    start: datetime
    end: datetime
    reports: list[Report]
    agent_version: str = ""
    log: list[LogLine] = []  # msgspec copies it


class Run:
    """One run of an agent. Times are aware. Not `complete`: a part of one, which says nothing about compliance."""

    def __init__(self, payload: _Payload, *, complete: bool = True) -> None:
        self.complete = complete
        self.node = payload.node
        self.config_id = payload.config_id
        self.start = payload.start
        self.end = payload.end
        self.reports = payload.reports
        self._payload = payload

    @property
    def duration_ms(self) -> int:
        """How long it took; never negative."""
        return min(max(0, round((self.end - self.start).total_seconds() * 1000)), 2**31 - 1)

    @cached_property
    def digest(self) -> bytes:
        """Equal for runs that found the same, whenever they ran."""
        reports = [
            (one.rule, one.directive, one.id, one.component, one.value, one.status)
            if one.status in _GOOD
            else (one.rule, one.directive, one.id, one.component, one.value, one.status, one.message)
            for one in self.reports
        ]
        content = msgspec.json.encode((self._payload.agent_version, self._payload.log, reports))
        return hashlib.sha256(content).digest()[:DIGEST_BYTES]

    def body(self) -> bytes:
        """What the run reported, without times, as JSON."""
        known = self._payload
        return msgspec.json.encode({"agent_version": known.agent_version, "log": known.log, "reports": known.reports})

    def received(self) -> list[ReceivedReport]:
        """The reports as compliance takes them."""
        return [received(one) for one in self.reports]


def received(one: Report) -> ReceivedReport:
    """A report as compliance takes it."""
    return ReceivedReport(
        one.rule, one.directive, one.id, one.component, one.value or NO_VALUE, one.status, one.message
    )


def is_good(status: str) -> bool:
    """Whether a report of this status says that all is as it should be."""
    return status in _GOOD


_decoder = msgspec.json.Decoder(_Payload)


def decode(data: bytes) -> Run:
    """Read the body of a report parcel. Raises Invalid, in words that name what is wrong."""
    try:
        payload = _decoder.decode(_decompressed(data))
    except msgspec.ValidationError as error:
        raise Invalid(f"The report is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The report is not JSON: {error}") from error
    if payload.format != agent.FORMAT:
        raise Invalid(f"The report is not of format {agent.FORMAT}.")
    if payload.start.tzinfo is None or payload.end.tzinfo is None:
        raise Invalid("The times of a report need an offset.")
    if len(payload.reports) > MAX_REPORTS:
        raise Invalid(f"The run has more than {MAX_REPORTS} reports.")
    if len(payload.log) > MAX_LOG_LINES:
        raise Invalid(f"The run's log has more than {MAX_LOG_LINES} lines.")
    unknown = next((one.status for one in payload.reports if one.status not in CODES), None)
    if unknown is not None:
        raise Invalid(f"'{unknown}' is not a status of reports.")
    return Run(payload)


def of_run_log(found: RunLog) -> Run:
    """The run that a genuine agent's log tells of, which has at least one event. Raises Invalid."""
    first = found.events[0]
    # Its marks say what it was about; what no status counts is a line of its log.
    told = [one for one in found.events if one.kind != runlog.CONTROL]
    reports = [
        Report(one.rule, one.directive, one.report_id, one.component, one.key, one.kind, one.message)
        for one in told
        if one.kind in CODES
    ]
    log = [
        LogLine(one.kind, one.message, one.rule, one.directive, one.report_id, one.component, one.key)
        for one in told
        if one.kind not in CODES
    ]
    if len(reports) > MAX_REPORTS:
        raise Invalid(f"The run has more than {MAX_REPORTS} reports.")
    payload = _Payload(
        format=agent.FORMAT,
        node=first.node,
        config_id=found.config_id or "",
        start=first.start,
        end=found.events[-1].at,
        reports=reports,
        log=log[:MAX_LOG_LINES],
    )
    return Run(payload, complete=found.complete)


def announced_bytes(data: bytes) -> int:
    """How long a parcel's body says it is when decompressed; what is really longer is refused by `decode`."""
    return min(int.from_bytes(data[-4:], "little"), MAX_BYTES)


def _decompressed(data: bytes) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise Invalid(f"The report is not gzip: {error}.") from error
    if reader.unconsumed_tail:
        raise Invalid(f"The report is larger than {MAX_BYTES} bytes.")
    if not reader.eof:
        raise Invalid("The report's gzip data ends too early.")
    if reader.unused_data:  # its end would announce another length than the one that was read
        raise Invalid("Something follows the report's gzip data.")
    # No database keeps this character in text.
    return content.replace(b"\\u0000", b"\\ufffd") if b"\\u0000" in content else content
