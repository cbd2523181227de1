# SPDX-License-Identifier: Apache-2.0
"""Properties files: the configuration of projects, and the users of a realm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import Invalid
from quarterdeck.core.projects import Project
from quarterdeck.formats import project_properties, realm


def test_properties_are_read() -> None:
    found = project_properties.read(
        b"# comment\n! another\n\na=1\nb : 2 \n c 3\r\nd\ne = one \\\n    two\nf = C:\\\\x\\u00e9\\n\\=\ng\\ h = x = y\na=9\n",
    )

    assert found == {"a": "9", "b": "2 ", "c": "3", "d": "", "e": "one two", "f": "C:\\xé\n=", "g h": "x = y"}


def test_a_file_in_latin_1_is_read_too() -> None:
    assert project_properties.read(b"a = \xe9") == {"a": "é"}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(st.dictionaries(TEXT.filter(bool), TEXT, max_size=4))
def test_what_was_written_is_read_back(properties: dict[str, str]) -> None:
    assert project_properties.read(project_properties.write(properties)) == properties


def test_a_project_is_read_and_written() -> None:
    data = b"project.name = p\nproject.description = Nice\nproject.resources.url = https://example.org/r.xml\n"

    project = project_properties.project("p", data)

    assert project == Project(
        "p",
        description="Nice",
        properties={"project.resources.url": "https://example.org/r.xml"},
    )
    assert project_properties.project("p", project_properties.of_project(project)) == project
    assert b"project.name = p\n" in project_properties.of_project(project)


def test_users_of_a_realm_are_read_with_their_roles() -> None:
    admin, user, hashed = realm.read(
        b"# users\nadmin:old,admin\nuser: user , user\nhashed=MD5:5f4dcc3b5aa765d61d8327deb882cf99,user,ops\nadmin: admin,user,admin\n",
    )

    assert (admin.name, admin.roles, admin.credential.is_weak) == ("admin", frozenset({"user", "admin"}), True)
    assert admin.credential.verify("admin")
    assert not admin.credential.verify("old")
    assert (user.name, user.roles) == ("user", frozenset({"user"}))
    assert hashed.credential.verify("password")
    assert not hashed.credential.verify("5f4dcc3b5aa765d61d8327deb882cf99")
    assert not hashed.credential.is_weak
    assert "admin" not in repr(admin.credential)


@pytest.mark.parametrize("text", ["CRYPT:adpexzg3FUZAk", "OBF:1u2a1toa1w8v1tok1u30"])
def test_passwords_of_other_kinds_are_never_right(text: str) -> None:
    [user] = realm.read(f"a: {text},user".encode())

    with pytest.raises(Invalid, match="are not read"):
        user.credential.verify(text)


@pytest.mark.parametrize("data", [b"x", b"a: ,role", b": p,role"])
def test_a_line_that_names_no_user_or_password_is_told(data: bytes) -> None:
    with pytest.raises(Invalid, match=r"^line 2: "):
        realm.read(b"ok: p\n" + data)
