# SPDX-License-Identifier: Apache-2.0
"""One run, from the lock to the acknowledged report: fetch, verify, apply, remember, send.

What a call does is in `engine.py`; what is printed is in `__main__.py`.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from quarterdeck_agent import __version__, documents, facts, keys, policy, resources
from quarterdeck_agent.client import Client
from quarterdeck_agent.documents import Policy, Report
from quarterdeck_agent.engine import Engine
from quarterdeck_agent.errors import AgentError, Refused, Unreachable, Untrusted
from quarterdeck_agent.exchange import Exchange
from quarterdeck_agent.outcome import METHODS, Facts, Method
from quarterdeck_agent.parcels import Queue
from quarterdeck_agent.state import StateDirectory

#: Refusals that mean "an operator has to accept this node first".
WAITING_CODES = ("not_accepted",)

_SECONDS_PER_DAY = 24 * 3600
_INVENTORY_WINDOW_SECONDS = 6 * 3600
_INVENTORY_SPACING_SECONDS = 8 * 3600
_CHANGES = ("result_repaired", "result_error", "audit_noncompliant", "audit_error")


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    #: Audit everything, change nothing, send nothing.
    audit_only: bool = False
    #: Ask the server for a newer policy first.
    update: bool = True
    #: What holds during this run, beside what the machine and the policy say.
    conditions: Tuple[str, ...] = ()
    #: Called with each report as soon as it is there, and the directives' names.
    show: Optional[Callable[[Report, Mapping[str, str]], None]] = None


@dataclass
class RunResult:
    """What one run came to."""

    start: float = 0.0
    end: float = 0.0
    run_id: str = ""
    config_id: str = ""
    #: True: the server has not accepted this node yet and there is nothing to apply.
    waiting: bool = False
    reports: List[Report] = field(default_factory=list)
    #: Names of the directives, for people.
    names: Dict[str, str] = field(default_factory=dict)
    log: List[Dict[str, str]] = field(default_factory=list)
    #: Parcels that wait for the server.
    queued: int = 0

    def warn(self, message: str) -> None:
        """Add a line to the run's log."""
        self.log.append({"time": rfc3339(time.time()), "level": "warning", "message": message})

    def counts(self) -> Dict[str, int]:
        """Number of reports by status."""
        found: Dict[str, int] = {}
        for report in self.reports:
            found[report["status"]] = found.get(report["status"], 0) + 1
        return found


def perform(state: StateDirectory, options: Options, methods: Optional[Mapping[str, Method]] = None) -> RunResult:
    """Carry out one run.

    Raises NotEnrolled, Locked, and AgentError when there is no policy to obey.
    """
    with state.lock():
        return _Run(state, options, _all_methods() if methods is None else methods).carry_out()


