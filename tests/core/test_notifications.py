# SPDX-License-Identifier: Apache-2.0
"""Where notifications may go, and when one is tried again."""

from __future__ import annotations

import pytest

from quarterdeck.core import notifications
from quarterdeck.core.jobs import Notification
from quarterdeck.core.notifications import Mail


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "169.254.169.254",
        "::1",
        "::",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:0001::",
        "fd00:ec2::254",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_of_this_machine_its_link_and_its_cloud_need_leave(address: str) -> None:
    assert not notifications.is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "10.1.2.3", "192.168.0.9", "2606:2800:220:1::1", "fd12::7"])
def test_public_addresses_and_private_networks_need_none(address: str) -> None:
    assert notifications.is_public(address)


def test_patterns_are_for_whole_addresses() -> None:
    patterns = ["https://hooks\\.example\\.org/.*", "(wrong"]

    assert notifications.is_allowed_url("HTTPS://hooks.example.org/x", patterns)
    assert not notifications.is_allowed_url("https://hooks.example.org.evil/x", patterns)
    assert not notifications.is_allowed_url("https://evil/?https://hooks.example.org/x", patterns)


def test_pauses_double_and_take_about_ten_minutes_in_all() -> None:
    least = [notifications.pause(number, 0).total_seconds() for number in range(1, notifications.MOST_ATTEMPTS)]
    most = [notifications.pause(number, 1).total_seconds() for number in range(1, notifications.MOST_ATTEMPTS)]

    assert least == [15, 30, 60, 120, 240]
    assert most == [25, 50, 100, 200, 400]
    assert 7 * 60 < sum(least) < 10 * 60 < sum(most) < 13 * 60


def test_everybody_is_told_once_and_of_what_they_asked_for() -> None:
    wanted = Notification(
        on_success_emails=("a@example.org", "a@example.org"),
        on_success_urls=("http://one.example/",),
        on_failure_urls=("http://two.example/",),
    )

    assert notifications.targets(wanted, "success") == [("email", "a@example.org"), ("webhook", "http://one.example/")]
    assert notifications.targets(wanted, "failure") == [("webhook", "http://two.example/")]


def test_a_mail_server_has_the_port_of_its_security() -> None:
    assert [Mail(security=one).real_port for one in ("none", "starttls", "tls")] == [25, 587, 465]
    assert Mail(port=2525).real_port == 2525


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Mail(password="hunter2"))
