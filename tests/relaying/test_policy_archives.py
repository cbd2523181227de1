# SPDX-License-Identifier: Apache-2.0
"""Archives of policies that are kept: how many, for how long, and for whom who reads one while it goes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quarterdeck.relaying.copies import PolicyCopy
from quarterdeck.relaying.policy_archives import Archive, Archives

CONTENT = bytes(range(256)) * 40


def policy(number: int) -> PolicyCopy:
    return PolicyCopy(f"id-{number}", "c2lnbmVk", b'{"policy":%d}' % number)


class Shelf:
    """Archives, and how often one was packed."""

    def __init__(self, archives: Archives) -> None:
        self.archives = archives
        self.packed = 0

    def open(self, number: int) -> Archive:
        def resources() -> Iterator[tuple[str, bytes]]:
            self.packed += 1
            yield "digest", CONTENT

        return self.archives.open(policy(number), resources())

    def read(self, number: int) -> bytes:
        archive = self.open(number)
        with os.fdopen(archive.descriptor, "rb") as file:
            return os.pread(file.fileno(), archive.size, 0)


Make = Callable[..., Shelf]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes archives with these limits."""
    made: list[Archives] = []

    def shelf(**limits: int) -> Shelf:
        made.append(Archives(directory=tmp_path, key="key", **limits))
        return Shelf(made[-1])

    yield shelf
    for archives in made:
        archives.close()


def test_who_asks_again_gets_the_one_that_was_made(make: Make, tmp_path: Path) -> None:
    shelf = make()

    first, again, other = shelf.read(1), shelf.read(1), shelf.read(2)

    assert (first == again, first == other, shelf.packed) == (True, False, 2)
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.read("policy.json") == b'{"policy":1}'
    assert list(tmp_path.iterdir()) == []


def test_another_signature_is_another_archive(make: Make) -> None:
    archives = make().archives
    known = policy(1)

    tags = []
    for signature in (known.signature, "b3RoZXI="):
        archive = archives.open(PolicyCopy(known.config_id, signature, known.body), ())
        os.close(archive.descriptor)
        tags.append(archive.digest)

    assert tags[0] != tags[1]


def test_the_one_that_nobody_asked_for_longest_goes_first(make: Make) -> None:
    shelf = make(most=2)
    for number in (1, 2, 1, 3):
        shelf.read(number)

    assert (shelf.packed, len(shelf.read(1)) > 0, shelf.packed) == (3, True, 3)
    shelf.read(2)
    assert shelf.packed == 4


def test_they_take_no_more_bytes_than_they_may(make: Make) -> None:
    few = make(most_bytes=2 * len(CONTENT))
    none = make(most_bytes=100)

    for shelf in (few, none):
        for number in (1, 2, 2, 1):
            shelf.read(number)

    assert (few.packed, none.packed) == (3, 4)


def test_who_reads_one_goes_on_reading_when_it_goes(make: Make) -> None:
    shelf = make(most=1)
    archive = shelf.open(1)
    whole = shelf.read(1)

    shelf.read(2)

    assert os.pread(archive.descriptor, archive.size, 0) == whole
    os.close(archive.descriptor)


def test_what_cannot_be_packed_is_not_kept(make: Make) -> None:
    shelf = make()

    def broken() -> Iterator[tuple[str, bytes]]:
        raise OSError("the disk is broken")
        yield

    with pytest.raises(OSError, match="broken"):
        shelf.archives.open(policy(1), broken())

    assert shelf.read(1)
