# SPDX-License-Identifier: Apache-2.0
"""What survives an edit, what is backed up, and what a message may show."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.methods.casebook import Scratch, needs_root

from quarterdeck_agent.methods import contents, texts
from quarterdeck_agent.outcome import METHODS, Facts, Finding, MethodCall, State


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"a\n", b"a\r\nb\n", b"a\rb\n\n", b"\xff\xfe\0\n", b"\r\n\r\n", b"a\r"]
)
def test_any_content_survives_being_taken_apart(data: bytes) -> None:
    assert texts.render(texts.parse(data)) == data


@needs_root
def test_an_edit_keeps_owner_mode_attributes_and_the_link_to_the_file(scratch: Scratch) -> None:
    real = scratch.file("real", "a\n", 0o4750)
    os.chown(real, 12345, 54321)
    real.chmod(0o4750)
    os.setxattr(real, "user.note", b"kept")
    (scratch.work / "link").symlink_to("real")

    scratch.enforce("file_lines_present", path="{work}/link", lines="b")

    status = real.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 54321, 0o4750)
    assert os.getxattr(real, "user.note") == b"kept"
    assert (scratch.work / "link").is_symlink()
    assert real.read_text() == "a\nb\n"
    assert sorted(path.name for path in scratch.work.iterdir()) == ["link", "real"]


def test_a_new_file_is_private(scratch: Scratch) -> None:
    scratch.enforce("file_content", path="{work}/f", lines="secret", enforce="true")

    assert stat.S_IMODE((scratch.work / "f").stat().st_mode) == 0o600


def test_previous_contents_are_backed_up_once_each(scratch: Scratch) -> None:
    scratch.file("f", "first\n")
    for line in ("second", "first", "third"):
        scratch.enforce("file_content", path="{work}/f", lines=line, enforce="true")

    kept = list((scratch.state / "backups").iterdir())

    assert sorted(path.read_text() for path in kept) == ["first\n", "second\n"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert all("work%2Ff@" in path.name for path in kept)


def test_only_the_newest_backups_of_a_file_are_kept(scratch: Scratch) -> None:
    scratch.file("f", "0\n")
    scratch.file("other", "0\n")
    scratch.enforce("file_content", path="{work}/other", lines="x", enforce="true")
    for number in range(1, contents.BACKUPS_OF_A_FILE + 6):
        scratch.enforce("file_content", path="{work}/f", lines=str(number), enforce="true")

    kept = [path.name for path in (scratch.state / "backups").iterdir()]

    assert sum("work%2Ff@" in name for name in kept) == contents.BACKUPS_OF_A_FILE
    assert sum("work%2Fother@" in name for name in kept) == 1


@pytest.mark.parametrize("path", ["/dev/null", "/", "{work}/pipe"])
def test_what_is_no_regular_file_is_never_edited(scratch: Scratch, path: str) -> None:
    os.mkfifo(scratch.work / "pipe")

    found = scratch.audit("file_lines_present", path=path, lines="a")

    assert found.state is State.ERROR
    assert "is not a regular file" in found.message


def test_a_removed_file_is_backed_up(scratch: Scratch) -> None:
    scratch.file("f", "precious")

    scratch.enforce("file_absent", path="{work}/f")

    assert [path.read_text() for path in (scratch.state / "backups").iterdir()] == ["precious"]


def test_a_forced_link_backs_up_the_file_it_replaces(scratch: Scratch) -> None:
    scratch.file("f", "precious")

    scratch.enforce("file_symlink_present_force", path="{work}/f", source="/x")

    assert (scratch.work / "f").readlink() == Path("/x")
    assert [path.read_text() for path in (scratch.state / "backups").iterdir()] == ["precious"]


def test_no_content_of_a_shadow_file_is_shown_or_backed_up(scratch: Scratch) -> None:
    scratch.file("shadow", "root:$6$secret:1::::::\n")

    found = scratch.audit("file_lines_absent", path="{work}/shadow", lines="root.*")
    scratch.enforce("file_lines_absent", path="{work}/shadow", lines="root.*")

    assert found.state is State.DRIFT
    assert "$6$" not in found.message
    assert not (scratch.state / "backups").exists()


def test_a_difference_is_shown_with_at_most_forty_lines(scratch: Scratch) -> None:
    scratch.file("f", "".join(f"old {number}\n" for number in range(500)))

    found = scratch.audit("file_content", path="{work}/f", lines="new", enforce="true")

    assert "-old 1" in found.message
    assert "more lines" in found.message
    assert len(found.message.splitlines()) == 1 + contents.DIFF_LINES


def test_a_file_too_large_to_edit_is_refused(scratch: Scratch) -> None:
    path = scratch.file("f")
    os.truncate(path, contents.EDIT_LIMIT_BYTES + 1)

    found = scratch.audit("file_lines_present", path="{work}/f", lines="a")

    assert found.state is State.ERROR
    assert "larger than 64 MiB" in found.message


def test_the_leftover_of_a_killed_edit_does_not_stop_the_next(scratch: Scratch) -> None:
    scratch.file(f".f.quarterdeck-{os.getpid()}", "half")

    scratch.enforce("file_lines_present", path="{work}/f", lines="a")

    assert [path.name for path in scratch.work.iterdir()] == ["f"]


def test_a_mount_point_is_never_removed(scratch: Scratch) -> None:
    found = scratch.enforce("directory_absent", path="/proc", recursive="true")

    assert found.state is State.ERROR
    assert Path("/proc/self").exists()


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """The rights of an account that owns nothing; only root can give them to itself."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.parametrize(("look", "mode"), [("audit", 0o000), ("enforce", 0o444)])
def test_without_permission_there_is_an_error_of_one_sentence(look: str, mode: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        path.write_text("a\n")
        path.chmod(mode)
        Path(directory).chmod(0o555)
        call = MethodCall({"path": str(path), "lines": "b"}, Facts())
        with as_nobody():
            found: Finding = getattr(METHODS["file_lines_present"], look)(call)
        Path(directory).chmod(0o700)

        assert found.state is State.ERROR
        assert found.message.endswith("Permission denied.")
        assert [entry.name for entry in Path(directory).iterdir()] == ["f"]