class _Run:
    """The parts of one run, which share the state directory, the connection and the log."""

    def __init__(self, state: StateDirectory, options: Options, methods: Mapping[str, Method]) -> None:
        state.clean()
        self._state = state
        self._options = options
        self._methods = methods
        self._settings = state.settings()
        self._node = state.node_id()
        self._key = keys.load(state.path)
        self._client = Client(self._settings.server, self._settings.pin, self._key, self._node)
        self._queue = Queue(state.at("queue"), state.at("refused"))
        self._result = RunResult(start=time.time(), run_id=str(uuid.uuid4()))
        self._refusal: Optional[AgentError] = None

    def carry_out(self) -> RunResult:
        try:
            if self._options.update:
                self._update()
            found = policy.cached(self._state, self._node, self._settings.policy_key)
            if found is not None:
                self._apply(*self._with_resources(found))
            else:
                self._without_policy()
            if not self._options.audit_only:
                self._add_inventory_if_due()
                self._send()
            return self._result
        finally:
            self._client.close()

    def _update(self) -> None:
        try:
            policy.update(self._state, self._client, self._node, self._settings.policy_key)
            self._state.remember(last_update=int(time.time()))
        except OSError as error:
            self._result.warn(f"The policy could not be kept: {error}")
        except Refused as error:
            self._result.waiting = error.code in WAITING_CODES
            self._refusal = error
        except (Unreachable, Untrusted) as error:
            self._refusal = error

    def _without_policy(self) -> None:
        if self._result.waiting:
            self._result.warn(str(self._refusal))
        else:
            raise self._refusal or AgentError("There is no policy yet; run again without --no-update.")

    def _with_resources(self, found: Policy) -> Tuple[Policy, Mapping[resources.Key, resources.Place]]:
        """The policy, or one that came meanwhile, and the files of its techniques."""
        laid_out = self._lay_out(found)
        if laid_out.refused and self._options.update:
            # What the server does not give any more, its present policy does not name.
            self._update()
            newer = policy.cached(self._state, self._node, self._settings.policy_key)
            if newer is not None and newer["config_id"] != found["config_id"]:
                found, laid_out = newer, self._lay_out(newer)
        for place in laid_out.places.values():
            if place.problem:
                self._result.warn(place.problem)
        return found, laid_out.places

    def _lay_out(self, found: Policy) -> resources.LaidOut:
        if not self._options.update:
            return resources.lay_out(self._state.path, found, None, "It was not fetched with the policy.")
        if isinstance(self._refusal, (Unreachable, Untrusted)):  # it would only time out again
            return resources.lay_out(self._state.path, found, None, str(self._refusal))
        return resources.lay_out(self._state.path, found, self._client.download)

    def _apply(self, found: Policy, places: Mapping[resources.Key, resources.Place]) -> None:
        result, state = self._result, self._state
        result.waiting = False
        if self._refusal is not None:
            result.warn(f"The policy of the last update is used: {self._refusal}")
        result.config_id = found["config_id"]
        result.names = {item["directive"]: item["name"] for item in found["policies"]}
        known = _known_before(state.at("persistent"))
        known.conditions.update(self._options.conditions)
        engine = Engine(
            self._methods,
            known,
            audit_only=self._options.audit_only,
            backups=state.at("backups"),
            persistent=state.at("persistent"),
            server=Exchange(self._client, self._key, self._node),
            resources=places,
        )
        for report in engine.apply(found):
            result.reports.append(report)
            if self._options.show is not None:
                self._options.show(report, result.names)
        for problem in engine.problems:
            result.warn(problem)
        result.end = time.time()
        if not self._options.audit_only:
            self._follow_schedule(found)
        self._remember(found)

    def _remember(self, found: Policy) -> None:
        """Keep what came out of the run; a full disk must not hide it from whoever started the run."""
        try:
            if not self._options.audit_only:
                self._enqueue_report(found)
            self._state.add_history(history_entry(self._result, self._options))
        except OSError as error:
            self._result.warn(f"The result of this run could not be kept: {error}")

    def _follow_schedule(self, found: Policy) -> None:
        """Let an installed timer follow the policy's interval."""
        minutes = found["schedule"]["interval_minutes"]
        if self._state.memory().get("service_minutes", minutes) == minutes:
            return
        from quarterdeck_agent import service  # rarely needed

        try:
            service.follow(self._state, minutes)
        except (AgentError, OSError) as error:
            self._result.warn(f"The schedule could not be changed to {minutes} minutes: {error}")

    def _enqueue_report(self, found: Policy) -> None:
        result = self._result
        reports = result.reports
        if found["reporting"] == "reports-disabled":
            return
        if found["reporting"] == "changes-only" and not self._full_report_is_due(found):
            reports = [report for report in reports if report["status"] in _CHANGES]
        run: documents.Run = {
            "format": documents.FORMAT,
            "node": self._node,
            "run_id": result.run_id,
            "config_id": result.config_id,
            # By the server's clock where ours is known to be off: it judges by these whether a run is recent.
            "start": rfc3339(result.start + self._client.offset),
            "end": rfc3339(result.end + self._client.offset),
            "agent_version": __version__,
            "reports": reports,
            "log": result.log,
        }
        self._enqueue("report", run)

    def _full_report_is_due(self, found: Policy) -> bool:
        """Count this run; true every `heartbeat_runs` runs and for the first run of a configuration."""
        memory = self._state.memory()
        since = memory.get("runs_since_full", 0) + 1
        due = since >= found["heartbeat_runs"] or memory.get("full_config_id") != found["config_id"]
        self._state.remember(runs_since_full=0 if due else since, full_config_id=found["config_id"])
        return bool(due)

    def _add_inventory_if_due(self) -> None:
        now = time.time()
        if not inventory_is_due(self._node, float(self._state.memory().get("last_inventory", 0)), now):
            return
        try:
            self._enqueue("inventory", collect_inventory(self._node))
            self._state.remember(last_inventory=int(now))
        except OSError as error:
            self._result.warn(f"The inventory could not be kept: {error}")

    def _enqueue(self, kind: str, payload: object) -> None:
        for problem in self._queue.add(kind, self._node, self._key, payload):
            self._result.warn(problem)

    def _send(self) -> None:
        if isinstance(self._refusal, Unreachable):  # it would only time out again
            self._result.queued = len(self._queue.waiting())
            return
        flushed = self._queue.flush(self._client.send)
        self._result.queued = flushed.waiting
        for problem in flushed.problems:
            self._result.warn(problem)


def inventory_is_due(node: str, last: float, now: float) -> bool:
    """Once a day at a moment of the night that the node id chooses; at once when there was none. Unix times."""
    if last <= 0 or last > now:
        return True
    local = time.localtime(now)
    midnight = now - (local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec)
    turn = midnight + uuid.UUID(node).int % _INVENTORY_WINDOW_SECONDS
    if turn > now:
        turn -= _SECONDS_PER_DAY
    return last < turn and now - last >= _INVENTORY_SPACING_SECONDS


def splay_seconds(node: str, splay_minutes: int) -> int:
    """How long this node waits before a scheduled run: always the same, spread evenly over the nodes."""
    return uuid.UUID(node).int % (splay_minutes * 60) if splay_minutes > 0 else 0


def collect_inventory(node: str) -> documents.Inventory:
    """The inventory of this machine now."""
    from quarterdeck_agent import inventory  # once a day; a run without it starts faster

    return inventory.collect(node)


def history_entry(result: RunResult, options: Options) -> Dict[str, object]:
    """What is remembered of a run."""
    return {
        "run_id": result.run_id,
        "start": rfc3339(result.start),
        "seconds": round(result.end - result.start, 3),
        "config_id": result.config_id,
        "mode": "audit" if options.audit_only else "policy",
        "counts": result.counts(),
        "problems": [line["message"] for line in result.log],
    }


def rfc3339(moment: float) -> str:
    """A Unix time as RFC 3339, UTC, milliseconds."""
    whole, milliseconds = divmod(round(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}+00:00"


def _known_before(persistent: str) -> Facts:
    """Facts of the machine, with the conditions that earlier runs left behind."""
    from quarterdeck_agent.methods import conditions  # loaded with the methods, which only a run needs

    known = facts.gather()
    known.conditions |= conditions.persistent(persistent)
    return known


def _all_methods() -> Mapping[str, Method]:
    from quarterdeck_agent import methods  # noqa: F401  importing it registers them; only a run needs them

    return METHODS
