# SPDX-License-Identifier: Apache-2.0
"""Settings that administrators change while the server runs. What a daemon reads at start is `daemon/config.py`.

Only settings that something reads stand here; a dialect that names more of them says so itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.core.modes import OwnMode, PolicyMode
from quarterdeck.core.nodes import AgentSchedule, NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    global_policy_mode: PolicyMode = PolicyMode.ENFORCE
    global_policy_mode_overridable: bool = True
    run_frequency: int = 5
    first_run_hour: int = 0
    first_run_minute: int = 0
    splay_time: int = 4
    #: full-compliance | changes-only | reports-disabled
    reporting_mode: str = "full-compliance"
    heartbeat_frequency: int = 1
    enable_change_message: bool = True
    mandatory_change_message: bool = False
    node_onaccept_default_state: NodeState = NodeState.ENABLED
    node_onaccept_default_policy_mode: OwnMode = None
    node_accept_duplicated_hostname: bool = False
    #: all | none | onlyManual
    generation_policy: str = "all"
    generation_continue_on_error: bool = False
    unexpected_unbound_var_values: bool = True

    @property
    def schedule(self) -> AgentSchedule:
        """The schedule of nodes without one of their own."""
        return AgentSchedule(
            interval_minutes=self.run_frequency,
            start_hour=self.first_run_hour,
            start_minute=self.first_run_minute,
            splay_minutes=self.splay_time,
        )
