# SPDX-License-Identifier: Apache-2.0
"""Resource documents in XML and YAML: what is read, what is written, and that nothing is lost in between."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource
from quarterdeck.formats import resources_xml, resources_yaml

GOLDEN = Path(__file__).parent / "golden"

XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE project PUBLIC "-//DTO Labs Inc.//DTD Resources Document 1.0//EN" "http://nowhere.invalid/project.dtd">
<project>
  <!-- a comment -->
  <node name="n1" type="Node" description="first" tags=" b, a,, " hostname="h1:22" osArch="x86" osFamily="unix"
        osName="Linux" osVersion="6.1" username="ops" anything="x">
    <attribute name="my-attr" value="1"/>
    <attribute name="other"> text </attribute>
  </node>
  <unknown/>
  <node name="n2" hostname="h2"/>
  <node name="n1" username="root" anything="y"/>
</project>
"""
YAML = b"""\
n1:
  hostname: h1:22
  nodename: ignored
  tags: [b, a]
  osVersion: 6.10
  enabled: yes
  rank: 007
  description:
n2:
  hostname: ''
  tags: x, y
---
- nodename: n3
  hostname: h3
"""


def test_xml_is_read() -> None:
    [n1, n2] = resources_xml.read(XML)

    assert n1 == Resource(
        "n1",
        hostname="h1:22",
        username="root",
        description="first",
        tags=frozenset({"a", "b"}),
        os_arch="x86",
        os_family="unix",
        os_name="Linux",
        os_version="6.1",
        attributes={"type": "Node", "anything": "y", "my-attr": "1", "other": "text"},
    )
    assert n2 == Resource("n2", hostname="h2")


def test_yaml_is_read_with_its_scalars_as_written() -> None:
    [n1, n2, n3] = resources_yaml.read(YAML)

    assert (n1.name, n1.hostname, n1.os_version, n1.tag_list, n1.description) == ("n1", "h1:22", "6.10", "a,b", "")
    assert n1.attributes == {"enabled": "yes", "rank": "007"}
    assert (n2.hostname, n2.tag_list, n3.hostname) == ("", "x,y", "h3")


@pytest.mark.parametrize("name", ["resources.xml", "resources.yaml"])
def test_what_is_written_is_the_golden_document(name: str) -> None:
    document = resources_xml if name.endswith("xml") else resources_yaml
    golden = (GOLDEN / name).read_bytes()

    assert document.write(resources_xml.read(XML)) == golden
    assert document.write(document.read(golden)) == golden


def test_nothing_is_written_in_the_form_that_clients_know() -> None:
    assert b"<project/>" in resources_xml.write([])
    assert resources_yaml.write([]) == b"# 0 results for query\n"
    assert resources_yaml.read(b"# 0 results for query\n") == []


def test_yaml_has_a_line_per_node_name_and_hostname() -> None:
    text = resources_yaml.write([Resource("n1", hostname="h"), Resource("n2")]).decode()

    assert re.findall("^  nodename: .*$", text, re.MULTILINE) == ["  nodename: n1", "  nodename: n2"]
    assert text.count("hostname: ") == 2
    assert "  hostname: ''\n" in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<project><node hostname='h'/>", "line 1"),
        (b"<project>\n<node hostname='h'/></project>", "line 2: The required attribute 'name' of a node is missing."),
        (b"<project><node name='n'><attribute value='1'/></node></project>", "line 1: An attribute has no name."),
        (b"<nodes/>", "Document root tag was not 'project': 'nodes'"),
        (b"", "empty"),
        (b"<!DOCTYPE p [<!ENTITY a 'b'>]><project/>", "A document may not declare entities."),
        (b"<!DOCTYPE p SYSTEM 'x'><project><node name='a&b;'/></project>", "line 1: Entity 'b' not defined"),
        (b"<!DOCTYPE p SYSTEM 'x'><project>&b;</project>", "line 1: Entity 'b' not defined"),
        (b"<!DOCTYPE p [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><project><node name='&a;'/></project>", "entit"),
    ],
)
def test_a_bad_xml_document_is_told(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        resources_xml.read(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"n1: {nodename: x}", "Required property 'hostname' was not specified"),
        (b"- {hostname: x}", "Required property 'nodename' was not specified"),
        (b"- {hostname: x, nodename: ''}", "Required property 'nodename' was not specified"),
        (b"- x", "not a mapping"),
        (b"n1: x", "Node 'n1' is not a mapping."),
        (b"text", "a mapping of nodes or a sequence"),
        (b"n1:\n  hostname: [a]", "single value"),
        (b"n1: {hostname: h", "line 2: did not find"),
        (b"n1: !!python/object:os.system {}", "line 1"),
        (b"a: &x 1\nb: *x", "line 2: Aliases"),
        (b"[" * 70 + b"]" * 70, "Nested"),
        (b"\xff", "Not UTF-8 at byte 0."),
        (b"? [a]\n: {hostname: h}", "line 1"),
    ],
)
def test_a_bad_yaml_document_is_told(data: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        resources_yaml.read(data)


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\ufffe\uffff"), max_size=10)
NAME = TEXT.map(str.strip).filter(bool)
TAG = st.text("abc -é'\"<&", min_size=1, max_size=4).map(str.strip).filter(bool)
_RESERVED = {
    *("name", "nodename", "hostname", "username", "description", "tags"),
    *("osArch", "osFamily", "osName", "osVersion"),
}
RESOURCES = st.lists(
    st.builds(
        Resource,
        NAME,
        hostname=TEXT,
        username=TEXT,
        description=TEXT,
        tags=st.frozensets(TAG, max_size=3),
        os_arch=TEXT,
        os_family=TEXT,
        os_name=TEXT,
        os_version=st.sampled_from(["", "6.10", "true", "null", "~", "0x1", "2026-01-01"]),
        attributes=st.dictionaries(NAME.filter(lambda name: name not in _RESERVED), TEXT, max_size=3),
    ),
    max_size=4,
    unique_by=lambda one: one.name,
)


@given(RESOURCES)
def test_nothing_is_lost_between_writing_and_reading(nodes: list[Resource]) -> None:
    assert resources_xml.read(resources_xml.write(nodes)) == nodes
    assert resources_yaml.read(resources_yaml.write(nodes)) == nodes


def test_what_xml_cannot_hold_does_not_break_a_document() -> None:
    [one] = resources_xml.read(resources_xml.write([Resource("n", description="a\x00b\x1bc")]))

    assert one.description == "a\ufffdb\ufffdc"
