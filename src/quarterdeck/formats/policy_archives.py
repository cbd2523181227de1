# SPDX-License-Identifier: Apache-2.0
"""A node's policy as one archive: the signed document, its signature, and the key that both are checked with.

Equal contents make equal bytes, whoever makes the archive and when.
"""

from __future__ import annotations

import io
import zipfile

DOCUMENT, SIGNATURE, KEY = "policy.json", "policy.signature", "policy-key.pem"

#: The earliest time that the format knows.
_ALWAYS = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_READABLE = 0o100644 << 16


def pack(body: bytes, signature: str, key: str) -> bytes:
    """The archive of a policy: its exact bytes, their signature (base64), the public key (PEM)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in ((DOCUMENT, body), (SIGNATURE, f"{signature}\n".encode()), (KEY, key.encode())):
            archive.writestr(_entry(name), content)
    return packed.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ALWAYS)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system, entry.external_attr = _UNIX, _READABLE
    return entry
