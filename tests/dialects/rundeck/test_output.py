# SPDX-License-Identifier: Apache-2.0
"""Long outputs leave page by page, and what is asked for is found also while more is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from time import process_time

from lxml import etree
from tests.dialects.rundeck import states
from tests.served_rundeck import BASE, PASSWORD, Rundeck

from quarterdeck.core.logs import LogEntry
from quarterdeck.formats import log_blocks
from quarterdeck.services import adhoc
from quarterdeck.services.adhoc import Manner
from quarterdeck.services.execution_output import PAGE_BYTES
from quarterdeck.storage.logs import LogBlock

LINES_OF_A_BLOCK = 5000


def write_long_output(rundeck: Rundeck, blocks: int) -> list[str]:
    """Execution 1, which still runs, with many numbered lines."""
    lines = [f"{number:06d} {'x' * 40}" for number in range(blocks * LINES_OF_A_BLOCK)]
    with rundeck.unit_of_work() as ctx:
        execution = adhoc.run_command(ctx, "test", "seq", Manner())
        now = datetime.now(UTC)
        ctx.store.logs.ensure_partition(now.date())
        offset = 0
        for number in range(blocks):
            some = lines[number * LINES_OF_A_BLOCK : (number + 1) * LINES_OF_A_BLOCK]
            text = "".join(f"{line}\n" for line in some).encode()
            data = log_blocks.encode([LogEntry(now, "INFO", "server", "1", "tests", text)])
            block = LogBlock(
                execution_id=execution.id,
                number=number,
                at=now,
                offset=offset,
                size=len(text),
                lines=len(some),
                data=data,
            )
            ctx.store.logs.append([block])
            offset += len(text)
    assert offset > 2 * PAGE_BYTES
    return lines


def test_a_long_output_is_whole_in_each_format(rundeck: Rundeck) -> None:
    lines = write_long_output(rundeck, 10)

    text = rundeck.ask("GET", "/api/1/execution/1/output?format=text")
    as_json = json.loads(rundeck.ask("GET", "/api/1/execution/1/output.json").content)
    as_xml = etree.fromstring(rundeck.ask("GET", "/api/1/execution/1/output").content)

    assert text.text.splitlines() == lines
    assert "Content-Length" not in text.headers
    assert text.headers["X-Rundeck-ExecOutput-Completed"] == "false"
    assert [one["log"] for one in as_json["entries"]] == lines
    assert [one.text for one in as_xml.iter("entry")] == lines


def test_lines_can_be_fetched_in_pieces_that_fit_together(rundeck: Rundeck) -> None:
    lines = write_long_output(rundeck, 10)
    found: list[str] = []
    offset, rounds = 0, 0

    while len(found) < len(lines):
        answer = json.loads(
            rundeck.ask("GET", f"/api/1/execution/1/output?format=json&offset={offset}&maxlines=12345").content
        )
        found += [one["log"] for one in answer["entries"]]
        offset = answer["offset"]
        rounds += 1

    assert found == lines
    assert rounds == 5


def test_the_last_lines_are_found_behind_many(rundeck: Rundeck) -> None:
    lines = write_long_output(rundeck, 10)

    answer = rundeck.ask("GET", "/api/1/execution/1/output?format=text&lastlines=7001")

    assert answer.text.splitlines() == lines[-7001:]


def test_a_policy_that_hides_a_project_hides_outputs_too(rundeck: Rundeck) -> None:
    states.output(rundeck)
    states.narrowed(rundeck)

    answer = rundeck.ask("GET", "/api/1/execution/1/output?format=text", "read")

    assert 'Not authorized for action "Read" for Execution 1' in answer.text


def test_the_address_of_an_execution_leads_people_to_its_output(rundeck: Rundeck) -> None:
    states.output(rundeck)

    first = rundeck.client.get("/execution/follow/1")
    logged_in = rundeck.client.post(
        "/j_security_check", data={"j_username": "bob", "j_password": PASSWORD}, follow_redirects=True
    )

    assert first.headers["Location"] == f"{BASE}/user/login"
    assert logged_in.status_code == 200
    assert logged_in.text.startswith("first\nsecond <&>\n")
    assert rundeck.client.get("/execution/follow/x").status_code == 404


def test_many_lines_of_xml_take_little_of_the_processor(rundeck: Rundeck) -> None:
    lines = write_long_output(rundeck, 20)

    began = process_time()
    answer = rundeck.ask("GET", "/api/1/execution/1/output")

    # 100,000 lines; an element of a tree for each takes ten times as long as this allows.
    assert process_time() - began < 3
    assert answer.text.count("<entry ") == len(lines)
