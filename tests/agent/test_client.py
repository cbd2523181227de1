# SPDX-License-Identifier: Apache-2.0
"""What leaves this machine, to whom, and how refusals and lost connections are told."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from tests.agent.server import FakeServer, policy

from quarterdeck_agent import client, documents, keys, parcels
from quarterdeck_agent.errors import AgentError, Refused, Unreachable, Untrusted
from quarterdeck_agent.state import StateDirectory

_WRONG_PIN = "sha256//" + "A" * 43 + "="


def _client(state: StateDirectory, server: FakeServer, pin: str | None = None) -> client.Client:
    key = keys.load(state.path)
    return client.Client(server.url, server.pin if pin is None else pin, key, state.node_id())


@pytest.fixture
def talk(enrolled: StateDirectory, server: FakeServer) -> Iterator[client.Client]:
    made = _client(enrolled, server)
    yield made
    made.close()


def test_the_pinned_server_is_trusted_whatever_name_its_certificate_has(
    talk: client.Client, server: FakeServer, enrolled: StateDirectory
) -> None:
    server.publish(policy(enrolled.node_id()))
    offered = talk.policy("")
    assert offered is not None
    assert offered.body == server.policy


def test_another_key_gets_not_a_single_byte_of_the_request(enrolled: StateDirectory, server: FakeServer) -> None:
    with pytest.raises(Untrusted, match="nothing was sent") as caught:
        _client(enrolled, server, _WRONG_PIN).policy("")
    assert server.pin in str(caught.value)
    assert server.requests == []


def test_without_a_pin_an_unknown_certificate_is_refused(enrolled: StateDirectory, server: FakeServer) -> None:
    with pytest.raises(Unreachable, match="--pin"):
        _client(enrolled, server, "").policy("")
    assert server.requests == []


@pytest.mark.parametrize("tells_in_header", [False, True])
def test_a_wrong_clock_is_corrected_once_by_the_servers(
    talk: client.Client, server: FakeServer, enrolled: StateDirectory, tells_in_header: bool
) -> None:
    server.clock_ahead, server.tells_in_header = 86_400, tells_in_header
    server.publish(policy(enrolled.node_id()))
    assert talk.policy("") is not None
    talk.policy("")
    assert [status for *_, status in server.requests] == [401 if tells_in_header else 403, 200, 200]


def test_a_clock_that_stays_wrong_is_a_refusal_not_a_loop(talk: client.Client, server: FakeServer) -> None:
    server.refusals[documents.PATH_POLICY] = (403, "clock_skew")
    with pytest.raises(Refused) as caught:
        talk.policy("")
    assert caught.value.code == "clock_skew"
    assert len(server.requests) == 2


def test_a_refusal_carries_code_and_message(talk: client.Client, server: FakeServer) -> None:
    server.refusals[documents.PATH_POLICY] = (403, "not_accepted")
    with pytest.raises(Refused, match="refused: not_accepted") as caught:
        talk.policy("")
    assert (caught.value.code, caught.value.status) == ("not_accepted", 403)


def test_one_connection_serves_a_whole_run(talk: client.Client, server: FakeServer, enrolled: StateDirectory) -> None:
    server.publish(policy(enrolled.node_id()))
    talk.policy("")
    used = talk._connection
    talk.policy("")
    assert used is talk._connection is not None


def test_a_connection_closed_meanwhile_is_opened_again(
    talk: client.Client, server: FakeServer, enrolled: StateDirectory
) -> None:
    server.publish(policy(enrolled.node_id()))
    talk.policy("")
    assert talk._connection is not None
    talk._connection.sock.shutdown(socket.SHUT_RDWR)
    assert talk.policy("") is not None


def test_a_parcel_goes_out_on_a_fresh_connection_when_the_old_one_was_closed_while_it_was_idle(
    talk: client.Client, server: FakeServer, enrolled: StateDirectory
) -> None:
    server.idle_seconds = 0.05
    server.publish(policy(enrolled.node_id()))
    talk.policy("")
    time.sleep(0.5)
    parcel = parcels.Queue(enrolled.at("queue"), enrolled.at("refused"))
    parcel.add("report", enrolled.node_id(), keys.load(enrolled.path), {"format": 1})

    flushed = parcel.flush(talk.send)

    assert (flushed.sent, flushed.waiting, flushed.problems) == (1, 0, [])


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://192.0.2.1", "plain http goes to this machine only"),
        ("http://localhost.example.org", "plain http goes to this machine only"),
        ("ftp://127.0.0.1", "not of the form"),
        ("https://", "not of the form"),
        ("https://host:notaport", "bad port"),
        ("https://host:0", "not of the form"),
        ("https://host:99999", "bad port"),
    ],
)
def test_an_unusable_url_is_refused_before_anything_is_sent(state: StateDirectory, url: str, sentence: str) -> None:
    with pytest.raises(AgentError, match=sentence):
        client.Client(url, "", keys.load(state.path), state.node_id())


def test_a_pin_of_another_form_is_refused(state: StateDirectory) -> None:
    with pytest.raises(AgentError, match="sha256//"):
        client.Client("https://host", "md5//x", keys.load(state.path), state.node_id())


def test_plain_http_reaches_loopback(state: StateDirectory) -> None:
    talk = client.Client("http://127.0.0.1:1", "", keys.load(state.path), state.node_id())
    with pytest.raises(Unreachable, match="cannot be reached: Connection refused"):
        talk.policy("")


def test_a_name_that_does_not_resolve_is_one_sentence(state: StateDirectory) -> None:
    talk = client.Client("https://no-such-host.invalid", "", keys.load(state.path), state.node_id())
    with pytest.raises(Unreachable, match="cannot be reached"):
        talk.policy("")


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be reached"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nnope", "status 502"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "status 404"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nshort", "broke off"),
    ],
)
def test_something_that_is_not_our_server_gives_one_sentence(
    state: StateDirectory, answer: bytes, sentence: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        talk = client.Client(url, "", keys.load(state.path), state.node_id())
        with pytest.raises((Refused, Unreachable), match=sentence):
            talk.policy("")
        talk.close()
        thread.join()


def test_a_server_that_answers_an_enrolment_with_something_else_is_refused(state: StateDirectory) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        talk = client.Client(url, "", keys.load(state.path), state.node_id())
        with pytest.raises(Unreachable, match="like a Quarterdeck server"):
            talk.enroll({"token": "t"})
        talk.close()
        thread.join()


def test_old_tls_is_refused(enrolled: StateDirectory, server: FakeServer) -> None:
    made = client.PinnedConnection("127.0.0.1", int(server.url.rpartition(":")[2]), server.pin)
    context = made._context  # type: ignore[attr-defined]
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_no_nonce_is_used_twice(talk: client.Client) -> None:
    signed = [talk._signed("GET", "/", b"") for _ in range(3)]
    assert len({headers[documents.HEADER_NONCE] for headers in signed}) == 3
    assert all(len(headers[documents.HEADER_NONCE]) == 32 for headers in signed)
    assert abs(int(signed[0][documents.HEADER_TIME]) - time.time()) < 5
