# SPDX-License-Identifier: Apache-2.0
"""Inventories of our agent and of genuine ones: which node they make or change, and who is believed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.agents import START, Agent, sign
from tests.common import genuine

from quarterdeck.core.accounts import SYSTEM
from quarterdeck.core.agent_requests import UnknownNode
from quarterdeck.core.errors import Invalid, TooLarge
from quarterdeck.core.events import InventoryChanged
from quarterdeck.core.ids import NodeId
from quarterdeck.core.nodes import AgentKey, KeyStatus, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.formats import inventory_xml
from quarterdeck.services import inventories
from quarterdeck.services.context import Context
from quarterdeck.storage.database import Database, Provenance


@pytest.fixture
def ctx(postgres_url: str) -> Iterator[Context]:
    """A unit of work that is rolled back."""
    database = Database(postgres_url, pool_size=1)
    with database.unit_of_work(Provenance(actor="tests")) as store:
        store.now = START
        yield Context(account=SYSTEM, store=store)
    database.close()


def known(ctx: Context, one: Agent, status: NodeStatus = NodeStatus.ACCEPTED) -> Agent:
    ctx.store.nodes.add(one.as_node(status))
    return one


def send(ctx: Context, one: Agent, **changes: Any) -> inventories.Received:
    return inventories.receive_json(ctx, one.parcel("inventory", one.inventory(**changes)))


# -- of our own agent -----------------------------------------------------------------------


def test_the_first_inventory_of_an_accepted_node_is_news(ctx: Context) -> None:
    one = known(ctx, Agent())

    received = send(ctx, one)

    assert received == inventories.Received(node=NodeId(one.node), status=NodeStatus.ACCEPTED, changed=True)
    assert ctx.events == [InventoryChanged(NodeId(one.node))]
    node = ctx.store.nodes.get(one.node)
    assert (node.inventory.os.full_name, node.inventory.ram) == ("Debian GNU/Linux 12 (bookworm)", 8 * 1024**3)
    assert node.inventory.machine.provider == "qemu"
    assert node.agent_version == "0.1.0"
    assert ctx.store.inventories.days(one.node) == ["2026-11-21"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"date": "2026-11-22T03:00:00+00:00"},
        {"processes": [{"pid": 2, "name": "other"}]},
        {"file_systems": [{"name": "ext4", "mountPoint": "/", "totalSpace": 10**10, "freeSpace": 5}]},
    ],
)
def test_what_says_nothing_new_is_no_news(ctx: Context, changes: dict[str, Any]) -> None:
    one = known(ctx, Agent())
    send(ctx, one)
    ctx.events.clear()

    assert not send(ctx, one, **changes).changed
    assert ctx.events == []
    if "date" in changes:
        assert ctx.store.nodes.get(one.node).inventory_date == datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "changes", [{"ram": 1}, {"software": []}, {"fqdn": "new.example.com"}, {"properties": {"rack": 7}}]
)
def test_what_says_something_new_is_news(ctx: Context, changes: dict[str, Any]) -> None:
    one = known(ctx, Agent())
    send(ctx, one)
    ctx.events.clear()

    assert send(ctx, one, **changes).changed
    assert ctx.events == [InventoryChanged(NodeId(one.node))]


def test_one_inventory_a_day_of_change_is_kept_as_it_came(ctx: Context) -> None:
    one = known(ctx, Agent())
    send(ctx, one)
    ctx.store.now = START + timedelta(days=1)
    send(ctx, one)
    ctx.store.now = START + timedelta(days=2)
    parcel = one.parcel("inventory", one.inventory(ram=1))
    inventories.receive_json(ctx, parcel)

    assert ctx.store.inventories.days(one.node) == ["2026-11-23", "2026-11-21"]
    assert ctx.store.inventories.document(one.node, "2026-11-23") == parcel


def test_a_pending_node_changes_without_an_event(ctx: Context) -> None:
    one = known(ctx, Agent(), NodeStatus.PENDING)

    assert send(ctx, one).status is NodeStatus.PENDING
    assert ctx.events == []


def test_properties_of_the_machine_have_their_own_owner_and_spare_those_of_others(ctx: Context) -> None:
    one = Agent()
    mine = Property(name="rack", value="set by hand")
    ctx.store.nodes.add(replace(one.as_node(), properties=(mine,)))

    send(ctx, one, properties={"rack": 7, "room": {"floor": 2}})
    assert ctx.store.nodes.get(one.node).properties == (
        mine,
        Property(name="room", value={"floor": 2}, provider="inventory"),
    )
    send(ctx, one, properties={})
    assert ctx.store.nodes.get(one.node).properties == (mine,)


def test_what_administrators_set_stays(ctx: Context) -> None:
    one = Agent()
    ctx.store.nodes.add(replace(one.as_node(), documentation="mine", description="ours"))

    send(ctx, one)

    node = ctx.store.nodes.get(one.node)
    assert (node.documentation, node.description, node.key.pem) == ("mine", "ours", one.certificate)


def test_an_inventory_of_a_node_that_nobody_knows_is_refused(ctx: Context) -> None:
    with pytest.raises(UnknownNode):
        send(ctx, Agent())


def test_an_inventory_signed_with_another_key_is_refused(ctx: Context) -> None:
    one = known(ctx, Agent())
    impostor = Agent(node=one.node, key_number=1)

    with pytest.raises(Invalid, match="not signed"):
        send(ctx, impostor)


# -- of genuine agents --------------------------------------------------------------------------

XML = """<?xml version="1.0" encoding="UTF-8"?>
<REQUEST>
  <CONTENT>
    <ACCESSLOG><LOGDATE>2026-11-21 10:11:12</LOGDATE></ACCESSLOG>
    <BIOS><SMODEL>Standard PC</SMODEL><BVERSION>1.16</BVERSION><BMANUFACTURER>SeaBIOS</BMANUFACTURER>
      <SMANUFACTURER>QEMU</SMANUFACTURER><SSN>S-1</SSN></BIOS>
    <CPUS><NAME>Xeon</NAME><SPEED>2000</SPEED><CORE>2</CORE></CPUS>
    <CPUS><NAME>Xeon</NAME><SPEED>2000</SPEED><CORE>2</CORE></CPUS>
    <DRIVES><FILESYSTEM>ext4</FILESYSTEM><TYPE>/</TYPE><TOTAL>1000</TOTAL><FREE>10</FREE></DRIVES>
    <ENVS><KEY>PATH</KEY><VAL>/bin</VAL></ENVS>
    <HARDWARE><MEMORY>2048</MEMORY><SWAP>512</SWAP><VMSYSTEM>QEMU</VMSYSTEM><UUID>M-1</UUID></HARDWARE>
    <LOCAL_USERS><LOGIN>root</LOGIN></LOCAL_USERS><LOCAL_USERS><LOGIN>ann</LOGIN></LOCAL_USERS>
    <MEMORIES><CAPACITY>1024</CAPACITY><NUMSLOTS>1</NUMSLOTS></MEMORIES>
    <MEMORIES><CAPACITY>1024</CAPACITY><NUMSLOTS>1</NUMSLOTS></MEMORIES>
    <NETWORKS><DESCRIPTION>eth0</DESCRIPTION><IPADDRESS>192.0.2.9</IPADDRESS><IPMASK>255.255.255.0</IPMASK></NETWORKS>
    <NETWORKS><DESCRIPTION>eth0</DESCRIPTION><IPADDRESS6>2001:db8::9</IPADDRESS6></NETWORKS>
    <OPERATINGSYSTEM><KERNEL_NAME>linux</KERNEL_NAME><NAME>Debian GNU/Linux</NAME><VERSION>12.8</VERSION>
      <FULL_NAME>Debian GNU/Linux 12
        (bookworm)</FULL_NAME><KERNEL_VERSION>6.1.0</KERNEL_VERSION><ARCH>x86_64</ARCH>
      <TIMEZONE><NAME>UTC</NAME><OFFSET>+0000</OFFSET></TIMEZONE></OPERATINGSYSTEM>
    <PROCESSES><PID>1</PID><CMD>init</CMD><MEM>0.5</MEM></PROCESSES>
    <SOFTWARES><NAME>rudder-agent</NAME><VERSION>8.0.1</VERSION></SOFTWARES>
    <SOFTWARES><NAME>bash</NAME><VERSION>5.2</VERSION></SOFTWARES>
    <SOFTWARES><NAME>bash</NAME><VERSION>5.2</VERSION></SOFTWARES>
    <SOFTWAREUPDATES><NAME>bash</NAME><VERSION>5.3</VERSION><KIND>security</KIND><ID>DSA-1, DSA-2</ID></SOFTWAREUPDATES>
    <RUDDER>
      <AGENT><AGENT_NAME>cfengine-community</AGENT_NAME><AGENT_CERT>{certificate}</AGENT_CERT>
        <OWNER>root</OWNER><POLICY_SERVER_UUID>root</POLICY_SERVER_UUID></AGENT>
      <AGENT_CAPABILITIES><AGENT_CAPABILITY>https</AGENT_CAPABILITY></AGENT_CAPABILITIES>
      <CUSTOM_PROPERTIES>[{{"rack": 7}}]</CUSTOM_PROPERTIES>
      <HOSTNAME>{hostname}</HOSTNAME><UUID>{node}</UUID>
    </RUDDER>
  </CONTENT>
  <DEVICEID>web1-2026</DEVICEID>
