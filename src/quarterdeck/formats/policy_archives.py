# SPDX-License-Identifier: Apache-2.0
"""A node's policy as one archive: the signed document, its signature, the key that both are checked with, and the files
that the document names by their SHA-256.

Equal contents make equal bytes, whoever makes the archive and when.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import IO

DOCUMENT, SIGNATURE, KEY = "policy.json", "policy.signature", "policy-key.pem"
#: The directory of the files; each is called by its digest.
RESOURCES = "resources"

#: The earliest time that the format knows.
_ALWAYS = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_READABLE = 0o100644 << 16


def pack(into: IO[bytes], body: bytes, signature: str, key: str, resources: Iterable[tuple[str, bytes]] = ()) -> None:
    """Write the archive of a policy: its exact bytes, their signature (base64), the public key (PEM), and its files.

    `resources` are digest and content of each, in the order of the digests; one of them is in memory at a time.
    """
    with zipfile.ZipFile(into, "w") as archive:
        for name, content in ((DOCUMENT, body), (SIGNATURE, f"{signature}\n".encode()), (KEY, key.encode())):
            archive.writestr(_entry(name, zipfile.ZIP_DEFLATED), content)
        for digest, content in resources:
            archive.writestr(_entry(f"{RESOURCES}/{digest}", zipfile.ZIP_STORED), content)


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ALWAYS)
    entry.compress_type = compression
    entry.create_system, entry.external_attr = _UNIX, _READABLE
    return entry
