# SPDX-License-Identifier: Apache-2.0
"""The methods under the engine that runs policies: one policy in audit mode, in enforce mode, and once more."""

from __future__ import annotations

from tests.agent.methods.casebook import Scratch
from tests.agent.methods.system_cases import accounts

from quarterdeck_agent import methods
from quarterdeck_agent.documents import FORMAT, Call, Policy, Report
from quarterdeck_agent.engine import Engine
from quarterdeck_agent.outcome import METHODS, Facts

assert methods.__all__

CALLS: list[tuple[str, dict[str, str], str]] = [
    ("variable_string", {"prefix": "p", "name": "motd", "value": "Welcome"}, "any"),
    ("directory_present", {"path": "{work}/d"}, "any"),
    ("file_content", {"path": "{work}/d/motd", "lines": "${p.motd}\nPort 22", "enforce": "true"}, "any"),
    ("permissions", {"path": "{work}/d/motd", "mode": "644"}, "file_lines_present_{d}_motd_ok"),
    ("file_replace_lines", {"path": "{work}/conf", "line": r"Port (\d+)$", "replacement": "Listen ${match.1}"}, "any"),
    ("condition_from_expression", {"condition": "c", "expression": "linux.!windows"}, "any"),
    ("user_present", {"login": "bob"}, "c_true"),
    ("user_shell", {"login": "bob", "shell": "/usr/sbin/nologin"}, "c_true"),
    ("command_execution", {"command": "echo x >> {work}/ran"}, "user_present_bob_repaired"),
    ("file_absent", {"path": "{work}/none"}, "c_false"),
]


def policy(scratch: Scratch, mode: str) -> Policy:
    canonical = str(scratch.work / "d").replace("/", "_").replace("-", "_")
    items: list[Call] = [
        {
            "type": "call",
            "id": str(number),
            "component": method,
            "method": method,
            "value": scratch.filled(params[METHODS[method].class_parameter]),
            "params": {name: scratch.filled(value) for name, value in params.items()},
            "condition": condition.replace("{d}", canonical),
            "report": True,
        }
        for number, (method, params, condition) in enumerate(CALLS)
    ]
    return {
        "format": FORMAT,
        "node": "n",
        "config_id": "c",
        "schedule": {"interval_minutes": 5, "start_minute": 0, "start_hour": 0, "splay_minutes": 0},
        "reporting": "full-compliance",
        "heartbeat_runs": 1,
        "conditions": [],
        "properties": {},
        "policies": [
            {
                "rule": "r",
                "directive": "d",
                "name": "D",
                "technique": "t",
                "version": "1",
                "mode": mode,
                "items": list(items),
            }
        ],
    }


def run(scratch: Scratch, mode: str) -> list[Report]:
    engine = Engine(
        METHODS,
        Facts(conditions={"any", "linux"}),
        backups=str(scratch.state / "backups"),
        persistent=str(scratch.state / "persistent"),
    )
    return list(engine.apply(policy(scratch, mode)))


def machine(scratch: Scratch) -> None:
    accounts(scratch)
    scratch.file("conf", "Port 22\n")


def test_a_run_in_audit_mode_leaves_no_trace(scratch: Scratch) -> None:
    machine(scratch)
    before = scratch.snapshot()

    reports = run(scratch, "audit")

    assert scratch.snapshot() == before
    assert [report["status"].removeprefix("audit_") for report in reports] == [
        "compliant",
        "noncompliant",
        "noncompliant",
        "na",
        "noncompliant",
        "compliant",
        "noncompliant",
        "noncompliant",
        "na",
        "na",
    ]


def test_a_run_in_enforce_mode_repairs_and_the_next_finds_all_as_wanted(scratch: Scratch) -> None:
    machine(scratch)

    first = run(scratch, "enforce")
    second = run(scratch, "enforce")

    assert [report["status"].removeprefix("result_") for report in first] == [
        "success",
        "repaired",
        "repaired",
        "repaired",
        "repaired",
        "success",
        "repaired",
        "repaired",
        "repaired",
        "na",
    ], [report["message"] for report in first]
    assert [report["status"].removeprefix("result_") for report in second] == ["success"] * 8 + ["na", "na"]
    assert scratch.read("d/motd") == "Welcome\nPort 22\n"
    assert scratch.read("conf") == "Listen 22\n"
    assert scratch.read("ran") == "x\n"


def test_damage_is_found_and_repaired_by_the_next_run(scratch: Scratch) -> None:
    machine(scratch)
    run(scratch, "enforce")
    scratch.file("d/motd", "damaged\n", 0o600)

    reports = run(scratch, "enforce")

    assert [report["component"] for report in reports if report["status"] == "result_repaired"] == [
        "file_content",
        "permissions",
    ]
    assert "-damaged" in reports[2]["message"]
    assert scratch.read("d/motd") == "Welcome\nPort 22\n"
