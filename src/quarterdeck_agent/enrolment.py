# SPDX-License-Identifier: Apache-2.0
"""Making this machine a node of a server: key, request, what the answer settles, first inventory."""

from __future__ import annotations

import os
import time
from typing import Dict, List, NamedTuple

from quarterdeck_agent import __version__, keys, storing
from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import Refused, Unreachable
from quarterdeck_agent.facts import full_hostname
from quarterdeck_agent.keys import Key
from quarterdeck_agent.parcels import Queue
from quarterdeck_agent.run import collect_inventory
from quarterdeck_agent.state import StateDirectory

_POLL_SECONDS = 1.0


class Enrolment(NamedTuple):
    """How an enrolment ended."""

    node: str
    #: pending | accepted
    status: str
    problems: List[str]


def enroll(state: StateDirectory, server: str, pin: str, token: str, accept_wait: float) -> Enrolment:
    """Enrol at `server` and wait at most `accept_wait` seconds to be accepted.

    Raises Locked, NoProvider, Refused, Unreachable, Untrusted.
    """
    with state.lock():
        node = state.node_id()
        key = own_key(state, node)
        client = Client(server, pin, key, node)
        try:
            return _enroll(state, client, key, node, {"server": server, "pin": pin}, token, accept_wait)
        finally:
            client.close()


def own_key(state: StateDirectory, node: str) -> Key:
    """The node's key and certificate, made or renewed where needed. Raises NoProvider, AgentError."""
    if not os.path.exists(state.at(keys.KEY_FILE)):
        return keys.generate(state.path, node)
    if not os.path.exists(state.at(keys.CERTIFICATE_FILE)):
        return keys.certify(state.path, keys.load_private(state.path), node)
    key = keys.load(state.path)
    if keys.certified_node(key.certificate) == node:
        return key
    return keys.certify(state.path, key.private, node)


def _enroll(
    state: StateDirectory, client: Client, key: Key, node: str, settings: Dict[str, str], token: str, accept_wait: float
) -> Enrolment:
    answer = client.enroll(
        {
            "node": node,
            "hostname": full_hostname(),
            "certificate": key.certificate,
            "token": token,
            "agent_version": __version__,
        }
    )
    storing.remove(state.at("policy"))  # of an earlier server, if any
    status = answer["status"]
    state.save_settings({**settings, "policy_key": answer["policy_key"], "status": status})
    problems = _send_inventory(state, client, key, node)
    deadline = time.monotonic() + accept_wait
    while status != "accepted" and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        status = "accepted" if _is_accepted(client) else status
    state.save_settings({**settings, "policy_key": answer["policy_key"], "status": status})
    return Enrolment(node, status, problems)


def _send_inventory(state: StateDirectory, client: Client, key: Key, node: str) -> List[str]:
    queue = Queue(state.at("queue"), state.at("refused"))
    foreign = queue.set_aside_foreign(node, key.public_pem())
    queue.add("inventory", node, key, collect_inventory(node))
    state.remember(last_inventory=int(time.time()))
    problems = [f"{len(foreign)} parcel(s) of an earlier identity were put away."] if foreign else []
    return problems + queue.flush(client.send).problems


def _is_accepted(client: Client) -> bool:
    """Whether the server has a policy for this node; a refusal or a lost connection only means: not yet."""
    try:
        client.policy("")
    except (Refused, Unreachable):
        return False
    return True
