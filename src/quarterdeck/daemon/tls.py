# SPDX-License-Identifier: Apache-2.0
"""The keys of one server: its own certificate authority, its certificate, the policy-signing key, the secret key.

`initialise` makes what is missing and renews what has to be, each file whole or not at all, so that a kill at any
moment leaves something the next start completes. The server's key stays when its certificate is renewed: a pin of it
holds. What is signed or encrypted with the keys is none of this module's business.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quarterdeck.core.errors import Unavailable
from quarterdeck.daemon.places import Unreadable
from quarterdeck.relaying import kept_files

CA_DAYS = 20 * 365
SERVER_DAYS = 397
RENEW_BEFORE = timedelta(days=30)
#: Certificates begin a little in the past: the clocks of a fleet differ.
BACKDATE = timedelta(hours=1)
POLICY_KEY_BITS = 3072
SECRET_BYTES = 32
ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """Where each key of a data directory is; all files have mode 600."""

    directory: Path

    @property
    def ca_key(self) -> Path:
        """Private key of the authority, PEM."""
        return self.directory / "ca.key"

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate, PEM: what clients trust."""
        return self.directory / "ca.pem"

    @property
    def server_key(self) -> Path:
        """Private key of the HTTPS server, PEM: what agents pin."""
        return self.directory / "server.key"

    @property
    def server_certificate(self) -> Path:
        """Certificate of the HTTPS server, PEM."""
        return self.directory / "server.pem"

    @property
    def policy_key(self) -> Path:
        """RSA key that signs policies, PEM."""
        return self.directory / "policy.key"

    @property
    def secret_key(self) -> Path:
        """Key that encrypts secrets at rest: 32 bytes in base64, one line."""
        return self.directory / "secret.key"

    def all(self) -> tuple[Path, ...]:
        """Every file, in the order they are made."""
        certificates = (self.ca_certificate, self.server_certificate)
        return (self.ca_key, self.server_key, self.policy_key, self.secret_key, *certificates)


def files(data_dir: Path) -> KeyFiles:
    """The key files below a data directory, whether they exist or not."""
    return KeyFiles(data_dir / "keys")


def initialise_relay(data_dir: Path, public_url: str, now: datetime, node_key: bytes) -> KeyFiles:
    """The same for a relay, whose HTTPS key is the key (PEM) that it has as a node: who knows the node can pin it.

    It signs no policies and keeps no secrets, so it gets no keys for that.
    """
    kept = files(data_dir)
    try:
        kept.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure(kept.ca_key, lambda: _private_pem(ec.generate_private_key(ec.SECP256R1())))
        if not kept.server_key.exists() or kept.server_key.read_bytes() != node_key:
            kept_files.replace(kept.server_key, node_key)
        _certify(kept, data_dir, public_url, now)
    except OSError as error:
        raise Unreadable(f"The keys in {kept.directory} cannot be used: {error.strerror}.") from error
    return kept


def initialise(data_dir: Path, public_url: str, now: datetime) -> KeyFiles:
    """Make what is missing and renew the server's certificate when its names change or its end is near.

    Unreadable: a file cannot be used or is damaged. Unavailable: the clock contradicts the certificates.
    """
    kept = files(data_dir)
    try:
        kept.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure(kept.ca_key, lambda: _private_pem(ec.generate_private_key(ec.SECP256R1())))
        _ensure(kept.server_key, lambda: _private_pem(ec.generate_private_key(ec.SECP256R1())))
        _ensure(kept.policy_key, lambda: _private_pem(rsa.generate_private_key(65537, POLICY_KEY_BITS)))
        _ensure(kept.secret_key, lambda: base64.b64encode(secrets.token_bytes(SECRET_BYTES)) + b"\n")
        _key(kept.policy_key, validated=False)
        secret(data_dir)
        _certify(kept, data_dir, public_url, now)
    except OSError as error:
        raise Unreadable(f"The keys in {kept.directory} cannot be used: {error.strerror}.") from error
    return kept


def _certify(kept: KeyFiles, data_dir: Path, public_url: str, now: datetime) -> None:
    _ensure(kept.ca_certificate, lambda: _ca_certificate(_ec_key(kept.ca_key), now))
    refuse_wrong_clock(data_dir, now)
    if server_certificate_is_due(data_dir, public_url, now):
        kept_files.replace(kept.server_certificate, _server_certificate(kept, names(public_url), now))


