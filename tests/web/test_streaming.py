# SPDX-License-Identifier: Apache-2.0
"""Answers in pieces: written as they come, and given up as soon as nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

from quarterdeck.web import answers
from quarterdeck.web.operation import Answer, Request

REQUEST = Request(method="GET", target="/", params={}, query_string="", headers={})


def test_a_client_that_goes_away_ends_what_is_written_for_it() -> None:
    closed, sent = [], []

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def play() -> None:
        gone = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message.get("body"))
            if message.get("body") == b"first":
                gone.set()

        await asyncio.wait_for(answers.write(send, Answer(body=endless()), REQUEST, receive), 10)

    asyncio.run(play())

    assert sent == [None, b"first"]
    assert closed == [True]


def test_pieces_are_written_as_they_come_to_a_client_that_stays() -> None:
    sent: list[tuple[bytes | None, bool]] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def play() -> None:
        async def receive() -> MutableMapping[str, Any]:
            await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append((message.get("body"), message.get("more_body", False)))

        await asyncio.wait_for(answers.write(send, Answer(body=pieces()), REQUEST, receive), 10)

    asyncio.run(play())

    assert sent == [(None, False), (b"a", True), (b"b", True), (b"", False)]
