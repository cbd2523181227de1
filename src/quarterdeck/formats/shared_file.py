# SPDX-License-Identifier: Apache-2.0
"""What stands before a shared file's content: `key=value` lines with the source's key and signature; then a blank line.

Whether key and content are the source's own is decided in `relaying/shared_files.py`, with what stands here.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import IO

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from quarterdeck.core.errors import Invalid
from quarterdeck.formats.nodes_list import ALGORITHMS
from quarterdeck.formats.signature import MAX_KEY_BITS, MIN_KEY_BITS

HEADER = "rudder-signature-v1"
_HASHES: Mapping[str, hashes.SHA256 | hashes.SHA512] = {"sha256": hashes.SHA256(), "sha512": hashes.SHA512()}
#: The order in which the lines are written.
_KEYS = ("header", "algorithm", "digest", "hash_value", "short_pubkey", "hostname", "keydate", "keyid")
_EXPIRES = "expires"
MAX_BYTES = 64 * 1024
_PIECE = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """`digest` and `hash_value` are bytes; `expires` is Unix seconds, set by whoever keeps the file."""

    algorithm: str
    digest: bytes
    hash_value: bytes
    short_pubkey: str
    hostname: str
    keydate: str
    keyid: str
    expires: int | None = None

    @functools.cached_property
    def public_key(self) -> rsa.RSAPublicKey:
        """The source's key. Raises Invalid."""
        return _public_key(self.short_pubkey)

    @property
    def public_key_der(self) -> bytes:
        """The same as DER, SubjectPublicKeyInfo, which is what key hashes are of."""
        return self.public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def until(self, expires: int) -> Metadata:
        """The same with this end of life."""
        return replace(self, expires=expires)

    def signed(self, content_digest: bytes) -> bool:
        """Whether the key signed the content that has this digest, by `algorithm`."""
        try:
            algorithm = Prehashed(_HASHES[self.algorithm])
            self.public_key.verify(self.digest, content_digest, padding.PKCS1v15(), algorithm)
        except InvalidSignature:
            return False
        return True

    def written(self) -> bytes:
        """The lines in their order, without the blank one."""
        values = {
            "header": HEADER,
            "algorithm": self.algorithm,
            "digest": self.digest.hex(),
            "hash_value": self.hash_value.hex(),
            "short_pubkey": self.short_pubkey,
            "hostname": self.hostname,
            "keydate": self.keydate,
            "keyid": self.keyid,
        }
        if self.expires is not None:
            values[_EXPIRES] = str(self.expires)
        return "".join(f"{key}={value}\n" for key, value in values.items()).encode()


def read(file: IO[bytes]) -> Metadata:
    """The lines up to the blank one, or to the end; the file then stands at the content. Raises Invalid."""
    return parse(_lines(file))


def _lines(file: IO[bytes]) -> bytes:
    # By position: the file may read ahead of nobody, since it has no buffer of its own.
    begin = file.tell()
    head = file.read(MAX_BYTES)
    if head.startswith(b"\n"):
        end, after = 0, 1
    elif (blank := head.find(b"\n\n")) >= 0:
        end, after = blank + 1, blank + 2
    elif len(head) < MAX_BYTES:
        end = after = len(head)
    else:
        raise Invalid(f"The lines before the content are longer than {MAX_BYTES} bytes.")
    file.seek(begin + after)
    return head[:end]


def parse(content: bytes) -> Metadata:
    """Read the lines. Raises Invalid for what is missing, twice there, or cannot be."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Invalid("The lines before the content are not UTF-8.") from error
    values: dict[str, str] = {}
    for line in lines:
        key, separator, value = line.partition("=")
        if separator and values.setdefault(key, value) is not value:
            raise Invalid(f"'{key[:40]}' stands there twice.")
    if missing := [key for key in _KEYS if key not in values]:
        raise Invalid(f"'{missing[0]}' is missing.")
    if values["header"] != HEADER:
        raise Invalid(f"The header is not '{HEADER}'.")
    if values["algorithm"] not in ALGORITHMS:
        raise Invalid("The algorithm is neither sha256 nor sha512.")
    return _checked(values)


def _checked(values: Mapping[str, str]) -> Metadata:
    hash_value = _hex(values, "hash_value")
    if len(hash_value) != ALGORITHMS[values["algorithm"]]:
        raise Invalid("'hash_value' has another length than its algorithm says.")
    expires = values.get(_EXPIRES)
    if expires is not None and not (expires.isascii() and expires.removeprefix("-").isdecimal() and len(expires) < 20):
        raise Invalid("'expires' is no whole number.")
    made = Metadata(
        algorithm=values["algorithm"],
        digest=_hex(values, "digest"),
        hash_value=hash_value,
        short_pubkey=values["short_pubkey"],
        hostname=values["hostname"],
        keydate=values["keydate"],
        keyid=values["keyid"],
        expires=int(expires) if expires is not None else None,
    )
    _public_key(made.short_pubkey)
    return made


def _hex(values: Mapping[str, str], key: str) -> bytes:
    try:
        return binascii.unhexlify(values[key])  # which lets no blanks pass
    except ValueError:
        raise Invalid(f"'{key}' is not hexadecimal.") from None


@functools.lru_cache(maxsize=1000)
def _public_key(short: str) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_der_public_key(base64.b64decode(short, validate=True))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Invalid("'short_pubkey' is no public key.", detail=str(error)) from error
    if not isinstance(key, rsa.RSAPublicKey) or not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        raise Invalid(f"'short_pubkey' is not an RSA key of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits.")
    return key


def content_digest(file: IO[bytes], algorithm: str) -> bytes:
    """The digest of what is left of a file, which then stands at the same place again."""
    begin = file.tell()
    digest = hashlib.new(algorithm)
    while piece := file.read(_PIECE):
        digest.update(piece)
    file.seek(begin)
    return digest.digest()
