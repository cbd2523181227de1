# SPDX-License-Identifier: Apache-2.0
"""Inventories of genuine agents as files: an inventory and its signature, either of them possibly compressed."""

from __future__ import annotations

import gzip
import io

from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.formats import inventory_xml
from quarterdeck.services import inventories
from quarterdeck.services.context import Context
from quarterdeck.services.inventories import Received

_GZIP = b"\x1f\x8b"
#: Nothing that was unpacked is longer.
MAX_BYTES = inventory_xml.MAX_BYTES


def receive(ctx: Context, inventory: bytes, sign_file: bytes) -> Received:
    """Take an inventory with its signature file. Raises Invalid."""
    return inventories.receive_xml(ctx, unpack(inventory), unpack(sign_file))


def unpack(content: bytes) -> bytes:
    """The content itself, or what was compressed in it. Raises Invalid, TooLarge."""
    if not content.startswith(_GZIP):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            plain = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError) as error:
        raise Invalid(f"A compressed file cannot be read: {error}") from error
    if len(plain) > MAX_BYTES:
        raise TooLarge(f"A compressed file holds more than {MAX_BYTES} bytes.")
    return plain
