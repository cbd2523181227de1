# SPDX-License-Identifier: Apache-2.0
"""Inventories as genuine agents write them: an XML document, and a file with its signature."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

_TEMPLATE = """<?xml version="1.0" encoding="UTF-8" ?>
<REQUEST><DEVICEID>{hostname}-2026-01-01-00-00-00</DEVICEID><QUERY>INVENTORY</QUERY><CONTENT>
<ACCESSLOG><LOGDATE>2026-01-02 03:04:05</LOGDATE></ACCESSLOG>
<OPERATINGSYSTEM><FULL_NAME>Debian GNU/Linux 12 (bookworm)</FULL_NAME><KERNEL_NAME>linux</KERNEL_NAME>
<KERNEL_VERSION>6.1.0-18-amd64</KERNEL_VERSION><NAME>Debian</NAME><VERSION>12.5</VERSION><ARCH>x86_64</ARCH>
<TIMEZONE><NAME>UTC</NAME><OFFSET>+0000</OFFSET></TIMEZONE></OPERATINGSYSTEM>
<HARDWARE><MEMORY>2048</MEMORY><SWAP>512</SWAP><UUID>ce1ff7c1</UUID><VMSYSTEM>qemu</VMSYSTEM></HARDWARE>
<NETWORKS><DESCRIPTION>eth0</DESCRIPTION><IPADDRESS>192.168.110.21</IPADDRESS><MACADDR>52:54:00:49:45:ac</MACADDR>
<STATUS>Up</STATUS><TYPE>ethernet</TYPE></NETWORKS>
<DRIVES><FREE>1024</FREE><TOTAL>4096</TOTAL><TYPE>/</TYPE><VOLUMN>/dev/sda1</VOLUMN><FILESYSTEM>ext4</FILESYSTEM></DRIVES>
<SOFTWARES><NAME>bash</NAME><VERSION>5.2</VERSION><PUBLISHER>Debian</PUBLISHER></SOFTWARES>
<PROCESSES><CMD>java -jar app.jar</CMD><PID>77</PID><USER>tomcat</USER></PROCESSES>
<RUDDER><UUID>{node}</UUID><HOSTNAME>{hostname}</HOSTNAME>
<AGENT><AGENT_NAME>cfengine-community</AGENT_NAME><AGENT_CERT>{certificate}</AGENT_CERT><OWNER>root</OWNER>
<POLICY_SERVER_UUID>root</POLICY_SERVER_UUID></AGENT></RUDDER>
</CONTENT></REQUEST>
"""


@functools.cache
def key() -> rsa.RSAPrivateKey:
    """One key for all tests: making one is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(node: str) -> str:
    """A self-signed certificate of `key()` whose subject's UID is the node's id, as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, node)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key().public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=9))
    )
    return builder.sign(key(), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def inventory(node: str, hostname: str) -> bytes:
    """The XML of a Debian machine."""
    return _TEMPLATE.format(node=node, hostname=hostname, certificate=certificate(node)).encode()


def sign_file(content: bytes) -> bytes:
    """The content of the `.sign` file of an inventory."""
    signed = key().sign(content, padding.PKCS1v15(), hashes.SHA512())
    return f"header=rudder-signature-v1\nalgorithm=sha512\ndigest={signed.hex()}\n".encode()
