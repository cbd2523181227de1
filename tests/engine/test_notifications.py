# SPDX-License-Identifier: Apache-2.0
"""Deliveries: against a real HTTP server and a real mail server on loopback, and as a worker makes them."""

from __future__ import annotations

import asyncio
import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.engine.worlds import KEY, PROJECT, World, until

from quarterdeck.core.executions import State
from quarterdeck.core.notifications import Delivery, Mail
from quarterdeck.core.sites import Site
from quarterdeck.engine import notifications, tasks
from quarterdeck.engine.notifications import Refused, Request, Undelivered
from quarterdeck.services import executions, projects
from quarterdeck.services import notifications as services
from quarterdeck.storage.database import Database

JOB = """
- name: tell
  project: ops
  notification:
    onsuccess: {{{kind}: '{target}'}}
  sequence: {{commands: [{{exec: echo tick}}]}}
"""
MAIL = Mail(host="127.0.0.1", sender="q@example.org", security="none")


@pytest.fixture
def world(fresh_postgres_url: str) -> Iterator[World]:
    database = Database(fresh_postgres_url, pool_size=6, secret_key=KEY)
    world = World(database, Site(allowed_webhooks=(".*",), mail=MAIL))
    world.do(lambda ctx: projects.create(ctx, PROJECT))
    yield world
    database.close()


# -- servers ----------------------------------------------------------------------------------


