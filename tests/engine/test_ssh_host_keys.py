# SPDX-License-Identifier: Apache-2.0
"""Which keys hosts may show: on first use, after approval, by known_hosts files and by authorities."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.sshd import Kept, Sshd, generate_key

from quarterdeck.core.connections import Address
from quarterdeck.engine.ssh import Access, Pool
from quarterdeck.engine.ssh_host_keys import KnownHosts
from quarterdeck.engine.transports import Command, HostKey, NodeResult

StartSshd = Callable[..., Sshd]


def fingerprint(key: str) -> str:
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def run(
    *accesses: Access, known_hosts: Sequence[Path] = (), between: Callable[[Pool], object] = id
) -> list[NodeResult]:
    """The results of a command with each access, one after the other, in one pool."""

    async def main() -> list[NodeResult]:
        pool = Pool(known_hosts=known_hosts)
        results = []
        for access in accesses:
            results.append(await pool.transport(access).run(Command(line="true"), Kept(), asyncio.Event()))
            between(pool)
        await pool.close()
        return results

    return asyncio.run(main())


def test_on_first_use_a_key_is_trusted_and_told(sshd: Sshd) -> None:
    access = sshd.access("127.0.5.1", trusted=False)

    results = run(access, access, sshd.access("127.0.5.1"))

    key = HostKey(access.connection.hop.address, sshd.host_key)
    assert [result.succeeded for result in results] == [True, True, True]
    assert [result.new_host_keys for result in results] == [(key,), (key,), ()]


def test_knowing_the_key_by_now_does_not_close_the_connection(sshd: Sshd) -> None:
    opened: list[int] = []

    run(sshd.access(trusted=False), sshd.access(), between=lambda pool: opened.append(pool.opened))

    assert opened == [1, 1]


def test_a_key_without_approval_is_refused_and_told(sshd: Sshd) -> None:
    access = sshd.access(trusted=False, host_keys="approve")

    [result] = run(access)

    assert result.ending == "host-key"
    assert result.new_host_keys == (HostKey(sshd.address, sshd.host_key),)
    assert f"{sshd.address} is not approved yet: {fingerprint(sshd.host_key)}" in result.reason


def test_a_key_with_approval_is_trusted(sshd: Sshd) -> None:
    [result] = run(sshd.access(host_keys="approve"))

    assert result == NodeResult(ending="ended", exit_status=0)


@pytest.mark.parametrize("host_keys", ["first-use", "approve"])
def test_a_changed_key_is_refused(host_keys: str, sshds: StartSshd) -> None:
    sshd = sshds("127.0.5.2")
    access = sshd.access(host_keys=host_keys)
    before, after = sshd.host_key, sshd.change_host_key()

    [result] = run(access)

    assert (result.ending, result.new_host_keys) == ("host-key", ())
    shown, expected = fingerprint(after), fingerprint(before)
    assert result.reason == f"The host key of {sshd.address} has changed: it shows {shown}, expected is {expected}."


def test_a_key_of_another_kind_is_a_changed_key(sshds: StartSshd, tmp_path: Path) -> None:
    sshd = sshds("127.0.5.3")
    expected = generate_key(tmp_path / "rsa", kind="rsa")

    [result] = run(Access(connection=sshd.connection(), trusted={sshd.address: (expected,)}))

    assert result.ending == "host-key"
    assert fingerprint(sshd.host_key) in result.reason


def test_a_host_with_several_keys_shows_the_one_that_is_trusted(sshds: StartSshd, tmp_path: Path) -> None:
    trusted = generate_key(tmp_path / "rsa", kind="rsa")
    sshd = sshds("127.0.5.4")
    sshd.stop()
    sshd.extra = f"HostKey {sshd.directory}/host\nHostKey {tmp_path}/rsa"
    sshd.start()

    [result] = run(Access(connection=sshd.connection(), trusted={sshd.address: (trusted,)}))

    assert result == NodeResult(ending="ended", exit_status=0)


def test_a_second_key_in_the_same_process_is_refused_before_anything_is_stored(sshds: StartSshd) -> None:
    sshd = sshds("127.0.5.5")
    access = sshd.access(trusted=False)

    results = run(access, access, between=lambda _: sshd.change_host_key())

    assert [result.ending for result in results] == ["ended", "host-key"]
    assert results[1].new_host_keys == ()


def test_a_forgotten_host_may_show_another_key(sshds: StartSshd) -> None:
    sshd = sshds("127.0.5.6")
    access = sshd.access(trusted=False)

    def forget(pool: Pool) -> None:
        sshd.change_host_key()
        pool.forget(sshd.address)

    first, second = run(access, access, between=forget)

    assert first.succeeded
    assert second.succeeded
    assert second.new_host_keys != first.new_host_keys


def test_a_key_that_was_replaced_by_another_closes_the_open_connection(sshd: Sshd, tmp_path: Path) -> None:
    other = generate_key(tmp_path / "other")
    access = sshd.access("127.0.5.7")
    changed = Access(connection=access.connection, trusted={access.connection.hop.address: (other,)})

    first, second = run(access, changed)

    assert (first.ending, second.ending) == ("ended", "host-key")


# known_hosts


def hashed(name: str) -> str:
    salt = b"s" * 20
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    "line",
    [
        "[{host}]:{port} {key}",
        "other,[{host}]:{port} {key}",
        "{host} {key} a comment",
        "127.0.*.? {key}",
        "{hashed} {key}",
        "*,!127.0.5.9 {key}",
    ],
)
def test_a_key_in_a_known_hosts_file_is_trusted(line: str, sshd: Sshd, tmp_path: Path) -> None:
    access = sshd.access("127.0.5.8", trusted=False, host_keys="approve")
    address = access.connection.hop.address
    names = {"host": address.host, "port": address.port, "hashed": hashed(f"[{address.host}]:{address.port}")}
    (tmp_path / "known").write_text("# ours\n\n" + line.format(**names, key=sshd.host_key) + "\n")

    [result] = run(access, known_hosts=[tmp_path / "known"])

    assert result == NodeResult(ending="ended", exit_status=0)


def test_a_known_hosts_file_that_says_otherwise_refuses_even_on_first_use(sshd: Sshd, tmp_path: Path) -> None:
    other = generate_key(tmp_path / "other")
    (tmp_path / "known").write_text(f"127.0.5.9 {other}\n")

    [result] = run(sshd.access("127.0.5.9", trusted=False), known_hosts=[tmp_path / "known"])

    assert (result.ending, fingerprint(other) in result.reason) == ("host-key", True)


def test_a_revoked_key_is_refused_even_when_approved(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"@revoked * {sshd.host_key}\n")

    results = run(sshd.access(), sshd.access(trusted=False), known_hosts=[tmp_path / "known"])

    assert [result.ending for result in results] == ["host-key", "host-key"]
    assert "revoked" in results[0].reason


def test_a_change_of_a_known_hosts_file_counts_at_once(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"* {sshd.host_key}\n")
    access = sshd.access(trusted=False, host_keys="approve")

    def revoke(_: Pool) -> None:
        known.write_text(f"@revoked * {sshd.host_key}\n")

    results = run(access, access, known_hosts=[known], between=revoke)

    assert [result.ending for result in results] == ["ended", "host-key"]


def test_a_known_hosts_file_that_is_missing_is_told(sshd: Sshd) -> None:
    [result] = run(sshd.access(), known_hosts=[Path("/nowhere/known")])

    assert (result.ending, "/nowhere/known" in result.reason) == ("refused", True)


def certified(sshds: StartSshd, tmp_path: Path, principal: str) -> tuple[Sshd, str]:
    """A server whose host key an authority has signed for that name, and the authority's key."""
    authority = generate_key(tmp_path / "authority")
    sshd = sshds("127.0.5.10")
    key = sshd.directory / "host.pub"
    argv = ["ssh-keygen", "-q", "-s", str(tmp_path / "authority"), "-h", "-I", "id", "-n", principal, str(key)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    sshd.stop()
    sshd.extra = f"HostCertificate {sshd.directory}/host-cert.pub"
    sshd.start()
    return sshd, authority


def test_a_certificate_of_a_known_authority_is_trusted(sshds: StartSshd, tmp_path: Path) -> None:
    sshd, authority = certified(sshds, tmp_path, "127.0.5.10")
    (tmp_path / "known").write_text(f"@cert-authority 127.0.5.* {authority}\n")
    opened: list[int] = []

    results = run(
        sshd.access(trusted=False, host_keys="approve"),
        sshd.access(trusted=False, host_keys="approve"),
        known_hosts=[tmp_path / "known"],
        between=lambda pool: opened.append(pool.opened),
    )

    assert results == [NodeResult(ending="ended", exit_status=0)] * 2
    assert opened == [1, 1]


def test_a_certificate_for_another_host_is_refused(sshds: StartSshd, tmp_path: Path) -> None:
    sshd, authority = certified(sshds, tmp_path, "another.example")
    (tmp_path / "known").write_text(f"@cert-authority * {authority}\n")

    [result] = run(sshd.access(trusted=False), known_hosts=[tmp_path / "known"])

    assert result.ending == "host-key"


def test_where_an_authority_is_known_a_bare_key_is_no_first_use(sshd: Sshd, tmp_path: Path) -> None:
    authority = generate_key(tmp_path / "authority")
    (tmp_path / "known").write_text(f"@cert-authority * {authority}\n")

    [result] = run(sshd.access(trusted=False), known_hosts=[tmp_path / "known"])

    assert (result.ending, result.new_host_keys) == ("host-key", ())
    assert "without a certificate" in result.reason


def test_ten_thousand_known_hosts_are_found_as_fast_as_one(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "key")

    def seconds(count: int) -> float:
        path = tmp_path / f"known-{count}"
        path.write_text("".join(f"node{number}.example {key}\n" for number in range(count)))
        known = KnownHosts([path])
        known.refresh()
        begun = time.thread_time()
        for number in range(1000):
            known.refresh()
            assert known.text_for(Address(f"node{number % count}.example")).endswith(key)
        return time.thread_time() - begun

    assert min(seconds(10_000) for _ in range(3)) < 3 * min(seconds(1) for _ in range(3)) + 0.01


def test_lines_that_are_no_entries_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "known").write_text(
        "host\n@nonsense host ssh-ed25519 AAAA\n|1|x|y ssh-ed25519 AAAA\nhost ssh-ed25519 AAAA\n"
    )
    known = KnownHosts([tmp_path / "known"])

    known.refresh()

    assert known.text_for(Address("HOST")) == "host ssh-ed25519 AAAA"
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [1, 2, 3]
