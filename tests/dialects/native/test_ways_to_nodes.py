# SPDX-License-Identifier: Apache-2.0
"""Host keys, secrets and workers: what reaching and running takes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.dialects.native.conftest import Native
from tests.dialects.native.test_chapters import failed
from tests.dialects.native.test_runbooks import result
from tests.engine.worlds import World, until

from quarterdeck.core.connections import Address
from quarterdeck.formats import host_keys

HOST = Address("web1.example.com", 2222)
#: What ssh-keygen -l says of the key is known from elsewhere.
KNOWN_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
KNOWN_FINGERPRINT = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


def new_key(*, elliptic: bool = False) -> str:
    private = generate_private_key(SECP256R1()) if elliptic else Ed25519PrivateKey.generate()
    return private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def show(native: Native, key: str, *, trusted: bool) -> str:
    """The host shows a key; its fingerprint."""
    with native.unit_of_work() as ctx:
        ctx.store.host_keys.see(HOST, key, trusted=trusted)
    return host_keys.fingerprint(key)


def approve(native: Native, **named: str) -> dict[str, object]:
    document = {"host": HOST.host, "port": HOST.port, **named}
    return dict(result(native.ask("POST", "/host-keys/approve", "write", document)))


def listed(native: Native) -> dict[str, bool]:
    """Fingerprint -> trusted."""
    return {one["fingerprint"]: one["trusted"] for one in result(native.ask("GET", "/host-keys", "read"))}


def test_a_fingerprint_is_that_of_ssh_keygen() -> None:
    assert host_keys.fingerprint(KNOWN_KEY) == KNOWN_FINGERPRINT
    assert host_keys.fingerprint("no key") == ""


def test_approving_a_key_replaces_the_trusted_one_of_its_type_alone(native: Native) -> None:
    old, other = show(native, new_key(), trusted=True), new_key(elliptic=True)
    approve(native, key=f"{other} root@web1")
    new = show(native, new_key(), trusted=True)
    assert listed(native)[new] is False, "the first key is the only one that is trusted unseen"

    approved = approve(native, fingerprint=new)

    assert (approved["trusted"], approved["approvedBy"]) == (True, "write")
    assert listed(native) == {new: True, host_keys.fingerprint(other): True}
    assert old not in listed(native)
    events = result(native.ask("GET", f"/events/host_key/{HOST}", "read"))["events"]
    assert [(one["actor"], one["change"], len(one["after"]["keys"])) for one in events] == [
        ("write", "modified", 2),
        ("write", "modified", 2),
    ]


def test_a_key_that_a_host_never_showed_is_not_approved_by_its_fingerprint(native: Native) -> None:
    document = {"host": HOST.host, "port": HOST.port, "fingerprint": KNOWN_FINGERPRINT}
    both = document | {"key": KNOWN_KEY}
    rubbish = {"host": HOST.host, "key": "ssh-ed25519 AAAA"}

    assert failed(native.ask("POST", "/host-keys/approve", "write", document)) == (404, "not_found")
    assert failed(native.ask("POST", "/host-keys/approve", "write", both)) == (400, "invalid")
    assert failed(native.ask("POST", "/host-keys/approve", "write", rubbish)) == (400, "invalid")


def test_keys_of_a_host_are_forgotten(native: Native) -> None:
    first, second = show(native, new_key(), trusted=True), show(native, new_key(elliptic=True), trusted=False)

    path = f"/host-keys/{HOST.host}?port={HOST.port}"
    one = native.ask("DELETE", f"{path}&fingerprint={second.replace('+', '%2B')}", "write")
    assert result(one) == {"forgotten": 1}
    assert listed(native) == {first: True}
    assert result(native.ask("DELETE", path, "write")) == {"forgotten": 1}
    assert failed(native.ask("DELETE", path, "write")) == (404, "not_found")


def test_a_secret_is_listed_without_its_value_and_read_by_few(native: Native) -> None:
    made = native.ask("PUT", "/secrets/deploy-key", "admin", {"value": "hunter2", "description": "For web"})
    changed = native.ask("PUT", "/secrets/deploy-key", "admin", {"value": "hunter3"})

    assert result(made) == result(changed) == {"name": "deploy-key", "description": "For web"}
    assert result(native.ask("GET", "/secrets", "read")) == [{"name": "deploy-key", "description": "For web"}]
    assert failed(native.ask("GET", "/secrets/deploy-key", "read")) == (403, "forbidden")
    assert result(native.ask("GET", "/secrets/deploy-key", "admin"))["value"] == "hunter3"
    assert "hunter" not in native.ask("GET", "/events", "read").text
    assert result(native.ask("DELETE", "/secrets/deploy-key", "admin")) == {"removed": "deploy-key"}
    assert failed(native.ask("DELETE", "/secrets/deploy-key", "admin")) == (404, "not_found")


@pytest.mark.parametrize(("name", "value"), [("a b", "x"), ("x", ""), ("x", "y" * 65537)])
def test_a_secret_that_cannot_be_kept_is_an_error(native: Native, name: str, value: str) -> None:
    assert failed(native.ask("PUT", f"/secrets/{name}", "admin", {"value": value})) == (400, "invalid")


def test_a_worker_is_seen_drained_and_resumed(native: Native) -> None:
    result(native.ask("PUT", "/projects", "admin", {"name": "ops"}))
    with native.unit_of_work() as ctx:
        gone = ctx.store.workers.add("old.example.com", 1)

    with World(native.database).worker():
        until(lambda: any(one["alive"] for one in result(native.ask("GET", "/workers", "read"))))
        [living] = [one for one in result(native.ask("GET", "/workers", "read")) if one["alive"]]
        started = result(native.ask("POST", "/projects/ops/executions", "admin", {"command": "sleep 600"}))["id"]
        until(lambda: _worker(native, living["id"])["executions"] == [started])
        drained = result(native.ask("POST", f"/workers/{living['id']}/drain", "admin"))
        resumed = result(native.ask("POST", f"/workers/{living['id']}/resume", "admin"))
        native.ask("POST", f"/executions/{started}/abort", "admin")
        until(lambda: _worker(native, living["id"])["executions"] == [])

    assert (drained["draining"], resumed["draining"]) == (True, False)
    assert living["id"] != gone
    assert failed(native.ask("POST", "/workers/999/drain", "admin")) == (404, "not_found")


def _worker(native: Native, worker: int) -> dict[str, object]:
    return next(one for one in result(native.ask("GET", "/workers", "read")) if one["id"] == worker)
