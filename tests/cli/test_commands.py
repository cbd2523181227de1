# SPDX-License-Identifier: Apache-2.0
"""What an operator does with `quarterdeck`, against the whole application."""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine, Running

#: They share one server.
pytestmark = pytest.mark.xdist_group("cli")


def add_pending(running: Running, hostname: str) -> str:
    node = str(uuid.uuid4())
    system = {"type": "linux", "name": "debian", "version": "12", "fullName": "Debian 12"}
    agent_key = {"value": "", "status": "undefined"}
    described = {
        "id": node,
        "hostname": hostname,
        "status": "pending",
        "os": system,
        "policyServerId": "root",
        "machineType": "virtual",
        "ipAddresses": ["192.0.2.1"],
        "agentKey": agent_key,
        "properties": {},
    }
    answer = running.ask("PUT", "/nodes", [described])
    assert answer.get("failed", []) == [], answer
    return node


def test_login_is_kept_for_its_user_only(operator: CommandLine) -> None:
    kept = operator.home / "config" / "quarterdeck" / "login.json"

    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_login_tries_the_token_before_it_keeps_it(quarterdeck: CommandLine, running: Running) -> None:
    token = quarterdeck.file("token", "nonsense")

    done = quarterdeck("login", running.url, "--token-file", token, "--ca-file", str(running.ca_file))

    assert done.code == 4
    assert not (quarterdeck.home / "config").exists()


def test_an_unknown_certificate_is_refused_with_what_to_do(quarterdeck: CommandLine, running: Running) -> None:
    token = quarterdeck.file("token", running.tokens["admin"])

    done = quarterdeck("login", running.url, "--token-file", token)

    assert done.code == 3
    assert "not trusted" in done.err
    assert "--ca-file" in done.err
    assert "Traceback" not in done.err


