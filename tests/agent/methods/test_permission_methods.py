# SPDX-License-Identifier: Apache-2.0
"""What the permission methods leave alone, and where links lead."""

from __future__ import annotations

import stat

import pytest
from tests.agent.methods.casebook import Scratch, needs_root
from tests.agent.methods.permission_cases import acl, link, tree

from quarterdeck_agent.methods import acls, permissions
from quarterdeck_agent.outcome import State


def mode(scratch: Scratch, name: str) -> int:
    return stat.S_IMODE((scratch.work / name).lstat().st_mode)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("640", 0o100777, 0o640),
        ("u=rw,go=r", 0o100777, 0o644),
        ("+x", 0o100644, 0o755),
        ("a-w", 0o100666, 0o444),
        ("u+s,g+s", 0o100755, 0o6755),
        ("+t", 0o040777, 0o1777),
        ("u-rwx+r", 0o100700, 0o400),
        ("go+X", 0o100600, 0o600),
        ("go+X", 0o040700, 0o711),
    ],
)
def test_a_mode_can_be_octal_or_symbolic(text: str, before: int, after: int) -> None:
    assert permissions.wanted_mode(text, before) == after


@needs_root
def test_a_recursive_change_never_follows_links(scratch: Scratch) -> None:
    tree(scratch)

    scratch.enforce("permissions_recursive", path="{work}/f", mode="777", owner="12345")

    outside = (scratch.work / "outside").stat()
    assert stat.S_IMODE(outside.st_mode) == 0o600
    assert outside.st_uid != 12345
    assert (scratch.work / "f/l").lstat().st_uid == 12345
    assert mode(scratch, "f/d/b") == 0o777


def test_the_given_path_itself_is_followed(scratch: Scratch) -> None:
    link(scratch)

    scratch.enforce("permissions", path="{work}/f", mode="600")

    assert mode(scratch, "target") == 0o600
    assert (scratch.work / "f").is_symlink()


def test_depth_and_type_limit_a_recursive_change(scratch: Scratch) -> None:
    tree(scratch)

    scratch.enforce("permissions_type_recursion", path="{work}/f", mode="600", type="plain", recursion="1")

    assert (mode(scratch, "f/a"), mode(scratch, "f/d/b"), mode(scratch, "f/d")) == (0o600, 0o644, 0o755)


@needs_root
def test_changing_the_owner_keeps_the_set_id_bits_that_the_mode_asks_for(scratch: Scratch) -> None:
    scratch.file("f", "x", 0o755)

    scratch.enforce("permissions", path="{work}/f", mode="4755", owner="12345")

    assert mode(scratch, "f") == 0o4755


def test_a_new_named_entry_does_not_widen_what_the_group_may_do(scratch: Scratch) -> None:
    path = str(scratch.file("f", "x", 0o640))

    scratch.enforce("permissions_user_acl_present", path=path, user="12345", ace="=rwx")

    found = acls.get(path)
    assert found[acls.GROUP_OWNER, 0] == 4
    assert found[acls.MASK, 0] == 7


def test_stripping_a_list_leaves_the_plain_mode(scratch: Scratch) -> None:
    acl((acls.USER, 12345, 7), mode=0o640)(scratch)

    scratch.enforce("permissions_posix_acls_absent", path="{work}/f")

    assert mode(scratch, "f") == 0o640


def test_editing_a_file_keeps_its_owner_mode_and_access_control_list(scratch: Scratch) -> None:
    acl((acls.USER, 12345, 6), mode=0o640)(scratch)
    before = acls.get(str(scratch.work / "f"))

    scratch.enforce("file_content", path="{work}/f", lines="new", enforce="true")

    assert acls.get(str(scratch.work / "f")) == before
    assert scratch.audit("file_content", path="{work}/f", lines="new", enforce="true").state is State.COMPLIANT


def test_of_many_differences_only_some_are_named(scratch: Scratch) -> None:
    for number in range(30):
        scratch.file(f"f/{number}", "x")

    found = scratch.audit("permissions_recursive", path="{work}/f", mode="u=rwX,go=")

    assert len(found.message.splitlines()) == 11
    assert found.message.endswith("... and 21 more.")
