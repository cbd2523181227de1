# SPDX-License-Identifier: Apache-2.0
"""Whose word counts about a client, at a socket on the loopback that a proxy shares with this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quarterdeck.daemon.proxies import Proxied

Seen = dict[str, Any]
Ask = Callable[..., Seen]


@pytest.fixture
def asked() -> Ask:
    """What an application behind a trusted proxy at 127.0.0.2 sees of a request."""

    def ask(peer: str, *headers: tuple[str, str]) -> Seen:
        seen: Seen = {}

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.update(scope)

        raw = [(name.encode(), value.encode()) for name, value in headers]
        scope = {"type": "http", "client": (peer, 4711), "scheme": "http", "headers": raw}
        asyncio.run(Proxied(application, ["127.0.0.2"], "X-SSL-Client-Cert")(scope, None, None))  # type: ignore[arg-type]
        return {"client": seen["client"][0], **{name.decode(): value.decode() for name, value in seen["headers"]}}

    return ask


@pytest.mark.parametrize("said", [[], [("x-forwarded-for", "")], [("x-forwarded-proto", "https")]])
def test_a_proxy_that_names_no_client_is_its_own(said: list[tuple[str, str]], asked: Ask) -> None:
    seen = asked("127.0.0.2", *said)

    assert (seen["client"], seen["x-forwarded-for"]) == ("127.0.0.2", "127.0.0.2")


def test_this_machine_beside_the_proxy_is_still_this_machine(asked: Ask) -> None:
    seen = asked("127.0.0.1", ("x-ssl-client-cert", "PEM"))

    assert seen == {"client": "127.0.0.1"}


@pytest.mark.parametrize("peer", ["127.0.0.2", "::ffff:127.0.0.2", "::ffff:7f00:2"])
def test_a_proxy_is_known_by_either_writing_of_its_address(peer: str, asked: Ask) -> None:
    seen = asked(peer, ("x-forwarded-for", "192.0.2.7"), ("x-ssl-client-cert", "PEM"))

    assert (seen["client"], seen["x-ssl-client-cert"]) == ("192.0.2.7", "PEM")


@pytest.mark.parametrize("peer", ["::1", "::ffff:127.0.0.3", "192.0.2.7", "", "unix"])
def test_nobody_else_passes_a_certificate_on(peer: str, asked: Ask) -> None:
    seen = asked(peer, ("X-Ssl-Client-Cert", "PEM"), ("x-ssl-client-cert", "PEM"), ("x-forwarded-for", "127.0.0.1"))

    assert {name.lower() for name in seen} == {"client", "x-forwarded-for"}
    assert seen["client"] == peer.removeprefix("::ffff:")


def test_the_nearest_proxys_word_counts_not_what_its_client_wrote(asked: Ask) -> None:
    assert asked("127.0.0.2", ("x-forwarded-for", "127.0.0.1, 192.0.2.7"))["client"] == "192.0.2.7"
    assert (
        asked("127.0.0.2", ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "192.0.2.7"))["client"] == "192.0.2.7"
    )
