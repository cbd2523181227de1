# SPDX-License-Identifier: Apache-2.0
"""`info`: what this agent is, whom it obeys, and when it last did what. Only reads."""

from __future__ import annotations

import os
import time
from typing import Any, Dict

from quarterdeck_agent import __version__, documents, facts, keys, policy, rsa
from quarterdeck_agent.errors import AgentError
from quarterdeck_agent.state import StateDirectory


def gather(state: StateDirectory) -> Dict[str, Any]:
    """The facts, in the order in which they are shown."""
    memory, history = state.memory(), state.history()
    found: Dict[str, Any] = {
        "node": state.node_id(),
        "hostname": facts.full_hostname(),
        "version": __version__,
        "state_directory": state.path,
        "server": "not enrolled",
    }
    try:
        settings = state.settings()
        found.update(server=settings.server, pin=settings.pin or "none: certificate authorities of the system")
        found["key"] = "sha256:" + documents.digest(rsa.public_of(keys.load(state.path).private))
        found.update(_policy_facts(policy.cached(state, found["node"], settings.policy_key)))
    except AgentError as error:
        found["problem"] = str(error)
    found["last_update"] = _shown(memory.get("last_update", 0))
    found["last_inventory"] = _shown(memory.get("last_inventory", 0))
    found["last_run"] = history[-1]["start"] if history else "never"
    found["queued"] = len([name for name in os.listdir(state.at("queue")) if name.endswith(".parcel")])
    return found


def _policy_facts(found: Any) -> Dict[str, Any]:
    if found is None:
        return {"configuration": "none yet"}
    return {
        "configuration": found["config_id"],
        "directives": len(found["policies"]),
        "reporting": found["reporting"],
        "interval": f"{found['schedule']['interval_minutes']} minutes",
    }


def _shown(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(moment)) if moment else "never"