def secret(data_dir: Path) -> bytes | None:
    """The key that encrypts secrets at rest; None when this process has none. Raises Unavailable."""
    path = files(data_dir).secret_key
    try:
        return base64.b64decode(path.read_bytes(), validate=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Unreadable(f"The key in {path} cannot be used: {error}.") from error


def refuse_wrong_clock(data_dir: Path, now: datetime) -> None:
    """Raises Unavailable when the time lies outside the life of our authority; says nothing when there is none yet."""
    path = files(data_dir).ca_certificate
    if not path.exists():
        return
    authority = _certificate(path)
    said = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < authority.not_valid_before_utc:
        raise Unavailable(f"This machine's clock says {said}, before this server's keys were made: set the clock.")
    if now > authority.not_valid_after_utc:
        raise Unavailable(f"This server's authority has ended by {said}: set the clock, or remove {path}.")


def names(public_url: str) -> tuple[str, ...]:
    """The names a certificate for `public_url` carries, its own first; a name that is an address is one."""
    host = urlsplit(public_url).hostname or "localhost"
    try:
        host = str(ipaddress.ip_address(host))
    except ValueError:
        host = host.encode("idna").decode() if not host.isascii() else host
    return tuple(dict.fromkeys((host, *ALWAYS_NAMED)))


def server_certificate_is_due(data_dir: Path, public_url: str, now: datetime) -> bool:
    """Whether the server's certificate is missing, not ours, differently named, or ends within 30 days."""
    kept = files(data_dir)
    try:
        certificate = _certificate(kept.server_certificate)
    except FileNotFoundError:
        return True
    try:
        certificate.verify_directly_issued_by(_certificate(kept.ca_certificate))
    except (ValueError, TypeError, InvalidSignature):
        return True
    if certificate.public_key() != _server_key(kept).public_key():
        return True
    return names_in(certificate) != set(names(public_url)) or now > certificate.not_valid_after_utc - RENEW_BEFORE


def names_in(certificate: x509.Certificate) -> set[str]:
    """The names and addresses a certificate is for."""
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in alternative.get_values_for_type(x509.IPAddress)}
    return addresses | set(alternative.get_values_for_type(x509.DNSName))


def spki_pin(certificate: x509.Certificate | bytes) -> str:
    """`sha256//BASE64` over the public key of a certificate (or its PEM), as `curl --pinnedpubkey` takes it."""
    if isinstance(certificate, bytes):
        certificate = x509.load_pem_x509_certificate(certificate)
    public = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256//" + base64.b64encode(hashlib.sha256(public).digest()).decode()


# --- making them -----------------------------------------------------------------------------------------------------


def _ensure(path: Path, make: Callable[[], bytes]) -> None:
    if not path.exists():
        kept_files.replace(path, make())


def _private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _ec_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unreadable(f"The key {path} is of another kind than expected; restore it from a backup.")
    return key


def _server_key(kept: KeyFiles) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """Ours, or a relay's."""
    key = _key(kept.server_key)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Unreadable(f"The key {kept.server_key} is of another kind than expected; restore it from a backup.")
    return key


def _key(path: Path, *, validated: bool = True) -> PrivateKeyTypes:
    """Validation takes a second for a long RSA key."""
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None, unsafe_skip_rsa_key_validation=not validated)
    except ValueError as error:
        raise Unreadable(f"The key {path} is damaged; restore it from a backup.") from error


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise Unreadable(f"The certificate {path} is damaged; restore it from a backup.") from error


def _builder(
    subject: str, issuer: x509.Name | None, public: _PublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> bytes:
    subject = f"Quarterdeck CA {secrets.token_hex(4)}"  # two servers' authorities differ by name, too
    certificate = (
        _builder(subject, None, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _server_certificate(kept: KeyFiles, wanted: tuple[str, ...], now: datetime) -> bytes:
    authority, key = _certificate(kept.ca_certificate), _server_key(kept)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    certificate = (
        _builder("quarterdeck", authority.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in wanted]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(_ec_key(kept.ca_key), hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