</REQUEST>
"""


def xml_of(one: Agent, replaced: tuple[str, str] = ("", "")) -> bytes:
    text = XML.format(certificate=one.certificate, hostname=one.hostname, node=one.node)
    return text.replace(*replaced).encode() if replaced[0] else text.encode()


def sign_file(one: Agent, xml: bytes) -> bytes:
    return f"header=rudder-signature-v1\nalgorithm=sha512\ndigest={sign(one.key, xml).hex()}\n".encode()


def upload(ctx: Context, one: Agent, replaced: tuple[str, str] = ("", "")) -> inventories.Received:
    xml = xml_of(one, replaced)
    return inventories.receive_xml(ctx, xml, sign_file(one, xml))


def test_a_genuine_inventory_of_an_unknown_node_makes_a_pending_one(ctx: Context) -> None:
    one = Agent()

    assert upload(ctx, one).status is NodeStatus.PENDING

    node = ctx.store.nodes.get(one.node)
    assert (node.hostname, node.agent, node.agent_version) == (one.hostname, "cfengine-community", "8.0.1")
    assert (node.key.status, node.agent_capabilities) == (KeyStatus.CERTIFIED, ("https",))
    found = node.inventory
    assert (found.os.type, found.os.name, found.os.full_name) == ("Linux", "Debian", "Debian GNU/Linux 12 (bookworm)")
    assert (found.ram, found.swap) == (2048 * 1024**2, 512 * 1024**2)
    assert (found.machine.type, found.machine.provider, found.machine.id) == ("Virtual", "qemu", "m-1")
    assert found.ip_addresses == ("192.0.2.9", "2001:db8::9")
    assert found.accounts == ("ann", "root")
    lists = found.lists
    assert lists["processors"][0]["quantity"] == 2
    assert [one["slotNumber"] for one in lists["memories"]] == ["1", "-2"]
    assert [one["name"] for one in lists["software"]] == ["bash", "rudder-agent"]
    assert lists["softwareUpdate"][0]["ids"] == ["DSA-1", "DSA-2"]
    assert lists["fileSystems"][0]["totalSpace"] == 1000 * 1024**2
    assert lists["networkInterfaces"][0]["mask"] == ["255.255.255.0"]
    assert [(one.name, one.value, one.provider) for one in node.properties] == [("rack", 7, "inventory")]


def test_a_certified_key_verifies_every_later_inventory(ctx: Context) -> None:
    one = Agent()
    upload(ctx, one)
    thief = Agent(node=one.node, key_number=1)

    with pytest.raises(Invalid, match="agentKey"):
        upload(ctx, thief)
    assert ctx.store.nodes.get(one.node).key.pem == one.certificate


def test_a_key_that_was_reset_is_taken_from_the_next_inventory(ctx: Context) -> None:
    one = Agent()
    upload(ctx, one)
    node = ctx.store.nodes.get(one.node)
    ctx.store.nodes.replace(replace(node, key=AgentKey(pem=node.key.pem, status=KeyStatus.UNDEFINED)))
    renewed = Agent(node=one.node, key_number=1)

    upload(ctx, renewed)

    assert ctx.store.nodes.get(one.node).key == AgentKey(pem=renewed.certificate, status=KeyStatus.CERTIFIED)


def test_a_certificate_of_another_node_is_refused(ctx: Context) -> None:
    one, other = Agent(), Agent()

    with pytest.raises(Invalid, match="another node"):
        upload(ctx, one, (one.certificate, other.certificate))


def test_an_inventory_that_was_changed_after_signing_is_refused(ctx: Context) -> None:
    one = Agent()
    xml = xml_of(one)

    with pytest.raises(Invalid, match="signature"):
        inventories.receive_xml(ctx, xml.replace(b"2048", b"4096"), sign_file(one, xml))
    assert ctx.store.nodes.find(one.node) is None


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        (("<DEVICEID>web1-2026</DEVICEID>", ""), "DEVICEID"),
        (("<KERNEL_VERSION>6.1.0</KERNEL_VERSION>", ""), "KERNEL_VERSION"),
        (("<AGENT_NAME>cfengine-community</AGENT_NAME>", ""), "AGENT_NAME"),
        (("cfengine-community", "cfengine-nova"), "cfengine-nova"),
        (("<OWNER>root</OWNER>", ""), "OWNER"),
        (("web1.example.com", "localhost"), "localhost"),
        (("web1.example.com", "a b"), "host name"),
        (("RUDDER>", "RUDDERS>"), "RUDDER"),
        (("REQUEST>", "ANSWER>"), "REQUEST"),
        (('[{"rack": 7}]', "{"), "CUSTOM_PROPERTIES"),
        (("</REQUEST>", ""), "well-formed"),
        (("<REQUEST>", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><REQUEST>'), "entities"),
    ],
)
def test_an_inventory_that_lacks_something_is_refused_in_words(
    ctx: Context, replaced: tuple[str, str], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        upload(ctx, Agent(), replaced)


def test_a_property_may_name_the_host(ctx: Context) -> None:
    one = Agent()

    upload(ctx, one, ('{"rack": 7}', '{"rudder_override_hostname": "other.example.com"}'))

    node = ctx.store.nodes.get(one.node)
    assert node.hostname == "other.example.com"
    assert {one.name: one.value for one in node.properties}["rudder_original_hostname"] == "web1.example.com"


def test_a_compressed_inventory_is_read_within_bounds() -> None:
    assert inventory_xml.decompressed(b"<REQUEST/>") == b"<REQUEST/>"
    assert inventory_xml.decompressed(gzip.compress(b"<REQUEST/>")) == b"<REQUEST/>"
    with pytest.raises(TooLarge):
        inventory_xml.decompressed(gzip.compress(b" " * (inventory_xml.MAX_BYTES + 1)))
    with pytest.raises(Invalid):
        inventory_xml.decompressed(gzip.compress(b"<REQUEST/>")[:-6])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10", 10 * 1024**2), ("1_024", 1024**3), ("2 GB", 2 * 1024**3), ("3 ko", 3 * 1024), ("5 b", 5), ("many", None)],
)
def test_sizes_have_units_and_end_as_bytes(text: str, expected: int | None) -> None:
    assert inventory_xml._size(text) == expected


def test_nobody_sends_an_inventory_in_the_name_of_the_server_itself(ctx: Context) -> None:
    document = genuine.inventory("root", "impostor.example.com")

    with pytest.raises(Invalid, match=r"The root node is this server itself"):
        inventories.receive_xml(ctx, document, genuine.sign_file(document))
