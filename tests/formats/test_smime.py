# SPDX-License-Identifier: Apache-2.0
"""Clear-signed messages of the `openssl` program: what its owner signed is believed, and nothing else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.common import run_logs

from quarterdeck.core.errors import Invalid
from quarterdeck.formats import smime

NODE = "e745a140-40bc-4b86-b6dc-084488fc906b"
TEXT = run_logs.usual(NODE)
MESSAGE = run_logs.signed(TEXT, NODE)
CERTIFICATE = run_logs.certificate(NODE)


def test_what_was_signed_is_returned_without_the_mail_around_it() -> None:
    text = smime.verified(MESSAGE, [CERTIFICATE])

    assert text.replace(b"\r\n", b"\n") == TEXT.encode()


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize(
    "content", [b"one\n", b"no line end", b"\n\n", b"\xff\xfe not UTF-8\n", b"\r\r\n\r", b"a\n\n\n"]
)
def test_any_content_survives(digest: str, content: bytes) -> None:
    message = run_logs.signed(content, NODE, options=("-text", "-nocerts", "-md", digest))

    text = smime.verified(message, [CERTIFICATE])

    assert text.split() == content.split()


def test_the_second_of_several_certificates_may_be_the_one() -> None:
    other = run_logs.certificate(NODE, 1)

    assert smime.verified(MESSAGE, [other, CERTIFICATE])
    assert smime.verified(run_logs.signed(TEXT, NODE, number=1), [CERTIFICATE, other])


def test_a_key_without_a_certificate_is_enough() -> None:
    public = run_logs.key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    assert smime.verified(MESSAGE, [public])


def test_a_message_whose_line_ends_were_changed_on_its_way_is_the_same_message() -> None:
    assert smime.verified(MESSAGE.replace(b"\r\n", b"\n"), [CERTIFICATE])
    assert smime.verified(MESSAGE.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), [CERTIFICATE])


def test_certificates_inside_of_the_message_say_nothing() -> None:
    message = run_logs.signed(TEXT, NODE, number=1, options=("-text",))

    with pytest.raises(Invalid, match="another certificate"):
        smime.verified(message, [CERTIFICATE])


def test_other_certificates_are_told_from_bad_signatures() -> None:
    with pytest.raises(Invalid, match=r"another certificate \(serial number 1000\)"):
        smime.verified(MESSAGE, [run_logs.certificate(NODE, 1)])
    with pytest.raises(Invalid, match="No certificate is known"):
        smime.verified(MESSAGE, [])


def test_altered_content_is_refused() -> None:
    with pytest.raises(Invalid, match="not the one that was signed"):
        smime.verified(MESSAGE.replace(b"result_success", b"result_repaired", 1), [CERTIFICATE])


def test_an_altered_signature_is_refused() -> None:
    lines = MESSAGE.rstrip().split(b"\n")
    last = lines[-3]
    altered = last[:4] + (b"A" if last[4:5] != b"A" else b"B") + last[5:]

    with pytest.raises(Invalid, match="signature is not valid"):
        smime.verified(MESSAGE.replace(last, altered), [CERTIFICATE])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-text", "-nocerts", "-md", "sha1"), "digest sha1"),
        (("-text", "-nocerts", "-md", "md5"), "digest md5"),
        (("-nocerts",), "no header|not plain text"),
        (("-text", "-nocerts", "-nodetach"), "not signed"),
        (("-text", "-nocerts", "-noattr"), "attribute|PKCS#7"),
    ],
)
def test_weaker_and_other_forms_are_refused(options: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        smime.verified(run_logs.signed(TEXT, NODE, options=options), [CERTIFICATE])


def test_two_signers_are_one_too_many(tmp_path: object) -> None:
    message = run_logs.signed(TEXT, NODE)
    both = message.replace(b"\n------", b"\n------", 1) + message

    with pytest.raises(Invalid, match="does not consist"):
        smime.verified(both, [CERTIFICATE])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        TEXT.encode(),
        b"Content-Type: text/plain\n\nhello\n",
        b"Content-Type: multipart/signed; boundary=x\n\n--x\n\n--x\n\n--x--\n",
        b'Content-Type: multipart/signed; boundary="x"\n\n--x\na\n--x\nContent-Type: application/pkcs7-signature\n\n!\n--x--',
    ],
)
def test_what_is_not_signed_is_refused(message: bytes) -> None:
    with pytest.raises(Invalid):
        smime.verified(message, [CERTIFICATE])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_single_change_of_a_byte_is_believed_to_say_something_else(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(MESSAGE) - 1))
    byte = data.draw(st.integers(0, 255))
    altered = MESSAGE[:position] + bytes([byte]) + MESSAGE[position + 1 :]

    try:
        text = smime.verified(altered, [CERTIFICATE])
    except Invalid:
        return
    assert text.replace(b"\r\n", b"\n").rstrip(b"\n") == TEXT.encode().rstrip(b"\n")


@given(st.binary(max_size=2000))
def test_no_bytes_end_in_anything_but_a_refusal(content: bytes) -> None:
    header = b'Content-Type: multipart/signed; boundary="x"\n\n--x\nContent-Type: text/plain\n\nhello\n--x\n'

    for message in (content, header + b"Content-Type: application/pkcs7-signature\n\n" + content + b"\n--x--\n"):
        with pytest.raises(Invalid):
            smime.verified(message, [CERTIFICATE])


def test_pems_are_found_one_after_another() -> None:
    other = run_logs.certificate(NODE, 1)

    assert [one + "\n" for one in smime.pems(CERTIFICATE + other)] == [CERTIFICATE, other]
    assert smime.pems("nothing") == ()
