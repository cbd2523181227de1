# SPDX-License-Identifier: Apache-2.0
"""The main job as people live through it: a real machine, a real server, from enrolment to compliance and back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from tests.daemon.servers import eventually
from tests.e2e.machines import PATIENCE_SECONDS, Kept, Machine, Site, accept, signed_headers, site
from tests.postgres import temporary_directory

from quarterdeck.formats import agent

pytestmark = [pytest.mark.xdist_group("main job"), pytest.mark.timeout(300)]

GROUP = "linux-machines"


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    """One server for all stories."""
    with temporary_directory() as directory, site(directory) as made:
        made.ask(
            "PUT",
            "/groups",
            {
                "id": GROUP,
                "displayName": "Linux machines",
                "category": "GroupRoot",
                "dynamic": True,
                "query": {
                    "select": "node",
                    "composition": "And",
                    "where": [
                        {"objectType": "node", "attribute": "OS", "comparator": "eq", "value": "Linux"},
                    ],
                },
            },
        )
        yield made


@pytest.fixture(scope="module")
def machine(served: Site) -> Machine:
    """A node that was accepted and that the dynamic group has found."""
    made = Machine(served, "machine")
    accept(made)
    is_member_of_the_group(served, made)
    return made


@pytest.fixture(scope="module")
def stranger(served: Site) -> Machine:
    """A machine that no administrator accepts."""
    return Machine(served, "stranger")


def is_member_of_the_group(served: Site, machine: Machine) -> None:
    """Fails unless the dynamic group soon holds this node alone and its policy is there."""

    def members() -> list[str]:
        (group,) = served.ask("GET", f"/groups/{GROUP}")["groups"]
        return list(group["nodeIds"])

    assert eventually(lambda: members() == [machine.node], PATIENCE_SECONDS), served.trouble()
    served.settle()


def test_enrolment_needs_pin_and_token_and_may_end_with_a_refusal(served: Site, stranger: Machine) -> None:
    wrong_pin = stranger.enroll(pin="sha256//" + "A" * 43 + "=")
    wrong_token = stranger.enroll(token="wrong")
    nobody = served.ask("GET", "/nodes/pending")["nodes"]
    enrolled = stranger.enroll()
    early = stranger.agent("run")
    pending = served.ask("GET", "/nodes/pending")["nodes"]
    served.ask("POST", f"/nodes/pending/{stranger.node}", {"status": "refused"})
    refused = stranger.agent("run")

    assert (wrong_pin.status, wrong_token.status) == (1, 1)
    assert "not the pinned" in wrong_pin.complaint
    assert "token is not valid" in wrong_token.complaint
    assert nobody == []
    assert enrolled.document == {"node": stranger.node, "status": "pending"}
    assert early.status == 0
    assert "waits for an administrator" in early.printed + early.complaint
    assert [node["id"] for node in pending] == [stranger.node]
    assert refused.status == 1
    assert stranger.node in refused.complaint
    assert stranger.queued() == []


def test_a_rule_is_audited_then_enforced_then_repaired_and_compliance_says_so(served: Site, machine: Machine) -> None:
    target, story = machine.files / "motd", Kept(served, "motd")
    story.set(target, "welcome", "audit", GROUP)
    served.settle()
    story.becomes(0.0, applying=100.0)

    before = machine.snapshot()
    audit = machine.run()
    assert audit["counts"] == {"audit_noncompliant": 1}
    assert machine.snapshot() == before
    story.becomes(0.0, auditNonCompliant=100.0)

    story.switch("enforce")
    served.settle()
    enforced = machine.run()
    assert enforced["counts"] == {"result_repaired": 1}
    assert enforced["config_id"] != audit["config_id"]
    assert target.read_text() == "welcome\n"
    story.becomes(100.0, successRepaired=100.0)

    kept = machine.snapshot()
    assert machine.run()["counts"] == {"result_success": 1}
    assert machine.snapshot() == kept
    story.becomes(100.0, successAlreadyOK=100.0)

    target.write_text("damaged\n")
    looked = machine.run("--audit")
    assert looked["counts"] == {"audit_noncompliant": 1}
    assert target.read_text() == "damaged\n"
    assert machine.run()["counts"] == {"result_repaired": 1}
    assert target.read_text() == "welcome\n"
    story.becomes(100.0, successRepaired=100.0)
    story.remove()


def test_what_happened_while_the_server_was_away_arrives_later_and_once(served: Site, machine: Machine) -> None:
    target, story = machine.files / "hosts", Kept(served, "hosts")
    story.set(target, "127.0.0.1 localhost", "enforce", GROUP)
    served.settle()
    first = machine.run()
    story.becomes(100.0, successRepaired=100.0)

    served.stop()
    target.unlink()
    alone = [machine.run(), machine.run()]
    waiting = machine.queued()
    served.start()
    back = machine.run()

    assert [run["counts"] for run in alone] == [{"result_repaired": 1}, {"result_success": 1}]
    assert {run["config_id"] for run in [*alone, back]} == {first["config_id"]}
    assert [run["queued"] for run in alone] == [1, 2]
    assert len(waiting) == 2
    assert (back["queued"], machine.queued()) == (0, [])
    story.becomes(100.0, successAlreadyOK=100.0)
    story.remove()


def test_a_policy_damaged_on_the_machine_is_not_obeyed_and_fetched_anew(served: Site, machine: Machine) -> None:
    target, story = machine.files / "issue", Kept(served, "issue")
    story.set(target, "authorised", "enforce", GROUP)
    served.settle()
    machine.run()
    cache = machine.state / "policy"
    genuine = cache.read_bytes()
    assert genuine.count(b"authorised") >= 1

    cache.write_bytes(genuine.replace(b"authorised", b"everybody!"))
    refused = machine.agent("run", "--no-update")

    assert refused.status == 1
    assert "not signed" in refused.complaint
    assert target.read_text() == "authorised\n"
    assert machine.run()["counts"] == {"result_success": 1}
    assert cache.read_bytes() == genuine
    story.remove()


def test_a_node_gets_no_policy_but_its_own(served: Site, machine: Machine, stranger: Machine) -> None:
    stranger.enroll()

    def fetch(headers: dict[str, str]) -> httpx.Response:
        return served.client.get(agent.PATH_POLICY, headers=headers)

    own = fetch(signed_headers(machine, machine.node, agent.PATH_POLICY))
    stolen = fetch(signed_headers(stranger, machine.node, agent.PATH_POLICY))
    early = fetch(signed_headers(stranger, stranger.node, agent.PATH_POLICY))
    served.ask("POST", f"/nodes/pending/{stranger.node}", {"status": "refused"})

    assert own.status_code == 200
    assert json.loads(own.content)["node"] == machine.node
    assert (stolen.status_code, stolen.json()["code"]) == (401, "bad_signature")
    assert (early.status_code, early.json()["code"]) == (404, "not_accepted")


def test_a_deleted_node_is_told_so_and_may_come_back(served: Site, machine: Machine) -> None:
    served.ask("DELETE", f"/nodes/{machine.node}")
    told = machine.agent("update")
    (status,) = served.ask("GET", f"/nodes/status?ids={machine.node}")["nodes"]
    accept(machine)
    is_member_of_the_group(served, machine)

    assert told.status == 1
    assert f"no node {machine.node}" in told.complaint
    assert status["status"] in {"deleted", "unknown"}
    assert machine.run()["config_id"]
