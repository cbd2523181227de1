# SPDX-License-Identifier: Apache-2.0
"""Parts of files on the wire: the same bytes, whether they are at hand in memory or have to be waited for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.web import answers
from quarterdeck.web.operation import Answer, Excerpt, Request

REQUEST = Request(method="GET", target="/", params={}, query_string="", headers={})
#: More than two pieces, the last one short.
CONTENT = bytes(range(256)) * 2500


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file of the disk: what was just written to it is at hand."""
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor


@contextmanager
def in_memory(_: Path) -> Iterator[int]:
    """A file of whose content nobody can tell whether it is at hand."""
    descriptor = os.memfd_create("content")
    os.write(descriptor, CONTENT)
    with pytest.raises(OSError, match="not supported"):
        os.preadv(descriptor, [bytearray(10)], 0, os.RWF_NOWAIT)
    yield descriptor


def written(excerpt: Excerpt) -> bytes:
    """What a client gets."""
    sent: list[bytes] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    asyncio.run(answers.write(send, Answer(body=excerpt), REQUEST, receive))
    return b"".join(sent)


@pytest.mark.parametrize("kind", [opened, in_memory])
@pytest.mark.parametrize(
    ("start", "length"), [(0, len(CONTENT)), (0, 0), (1, 10), (300_000, 262_144), (len(CONTENT) - 1, 1)]
)
def test_a_part_of_a_file_is_written_byte_by_byte(tmp_path: Path, kind: Any, start: int, length: int) -> None:
    with kind(tmp_path / "file") as descriptor:
        excerpt = Excerpt(descriptor=descriptor, start=start, length=length)

        assert written(excerpt) == CONTENT[start : start + length]

    assert excerpt.descriptor == -1, "it is closed"


@pytest.mark.parametrize("kind", [opened, in_memory])
def test_a_file_that_became_shorter_ends_early(tmp_path: Path, kind: Any) -> None:
    with kind(tmp_path / "file") as descriptor:
        excerpt = Excerpt(descriptor=descriptor, start=10, length=len(CONTENT))

        assert written(excerpt) == CONTENT[10:]
