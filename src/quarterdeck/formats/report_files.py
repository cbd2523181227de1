# SPDX-License-Identifier: Apache-2.0
"""Files in which genuine agents hand over run logs: what their names say, and what was compressed in them.

A name is `<time>@<node>.log`, which may be followed by anything, or `<node>_<time>.log`; either may end in `.gz` or
`.zip`. What is inside a file is for `smime.py` and `runlog.py`.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Sequence

from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.ids import NodeId

ENDINGS = (".log", ".gz", ".zip")
INVENTORY_ENDINGS = (".gz", ".xml", ".ocs", ".sign")
_SIGNATURE = ".sign"
#: In bytes; what is set aside gets a longer name.
MAX_NAME = 200
#: Of a file as it comes, and of what is in it.
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_BYTES = 16 * 1024 * 1024
MAX_INVENTORY_BYTES = 16 * 1024 * 1024

#: Windows has no colons in names. Some write times with a blank or no fraction.
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}[:_][0-9]{2}[:_][0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}[:_][0-9]{2})"
_TIME_FIRST = re.compile(rf"{_TIME}@([^.]+)\.log(?:\.gz)?.*")
_NODE_FIRST = re.compile(rf"([^_]+)_{_TIME}\.log(?:\.gz)?(?:\.zip)?")
_NODE = re.compile(r"[A-Za-z0-9-]{1,100}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")

_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_GZIP_MAGIC = b"\x1f\x8b"
_LOCAL_MAGIC = b"PK\x03\x04"
_STORED = 0
_DEFLATED = 8
_ENCRYPTED = 1


def check_name(name: str) -> None:
    """Raises Invalid for a name under which nothing may be kept, or that is one of a file being written."""
    if not name or name.startswith(".") or _UNSAFE.search(name):
        raise Invalid(f"'{name}' is not the name of a file that is accepted here.")
    if len(name.encode("utf-8", errors="surrogateescape")) > MAX_NAME:
        raise Invalid(f"The name of the file is longer than {MAX_NAME} bytes.")


def is_report(name: str) -> bool:
    """Whether a file in a directory of reports is meant to be one, by its ending; case matters."""
    return not name.startswith(".") and name.endswith(ENDINGS)


def is_inventory(name: str) -> bool:
    """Whether a file in a directory of inventories is meant to be one, or the signature of one."""
    return not name.startswith(".") and name.endswith(INVENTORY_ENDINGS)


def inventory_of(name: str) -> str:
    """The same for the names of an inventory and of its signature, whichever of them is compressed."""
    return name.removesuffix(".gz").removesuffix(_SIGNATURE).removesuffix(".gz")


def is_signature(name: str) -> bool:
    """Whether a file is the signature of an inventory."""
    return name.removesuffix(".gz").endswith(_SIGNATURE)


def has_signature(names: Sequence[str]) -> bool:
    """Whether among the files of one inventory are both, itself and its signature."""
    return len({is_signature(name) for name in names}) > 1


def node_of(name: str) -> NodeId:
    """The node whose run log stands in a file of this name. Raises Invalid."""
    check_name(name)
    found = _TIME_FIRST.fullmatch(name) or _NODE_FIRST.fullmatch(name)
    if found is None or _NODE.fullmatch(found[1]) is None:
        raise Invalid(
            f"'{name}' is not like 2026-01-31T12:00:00+00:00@NODE.log.gz: it does not tell whose report it is."
        )
    return NodeId(found[1])


def queue_id(name: str) -> str:
    """Tells a file apart in logs, and is the same on every relay that the file crosses."""
    return hashlib.sha256(name.encode("utf-8", errors="surrogateescape")).hexdigest()[:32].upper()


def unpacked(name: str, content: bytes) -> bytes:
    """What is in a file of this name. Takes little more memory than it may be long. Raises Invalid, TooLarge."""
    if name.endswith(".gz"):
        found = _inflated(content, 31, "gzip")
    elif name.endswith(".zip"):
        found = _first_entry(content)
    else:
        found = content
    if len(found) > MAX_BYTES:
        raise TooLarge(f"The report is larger than {MAX_BYTES} bytes.")
    return found


def check_inventory(content: bytes) -> None:
    """Raises Invalid or TooLarge for an inventory, or its signature, that nobody would unpack."""
    if content.startswith(_GZIP_MAGIC) and len(_inflated(content, 31, "gzip", "inventory")) > MAX_BYTES:
        raise TooLarge(f"The inventory is larger than {MAX_BYTES} bytes.")


def announced_bytes(name: str, content: bytes) -> int:
    """About how long what is in a file says it is; `unpacked` refuses what is too long whatever it says."""
    if name.endswith(".gz"):
        return min(int.from_bytes(content[-4:], "little"), MAX_BYTES)
    return min(len(content) * (20 if name.endswith(".zip") else 1), MAX_BYTES)


def _inflated(content: bytes | memoryview, window: int, form: str, what: str = "report") -> bytes:
    """The first compressed stream in some bytes; what follows it does not matter."""
    reader = zlib.decompressobj(wbits=window)
    try:
        found = reader.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise Invalid(f"The {what} is not {form}: {error}.") from error
    if not reader.eof and len(found) <= MAX_BYTES:
        raise Invalid(f"The {what}'s {form} data ends too early.")
    return found


def _first_entry(content: bytes) -> bytes:
    """The first file in an archive, by the header in front of it: no table of contents needs to be read."""
    if len(content) < _LOCAL_HEADER.size:
        raise Invalid("The report is not a zip archive.")
    magic, _, flags, method, _, _, _, size, _, name, extra = _LOCAL_HEADER.unpack_from(content)
    if magic != _LOCAL_MAGIC:
        raise Invalid("The report is not a zip archive, or an empty one.")
    if flags & _ENCRYPTED:
        raise Invalid("The report's zip archive is encrypted.")
    data = memoryview(content)[_LOCAL_HEADER.size + name + extra :]
    if method == _DEFLATED:
        return _inflated(data, -15, "zip")
    if method == _STORED and size <= len(data):
        return bytes(data[:size])
    raise Invalid("The first file of the report's zip archive cannot be read.")
