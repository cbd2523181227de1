# SPDX-License-Identifier: Apache-2.0
"""Files of techniques over HTTP: for people with a token, for the nodes whose policies name them, and for relays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.agents import Agent
from tests.common.fleets import TECHNIQUE, World
from tests.dialects.native.conftest import Native
from tests.dialects.native.test_chapters import failed
from tests.dialects.native.test_relays import DEEP, ELSEWHERE, INNER, NEAR, RELAY, add

from quarterdeck.core.nodes import NodeKind
from quarterdeck.core.technique_resources import MAX_BYTES

PLACE = f"/quarterdeck/api/1/techniques/{TECHNIQUE.id}/{TECHNIQUE.version}/resources"
HELLO = hashlib.sha256(b"hello").hexdigest()


@dataclass
class Place:
    """The native API, asked for the files of one technique."""

    native: Native
    world: World

    def ask(self, method: str, path: str = "", who: str = "admin", **arguments: Any) -> httpx.Response:
        headers = {"X-API-Token": self.native.tokens[who], **arguments.pop("headers", {})}
        return self.native.client.request(method, f"{PLACE}{path}", headers=headers, **arguments)


@pytest.fixture
def place(native: Native) -> Place:
    world = World(native.database)
    world.technique()
    return Place(native, world)


def test_a_file_is_kept_listed_given_and_forgotten(place: Place) -> None:
    shown = {"path": "deep/mötd", "sha256": HELLO, "size": 5}

    kept = place.ask("PUT", "/deep/m%C3%B6td", content=b"hello")
    listed = place.ask("GET")
    given = place.ask("GET", "/deep%2Fm%C3%B6td")
    known = place.ask("GET", "/deep/m%C3%B6td", headers={"If-None-Match": given.headers["ETag"]})
    gone = place.ask("DELETE", "/deep/m%C3%B6td")

    assert (kept.status_code, kept.json()) == (200, shown)
    assert listed.json() == [shown]
    assert (given.content, given.headers["Content-Type"]) == (b"hello", "application/octet-stream")
    assert known.status_code == 304
    assert (gone.status_code, gone.json()) == (200, shown)
    assert failed(place.ask("GET", "/deep/m%C3%B6td")) == (404, "not_found")
    assert place.ask("GET").json() == []


def test_who_changed_a_file_stands_in_the_event_log(place: Place) -> None:
    place.ask("PUT", "/motd?reason=ticket%207", content=b"hello")

    event = place.native.ask("GET", "/events?limit=1", "admin").json()["events"][0]

    assert (event["kind"], event["objectId"], event["change"]) == ("technique", "write_line/1.0", "modified")
    assert (event["actor"], event["reason"]) == ("admin", "ticket 7")
    assert event["after"]["resources"] == [{"path": "motd", "sha256": HELLO, "size": 5}]
    assert "resources" not in event["before"]


def test_the_rights_are_those_of_techniques(place: Place) -> None:
    place.ask("PUT", "/motd", content=b"hello")

    assert place.ask("GET", "/motd", "read").content == b"hello"
    assert failed(place.ask("PUT", "/motd", "write", content=b"other")) == (403, "forbidden")
    assert failed(place.ask("DELETE", "/motd", "write")) == (403, "forbidden")
    assert failed(place.ask("GET", "", "nobody")) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "path", ["/", "/%2E%2E/motd", "/a//b", "/a/%2E/b", "/%2Fetc/motd", "/a%5Cb", "/a%00b", "/a%7Fb", "/a/"]
)
def test_paths_that_lead_elsewhere_are_refused(place: Place, path: str) -> None:
    assert failed(place.ask("PUT", path, content=b"evil")) == (400, "invalid")
    assert place.ask("GET").json() == []


def test_a_file_that_is_too_long_is_refused(place: Place) -> None:
    assert failed(place.ask("PUT", "/big", content=bytes(MAX_BYTES + 1))) == (413, "too_large")
    assert place.ask("PUT", "/big", content=bytes(MAX_BYTES)).status_code == 200


def test_a_technique_that_does_not_exist_has_no_files(place: Place) -> None:
    headers = {"X-API-Token": place.native.tokens["admin"]}
    url = "/quarterdeck/api/1/techniques/nothing/1.0/resources"

    assert failed(place.native.client.get(url, headers=headers)) == (404, "not_found")
    assert failed(place.native.client.put(f"{url}/motd", content=b"x", headers=headers)) == (404, "not_found")


# -- for nodes and relays ----------------------------------------------------------------------


@pytest.fixture
def fleet(place: Place) -> Place:
    """root <- RELAY <- INNER <- DEEP, RELAY <- NEAR, root <- ELSEWHERE; only DEEP's policy uses the technique."""
    native, world = place.native, place.world
    add(native, RELAY, kind=NodeKind.RELAY)
    add(native, INNER, kind=NodeKind.RELAY, policy_server=RELAY.node)
    add(native, NEAR, policy_server=RELAY.node)
    add(native, DEEP, policy_server=INNER.node)
    add(native, ELSEWHERE, kind=NodeKind.RELAY)
    world.group("users", [DEEP.node])
    world.directive("motd", "x")
    world.rule("rule", ["motd"], "group:users")
    place.ask("PUT", "/motd", content=b"hello")
    world.ask()
    world.generate()
    return place


def fetch(place: Place, one: Agent, path: str) -> httpx.Response:
    return place.native.client.get(path, headers=one.headers("GET", path))


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        (DEEP, "resources", 200),
        (NEAR, "resources", 404),
        (INNER, "resources", 404),
        (INNER, "relay/resources", 200),
        (RELAY, "relay/resources", 200),
        (ELSEWHERE, "relay/resources", 404),
        (DEEP, "relay/resources", 403),
    ],
)
def test_a_content_goes_to_those_whose_policies_name_it_and_to_relays_above_them(
    fleet: Place, who: Agent, path: str, status: int
) -> None:
    answer = fetch(fleet, who, f"/quarterdeck/agent/1/{path}/{HELLO}")

    assert answer.status_code == status, answer.text
    assert (answer.content == b"hello") is (status == 200)


def test_contents_that_no_policy_names_are_given_to_nobody(fleet: Place) -> None:
    fleet.ask("PUT", "/motd", content=b"newer")
    newer = hashlib.sha256(b"newer").hexdigest()

    before = fetch(fleet, DEEP, f"/quarterdeck/agent/1/resources/{newer}").status_code
    fleet.world.generate()
    after = fetch(fleet, DEEP, f"/quarterdeck/agent/1/resources/{newer}")

    assert (before, after.status_code, after.content) == (404, 200, b"newer")
    assert fetch(fleet, DEEP, f"/quarterdeck/agent/1/resources/{HELLO}").status_code == 404
    for odd in ("x", HELLO.upper(), "a%00b"):
        for path in ("resources", "relay/resources"):
            one = DEEP if path == "resources" else RELAY
            assert fetch(fleet, one, f"/quarterdeck/agent/1/{path}/{odd}").status_code == 404


def test_a_request_that_the_node_did_not_sign_gets_nothing(fleet: Place) -> None:
    path = f"/quarterdeck/agent/1/resources/{HELLO}"

    forged = fleet.native.client.get(path, headers=DEEP.headers("GET", path + "0"))

    assert (forged.status_code, forged.json()["code"]) == (401, "bad_signature")
