# SPDX-License-Identifier: Apache-2.0
"""Tokens, users, enrolment tokens, the event log, the server: for those who may, and plain errors for the others."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.dialects.native.conftest import Native

from quarterdeck.core.accounts import DANGEROUS
from quarterdeck.dialects.native.chapters import OPERATIONS
from quarterdeck.dialects.native.errors import TABLE
from quarterdeck.services import accounts


def failed(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"]


def test_a_new_token_works_until_it_is_revoked(native: Native) -> None:
    made = native.ask("POST", "/tokens", "admin", {"name": "ci", "access": "read"})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    assert re.fullmatch(r"[A-Za-z0-9]{32}", token)
    headers = {"Authorization": f"Bearer {token}"}

    me = native.client.get("/quarterdeck/api/1/me", headers=headers)
    assert (me.status_code, me.json()["name"]) == (200, "ci")
    assert "rule.read" in me.json()["rights"]
    assert native.ask("DELETE", "/tokens/ci", "admin").status_code == 200

    assert failed(native.client.get("/quarterdeck/api/1/me", headers=headers)) == (401, "unauthenticated")
    assert "ci" not in [one["name"] for one in native.ask("GET", "/tokens", "admin").json()]


def test_lists_never_tell_secrets(native: Native) -> None:
    secret = native.ask("POST", "/tokens", "admin", {"name": "ci", "access": "read"}).json()["token"]
    enrolling = native.ask("POST", "/enrolment-tokens", "admin", {"name": "rack 7"}).json()["token"]
    native.ask("POST", "/users", "admin", {"name": "ann", "password": "correct horse", "roles": ["read_only"]})

    for path in ("/tokens", "/users", "/enrolment-tokens", "/events"):
        text = native.ask("GET", path, "admin").text
        assert secret not in text
        assert enrolling not in text
        assert "argon2" not in text


def test_an_expired_token_is_refused_when_made(native: Native) -> None:
    document = {"name": "late", "access": "read", "expires": "2020-01-01T00:00:00"}

    assert failed(native.ask("POST", "/tokens", "admin", document)) == (400, "invalid")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"name": "x"}, (400, "invalid")),
        ({"name": "x", "access": "all"}, (400, "invalid")),
        ({"name": " ", "access": "read"}, (400, "invalid")),
        ({"name": "x", "access": "read", "roles": ["king"]}, (400, "invalid")),
        ({"name": "x", "access": "read", "colour": "red"}, (400, "invalid")),
        ({"name": "admin", "access": "read"}, (409, "already_exists")),
        ([], (400, "invalid")),
    ],
)
def test_a_token_that_cannot_be_made_is_an_error_that_says_why(
    native: Native, document: Any, expected: tuple[int, str]
) -> None:
    assert failed(native.ask("POST", "/tokens", "admin", document)) == expected


def test_a_user_logs_in_with_the_password_and_with_nothing_else(native: Native) -> None:
    made = native.ask("POST", "/users", "admin", {"name": "ann", "password": "correct horse", "roles": ["read_only"]})
    assert made.status_code == 201, made.text

    with native.unit_of_work() as ctx:
        known = accounts.check_password(ctx, "ann", "correct horse")
        assert known is not None
        assert known.name == "ann"
        assert accounts.check_password(ctx, "ann", "wrong horse") is None
        assert accounts.check_password(ctx, "bob", "correct horse") is None
        assert accounts.check_password(ctx, "admin", "correct horse") is None, "a token is no user"
    native.ask("POST", "/users/ann/password", "admin", {"password": "battery staple"})
    with native.unit_of_work() as ctx:
        assert accounts.check_password(ctx, "ann", "correct horse") is None
        assert accounts.check_password(ctx, "ann", "battery staple") is not None
    assert native.ask("DELETE", "/users/ann", "admin").status_code == 200
    with native.unit_of_work() as ctx:
        assert accounts.check_password(ctx, "ann", "battery staple") is None


def test_a_short_password_is_refused(native: Native) -> None:
    document = {"name": "ann", "password": "1234567", "roles": []}

    assert failed(native.ask("POST", "/users", "admin", document)) == (400, "invalid")


def test_nobody_gives_rights_they_do_not_have(native: Native) -> None:
    document = {"name": "clerk", "access": "read", "roles": ["administration_only"]}
    clerk = native.ask("POST", "/tokens", "admin", document).json()["token"]
    headers = {"X-API-Token": clerk}

    grab = native.client.post(
        "/quarterdeck/api/1/tokens", json={"name": "mine", "access": "read", "roles": ["admin"]}, headers=headers
    )
    fair = native.client.post("/quarterdeck/api/1/tokens", json={"name": "fair", "access": "read"}, headers=headers)

    assert failed(grab) == (403, "forbidden")
    assert fair.status_code == 201


def test_a_token_that_expires_gives_nobody_rights_beyond_its_end(native: Native) -> None:
    end = datetime.now(UTC) + timedelta(hours=1)
    with native.unit_of_work() as ctx:
        accounts.create_user(ctx, "ann", "correct horse", frozenset({"admin"}))
        secret = accounts.create_token(ctx, "contractor", access=None, roles=frozenset({"admin"}), expires_at=end)[1]

    def ask(path: str, document: dict[str, Any]) -> int:
        answer = native.client.post(f"/quarterdeck/api/1{path}", json=document, headers={"X-API-Token": secret})
        return answer.status_code

    token = {"name": "heir", "access": "read"}
    assert ask("/tokens", token) == 403
    assert ask("/tokens", token | {"expires": (end + timedelta(seconds=1)).isoformat()}) == 403
    assert ask("/users", {"name": "bob", "password": "long enough", "roles": ["read_only"]}) == 403
    assert ask("/users/ann/password", {"password": "long enough"}) == 403
    assert ask("/tokens", token | {"expires": end.isoformat()}) == 201


def test_an_enrolment_token_is_listed_and_revoked(native: Native) -> None:
    made = native.ask("POST", "/enrolment-tokens", "admin", {"name": "rack 7", "accept": True, "uses": 3}).json()

    [listed] = native.ask("GET", "/enrolment-tokens", "admin").json()
    assert listed == {key: value for key, value in made.items() if key != "token"}
    assert native.ask("DELETE", f"/enrolment-tokens/{made['id']}", "admin").status_code == 200
    assert native.ask("GET", "/enrolment-tokens", "admin").json() == []
    assert failed(native.ask("DELETE", f"/enrolment-tokens/{made['id']}", "admin")) == (404, "not_found")


def test_the_event_log_says_who_changed_what_and_why(native: Native) -> None:
    native.ask("POST", "/users?reason=She+is+new", "admin", {"name": "ann", "password": "correct horse", "roles": []})
    native.ask("DELETE", "/users/ann", "admin")

    found = native.ask("GET", "/events?limit=3", "read").json()

    [gone, _, made] = found["events"]
    assert (made["actor"], made["reason"], made["change"], made["before"]) == ("admin", "She is new", "created", None)
    assert made["after"]["name"] == "ann"
    assert (gone["change"], gone["after"]) == ("deleted", None)
    older = native.ask("GET", f"/events?limit=1000&before={found['next']}", "read").json()
    assert all(one["id"] < made["id"] for one in older["events"])
    assert older["next"] is None
    history = native.ask("GET", f"/events/account/{made['objectId']}", "read").json()["events"]
    assert [one["change"] for one in history] == ["created", "modified", "deleted"]
    assert failed(native.ask("GET", "/events/account/nobody", "read")) == (404, "not_found")


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "limit=1001", "before=-1"])
def test_a_wrong_page_is_an_error(native: Native, query: str) -> None:
    assert failed(native.ask("GET", f"/events?{query}", "read")) == (400, "invalid")


def test_the_server_says_what_it_is_and_what_generation_does(native: Native) -> None:
    server = native.ask("GET", "/server", "read").json()
    generation = native.ask("GET", "/generation", "read").json()

    assert server["pin"] == "sha256//x"
    assert server["policyKey"] == native.parts.signing_key.public_pem
    assert server["uptimeSeconds"] >= 0
    assert generation == {"running": False, "generations": [], "errors": []}


def test_an_unknown_operation_says_what_there_is(native: Native) -> None:
    assert failed(native.ask("GET", "/nothing", "admin")) == (404, "not_found")
    assert "GET, POST" in native.ask("PATCH", "/tokens", "admin").json()["error"]["message"]


def test_every_operation_needs_a_login_but_those_of_agents(native: Native) -> None:
    for operation in OPERATIONS:
        if operation.path.startswith("/agent/"):
            assert operation.right is None
            continue
        path = operation.path.removeprefix("/api/1").replace("{", "").replace("}", "")
        assert failed(native.ask(operation.method, path, "nobody")) == (401, "unauthenticated"), operation.name


def test_what_an_account_may_not_do_is_refused_before_the_body_is_read(native: Native) -> None:
    for operation in OPERATIONS:
        if operation.right is None:
            continue
        path = operation.path.removeprefix("/api/1").replace("{", "").replace("}", "")
        answer = native.ask(operation.method, path, "write")
        assert (answer.status_code == 403) is (operation.right in DANGEROUS), operation.name


def test_every_kind_of_error_has_a_look() -> None:
    from quarterdeck.core import agent_requests, errors

    kinds = {
        kind
        for module in (errors, agent_requests)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, errors.QuarterdeckError)
    }
    assert kinds - {errors.QuarterdeckError} <= TABLE.keys()