def test_a_certificate_for_another_name_is_called_that(quarterdeck: CommandLine, running: Running) -> None:
    token = quarterdeck.file("token", running.tokens["admin"])
    elsewhere = running.url.replace("127.0.0.1", "localhost")

    done = quarterdeck("login", elsewhere, "--token-file", token, "--ca-file", str(running.ca_file))

    assert done.code in (0, 3)  # `localhost` may be among the certificate's names
    assert done.code == 0 or "for another name" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nodes", "list"], 4, "Log in first"),
        (["nodes", "accept"], 4, "Log in first"),
        (["nonsense"], 2, "No such command"),
        (["login", "https://127.0.0.1:9", "--token-file", "-"], 2, "--token-file"),
    ],
)
def test_exit_codes_without_a_login(quarterdeck: CommandLine, arguments: list[str], code: int, said: str) -> None:
    if arguments[0] == "login":
        arguments = [*arguments[:-1], str(quarterdeck.home / "absent")]

    done = quarterdeck(*arguments)

    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_a_server_that_is_away_is_code_3(quarterdeck: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("QUARTERDECK_TOKEN", "any")

    done = quarterdeck("rules", "list")

    assert done.code == 3
    assert "does not answer" in done.err


def test_a_pending_node_is_found_and_accepted(operator: CommandLine, running: Running) -> None:
    node = add_pending(running, "web-1.example.com")

    assert node in operator("nodes", "list", "--pending").out
    accepted = operator("nodes", "accept", node)

    assert (accepted.code, accepted.out) == (0, f"{node} web-1.example.com: accepted\n")
    assert node not in operator("nodes", "list", "--pending").out
    assert "web-1.example.com" in operator("nodes", "list").out
    assert json.loads(operator("nodes", "show", node, "--json").out)["hostname"] == "web-1.example.com"
    assert json.loads(operator("nodes", "show", "web-1.example.com", "--json").out)["id"] == node


def test_all_pending_nodes_are_accepted_in_one_call(operator: CommandLine, running: Running) -> None:
    nodes = {add_pending(running, f"many-{number}.example.com") for number in range(2)}

    accepted = operator("nodes", "accept", "--all", "--json")

    assert nodes <= {node["id"] for node in json.loads(accepted.out)}
    assert operator("nodes", "accept", "--all").code == 1, "nobody waits any more"


def test_a_refused_node_is_gone(operator: CommandLine, running: Running) -> None:
    node = add_pending(running, "stranger.example.com")

    refused = operator("nodes", "refuse", node)

    assert refused.code == 0
    assert "stranger" not in operator("nodes", "list", "--pending").out
    assert "stranger" not in operator("nodes", "list").out


def test_a_search_takes_its_text_literally(operator: CommandLine, running: Running) -> None:
    nodes = {hostname: add_pending(running, hostname) for hostname in ("db.1.example.com", "dbx1.example.com")}
    operator("nodes", "accept", *nodes.values())

    found = operator("nodes", "list", "b.1")

    assert "db.1.example.com" in found.out
    assert "dbx1" not in found.out
    assert operator("nodes", "list", nodes["dbx1.example.com"][:13]).out.count("example.com") == 1, "by id, too"
    assert operator("nodes", "list", "db.2").out == "No node matches.\n"


def test_nodes_are_named_or_all_but_not_both(operator: CommandLine) -> None:
    assert operator("nodes", "accept").code == 2
    assert operator("nodes", "accept", "x", "--all").code == 2


def test_configuration_is_listed(operator: CommandLine, running: Running) -> None:
    running.ask("PUT", "/groups", {"id": "cli-group", "displayName": "Everybody [all]", "dynamic": False})
    technique = {"id": "cli-directive", "displayName": "No telnet", "techniqueName": "packageManagement"}
    variables = [{"var": {"name": "PACKAGE_LIST", "value": "telnetd"}}]
    parameters = {"section": {"name": "sections", "sections": [{"section": {"name": "Package", "vars": variables}}]}}
    running.ask("PUT", "/directives", technique | {"parameters": parameters})
    rule = {"id": "cli-rule", "displayName": "Safe", "directives": ["cli-directive"], "targets": ["group:cli-group"]}
    running.ask("PUT", "/rules", rule)

    assert "Everybody [all]" in operator("groups", "list").out
    assert "packageManagement 1.3" in operator("directives", "list").out
    assert "Safe" in operator("rules", "list").out
    for noun in ("groups", "directives", "rules"):
        assert f"cli-{noun.rstrip('s')}" in {one["id"] for one in json.loads(operator(noun, "list", "--json").out)}


def test_compliance_is_compared_with_an_earlier_look(operator: CommandLine, running: Running) -> None:
    running.ask("PUT", "/rules", {"id": "cli-empty", "displayName": "Nothing yet"})
    before = operator.file("before.json", operator("compliance", "--json").out)
    running.ask("PUT", "/rules", {"id": "cli-later", "displayName": "Added later"})

    compared = operator("compliance", "--compare", before)

    assert compared.code == 0, compared.err
    assert "BEFORE" in compared.out
    (added,) = [line for line in compared.out.splitlines() if "Added later" in line]
    assert "new" in added


def test_a_comparison_needs_an_earlier_answer(operator: CommandLine) -> None:
    done = operator("compliance", "--compare", operator.file("other.json", "[]"))

    assert done.code == 2
    assert "compliance --by rules --json" in done.err


@pytest.mark.parametrize("by", ["rules", "nodes", "directives"])
def test_compliance_has_every_view(operator: CommandLine, by: str) -> None:
    answer = operator("compliance", "--by", by, "--json")

    assert answer.code == 0, answer.err
    assert set(json.loads(answer.out)) == {"global", by}


def test_a_token_is_made_used_and_revoked(
    operator: CommandLine, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = operator("tokens", "create", "reader", "--access", "read").out.strip()
    monkeypatch.setenv("QUARTERDECK_TOKEN", secret)
    assert operator("rules", "list").code == 0
    forbidden = operator("tokens", "list")
    assert (forbidden.code, "lacks the right" in forbidden.err) == (1, True)
    monkeypatch.delenv("QUARTERDECK_TOKEN")

    assert "reader" in operator("tokens", "list").out
    assert operator("tokens", "revoke", "reader").code == 0
    monkeypatch.setenv("QUARTERDECK_TOKEN", secret)
    assert operator("rules", "list").code == 4


def test_events_say_who_did_what(operator: CommandLine, running: Running) -> None:
    running.ask("PUT", "/rules", {"id": "cli-event", "displayName": "Told", "reason": "because [of] it"})

    assert "cli-event" in operator("events").out
    first = json.loads(operator("events", "--limit", "1", "--json").out)[0]
    assert (first["objectId"], first["actor"]) == ("cli-event", "admin")


def test_an_unknown_node_is_the_servers_sentence(operator: CommandLine) -> None:
    done = operator("nodes", "show", "nobody")

    assert done.code == 1
    assert "nobody" in done.err


def test_every_command_prints_json_on_demand(quarterdeck: CommandLine) -> None:
    from quarterdeck.cli.main import cli  # the tree of commands itself

    commands = [cli]
    for command in commands:
        commands.extend(getattr(command, "commands", {}).values())
    leaves = [command for command in commands if not hasattr(command, "commands")]
    assert len(leaves) >= 10
    assert [leaf.name for leaf in leaves if "as_json" not in {one.name for one in leaf.params}] == []
    assert Path(quarterdeck.home).exists()
