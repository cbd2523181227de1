# SPDX-License-Identifier: Apache-2.0
"""Bodies that are read as files: short ones in memory, long ones on disk, whole either way."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO, Any

import anyio
import pytest
from tests.relaying import disks

from quarterdeck.core.errors import TooLarge, Unavailable
from quarterdeck.web import bodies
from quarterdeck.web.operation import Request

PIECE = 64 * 1024


def request() -> Request:
    return Request(
        method="PUT", target="/", params={}, query_string="", headers={}, request_id="", scheme="http", client=""
    )


def read(content: bytes, asked: Request, directory: Path, limit: int = 10**7) -> IO[bytes]:
    """What is read of a body that comes piece by piece."""
    pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)] or [b""]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def run() -> IO[bytes]:
        return await bodies.read_to_disk(receive, asked, limit, directory)

    return anyio.run(run)


@pytest.mark.parametrize(
    ("size", "in_memory"),
    [(0, True), (1, True), (PIECE, True), (PIECE + 1, False), (256 * 1024, False), (10**6, False)],
)
def test_a_body_is_whole_with_its_digest_and_only_short_ones_stay_in_memory(
    tmp_path: Path, size: int, in_memory: bool
) -> None:
    content, asked = random.Random(size).randbytes(size), request()

    with read(content, asked, tmp_path) as body:
        assert body.read() == content
        assert isinstance(body, io.BytesIO) is in_memory
    assert asked.body_digest == hashlib.sha256(content).hexdigest()
    assert list(tmp_path.iterdir()) == []


def test_a_body_that_is_too_long_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    for size in (1001, 10**6):
        with pytest.raises(TooLarge):
            read(b"x" * size, request(), tmp_path, limit=1000)


@pytest.mark.parametrize("kilobytes", [4, 100, 300])
def test_a_body_that_the_disk_takes_in_part_is_no_body(tmp_path: Path, kilobytes: int) -> None:
    """Also when it becomes full within the last piece, so that nothing is to be written after it."""
    with disks.tiny_disk(tmp_path / "disk", kilobytes) as disk, pytest.raises(Unavailable):
        read(random.Random(0).randbytes(500_000), request(), disk)
