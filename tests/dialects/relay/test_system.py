# SPDX-License-Identifier: Apache-2.0
"""Statements 1 to 10 of the reference: what a relay says of itself, to whom, and how it reads its lists anew."""

from __future__ import annotations

import re

import pytest
from tests.dialects.relay.conftest import INSIDE, LOOPBACK, NEAR, Make, Relay, list_of_root

from quarterdeck import __version__
from quarterdeck.core.errors import Forbidden, Invalid, Unauthenticated, Unavailable


def test_statement_1_info_tells_two_versions(root: Relay) -> None:
    answer = root.ask("GET", "system/info", at=LOOPBACK)

    assert answer.status_code == 200
    assert answer.json() == {
        "data": {"major-version": __version__.rpartition(".")[0], "full-version": __version__},
        "result": "success",
        "action": "getSystemInfo",
    }


def test_statement_2_reload_answers_byte_for_byte(root: Relay) -> None:
    answer = root.ask("POST", "system/reload", at=LOOPBACK)

    assert (answer.status_code, answer.content) == (200, b'{"result":"success","action":"reloadConfiguration"}')


def test_a_reload_is_in_use_when_it_is_answered(root: Relay) -> None:
    assert root.put("a", b"").status_code == 500  # the source is known, and sends nothing that proves it
    root.write_list({"root": list_of_root()["root"]})

    root.ask("POST", "system/reload", at=LOOPBACK)

    assert root.edge.parts.nodes.current().topology.neighbours == {"root"}
    assert NEAR.node not in root.edge.parts.nodes.current().topology


@pytest.mark.parametrize("broken", [b"{", b"[]", b'{"a": {"hostname": "a"}}', b"\xff\xfe"])
def test_statement_3_a_broken_list_is_refused_and_the_old_one_still_answers(broken: bytes, root: Relay) -> None:
    root.ask("POST", "system/reload", at=LOOPBACK)
    root.write_list(broken)

    answer = root.ask("POST", "system/reload", at=LOOPBACK)

    assert answer.status_code == 500
    assert list(answer.json()) == ["result", "action", "errorDetails"]
    assert (answer.json()["result"], answer.json()["action"]) == ("error", "reloadConfiguration")
    assert "nodes list" in answer.json()["errorDetails"]
    assert NEAR.node in root.edge.parts.nodes.current().topology


def test_statement_3_broken_certificates_are_refused_too(root: Relay) -> None:
    root.ask("POST", "system/reload", at=LOOPBACK)
    (root.directory / "certs.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")

    answer = root.ask("POST", "system/reload", at=LOOPBACK)

    assert answer.status_code == 500
    assert "certificates" in answer.json()["errorDetails"]
    assert root.edge.parts.nodes.current().keys_of(NEAR.node)  # type: ignore[arg-type]


def test_statement_5_a_part_in_error_is_told_inside_a_success(make: Make) -> None:
    def missing() -> None:
        raise Invalid("The configuration file /etc/relay.toml does not exist.")

    relay = make(checks={"configuration": missing, "database": lambda: None})

    answer = relay.ask("GET", "system/status", at=LOOPBACK)

    assert answer.status_code == 200
    assert answer.json()["result"] == "success"
    assert answer.json()["data"] == {
        "configuration": {"status": "error", "details": "The configuration file /etc/relay.toml does not exist."},
        "database": {"status": "success"},
    }


def test_statement_6_a_relay_without_a_database_says_nothing_of_one(make: Make) -> None:
    relay = make(checks={"configuration": lambda: None})

    data = relay.ask("GET", "system/status", at=LOOPBACK).json()["data"]

    assert data == {"configuration": {"status": "success"}}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "system/nothing"),
        ("GET", "system"),
        ("POST", "system/info"),
        ("GET", "system/reload"),
        ("DELETE", "shared-folder/file"),
        ("GET", f"shared-files/{NEAR.node}/{NEAR.node}/file"),
        ("PUT", f"shared-files/{NEAR.node}/{NEAR.node}/more/file"),
        ("GET", "metrics"),
        ("GET", "/rudder/relay-api/2/system/info"),
        ("GET", "/rudder/relay-api/"),
    ],
)
def test_statement_7_unknown_paths_and_wrong_methods_are_not_found(method: str, path: str, root: Relay) -> None:
    answer = root.ask(method, path, at=LOOPBACK)

    assert (answer.status_code, answer.text) == (404, "NOT FOUND")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "system/info"),
        ("GET", "system/status"),
        ("POST", "system/reload"),
        ("HEAD", "shared-folder/file"),
        ("GET", "shared-folder/file"),
        ("HEAD", f"shared-files/{NEAR.node}/{NEAR.node}/file?hash=aa"),
        ("GET", "nothing"),
    ],
)
def test_statement_8_with_and_without_a_version_is_the_same(method: str, path: str, root: Relay) -> None:
    (root.folder / "file").write_bytes(b"content")

    versioned = root.signed(NEAR, method, f"/rudder/relay-api/1/{path}", at=LOOPBACK)
    unversioned = root.signed(NEAR, method, f"/rudder/relay-api/{path}", at=LOOPBACK)

    assert (versioned.status_code, versioned.content) == (unversioned.status_code, unversioned.content)
    assert versioned.status_code in (200, 404)


