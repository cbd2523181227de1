# SPDX-License-Identifier: Apache-2.0
"""Files of run logs: their names tell whose they are, and no archive takes more memory than it may."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.formats import report_files

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"


@pytest.mark.parametrize(
    "name",
    [
        f"2026-01-31T12:00:00+00:00@{NODE}.log",
        f"2026-01-31T12:00:00+00:00@{NODE}.log.gz",
        f"2026-01-31T12:00:00+00:00@{NODE}.log.zip",
        f"2026-01-31T12_00_00+00_00@{NODE}.log",
        f"2026-01-31T12_00_00+00_00@{NODE}.log.zip",
        f"2026-01-31T12:00:00.123456789+02:00@{NODE}.log",
        f"2026-01-31T12:00:00Z@{NODE}.log.gz.zip",
        f"2026-01-31T12:00:00Z@{NODE}.log whatever.gz",
        f"{NODE}_2026-01-31T12:00:00+00:00.log",
        f"{NODE}_2026-01-31T12:00:00Z.log.gz",
        f"{NODE}_2026-01-31T12_00_00+00_00.log.zip",
        f"{NODE}_2026-01-31T12:00:00+00:00.log.gz.zip",
    ],
)
def test_statement_54_names_of_both_orders_tell_their_node(name: str) -> None:
    assert report_files.node_of(name) == NODE
    assert report_files.is_report(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "2026-01-31T12:00:00+00:00@.log",
        "_2026-01-31T12:00:00+00:00.log",
        "@.log",
        "report.log",
        f"{NODE}.log",
        f"2026-01-31@{NODE}.log",
        f"x2026-01-31T12:00:00+00:00@{NODE}.log",
        f"{NODE}_2026-01-31T12:00:00+00:00.log.tmp.gz",
        f".2026-01-31T12:00:00+00:00@{NODE}.log",
        f"2026-01-31T12:00:00+00:00@{NODE}.log/../../etc.log",
        f"2026-01-31T12:00:00+00:00@../{NODE}.log",
        f"2026-01-31T12:00:00+00:00@{NODE}.log\n.gz",
        f"2026-01-31T12:00:00+00:00@{NODE}.log{'x' * 200}",
        f"2026-01-31T12:00:00+00:00@{'a' * 101}.log",
    ],
)
def test_other_names_tell_nothing(name: str) -> None:
    with pytest.raises(Invalid):
        report_files.node_of(name)


@pytest.mark.parametrize("name", ["a.LOG", "a.xml", "a.log.tmp", ".a.log", "log", "a.gz~"])
def test_other_files_are_nobodys_report(name: str) -> None:
    assert not report_files.is_report(name)


def test_a_file_has_the_same_id_on_every_relay() -> None:
    name = f"2026-01-31T12:00:00+00:00@{NODE}.log.gz"

    assert report_files.queue_id(name) == "05944EEF2310F7A50B64043AF43DB99B"


def archive(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as writer:
        writer.writestr("run.log", content)
        writer.writestr("second.log", b"second")
    return made.getvalue()


@pytest.mark.parametrize("content", [b"", b"one", b"x" * 300_000])
def test_statement_54_what_is_inside_comes_out(content: bytes) -> None:
    assert report_files.unpacked("a.log", content) == content
    assert report_files.unpacked("a.log.gz", gzip.compress(content)) == content
    assert report_files.unpacked("a.log.zip", archive(content)) == content
    assert report_files.unpacked("a.log.zip", archive(content, zipfile.ZIP_STORED)) == content


def test_only_the_first_of_several_streams_counts() -> None:
    assert report_files.unpacked("a.log.gz", gzip.compress(b"one") + gzip.compress(b"two")) == b"one"
    assert report_files.unpacked("a.log.gz", gzip.compress(b"one") + b"garbage") == b"one"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", b""),
        ("a.gz", b"text"),
        ("a.gz", gzip.compress(b"x" * 1000, mtime=0)[:-10]),
        ("a.zip", b""),
        ("a.zip", b"text" * 20),
        ("a.zip", archive(b"x" * 1000)[:40]),
        ("a.zip", archive(b"x" * 1000, zipfile.ZIP_LZMA)),
        ("a.zip", archive(b"x")[:6] + b"\x01" + archive(b"x")[7:]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives say when they were made
)
def test_what_cannot_be_unpacked_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(Invalid):
        report_files.unpacked(name, content)


@given(st.binary(max_size=200))
def test_no_archive_is_too_odd(content: bytes) -> None:
    for name, data in (("a.gz", content), ("a.zip", content), ("a.zip", b"PK\x03\x04" + content)):
        try:
            report_files.unpacked(name, data)
        except Invalid:
            continue


def test_what_is_too_long_is_refused_in_every_form() -> None:
    content = b"\0" * (report_files.MAX_BYTES + 1)

    for name, data in (
        ("a.log", content),
        ("a.gz", gzip.compress(content)),
        ("a.zip", archive(content)),
        ("a.zip", archive(content, zipfile.ZIP_STORED)),
    ):
        with pytest.raises(TooLarge):
            report_files.unpacked(name, data)


_BOMB = """
import resource, sys
from quarterdeck.core.errors import TooLarge
from quarterdeck.formats import report_files

data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    report_files.unpacked("a.log" + sys.argv[1], data)
except TooLarge:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def gigabyte() -> bytes:
    """1 GB of nothing, as raw deflate data."""
    packer = zlib.compressobj(level=1, wbits=-15)
    block = b"\0" * 2**20
    return b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()


@pytest.mark.parametrize("ending", [".gz", ".zip"])
def test_statement_59_a_bomb_of_1_gb_is_refused_with_little_memory(gigabyte: bytes, ending: str) -> None:
    head = archive(b"x")[: 30 + len("run.log")] if ending == ".zip" else b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    done = subprocess.run([sys.executable, "-c", _BOMB, ending], input=head + gigabyte, capture_output=True, check=True)

    assert int(done.stdout) < 64 * 1024, "KiB"
