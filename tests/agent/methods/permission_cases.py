# SPDX-License-Identifier: Apache-2.0
"""Cases of the methods on modes, owners and access control lists."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.agent.methods.casebook import COMPLIANT, ERROR, Case, Scratch

from quarterdeck_agent.methods import acls

F = "{work}/f"


def file(mode: int = 0o644) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.file("f", "x", mode)


def link(scratch: Scratch) -> None:
    (scratch.work / "f").symlink_to(scratch.file("target", "x"))


def tree(scratch: Scratch) -> None:
    """A directory f with a file, a directory, a file in that, and a link to something outside."""
    scratch.file("outside", "x", 0o600)
    scratch.file("f/a", "x")
    scratch.file("f/d/b", "x")
    (scratch.work / "f/l").symlink_to("../outside")


def acl(*entries: tuple[int, int, int], mode: int = 0o640) -> Callable[[Scratch], object]:
    """A file with named entries: kind, id, bits."""

    def prepare(scratch: Scratch) -> None:
        path = str(scratch.file("f", "x", mode))
        acls.put(path, acls.completed({**acls.get(path), **{(kind, number): bits for kind, number, bits in entries}}))

    return prepare


def acl_tree(scratch: Scratch) -> None:
    tree(scratch)
    for name in ("f", "f/d/b"):
        path = str(scratch.work / name)
        acls.put(path, acls.completed({**acls.get(path), (acls.USER, 12345): 4}))


ME, MINE = str(os.getuid()), str(os.getgid())

PERMISSIONS = [
    Case("permissions", {"path": F, "mode": "600"}, prepare=file(), says="has mode 0644; 0600 is expected"),
    Case("permissions", {"path": F, "mode": "644", "owner": ME, "group": MINE}, COMPLIANT, prepare=file()),
    Case("permissions", {"path": F}, COMPLIANT, prepare=file()),
    Case("permissions", {"path": F, "mode": "u+x,go-r"}, prepare=file(), says="0700"),
    Case("permissions", {"path": F, "mode": "g=u,o="}, ERROR, prepare=file(), says="not a mode"),
    Case("permissions", {"path": F, "mode": "ug=rwx,o="}, prepare=file(), says="0770"),
    Case(
        "permissions",
        {"path": F, "mode": "4755", "owner": "12345", "group": "12345"},
        prepare=file(),
        says="12345",
        root=True,
    ),
    Case("permissions", {"path": F, "mode": "640"}, ERROR, says="No such file"),
    Case("permissions", {"path": F, "owner": "no-such-user"}, ERROR, prepare=file(), says="no user no-such-user"),
    Case("permissions", {"path": F, "mode": "600"}, prepare=link),
    Case("permissions_dirs", {"path": F, "mode": "700"}, prepare=tree),
    Case("permissions_dirs", {"path": F, "mode": "700"}, ERROR, prepare=file(), says="not a directory"),
    Case("permissions_recursive", {"path": F, "mode": "go-rwx", "owner": "12345"}, prepare=tree, root=True),
    Case("permissions_dirs_recursive", {"path": F, "mode": "700"}, prepare=tree),
    Case("permissions_type_recursion", {"path": F, "mode": "600", "type": "plain", "recursion": "1"}, prepare=tree),
    Case(
        "permissions_type_recursion",
        {"path": F, "mode": "u+X", "type": "all", "recursion": "inf"},
        COMPLIANT,
        prepare=tree,
    ),
    Case("permissions_type_recursion", {"path": F, "type": "all", "recursion": "far"}, ERROR, prepare=tree),
    Case("permissions_type_recursion", {"path": F, "type": "fish", "recursion": "1"}, ERROR, prepare=tree),
]

PARENT = "permissions_posix_acl_entry_parent"

ACLS = [
    Case("permissions_acl_entry", {"path": F, "user": "12345:+rx", "group": "54321:=r"}, prepare=file()),
    Case(
        "permissions_acl_entry", {"path": F, "user": "*:-r"}, prepare=acl((acls.USER, 12345, 6)), says="user:12345:-w-"
    ),
    Case("permissions_acl_entry", {"path": F, "user": "12345:+r"}, COMPLIANT, prepare=acl((acls.USER, 12345, 6))),
    Case("permissions_acl_entry", {"path": F, "user": "*:+r"}, COMPLIANT, prepare=file()),
    Case("permissions_acl_entry", {"path": F, "user": "nobody"}, ERROR, prepare=file(), says="not an entry"),
    Case("permissions_acl_entry", {"path": F, "user": "12345:+z"}, ERROR, prepare=file(), says="not a permission"),
    Case("permissions_acl_entry", {"path": F, "recursive": "true", "user": "12345:r"}, prepare=tree),
    Case("permissions_user_acl_present", {"path": F, "user": "12345", "ace": "=rw"}, prepare=file()),
    Case("permissions_user_acl_present", {"path": F, "user": "no-such-user", "ace": "=rw"}, ERROR, prepare=file()),
    Case("permissions_user_acl_absent", {"path": F, "user": "12345"}, prepare=acl((acls.USER, 12345, 6))),
    Case("permissions_user_acl_absent", {"path": F, "user": "12345"}, COMPLIANT, prepare=file()),
    Case("permissions_group_acl_present", {"path": F, "group": "12345", "ace": "+x"}, prepare=link),
    Case("permissions_group_acl_absent", {"path": F, "group": "1"}, prepare=acl((acls.GROUP, 1, 6), (acls.USER, 2, 4))),
    Case(
        "permissions_other_acl_present", {"path": F, "other": "+r"}, prepare=acl((acls.USER, 2, 4)), says="other::r--"
    ),
    Case("permissions_other_acl_present", {"path": F, "other": "-r"}, COMPLIANT, prepare=file(0o600)),
    Case("permissions_posix_acls_absent", {"path": F}, prepare=acl((acls.GROUP, 1, 6), (acls.USER, 2, 4))),
    Case("permissions_posix_acls_absent", {"path": F, "recursive": "true"}, prepare=acl_tree),
    Case("permissions_posix_acls_absent", {"path": F}, ERROR, says="No such file"),
    # Entries of parents that name nobody: directories above the scratch machine must stay as they are.
    Case(PARENT, {"path": F, "user": "12345:r", "parent_permissions_user": "*:+x"}, prepare=file()),
]

CASES = [*PERMISSIONS, *ACLS]
