# SPDX-License-Identifier: Apache-2.0
"""How a node is reached: what its attributes, its project and the server's settings say together."""

from __future__ import annotations

from typing import Any

import pytest

from quarterdeck.core import connections
from quarterdeck.core.connections import Address, Connection, Defaults, Hop
from quarterdeck.core.errors import Invalid
from quarterdeck.core.projects import Project
from quarterdeck.core.resources import Resource

DEFAULTS = Defaults(username="ops", key_path="/keys/default", connect_seconds=20)


def connection(
    hostname: str = "web1", username: str = "", properties: dict[str, str] | None = None, **attributes: str
) -> Connection:
    """Of a node with these attributes; `_` in a name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    resource = Resource("n", hostname=hostname, username=username, attributes=named)
    return connections.connection(resource, Project("P", properties=properties or {}), DEFAULTS)


@pytest.mark.parametrize(
    ("hostname", "hop"),
    [
        ("web1", Hop(Address("web1", 22), "ops")),
        (" web1:2222 ", Hop(Address("web1", 2222), "ops")),
        ("bob@web1", Hop(Address("web1", 22), "bob")),
        ("bob@web1:2222", Hop(Address("web1", 2222), "bob")),
        ("bob@corp@web1", Hop(Address("web1", 22), "bob@corp")),
        ("10.0.0.1", Hop(Address("10.0.0.1", 22), "ops")),
        ("::1", Hop(Address("::1", 22), "ops")),
        ("[::1]", Hop(Address("::1", 22), "ops")),
        ("bob@[fe80::1]:2222", Hop(Address("fe80::1", 2222), "bob")),
    ],
)
def test_a_hostname_may_name_user_and_port(hostname: str, hop: Hop) -> None:
    assert connection(hostname).hop == hop


def test_the_username_of_the_node_comes_before_the_one_in_its_hostname() -> None:
    assert connection("bob@web1", username="alice").hop.username == "alice"
    assert connection(properties={"project.ssh-user": "carol"}).hop.username == "carol"


@pytest.mark.parametrize(
    ("hostname", "message"),
    [
        ("", "Hostname must be set to connect to remote node 'n'"),
        ("bob@", "Hostname must be set to connect to remote node 'n'"),
        ("web1:", None),
        ("web1:http", "'http' is no port"),
        ("web1:0", "'0' is no port"),
        ("web1:65536", "'65536' is no port"),
        ("[::1]22", "'22' follows a bracket without a colon"),
    ],
)
def test_hostnames_that_cannot_be_reached_are_refused(hostname: str, message: str | None) -> None:
    if message is None:
        assert connection(hostname).hop.address == Address("web1", 22)
        return
    with pytest.raises(Invalid) as caught:
        connection(hostname)

    assert caught.value.message == message


def test_without_any_username_a_node_cannot_be_reached() -> None:
    with pytest.raises(Invalid, match="Username must be set to connect to remote node 'n'"):
        connections.connection(Resource("n", hostname="web1"), Project("P"), Defaults())


def test_attributes_come_before_the_project_and_that_before_the_defaults() -> None:
    properties = {"project.ssh-connect-timeout": "5", "project.ssh-command-timeout": "60"}

    found = connection(properties=properties, ssh_command_timeout="7.5")

    assert (found.connect_seconds, found.run_seconds) == (5.0, 7.5)
    assert connection().connect_seconds == 20.0


@pytest.mark.parametrize(
    ("attributes", "properties", "key"),
    [
        ({}, {}, ("/keys/default", "")),
        ({}, {"project.ssh-keypath": "/keys/project"}, ("/keys/project", "")),
        ({"ssh_keypath": "/keys/node"}, {"project.ssh-key-secret": "project"}, ("/keys/node", "")),
        ({"ssh_key_secret": "node"}, {"project.ssh-keypath": "/keys/project"}, ("", "node")),
        ({"ssh_agent": "true"}, {}, ("", "")),
        ({"ssh_agent": "true"}, {"project.ssh-keypath": "/keys/project"}, ("/keys/project", "")),
    ],
)
def test_the_key_of_the_node_comes_first(
    attributes: dict[str, Any], properties: dict[str, str], key: tuple[str, str]
) -> None:
    found = connection(properties=properties, **attributes)

    assert (found.key_path, found.key_secret) == key
    assert found.agent == bool(attributes.get("ssh_agent"))


def test_jump_hosts_are_passed_in_their_order_as_the_user_of_the_node() -> None:
    found = connection(ssh_jump_host="bastion, root@inner:2222,")

    assert found.jumps == (Hop(Address("bastion"), "ops"), Hop(Address("inner", 2222), "root"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"ssh_jump_host": "bastion,root@"},
        {"ssh_port": "ssh"},
        {"ssh_connect_timeout": "soon"},
        {"ssh_command_timeout": "-1"},
        {"ssh_connect_timeout": "nan"},
        {"ssh_host_keys": "any"},
    ],
)
def test_settings_that_cannot_be_read_are_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        connection(**attributes)


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address("web1"), "web1"), (Address("web1", 2222), "web1:2222"), (Address("::1", 2222), "[::1]:2222")],
)
def test_addresses_are_written_as_they_are_read(address: Address, text: str) -> None:
    assert str(address) == text
    assert connection(text).hop.address == address
