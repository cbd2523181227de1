# SPDX-License-Identifier: Apache-2.0
"""Clear-signed S/MIME messages, as genuine agents wrap their run logs: a text and, beside it, who signed it.

Whoever reads a message brings the keys that may have signed it; there are no chains and no dates, and certificates
inside of a message say nothing. Verified in process: RSA with PKCS#1 v1.5, over signed attributes, SHA-256 or better.
"""

from __future__ import annotations

import base64
import functools
import hmac
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from asn1crypto import cms  # type: ignore[import-untyped]  # it has no types
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from quarterdeck.core.errors import Invalid
from quarterdeck.formats import signature

#: What is weaker is refused.
_DIGESTS: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
#: Nobody's signature of one signer is longer, in base64.
_MAX_SIGNATURE = 128 * 1024
_MAX_HEADER = 8 * 1024
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]+")
_BOUNDARY = re.compile(r""";\s*boundary=(?:"([^"\r\n]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)
_CONTENT_TYPE = re.compile(r"^content-type:\s*([^\s;]+)", re.IGNORECASE | re.MULTILINE)
_CERTIFICATES = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class _Part(NamedTuple):
    header: str
    body: bytes


class _Signer(NamedTuple):
    digest: hashes.HashAlgorithm
    #: of the content, as it was signed
    content_digest: bytes
    #: signed attributes, as they were signed
    attributes: bytes
    signature: bytes
    issuer: bytes
    serial: int


def pems(text: str) -> tuple[str, ...]:
    """The certificates and public keys that stand one after another in a PEM text."""
    return tuple(found[0] for found in _CERTIFICATES.finditer(text))


def verified(message: bytes, keys: Sequence[str]) -> bytes:
    """The text that the owner of one of these PEM certificates or public keys signed, without the MIME around it.

    Raises Invalid, with a reason, for everything else.
    """
    content, signed = _halves(message)
    signer = _signer(signed)
    digest = _digest(signer.digest, content)
    if not hmac.compare_digest(digest, signer.content_digest):
        # Signed with the line ends of mail, kept or sent with others.
        content = re.sub(rb"\r?\n", b"\r\n", content.removesuffix(b"\r"))
        if not hmac.compare_digest(_digest(signer.digest, content), signer.content_digest):
            raise Invalid("The content is not the one that was signed.")
    if not any(_signed_with(key, signer) for key in keys):
        raise Invalid(_stranger(signer, keys))
    text = _part(content)
    if _content_type(text.header) != "text/plain":
        raise Invalid("What was signed is not plain text.")
    return text.body


# -- the message ----------------------------------------------------------------------------


def _halves(message: bytes) -> tuple[bytes, bytes]:
    """What was signed, as it was signed; and the signature in DER."""
    outer = _part(message)
    boundary = _BOUNDARY.search(outer.header)
    if _content_type(outer.header) != "multipart/signed" or boundary is None:
        raise Invalid("The message is not signed.")
    line = b"--" + (boundary[1] or boundary[2]).encode()
    pieces = (b"\n" + outer.body).split(b"\n" + line)
    # In front of the first boundary, between it and the second, up to the last one, and what follows that.
    if len(pieces) != 4 or not pieces[3].startswith(b"--"):
        raise Invalid("The message does not consist of a content and its signature.")
    content, signed = (_after_line(piece) for piece in pieces[1:3])
    half = _part(signed)
    if _content_type(half.header) not in ("application/x-pkcs7-signature", "application/pkcs7-signature"):
        raise Invalid("The second part of the message is not a signature.")
    if len(half.body) > _MAX_SIGNATURE:
        raise Invalid("The signature is too long.")
    try:
        return content, base64.b64decode(half.body)
    except ValueError:
        raise Invalid("The signature is not base64.") from None


def _after_line(piece: bytes) -> bytes:
    """What follows the line of a boundary."""
    rest, end, after = piece.partition(b"\n")
    if rest.strip() or not end:
        raise Invalid("A boundary of the message does not stand on a line of its own.")
    return after


def _part(data: bytes) -> _Part:
    if data[:1] in (b"\r", b"\n"):
        return _Part("", data)
    end = _BLANK_LINE.search(data, 0, _MAX_HEADER)
    if end is None:
        raise Invalid("A part of the message has no header.")
    return _Part(_FOLD.sub(" ", data[: end.start()].decode("latin-1")), data[end.end() :])


def _content_type(header: str) -> str:
    found = _CONTENT_TYPE.search(header)
    return found[1].lower() if found is not None else ""


# -- the signature --------------------------------------------------------------------------


def _signer(der: bytes) -> _Signer:
    """The one signer of a detached PKCS#7 signature. Raises Invalid."""
    try:
        return _read_signer(cms.ContentInfo.load(der, strict=True))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise Invalid("The signature is not PKCS#7.", detail=str(error)) from error


def _read_signer(info: Any) -> _Signer:
    if info["content_type"].native != "signed_data":
        raise Invalid("The signature is not PKCS#7 signed data.")
    signed_data = info["content"]
    if signed_data["encap_content_info"]["content"].native is not None:
        raise Invalid("The signature has a content of its own.")
    if len(signed_data["signer_infos"]) != 1:
        raise Invalid("The message does not have exactly one signer.")
    signer = signed_data["signer_infos"][0]
    name, padded = signer["digest_algorithm"]["algorithm"].native, signer["signature_algorithm"]["algorithm"].native
    if name not in _DIGESTS:
        raise Invalid(f"The message is signed with the digest {name}; SHA-256 is the least.")
    if padded not in ("rsassa_pkcs1v15", f"{name}_rsa"):
        raise Invalid(f"The message is signed with {padded}, not with RSA and PKCS#1 v1.5.")
    if signer["sid"].name != "issuer_and_serial_number":
        raise Invalid("The signer is not named by issuer and serial number.")
    attributes = signer["signed_attrs"]
    if _attribute(attributes, "content_type") != "data":
        raise Invalid("What was signed is not named as data.")
    identity = signer["sid"].chosen
    return _Signer(
        digest=_DIGESTS[name](),
        content_digest=_attribute(attributes, "message_digest"),
        # They are sent under a tag of their own, and were signed as the set that they are.
        attributes=b"\x31" + attributes.dump()[1:],
        signature=signer["signature"].native,
        issuer=identity["issuer"].dump(),
        serial=identity["serial_number"].native,
    )


def _attribute(attributes: Any, name: str) -> Any:
    """The one value of a signed attribute. Raises Invalid."""
    found = [one["values"] for one in attributes if one["type"].native == name]
    if len(found) != 1 or len(found[0]) != 1:
        raise Invalid(f"The signature lacks the signed attribute {name}.")
    return found[0][0].native


def _digest(algorithm: hashes.HashAlgorithm, content: bytes) -> bytes:
    made = hashes.Hash(algorithm)
    made.update(content)
    return made.finalize()


def _signed_with(key: str, signer: _Signer) -> bool:
    try:
        public = signature.public_key(key)
        public.verify(signer.signature, signer.attributes, padding.PKCS1v15(), signer.digest)
    except (InvalidSignature, Invalid):
        return False
    return True


def _stranger(signer: _Signer, keys: Sequence[str]) -> str:
    """Why no key fits."""
    if not keys:
        return "No certificate is known that the message could be signed with."
    if (signer.issuer, signer.serial) in (_identity(key) for key in keys):
        return "The signature is not valid."
    return f"The message is signed with another certificate (serial number {signer.serial}) than those that are known."


@functools.lru_cache(maxsize=1_000)
def _identity(key: str) -> tuple[bytes, int] | None:
    """Issuer and serial number of a certificate; None for a key without one."""
    try:
        certificate = x509.load_pem_x509_certificate(key.encode())
    except ValueError:
        return None
    return certificate.issuer.public_bytes(), certificate.serial_number