class WebhookServer(ThreadingHTTPServer):
    """Answers with `status`; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Webhook)
        self.status, self.headers = 200, dict[str, str]()
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Webhook(BaseHTTPRequestHandler):
    server: WebhookServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the library
        pass


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs; refuses recipients of `refused`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Mail)
        self.taken: list[tuple[str, list[str], bytes]] = []
        self.refused = ""

    @property
    def mail(self) -> Mail:
        return Mail(host="127.0.0.1", port=self.server_address[1], sender="q@example.org", security="none")


class _Mail(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        sender, recipients = "", list[str]()
        self._say("220 here")
        while line := self.rfile.readline().decode().strip():
            match line.split(":")[0].split(" ")[0].upper():
                case "EHLO" | "HELO":
                    self._say("250 here")
                case "MAIL":
                    sender = line.partition("<")[2].partition(">")[0]
                    self._say("250 ok")
                case "RCPT":
                    recipient = line.partition("<")[2].partition(">")[0]
                    if recipient == self.server.refused:
                        self._say("550 nobody here")
                        continue
                    recipients.append(recipient)
                    self._say("250 ok")
                case "DATA":
                    self._say("354 go on")
                    self.server.taken.append((sender, recipients, self._data()))
                    self._say("250 taken")
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def _data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line)
        return b"".join(lines)


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def webhooks() -> Iterator[WebhookServer]:
    server = WebhookServer()
    with _serving(server):
        yield server


@pytest.fixture
def mails() -> Iterator[MailServer]:
    server = MailServer()
    with _serving(server):
        yield server


# -- webhooks ---------------------------------------------------------------------------------


def _request(url: str, *, confined: bool = False) -> Request:
    return Request(url=url, headers={"Content-Type": "text/xml; charset=UTF-8"}, body=b"<x/>", confined=confined)


def test_a_webhook_gets_headers_and_body(webhooks: WebhookServer) -> None:
    told = notifications.post(_request(f"{webhooks.url}/a%20b?c=d"))

    ((path, headers, body),) = webhooks.seen
    assert (told, path, body) == ("The answer was 200 OK.", "/a%20b?c=d", b"<x/>")
    assert headers["content-type"] == "text/xml; charset=UTF-8"
    assert headers["host"] == f"127.0.0.1:{webhooks.server_port}"


def test_the_address_of_a_webhook_is_not_logged(webhooks: WebhookServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        notifications.post(_request(f"{webhooks.url}/token-abc"))

    assert "token-abc" not in caplog.text


def test_a_name_is_called_by_its_name_at_its_address(webhooks: WebhookServer) -> None:
    notifications.post(_request(f"http://localhost:{webhooks.server_port}/"))

    assert webhooks.seen[0][1]["host"] == f"localhost:{webhooks.server_port}"


@pytest.mark.parametrize(("status", "fine"), [(204, True), (300, True), (301, False), (404, False), (503, False)])
def test_answers_from_200_to_300_are_fine(webhooks: WebhookServer, status: int, *, fine: bool) -> None:
    webhooks.status = status

    if fine:
        assert notifications.post(_request(webhooks.url)).startswith(f"The answer was {status}")
    else:
        with pytest.raises(Undelivered, match=f"The answer was {status}"):
            notifications.post(_request(webhooks.url))


def test_a_redirection_is_not_followed(webhooks: WebhookServer) -> None:
    webhooks.status, webhooks.headers = 302, {"Location": f"{webhooks.url}/other"}

    with pytest.raises(Undelivered):
        notifications.post(_request(webhooks.url))

    assert len(webhooks.seen) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "169.254.169.254"])
def test_this_machine_is_not_called_without_leave(webhooks: WebhookServer, host: str) -> None:
    with pytest.raises(Refused, match="webhooks may call only when the setting"):
        notifications.post(_request(f"http://{host}:{webhooks.server_port}/", confined=True))

    assert webhooks.seen == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://[::1/", "http://127.0.0.1:99999/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        notifications.post(_request(url))


def test_nobody_there_and_no_answer_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(Undelivered, match="ConnectError"):
            notifications.post(_request(url))
        silent.listen()
        with pytest.raises(Undelivered, match=r"no answer within|Timeout"):
            notifications.post(_request(url))


# -- mail -------------------------------------------------------------------------------------


def _mail(recipient: str = "a@example.org") -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "Hello", "q@example.org", recipient
    made.set_content("What happened\n")
    return made


def test_a_mail_server_takes_a_message(mails: MailServer) -> None:
    told = notifications.send(mails.mail, _mail())

    ((sender, recipients, data),) = mails.taken
    assert (told, sender, recipients) == ("The mail server 127.0.0.1 took it.", "q@example.org", ["a@example.org"])
    assert b"Subject: Hello\r\n" in data
    assert b"What happened\r\n" in data


def test_what_a_mail_server_says_against_it_is_told(mails: MailServer) -> None:
    mails.refused = "a@example.org"

    with pytest.raises(Undelivered, match=r"SMTPRecipientsRefused: 550 nobody here"):
        notifications.send(mails.mail, _mail())


def test_a_mail_server_that_cannot_protect_the_connection_gets_nothing(mails: MailServer) -> None:
    protected = Mail(host="127.0.0.1", port=mails.mail.port, sender="q@example.org", security="starttls")

    with pytest.raises(Undelivered, match="STARTTLS"):
        notifications.send(protected, _mail())

    assert mails.taken == []


# -- the task ---------------------------------------------------------------------------------


def _ended(world: World, kind: str, target: str) -> int:
    (job,) = world.load(JOB.format(kind=kind, target=target))
    execution_id = world.run(job)
    world.do(lambda ctx: executions.finish(ctx, execution_id, 0, State.SUCCEEDED))
    return execution_id


def _delivery(world: World, execution_id: int) -> Delivery:
    (one,) = world.do(lambda ctx: executions.deliveries(ctx, execution_id))
    return one


def _refuse(_: Request) -> str:
    raise Undelivered("The answer was 503.")


def test_an_attempt_in_vain_is_noted(world: World) -> None:
    delivery = _delivery(world, _ended(world, "urls", "http://hooks.example/"))

    notifications.run(world.units, {"delivery": delivery.id}, post=_refuse)

    now = _delivery(world, delivery.execution_id)
    assert (now.state, now.attempts, now.message) == ("waiting", 1, "The answer was 503.")


def test_what_can_never_be_delivered_is_given_up_at_once(world: World) -> None:
    world.site = Site()
    delivery = _delivery(world, _ended(world, "urls", "http://127.0.0.1:9/"))

    notifications.run(world.units, {"delivery": delivery.id})

    now = _delivery(world, delivery.execution_id)
    assert (now.state, now.attempts) == ("failed", 1)
    assert "has the address 127.0.0.1" in now.message


def test_an_attempt_whose_note_was_lost_is_made_again(world: World) -> None:
    delivery = _delivery(world, _ended(world, "urls", "http://hooks.example/"))
    sent: list[Request] = []

    def die(request: Request) -> str:
        sent.append(request)
        raise KeyboardInterrupt

    def take(request: Request) -> str:
        sent.append(request)
        return "200"

    with pytest.raises(KeyboardInterrupt):
        notifications.run(world.units, {"delivery": delivery.id}, post=die)
    for _ in range(2):
        notifications.run(world.units, {"delivery": delivery.id}, post=take)

    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert _delivery(world, delivery.execution_id).state == "delivered"


def test_a_mail_is_made_and_handed_over(world: World) -> None:
    delivery = _delivery(world, _ended(world, "recipients", "a@example.org"))
    sent: list[EmailMessage] = []

    def take(mail: Mail, message: EmailMessage) -> str:
        assert mail == MAIL
        sent.append(message)
        return "250 taken"

    notifications.run(world.units, {"delivery": delivery.id}, send=take)

    assert [one["Subject"] for one in sent] == ["SUCCESS [ops] tell"]
    now = _delivery(world, delivery.execution_id)
    assert (now.state, now.attempts, now.message) == ("delivered", 1, "250 taken")


def test_a_worker_delivers_what_an_end_asked_for(world: World, webhooks: WebhookServer, mails: MailServer) -> None:
    world.site = Site(allowed_webhooks=(".*",), mail=mails.mail)
    posted = _ended(world, "urls", f"{webhooks.url}/${{execution.id}}")
    mailed = _ended(world, "recipients", "a@example.org")
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    kinds = {services.TASK: tasks.TASKS[services.TASK]}
    work = tasks.run_worker(world.database, cpu=1, threads=1, stop=stop, site=world.site, kinds=kinds)
    thread = threading.Thread(target=loop.run_until_complete, args=(work,))

    thread.start()
    try:
        for execution_id in (posted, mailed):
            until(lambda one=execution_id: _delivery(world, one).state == "delivered")  # type: ignore[misc]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()

    assert webhooks.seen[0][0] == f"/{posted}"
    assert webhooks.seen[0][1]["x-rundeck-notification-execution-status"] == "succeeded"
    assert b"FAILURE" not in mails.taken[0][2]
    assert b"Subject: SUCCESS [ops] tell" in mails.taken[0][2]
