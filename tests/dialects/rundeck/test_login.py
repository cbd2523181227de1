# SPDX-License-Identifier: Apache-2.0
"""Login with name and password from outside: redirects, cookies, what ends a session, and guessing."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import sqlalchemy
from tests.served_rundeck import BASE, PASSWORD, Rundeck

from quarterdeck.services import accounts
from quarterdeck.storage.tables import sessions

GOOD = {"j_username": "alice", "j_password": PASSWORD}
BAD = {"j_username": "alice", "j_password": "wrong horse"}


def log_in(rundeck: Rundeck, form: dict[str, str] | None = None) -> httpx.Response:
    return rundeck.client.post("/j_security_check", data=form or GOOD)


def projects(rundeck: Rundeck, **headers: str) -> httpx.Response:
    return rundeck.client.get("/api/1/projects", headers=headers)


def session_cookie(answer: httpx.Response) -> str:
    found = re.match(r"JSESSIONID=([^;]+); Path=/; HttpOnly; SameSite=Lax", answer.headers["Set-Cookie"])
    assert found
    return found[1]


def test_a_protected_page_without_a_session_leads_to_the_form(rundeck: Rundeck) -> None:
    asked = rundeck.client.get("/menu/index")

    assert (asked.status_code, asked.headers["Location"]) == (302, f"{BASE}/user/login")
    form = rundeck.client.get("/user/login")
    assert form.status_code == 200
    assert 'action="/j_security_check"' in form.text
    assert 'name="j_username"' in form.text
    assert 'name="j_password"' in form.text


def test_a_login_without_any_page_before_it_leads_to_a_page_without_the_form(rundeck: Rundeck) -> None:
    answer = rundeck.client.post("/j_security_check", data=GOOD, follow_redirects=True)

    assert answer.status_code == 200
    assert [one.status_code for one in answer.history] == [302, 302]
    assert all(one.headers["Location"].startswith(f"{BASE}/") for one in answer.history)
    assert "j_security_check" not in answer.text
    assert "alice" in answer.text
    assert projects(rundeck).status_code == 200


def test_the_page_behind_a_login_answers_post_too(rundeck: Rundeck) -> None:
    location = log_in(rundeck).headers["Location"]

    first = rundeck.client.post(location)
    second = rundeck.client.post(first.headers["Location"])

    assert (first.status_code, second.status_code) == (302, 200)


def test_after_the_login_the_client_is_where_it_wanted_to_go(rundeck: Rundeck) -> None:
    rundeck.client.get("/menu/index?jobs=all")

    assert log_in(rundeck).headers["Location"] == f"{BASE}/menu/index?jobs=all"


@pytest.mark.parametrize("path", ["//evil.example.com/", "/\\evil.example.com", "https://evil.example.com/"])
def test_no_cookie_can_lead_a_login_elsewhere(path: str, rundeck: Rundeck) -> None:
    remembered = base64.urlsafe_b64encode(path.encode()).decode().rstrip("=")

    answer = rundeck.client.post("/j_security_check", data=GOOD, headers={"Cookie": f"JSESSIONID=p0-{remembered}"})

    assert answer.headers["Location"] == f"{BASE}/"


def test_nothing_of_a_visitor_is_kept_before_the_login(rundeck: Rundeck) -> None:
    rundeck.client.get("/menu/index")

    with rundeck.unit_of_work() as ctx:
        assert ctx.store.rows(sqlalchemy.select(sessions)) == []


def test_a_wrong_password_leads_to_the_error_page_and_back_to_the_form(rundeck: Rundeck) -> None:
    rundeck.client.get("/menu/index?jobs=all")

    answer = rundeck.client.post("/j_security_check", data=BAD, follow_redirects=True)

    locations = [one.headers["Location"] for one in answer.history]
    assert locations == [f"{BASE}/user/error", f"{BASE}/menu/index", f"{BASE}/user/login"]
    assert answer.status_code == 200
    assert "Invalid username and password." in answer.text
    assert "j_security_check" in answer.text
    assert projects(rundeck).status_code == 403
    assert log_in(rundeck).headers["Location"] == f"{BASE}/menu/index?jobs=all"


@pytest.mark.parametrize(
    "form", [{}, {"j_username": "admin", "j_password": "x"}, {"j_username": "\0", "j_password": ""}]
)
def test_who_is_no_user_cannot_log_in(form: dict[str, str], rundeck: Rundeck) -> None:
    answer = rundeck.client.post("/j_security_check", data=form or {"x": "y"})

    assert answer.status_code in (302, 400)
    assert answer.headers.get("Location", f"{BASE}/user/error") == f"{BASE}/user/error"
    assert "Set-Cookie" not in answer.headers


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_connections(rundeck: Rundeck) -> None:
    assert log_in(rundeck).headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


def test_a_client_that_came_by_another_address_stays_there(rundeck: Rundeck) -> None:
    url = "http://127.0.0.1:4440/j_security_check"

    answer = rundeck.client.post(url, data=GOOD)

    assert answer.headers["Location"] == "http://127.0.0.1:4440/"
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_a_host_that_is_none_is_not_repeated(rundeck: Rundeck) -> None:
    answer = rundeck.client.get("/menu/index", headers={"Host": "a b<c>"})

    assert answer.headers["Location"] == f"{BASE}/user/login"


def test_a_login_never_takes_over_a_session_that_was_there_before(rundeck: Rundeck) -> None:
    first = session_cookie(log_in(rundeck))
    second = session_cookie(log_in(rundeck))

    assert first != second
    rundeck.client.cookies.clear()
    assert projects(rundeck, Cookie=f"JSESSIONID={first}").status_code == 403
    assert projects(rundeck, Cookie=f"JSESSIONID={second}").status_code == 200


def test_the_database_does_not_hold_what_the_cookie_holds(rundeck: Rundeck) -> None:
    cookie = session_cookie(log_in(rundeck))

    with rundeck.unit_of_work() as ctx:
        (kept,) = ctx.store.rows(sqlalchemy.select(sessions.c.digest))
    assert bytes(kept.digest) == accounts.secret_digest(cookie)


def test_a_session_suffix_of_a_path_does_not_matter(rundeck: Rundeck) -> None:
    answer = rundeck.client.post("/j_security_check;jsessionid=A1B2", data=GOOD)

    assert answer.headers["Location"] == f"{BASE}/"
    assert rundeck.client.get("/menu/index;jsessionid=x").status_code == 200
    assert rundeck.client.get("/api/1/projects;jsessionid=x").status_code == 200


@pytest.mark.parametrize("path", ["/user/error", "/user/logout"])
def test_the_error_page_and_the_logout_end_the_session(path: str, rundeck: Rundeck) -> None:
    cookie = session_cookie(log_in(rundeck))

    answer = rundeck.client.get(path)

    assert answer.headers["Location"] == f"{BASE}/menu/index"
    rundeck.client.cookies.clear()
    assert projects(rundeck, Cookie=f"JSESSIONID={cookie}").status_code == 403


def test_the_form_leads_on_who_is_logged_in(rundeck: Rundeck) -> None:
    log_in(rundeck)

    assert rundeck.client.get("/user/login").headers["Location"] == f"{BASE}/menu/index"


def test_a_session_ends_after_half_an_hour_without_use(rundeck: Rundeck) -> None:
    log_in(rundeck)
    _age(rundeck, seen=timedelta(minutes=29), expires=timedelta(minutes=1))
    assert projects(rundeck).status_code == 200
    with rundeck.unit_of_work() as ctx:
        (kept,) = ctx.store.rows(sqlalchemy.select(sessions))
    assert kept.expires_at - datetime.now(UTC) > timedelta(minutes=29)

    _age(rundeck, seen=timedelta(minutes=30), expires=timedelta(seconds=-1))
    assert projects(rundeck).status_code == 403


def _age(rundeck: Rundeck, *, seen: timedelta, expires: timedelta) -> None:
    now = datetime.now(UTC)
    with rundeck.unit_of_work() as ctx:
        ctx.store.run(sqlalchemy.update(sessions).values(seen_at=now - seen, expires_at=now + expires))


def test_a_new_password_ends_the_sessions_of_the_old_one(rundeck: Rundeck) -> None:
    log_in(rundeck)
    with rundeck.unit_of_work() as ctx:
        accounts.set_password(ctx, "alice", "another horse")

    assert projects(rundeck).status_code == 403


def test_after_five_failures_a_name_waits_a_little(rundeck: Rundeck) -> None:
    for _ in range(5):
        assert log_in(rundeck, BAD).status_code == 302

    refused = log_in(rundeck)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) <= 6
    assert "Too many logins failed" in refused.text
    rundeck.clock.now += 6
    assert log_in(rundeck).headers["Location"] == f"{BASE}/"


# -- other sites ------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example.com"}])
def test_a_page_of_another_site_cannot_use_a_session(headers: dict[str, str], rundeck: Rundeck) -> None:
    log_in(rundeck)

    answer = rundeck.client.get("/api/1/run/command?project=test&exec=reboot", headers=headers)

    assert 'error="true"' in answer.text
    assert "A page of another site may not use this session" in answer.text
    with rundeck.unit_of_work() as ctx:
        assert ctx.store.executions.waiting(10) == []


@pytest.mark.parametrize("path", ["/j_security_check", "/user/logout", "/user/error"])
def test_a_page_of_another_site_can_neither_log_in_nor_out(path: str, rundeck: Rundeck) -> None:
    log_in(rundeck)

    assert rundeck.client.post(path, data=GOOD, headers={"Origin": "https://evil.example.com"}).status_code == 403
    assert projects(rundeck).status_code == 200


def test_a_token_may_be_used_from_anywhere(rundeck: Rundeck) -> None:
    log_in(rundeck)
    headers = {"Sec-Fetch-Site": "cross-site", "X-RunDeck-Auth-Token": rundeck.tokens["read"]}

    assert 'success="true"' in projects(rundeck, **headers).text


def test_what_a_user_may_do_comes_from_the_roles(rundeck: Rundeck) -> None:
    log_in(rundeck, {"j_username": "bob", "j_password": PASSWORD})

    answer = rundeck.client.get("/api/1/run/command?project=test&exec=id")

    assert answer.status_code == 200
    assert "bob is not authorized for: /api/1/run/command" in answer.text


def test_a_stranger_sends_no_long_bodies(rundeck: Rundeck) -> None:
    answer = log_in(rundeck, {**GOOD, "more": "x" * 70_000})

    assert answer.status_code == 413
    assert "Set-Cookie" not in answer.headers
