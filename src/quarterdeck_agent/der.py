# SPDX-License-Identifier: Apache-2.0
"""The little of DER and PEM that RSA keys and a self-signed certificate need, read and written.

Knows no cryptography and no file.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import List, Tuple

SEQUENCE, SET, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, UTF8 = 0x30, 0x31, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18


class Malformed(ValueError):
    """Bytes that are not the structure they are said to be."""


def element(tag: int, *parts: bytes) -> bytes:
    """One DER element around the concatenation of `parts`."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def integer(value: int) -> bytes:
    """A non-negative INTEGER."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = [int(part) for part in dotted.split(".")]
    content = bytearray([first * 40 + second])
    for number in rest:
        groups = [number & 0x7F]
        while number > 0x7F:
            number >>= 7  # noqa: PLW2901
            groups.append(0x80 | (number & 0x7F))
        content.extend(reversed(groups))
    return element(OID, bytes(content))


def moment(unix_time: float) -> bytes:
    """A certificate time: UTCTime until 2049, GeneralizedTime after."""
    parts = time.gmtime(unix_time)
    if parts.tm_year < 2050:
        return element(UTC_TIME, time.strftime("%y%m%d%H%M%SZ", parts).encode())
    return element(GENERALIZED_TIME, time.strftime("%Y%m%d%H%M%SZ", parts).encode())


def children(content: bytes) -> List[Tuple[int, bytes]]:
    """The (tag, content) elements one after the other in `content`. Raises Malformed."""
    found = []
    position = 0
    while position < len(content):
        tag, start, end = _span(content, position)
        found.append((tag, content[start:end]))
        position = end
    return found


def only(tag: int, data: bytes) -> bytes:
    """The content of `data`, which must be exactly one element of `tag`. Raises Malformed."""
    elements = children(data)
    if len(elements) != 1 or elements[0][0] != tag:
        raise Malformed(f"expected one element of tag 0x{tag:02x}")
    return elements[0][1]


def integers(sequence: bytes) -> List[int]:
    """The numbers of a SEQUENCE of nothing but INTEGERs, given with its own header."""
    elements = children(only(SEQUENCE, sequence))
    if any(tag != INTEGER for tag, _ in elements):
        raise Malformed("expected integers only")
    return [int.from_bytes(content, "big") for _, content in elements]


def to_pem(label: str, data: bytes) -> str:
    """PEM text with lines of 64 characters."""
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def from_pem(text: str) -> Tuple[str, bytes]:
    """Label and bytes of the first PEM block of `text`. Raises Malformed."""
    before, found, rest = text.partition("-----BEGIN ")
    label, closed, rest = rest.partition("-----\n")
    body, ended, _ = rest.partition(f"-----END {label}-----")
    if not (found and closed and ended):
        raise Malformed("no PEM block" if not before.strip() else "no PEM block after other text")
    try:
        return label, base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error as error:
        raise Malformed(f"bad base64 in the PEM block: {error}") from error


def _span(data: bytes, position: int) -> Tuple[int, int, int]:
    """Tag, start and end of the content of the element at `position`."""
    try:
        tag, length, start = data[position], data[position + 1], position + 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[start : start + count], "big")
            start += count
    except IndexError as error:
        raise Malformed("the data end inside an element") from error
    if start + length > len(data):
        raise Malformed("an element is longer than the data")
    return tag, start, start + length