def test_statement_9_every_metric_is_there_at_zero_after_the_start(root: Relay) -> None:
    answer = root.ask("GET", "/metrics", at=LOOPBACK)
    lines = answer.text.splitlines()

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for status in ("ok", "error", "invalid", "forward_ok", "forward_error"):
        assert f'rudder_relayd_reports_total{{status="{status}"}} 0.0' in lines
    for status in ("forward_ok", "forward_error"):
        assert f'rudder_relayd_inventories_total{{status="{status}"}} 0.0' in lines
    bounds = re.findall(r'rudder_relayd_reports_processing_duration_seconds_bucket\{le="([^"]+)"\} 0\.0', answer.text)
    assert bounds == ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]
    assert "rudder_relayd_managed_nodes_total 4.0" in lines
    assert "rudder_relayd_sub_nodes_total 5.0" in lines
    assert "# TYPE rudder_relayd_reports_total counter" in lines
    assert "# TYPE rudder_relayd_managed_nodes_total gauge" in lines
    assert {"process_open_fds", "process_resident_memory_bytes"} <= {line.partition(" ")[0] for line in lines}
    assert not [line for line in lines if "_created" in line]


def test_metrics_tell_how_long_reports_have_waited(root: Relay) -> None:
    (root.directory / "queue" / "1.open").write_bytes(b"12345")

    lines = root.ask("GET", "/metrics", at=LOOPBACK).text.splitlines()

    assert 'quarterdeck_queue_files{queue="reports"} 1.0' in lines
    assert 'quarterdeck_queue_bytes{queue="reports"} 5.0' in lines
    assert [line for line in lines if line.startswith('quarterdeck_queue_oldest_seconds{queue="reports"}')]


def test_metrics_count_what_was_answered(root: Relay) -> None:
    root.ask("GET", "system/info", at=LOOPBACK)
    root.ask("GET", "system/nothing", at=LOOPBACK)

    text = root.ask("GET", "/metrics", at=LOOPBACK).text

    assert 'quarterdeck_relay_requests_total{operation="getSystemInfo",status="200"} 1.0' in text
    assert 'quarterdeck_relay_requests_total{operation="unknown",status="404"} 1.0' in text


OF_THE_HOST = [("GET", "system/info"), ("GET", "system/status"), ("POST", "system/reload"), ("GET", "/metrics")]


@pytest.mark.parametrize(("method", "path"), OF_THE_HOST)
def test_statement_10_system_and_metrics_are_for_this_machine(method: str, path: str, root: Relay) -> None:
    inside = root.ask(method, path, at=INSIDE)
    proxied = root.ask(method, path, at=LOOPBACK, headers={"X-Forwarded-For": "198.51.100.7"})
    signed = root.signed(NEAR, method, path)
    token = root.ask(method, path, headers={"X-API-Token": "guessed"})

    assert [one.status_code for one in (inside, proxied, signed, token)] == [403] * 4
    assert root.ask(method, path, at=LOOPBACK).status_code == 200
    assert root.ask(method, path, at="::1").status_code == 200


def test_holders_of_a_right_may_ask_from_elsewhere(make: Make) -> None:
    asked = []

    def authorize(token: str, right: str) -> None:
        asked.append((token, right))
        if token == "unknown":
            raise Unauthenticated("The token is not known.")
        if right == "system.write":
            raise Forbidden("'scraper' lacks the right system.write.")

    relay = make(authorize=authorize)

    scraped = relay.ask("GET", "/metrics", headers={"Authorization": "Bearer secret"})
    reload = relay.ask("POST", "system/reload", headers={"X-API-Token": "secret"})
    unknown = relay.ask("GET", "system/info", headers={"X-API-Token": "unknown"})

    assert (scraped.status_code, reload.status_code, unknown.status_code) == (200, 403, 401)
    assert asked == [("secret", "system.read"), ("secret", "system.write"), ("unknown", "system.read")]


def test_the_list_that_was_never_read_is_told_and_ends_nothing(make: Make) -> None:
    relay = make()
    relay.write_list(b"{")

    metrics = relay.ask("GET", "/metrics", at=LOOPBACK)
    shared = relay.ask("HEAD", f"shared-files/{NEAR.node}/{NEAR.node}/file?hash=aa")

    assert "rudder_relayd_sub_nodes_total 0.0" in metrics.text
    assert shared.status_code == 400


def test_a_fault_of_ours_tells_nothing(make: Make) -> None:
    def fault() -> None:
        raise RuntimeError("secret detail")

    def away() -> None:
        raise Unavailable("The database does not answer.", detail="secret detail")

    faulty = make(checks={"configuration": fault}).ask("GET", "system/status", at=LOOPBACK)
    away_ = make("other", checks={"database": away}).ask("GET", "system/status", at=LOOPBACK)

    assert (faulty.status_code, faulty.text) == (500, "INTERNAL SERVER ERROR")
    assert away_.json()["data"] == {"database": {"status": "error", "details": "The database does not answer."}}
