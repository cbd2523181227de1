# SPDX-License-Identifier: Apache-2.0
"""POSIX access control lists as values: read from and written to the file system, changed by `bob:+rx,*:-w`.

They live in one extended attribute, so that no setfacl program is needed. Default lists of
directories are not touched. The methods are in acl_permissions.py.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import stat
import struct
from typing import Callable, Dict, List, Tuple

from quarterdeck_agent.methods.system import UnableError

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
OWNER, USER, GROUP_OWNER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_BITS = {"r": 4, "w": 2, "x": 1}
_ACE = re.compile(r"([+=-]?)([rwx]*)")

#: (kind, id) -> permission bits; the id is 0 for kinds that have none.
Acl = Dict[Tuple[int, int], int]
#: From present to wanted permission bits.
Change = Callable[[int], int]


def get(path: str) -> Acl:
    """The list of a file or directory; one without a list of its own gets that of its mode."""
    try:
        return _decoded(os.getxattr(path, _ATTRIBUTE))
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    mode = os.stat(path).st_mode
    return {(OWNER, 0): mode >> 6 & 7, (GROUP_OWNER, 0): mode >> 3 & 7, (OTHER, 0): mode & 7}


def put(path: str, acl: Acl) -> None:
    """Set the list; one that says no more than a mode can becomes a plain mode. Raises OSError."""
    if len(acl) > 3:
        os.setxattr(path, _ATTRIBUTE, _encoded(acl))
        return
    try:
        os.removexattr(path, _ATTRIBUTE)
    except OSError as problem:
        if problem.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
    bits = acl[OWNER, 0] << 6 | acl[GROUP_OWNER, 0] << 3 | acl[OTHER, 0]
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o777 | bits)


def completed(acl: Acl) -> Acl:
    """The list with the mask that it needs: all that group and named entries may do."""
    named = {entry: bits for entry, bits in acl.items() if entry[0] != MASK}
    if not any(kind in (USER, GROUP) for kind, _ in named):
        return named
    mask = 0
    for (kind, _), bits in named.items():
        mask |= bits if kind in (USER, GROUP, GROUP_OWNER) else 0
    return {**named, (MASK, 0): mask}


def change(ace: str) -> Change:
    """What `+rx`, `-w` or `=rw` does to permission bits; without a sign it is `=`. Raises UnableError."""
    found = _ACE.fullmatch(ace.strip())
    if not found:
        raise UnableError(f"{ace} is not a permission like +rx, -w or =rw.")
    bits = sum(_BITS[letter] for letter in set(found[2]))
    if found[1] == "+":
        return lambda before: before | bits
    return (lambda before: before & ~bits) if found[1] == "-" else (lambda _before: bits)


def with_entries(acl: Acl, kind: int, text: str) -> Acl:
    """The list changed as `name:ace,name:ace` asks; `*` stands for all names that the list has."""
    wanted = dict(acl)
    for name, ace in _entries(text):
        apply = change(ace)
        known = [entry for entry in wanted if entry[0] == kind]
        entries = known if name == "*" else [(kind, identity(kind, name))]
        for entry in entries:
            wanted[entry] = apply(wanted.get(entry, 0))
    return wanted


def identity(kind: int, name: str) -> int:
    """The number of a user or group, given by name or number. Raises UnableError."""
    try:
        if name.isdigit():
            return int(name)
        return pwd.getpwnam(name).pw_uid if kind == USER else grp.getgrnam(name).gr_gid
    except KeyError as problem:
        raise UnableError(f"There is no {'user' if kind == USER else 'group'} {name}.") from problem


def shown(acl: Acl) -> str:
    """The list in the usual short form: `user::rw-,user:1000:r--,mask::r--`."""
    words = {OWNER: "user:", USER: "user", GROUP_OWNER: "group:", GROUP: "group", MASK: "mask:", OTHER: "other:"}
    parts: List[str] = []
    for (kind, number), bits in sorted(acl.items()):
        letters = "".join(letter if bits & bit else "-" for letter, bit in _BITS.items())
        parts.append(f"{words[kind]}:{letters}" if kind not in (USER, GROUP) else f"{words[kind]}:{number}:{letters}")
    return ",".join(parts)


def _entries(text: str) -> List[Tuple[str, str]]:
    entries = []
    for part in text.split(","):
        name, found, ace = part.strip().partition(":")
        if not (name and found):
            raise UnableError(f"{part.strip()} is not an entry like bob:+rx.")
        entries.append((name, ace))
    return entries


def _decoded(data: bytes) -> Acl:
    (version,) = struct.unpack_from("<I", data)
    if version != _VERSION:
        raise UnableError(f"The access control list has the unknown version {version}.")
    entries = struct.iter_unpack("<HHI", data[4:])
    return {(kind, number if kind in (USER, GROUP) else 0): bits for kind, bits, number in entries}


def _encoded(acl: Acl) -> bytes:
    entries = [
        struct.pack("<HHI", kind, bits, number if kind in (USER, GROUP) else _NO_ID)
        for (kind, number), bits in sorted(acl.items())
    ]
    return struct.pack("<I", _VERSION) + b"".join(entries)
