# SPDX-License-Identifier: Apache-2.0
"""From bytes to a policy this node may obey: the signature first, then the form, then whose it is."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, List, Mapping, Optional, cast

from quarterdeck_agent import documents, keys
from quarterdeck_agent.client import Client
from quarterdeck_agent.errors import Untrusted
from quarterdeck_agent.state import StateDirectory

_FIELDS = {
    "config_id": str,
    "schedule": dict,
    "reporting": str,
    "heartbeat_runs": int,
    "conditions": list,
    "properties": dict,
    "policies": list,
}
_ITEM_FIELDS = {"rule": str, "directive": str, "name": str, "mode": str, "items": list}
_BLOCK_FIELDS = {"condition": str, "items": list}
_CALL_FIELDS = {
    "id": str,
    "component": str,
    "method": str,
    "value": str,
    "condition": str,
    "params": dict,
    "report": bool,
}
_RESOURCE_FIELDS = {"path": str, "sha256": str, "size": int}
_DIGEST = re.compile("[0-9a-f]{64}")
_TECHNIQUE = re.compile("[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


def verified(body: bytes, signature: str, node: str, policy_key: str) -> documents.Policy:
    """The policy in `body`. Raises Untrusted unless the server signed it for `node` and it is complete."""
    try:
        signed = base64.b64decode(signature, validate=True)
    except binascii.Error:
        signed = b""
    if not signed or not keys.verify(policy_key, documents.policy_message(node, body), signed):
        raise Untrusted("The policy is not signed by this node's server; it was not obeyed.")
    try:
        document: Any = json.loads(body)
    except ValueError as error:
        raise Untrusted(f"The signed policy is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != documents.FORMAT:
        raise Untrusted(f"The policy is not of format {documents.FORMAT}; update the agent.")
    if document.get("node") != node:
        raise Untrusted(f"The policy belongs to node {document.get('node')}; it was not obeyed.")
    _check(document, _FIELDS, "document")
    for item in document["policies"]:
        _check(item, _ITEM_FIELDS, "directive")
        _check_items(item["items"])
        if "resources" in item:
            _check_resources(item)
    return cast("documents.Policy", document)


def _check_items(items: List[Any]) -> None:
    """Raises Untrusted unless every block and call has what the engine reads."""
    for item in items:
        is_block = isinstance(item, dict) and item.get("type") == "block"
        _check(item, _BLOCK_FIELDS if is_block else _CALL_FIELDS, "block" if is_block else "call")
        if is_block:
            _check_items(item["items"])


def _check_resources(item: Mapping[str, Any]) -> None:
    """Raises Untrusted unless all files of a technique stay below a directory of its own."""
    _check(item, {"technique": str, "version": str, "resources": list}, "directive")
    if not (_TECHNIQUE.fullmatch(item["technique"]) and _VERSION.fullmatch(item["version"])):
        raise Untrusted("The policy holds resources of a technique without a usable name; it was not obeyed.")
    for one in item["resources"]:
        _check(one, _RESOURCE_FIELDS, "resource")
        segments = one["path"].split("/")
        if "\0" in one["path"] or {"", ".", ".."}.intersection(segments) or not _DIGEST.fullmatch(one["sha256"]):
            raise Untrusted(f"The policy holds a resource that cannot be kept, {one['path']!r}; it was not obeyed.")


def _check(found: Any, fields: Mapping[str, Any], what: str) -> None:
    for name, kind in fields.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise Untrusted(f"The policy holds a {what} without a usable {name}; it was not obeyed.")


def cached(state: StateDirectory, node: str, policy_key: str) -> Optional[documents.Policy]:
    """The policy of the last update, verified again; None when there is none. Raises Untrusted."""
    found = state.policy()
    if found is None:
        return None
    header, body = found
    return verified(body, header.get("signature", ""), node, policy_key)


def update(state: StateDirectory, client: Client, node: str, policy_key: str) -> bool:
    """Fetch the policy if it changed and cache it once verified; whether it changed.

    Raises Untrusted (the cached one stays), Refused, Unreachable.
    """
    offered = client.policy(_usable_etag(state, node, policy_key))
    if offered is None:
        return False
    verified(offered.body, offered.signature, node, policy_key)
    state.save_policy(offered.signature, offered.etag, offered.body)
    return True


def _usable_etag(state: StateDirectory, node: str, policy_key: str) -> str:
    """The etag of the cached policy, empty when that policy may not be obeyed and must be fetched again."""
    try:
        found = state.policy()
        if found is None or cached(state, node, policy_key) is None:
            return ""
    except Untrusted:
        return ""
    return found[0].get("etag", "")
