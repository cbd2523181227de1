# SPDX-License-Identifier: Apache-2.0
"""Run logs as genuine agents write, sign and name them. Signed by the `openssl` program, as they do."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CONFIG_ID = "20261121-115900-00000001"


def key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys that all tests share: making one is slow."""
    return _key(number)


@functools.cache
def _key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def certificate(node: str, number: int = 0) -> str:
    """A self-signed certificate of that key whose subject's UID is the node's id, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, node)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key(number).public_key())
    builder = builder.serial_number(1000 + number).not_valid_before(now - timedelta(days=1))
    made = builder.not_valid_after(now + timedelta(days=9)).sign(key(number), hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def signed(text: str | bytes, node: str, *, number: int = 0, options: Sequence[str] = ("-text", "-nocerts")) -> bytes:
    """The text as a clear-signed message of a node, by the program that genuine agents use."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "key.pem").write_bytes(key(number).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (place / "certificate.pem").write_text(certificate(node, number))
        command = ["openssl", "smime", "-sign", "-signer", "certificate.pem", "-inkey", "key.pem", *options]
        content = text.encode() if isinstance(text, str) else text
        return subprocess.run(command, cwd=place, input=content, capture_output=True, check=True).stdout


def report(  # one field each
    kind: str = "result_success",
    *,
    node: str,
    rule: str = "rule-1",
    directive: str = "directive-1",
    report_id: str = "call-1",
    component: str = "File present",
    key: str = "/etc/motd",
    message: str = "as it should be",
    policy: str = "Files",
    start: datetime = START,
    seconds: int = 1,
) -> str:
    """One line of a run log, with its line end."""
    at = (start + timedelta(seconds=seconds)).isoformat()
    identity = f"{policy}@@{kind}@@{rule}@@{directive}@@{report_id}@@{component}@@{key}"
    return f"{at} R: @@{identity}@@{start.isoformat(sep=' ')}##{node}@#{message}\n"


def mark(component: str, *, node: str, start: datetime = START, seconds: int = 0, config_id: str = CONFIG_ID) -> str:
    """The line with which a run begins or ends."""
    return report(
        "control",
        node=node,
        policy="Common",
        rule="rudder",
        directive="run",
        report_id="0",
        component=component,
        key=config_id,
        message=f"{component.capitalize()} execution",
        start=start,
        seconds=seconds,
    )


def run(*lines: str, node: str, start: datetime = START, config_id: str = CONFIG_ID, seconds: int = 2) -> str:
    """A whole run with these lines between its marks."""
    begin = mark("start", node=node, start=start, config_id=config_id)
    end = mark("end", node=node, start=start, seconds=seconds, config_id=config_id)
    return "".join((begin, *lines, end))


def file_name(node: str, start: datetime = START, ending: str = ".log") -> str:
    """What an agent calls the file."""
    return f"{start.isoformat()}@{node}{ending}"


def usual(node: str, start: datetime = START) -> str:
    """74 lines with 72 reports, as an agent with some twenty directives prints them."""
    return "".join(_usual_lines(node, start))


def _usual_lines(node: str, start: datetime) -> Iterator[str]:
    kinds = ("result_success", "result_success", "result_na", "audit_compliant", "result_success", "result_repaired")
    yield mark("start", node=node, start=start)
    for number in range(68):
        yield report(
            kinds[number % len(kinds)],
            node=node,
            rule=f"32377fd7-02fd-43d0-aab7-28460a91{number // 12:04d}",
            directive=f"dd7f24bc-e3b2-4c9a-9c9f-1b2f3f4b{number // 4:04d}",
            report_id=f"8f1a{number:04d}-7d7e-4a8b-9f39-31a46a1fd0f1",
            component="Package present" if number % 4 else "File content",
            key=f"package-{number}",
            message=f"Presence of package package-{number} in any version was correct",
            policy=f"package_management_{number % 3}",
            start=start,
            seconds=1 + number // 20,
        )
        if number == 40:
            at = (start + timedelta(seconds=3)).isoformat()
            yield f"{at} and its repository is known\n{at} as it was at the run before\n"
            yield f"{at} rudder     info: Executing 'no timeout' ... '/bin/true'\n"
            yield f"{at}    error: Method 'x' failed in some repairs\n"
    yield mark("end", node=node, start=start, seconds=5)
