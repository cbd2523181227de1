# SPDX-License-Identifier: Apache-2.0
"""One request on its way: limits, transactions, tokens, faults of ours."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
import pytest
from tests.served import Served

from quarterdeck.core.accounts import Access
from quarterdeck.core.errors import QuarterdeckError, Unavailable
from quarterdeck.dialects.rudder import errors as rudder_errors
from quarterdeck.dialects.rudder.dialect import RudderDialect
from quarterdeck.services import accounts, rules
from quarterdeck.web import bodies, runner

RULES = "/rudder/api/latest/rules"


def test_a_body_over_the_limit_is_refused_in_the_envelope(served: Served) -> None:
    headers = {"X-API-Token": served.tokens["admin"], "Content-Type": "application/json"}

    answer = served.client.put(RULES, content=b"x" * (10 * 1024 * 1024 + 1), headers=headers)

    assert answer.status_code == 413
    assert answer.json()["result"] == "error"
    assert answer.json()["errorDetails"] == "The body is longer than 10485760 bytes."


def test_long_bodies_share_a_room_and_short_ones_pass(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 5.0)
    token = served.tokens["admin"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": RULES,
        "query_string": b"",
        "headers": [(b"x-api-token", token), (b"content-type", b"application/json")],
    }
    statuses: dict[str, int] = {}

    async def play() -> None:
        room = bodies.Room(300_000)
        app = runner.Runner(
            grammar=RudderDialect(),
            database=served.database,
            prefix="/rudder/api",
            threads=anyio.CapacityLimiter(2),
            room=room,
        )

        async def ask(name: str, size: int, go_on: asyncio.Event) -> None:
            first = True

            async def receive() -> dict[str, object]:
                nonlocal first
                if first:
                    first = False
                    return {"type": "http.request", "body": b" " * size, "more_body": True}
                await go_on.wait()
                return {"type": "http.request", "body": b"{}"}

            async def send(message: Any) -> None:
                statuses.setdefault(name, message.get("status"))

            await app(dict(scope), receive, send)

        go_on, at_once, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
        at_once.set()
        waiting = asyncio.create_task(ask("waiting", 200_000, go_on))
        await asyncio.sleep(0)
        assert room.free == 100_000
        await ask("too much", 200_000, at_once)
        await ask("short", 1_000, at_once)
        go_on.set()
        await waiting
        await ask("later", 200_000, at_once)
        monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
        await ask("never", 200_000, never)
        assert room.free == 300_000

    asyncio.run(play())

    refused = statuses.pop("never")
    assert statuses.pop("too much") == 503
    assert set(statuses.values()) == {200}
    assert refused >= 400


def test_a_form_with_very_many_fields_is_refused_and_not_read_for_strangers(served: Served) -> None:
    def put(token: str) -> httpx.Response:
        headers = {"X-API-Token": token, "Content-Type": "application/x-www-form-urlencoded"}
        return served.client.put(RULES, content=b"a&" * 4_000_000, headers=headers)

    begun = time.monotonic()
    stranger, friend = put(""), put(served.tokens["admin"])

    assert (stranger.status_code, stranger.json()["errorDetails"]) == (401, "A token is needed.")
    assert friend.json()["result"] == "error"
    assert friend.json()["errorDetails"].endswith("The form has more than 50000 fields.")
    assert time.monotonic() - begun < 5  # taken apart, each would take 4 s and 1 GB


def test_a_multipart_body_with_very_many_parts_is_refused(served: Served) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    headers = {"X-API-Token": served.tokens["admin"], "Content-Type": "multipart/form-data; boundary=x"}

    answer = served.client.put(RULES, content=part * 2_000 + b"--x--\r\n", headers=headers)

    assert answer.json()["result"] == "error"
    assert "it has more than 1000 parts" in answer.json()["errorDetails"]


def test_an_expired_token_is_refused(served: Served) -> None:
    with served.unit_of_work() as ctx:
        past = datetime.now(UTC) + timedelta(seconds=0.2)
        token = accounts.create_token(ctx, "short", access=Access.READ, roles=frozenset(), expires_at=past)[1]
    while datetime.now(UTC) < past:
        pass

    answer = served.client.get(RULES, headers={"X-API-Token": token})

    assert answer.status_code == 401
    assert answer.json() == {
        "action": "listRules",
        "result": "error",
        "errorDetails": "The token has expired.",
    }


def test_a_revoked_token_is_refused(served: Served) -> None:
    with served.unit_of_work() as ctx:
        token = accounts.create_token(ctx, "gone", access=Access.READ, roles=frozenset(), expires_at=None)[1]
    with served.unit_of_work() as ctx:
        accounts.revoke_token(ctx, "gone")

    assert served.client.get(RULES, headers={"X-API-Token": token}).status_code == 401


def test_a_fault_of_ours_keeps_nothing_and_tells_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret detail")

    # The last thing that a creation does before the commit.
    monkeypatch.setattr("quarterdeck.services.reactions.follow", fails)

    answer = served.client.put(
        RULES, json={"id": "r", "displayName": "Rule"}, headers={"X-API-Token": served.tokens["admin"]}
    )

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.headers["X-Request-Id"] in answer.json()["errorDetails"]
    with served.unit_of_work() as ctx:
        assert ctx.store.rules.find("r") is None


def test_every_change_is_in_the_history_with_actor_reason_and_request(served: Served) -> None:
    headers = {"X-API-Token": served.tokens["write"]}
    served.client.put(f"{RULES}?reason=because", json={"id": "r", "displayName": "Rule"}, headers=headers)
    answer = served.client.post(f"{RULES}/r", json={"displayName": "Other"}, headers=headers)

    with served.unit_of_work() as ctx:
        created, modified = ctx.store.history.of("rule", "r")

    assert (created.actor, created.reason, created.change, created.before) == ("write", "because", "created", None)
    assert modified.before["name"] == "Rule"
    assert modified.after["name"] == "Other"
    assert modified.request_id == answer.headers["X-Request-Id"]


def test_an_update_that_changes_nothing_leaves_no_trace(served: Served) -> None:
    headers = {"X-API-Token": served.tokens["admin"]}
    served.client.put(RULES, json={"id": "r", "displayName": "Rule"}, headers=headers)
    served.client.post(f"{RULES}/r", json={"displayName": "Rule"}, headers=headers)

    with served.unit_of_work() as ctx:
        assert len(ctx.store.history.of("rule", "r")) == 1
        assert rules.get(ctx, "r").name == "Rule"


def _kinds(kind: type[QuarterdeckError]) -> list[type[QuarterdeckError]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in _kinds(child))]


def test_the_error_table_covers_every_kind() -> None:
    assert rudder_errors.look_up(Unavailable("x"))[0] == 503
    for kind in _kinds(QuarterdeckError):
        if kind is not QuarterdeckError and kind.__module__.startswith(
            ("quarterdeck.core", "quarterdeck.dialects.rudder")
        ):
            error = kind.__new__(kind)  # some want more than a message
            QuarterdeckError.__init__(error, "x")
            assert rudder_errors.look_up(error)[0] >= 400
