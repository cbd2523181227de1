# SPDX-License-Identifier: Apache-2.0
"""Cookies before and after a login, requests of other sites, and guessing."""

from __future__ import annotations

import pytest

from quarterdeck.web import sessions
from quarterdeck.web.operation import Request
from quarterdeck.web.sessions import Before, LoginThrottle


def request(**headers: str) -> Request:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method="GET", target="/", params={}, query_string="", headers=spelled)


@pytest.mark.parametrize("path", ["/", "/menu/index", "/a?b=c&d=%20"])
def test_a_path_is_remembered_in_the_cookie(path: str) -> None:
    cookie = f"other=1; JSESSIONID={Before(path, failed=True).value}"

    assert sessions.before(request(cookie=cookie)) == Before(path, failed=True)


@pytest.mark.parametrize(
    "path", ["", "menu", "//evil.example.com", "/\\evil", "https://evil.example.com", "/a\nb", "/a b", "/" + "x" * 3000]
)
def test_what_is_no_path_of_ours_is_not_remembered(path: str) -> None:
    assert sessions.before(request(cookie=f"JSESSIONID={Before(path).value}")) == Before("")


@pytest.mark.parametrize("value", ["", "p0-!!", "p0-A", "p2-L2E", "x" * 31, "p0-" + "/w=="])
def test_a_cookie_that_is_no_use_is_nothing(value: str) -> None:
    asked = request(cookie=f"JSESSIONID={value}")

    assert sessions.before(asked) == Before()
    assert sessions.secret(asked) == ""


def test_of_several_cookies_the_one_that_is_a_session_counts() -> None:
    session = "a1" * 16

    assert sessions.secret(request(cookie=f"JSESSIONID=node0; JSESSIONID={session}")) == session


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "same-site"}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"origin": "https://here.example.com:8443", "host": "here.example.com:8443"}, False),
        ({"origin": "https://there.example.com", "host": "here.example.com"}, True),
        ({"origin": "null", "host": "here.example.com"}, True),
    ],
)
def test_a_browser_tells_whether_another_site_asks(headers: dict[str, str], *, foreign: bool) -> None:
    assert sessions.is_foreign(request(**headers)) is foreign


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_five_failures_are_free_and_each_further_one_costs_a_longer_wait() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    waits = []

    for _ in range(10):
        throttle.failed("alice", "192.0.2.1")
        waits.append(throttle.wait("alice", "192.0.2.1"))

    assert waits == [0, 0, 0, 0, 5, 10, 20, 40, 60, 60]
    clock.now += 60
    assert throttle.wait("alice", "192.0.2.1") == 0


def test_guesses_count_for_the_name_from_everywhere_and_for_the_address_whatever_the_name() -> None:
    throttle = LoginThrottle(Clock())
    for number in range(5):
        throttle.failed("alice", f"192.0.2.{number}")
        throttle.failed(f"user{number}", "2001:db8::1")

    assert throttle.wait("alice", "198.51.100.1") > 0
    assert throttle.wait("bob", "2001:db8::ffff") > 0
    assert throttle.wait("bob", "198.51.100.1") == 0


def test_who_logged_in_before_does_not_wait_for_strangers() -> None:
    throttle = LoginThrottle(Clock())
    throttle.succeeded("alice", "192.0.2.1")

    for _ in range(9):
        throttle.failed("alice", "198.51.100.1")

    assert throttle.wait("alice", "192.0.2.1") == 0
    assert throttle.wait("alice", "192.0.2.2") > 0


def test_a_good_login_does_not_pay_for_guesses_at_others() -> None:
    throttle = LoginThrottle(Clock())
    for _ in range(5):
        throttle.failed("alice", "192.0.2.1")

    throttle.succeeded("mallory", "192.0.2.1")

    assert throttle.wait("alice", "192.0.2.1") > 0


def test_failures_are_forgotten_and_never_fill_the_memory() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    for number in range(6000):
        throttle.failed(f"user{number}", f"client{number}")
    throttle.wait("x", "y")
    assert len(throttle._failures) == 10_000

    clock.now += 900
    throttle.wait("x", "y")
    assert not throttle._failures
