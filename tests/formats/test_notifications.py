# SPDX-License-Identifier: Apache-2.0
"""What notifications say, byte by byte where machines read it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

from lxml import etree

from quarterdeck.core.executions import Execution
from quarterdeck.core.ids import AccountId
from quarterdeck.core.jobs import Job, JobHead
from quarterdeck.core.notifications import Message
from quarterdeck.formats import execution_xml, notifications

EXECUTION = Execution(
    id=7,
    project="ops",
    user="olga",
    account_id=AccountId("op"),
    started=datetime(2027, 1, 10, 12, 0, 0, 123_456, tzinfo=UTC),
    ended=datetime(2027, 1, 10, 12, 1, 2, 500_000, tzinfo=UTC),
    succeeded=True,
    job_id=3,
    description="echo <hello> [... 2 steps]",
    argstring="-target all",
    nodes=("a", "b", "c"),
    nodes_succeeded=2,
    nodes_failed=1,
)
JOB = Job("Deploy", "ops", id=3, group="web/app", description="Ships it")
HEAD = JobHead(id=3, uuid="u", name="Deploy", group="web/app", project="ops", description="Ships it")
MESSAGE = Message(trigger="success", execution=EXECUTION, job=JOB, head=HEAD, base_url="https://q.example:8443/")
ELEMENT = (
    '<execution id="7" href="https://q.example:8443/execution/follow/7" status="succeeded"><user>olga</user>'
    '<date-started unixtime="1799582400123">2027-01-10T12:00:00Z</date-started>'
    '<date-ended unixtime="1799582462500">2027-01-10T12:01:02Z</date-ended>'
    '<job id="3"><name>Deploy</name><group>web/app</group><project>ops</project>'
    "<description>Ships it</description></job>"
    "<description>echo &lt;hello&gt; [... 2 steps]</description><argstring>-target all</argstring></execution>"
)


def _written(execution: Execution, head: JobHead | None = HEAD) -> str:
    return etree.tostring(execution_xml.element(execution, head, MESSAGE.base_url), encoding="unicode")


def test_an_execution_has_its_children_in_the_order_that_clients_expect() -> None:
    assert _written(EXECUTION) == ELEMENT


def test_a_running_execution_of_no_job_says_less() -> None:
    running = replace(EXECUTION, ended=None, argstring="", job_id=None)

    assert _written(running, None) == (
        '<execution id="7" href="https://q.example:8443/execution/follow/7" status="running"><user>olga</user>'
        '<date-started unixtime="1799582400123">2027-01-10T12:00:00Z</date-started>'
        "<description>echo &lt;hello&gt; [... 2 steps]</description></execution>"
    )


def test_a_cancelled_execution_tells_by_whom_or_else_who_started_it() -> None:
    aborted = replace(EXECUTION, succeeded=False, cancelled=True, aborted_by="anna")

    assert 'status="aborted"' in _written(aborted)
    assert "</date-ended><abortedby>anna</abortedby><job" in _written(aborted)
    assert "<abortedby>olga</abortedby>" in _written(replace(aborted, aborted_by=""))


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert "<description>a�b</description>" in _written(replace(EXECUTION, description="a\x00b"))


def test_a_webhook_gets_the_execution_in_an_envelope() -> None:
    assert notifications.webhook_body(MESSAGE).decode() == (
        '<notification trigger="success" status="succeeded" executionId="7"><executions count="1">'
        f"{ELEMENT}</executions></notification>"
    )
    assert notifications.webhook_headers(MESSAGE) == {
        "Content-Type": "text/xml; charset=UTF-8",
        "X-RunDeck-Notification-Trigger": "success",
        "X-RunDeck-Notification-Execution-ID": "7",
        "X-RunDeck-Notification-Execution-Status": "succeeded",
    }


def _mail(message: Message) -> Any:
    made = notifications.mail(message, "a@example.org", "quarterdeck@q.example", datetime(2027, 1, 10, tzinfo=UTC))
    return message_from_bytes(made.as_bytes(), policy=policy.default)


def test_a_mail_says_what_happened_as_text_and_as_html() -> None:
    mail = _mail(MESSAGE)

    assert mail["Subject"] == "SUCCESS [ops] web/app/Deploy -target all"
    assert (mail["To"], mail["From"]) == ("a@example.org", "Quarterdeck <quarterdeck@q.example>")
    text, html = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert "Result: succeeded\n" in text
    assert "Nodes: 2 succeeded, 1 failed, 3 in all\n" in text
    assert "Duration: 62.4 s\n" in text
    assert "https://q.example:8443/execution/follow/7\n" in text
    assert '<a href="https://q.example:8443/execution/follow/7">' in html


def test_a_value_can_write_neither_headers_nor_html() -> None:
    execution = replace(EXECUTION, argstring="-x 'one\r\nBcc: b@example.org' <script>", succeeded=False)

    mail = _mail(replace(MESSAGE, execution=execution, trigger="failure"))

    assert mail["Subject"] == "FAILURE [ops] web/app/Deploy -x 'one Bcc: b@example.org' <script>"
    assert mail["Bcc"] is None
    assert "<script>" not in mail.get_body(("html",)).get_content()
