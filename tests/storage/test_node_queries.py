# SPDX-License-Identifier: Apache-2.0
"""Node queries on a real PostgreSQL: a small fleet, and who is found by which criterion."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import Connection

from quarterdeck.core import java_regexes
from quarterdeck.core import node_queries as language
from quarterdeck.core.errors import Invalid
from quarterdeck.core.groups import Group
from quarterdeck.core.ids import GroupId, NodeId
from quarterdeck.core.inventories import Inventory, Machine, OperatingSystem
from quarterdeck.core.node_attributes import CATALOGUE, EXISTENCE
from quarterdeck.core.nodes import Node, NodeKind, NodeState, NodeStatus
from quarterdeck.core.properties import Property
from quarterdeck.storage import node_queries
from quarterdeck.storage.database import Database, Provenance

LISTS_OF_WEB: dict[str, tuple[dict[str, Any], ...]] = {
    "software": (
        {"name": "bash", "version": "5.2"},
        {
            "name": "nginx",
            "version": "1.24",
            "editor": "Debian",
            "releaseDate": "2024-03-01",
            "license": {"name": "BSD", "expirationDate": "2030-01-31T00:00:00Z"},
        },
    ),
    "fileSystems": (
        {"name": "ext4", "mountPoint": "/", "totalSpace": 10 * 1024**3, "freeSpace": 1024**3, "fileCount": 5},
        {"name": "tmpfs", "mountPoint": "/tmp", "totalSpace": 1024**2, "freeSpace": 1024**2},
    ),
    "networkInterfaces": (
        {"name": "eth0", "ipAddresses": ["10.0.0.1", "fe80::1"], "mask": ["255.0.0.0"], "macAddress": "AA:BB"},
        {"name": "lo", "ipAddresses": ["127.0.0.1"], "mask": []},
    ),
    "memories": ({"name": "DIMM 0", "capacity": 8 * 1024**3, "speed": "2400 MT/s", "slotNumber": "0"},),
    "processes": ({"name": "/usr/sbin/nginx", "pid": 12, "user": "root", "virtualMemory": 2048.5},),
    "processors": ({"name": "Xeon", "core": 4, "quantity": 2}, {"name": "Xeon", "core": 4}),
    "bios": ({"name": "BIOS", "version": "1.2", "releaseDate": "03/04/2020"},),
}


def node(name: str, **more: Any) -> Node:
    return Node(id=NodeId(name), hostname=f"{name}.example.org", **more)


FLEET = [
    node("root", kind=NodeKind.ROOT, inventory=Inventory(os=OperatingSystem(type="Linux", name="Debian"))),
    node(
        "web",
        properties=(
            Property(name="env", value="prod"),
            Property(name="nested", value={"b": [1, {"x": "y"}], "a": None}),
            Property(name="count", value=3),
            Property(name="on", value=True),
        ),
        inventory_date=datetime(2026, 3, 1, 23, 59, tzinfo=UTC),
        inventory=Inventory(
            os=OperatingSystem(type="Linux", name="Debian", version="12.5", full_name="Debian GNU/Linux 12"),
            machine=Machine(id="M-1", type="Virtual", provider="vbox", manufacturer="Oracle"),
            architecture="x86_64",
            ram=2 * 1024**3,
            swap=0,
            ip_addresses=("10.0.0.1", "127.0.0.1"),
            accounts=("root", "Deploy"),
            environment={"LANG": "C.UTF-8", "HOME": "/root"},
            lists=LISTS_OF_WEB,
        ),
    ),
    node(
        "db",
        state=NodeState.IGNORED,
        agent="cfengine-community",
        policy_server=NodeId("relay"),
        properties=(Property(name="env", value="dev"), Property(name="ENV", value=["a", "b"])),
        inventory_date=datetime(2026, 3, 2, 0, 0, tzinfo=UTC),
        inventory=Inventory(
            os=OperatingSystem(type="Linux", name="Centos", version="7"),
            machine=Machine(id="m-2", type="Physical", serial_number="S1"),
            ram=512 * 1024**2,
            ip_addresses=("10.0.0.2",),
            lists={"software": ({"name": "bash", "version": "4.4"},)},
        ),
    ),
    node("bare", agent="dsc", inventory=Inventory(os=OperatingSystem(type="Windows", name="Windows2019"))),
    node("relay", kind=NodeKind.RELAY, inventory=Inventory(os=OperatingSystem(type="Linux", name="Debian"))),
    node("new", status=NodeStatus.PENDING, inventory=Inventory(os=OperatingSystem(type="Linux", name="Debian"))),
]
SELECTED = {"web", "db", "bare", "relay"}


@pytest.fixture(scope="module")
def filled(postgres_url: str) -> Iterator[Connection]:
    database = Database(postgres_url)
    with database.unit_of_work(Provenance(actor="test")) as store:
        for one in FLEET:
            store.nodes.add(one)
        store.groups.add(Group(id=GroupId("g"), name="G"))
        store.memberships.set("g", ["web", "bare", "root"])
        yield store.connection
    database.close()


@pytest.fixture
def fleet(filled: Connection) -> Iterator[Connection]:
    """The connection that sees the fleet; a statement that fails takes nothing with it."""
    with filled.begin_nested() as savepoint:
        yield filled
        savepoint.rollback()


def asked(*criteria: tuple[str, str, str, str], **more: Any) -> language.NodeQuery:
    where = [
        {"objectType": object_type, "attribute": attribute, "comparator": comparator, "value": value}
        for object_type, attribute, comparator, value in criteria
    ]
    return language.parse({"where": where, **more})


#: "objectType attribute comparator value" and who is found
CASES: list[tuple[str, str]] = [
    # enumerations
    ("node OS eq Linux", "web db relay"),
    ("node OS notEq Linux", "bare"),
    ("node osName eq Debian", "web relay"),
    ("node osName notEq Debian", "db bare"),
    ("node state eq ignored", "db"),
    ("node agentName eq cfengine", "web db relay"),
    ("node agentName eq community", "db"),
    ("node agentName notEq community", "web bare relay"),
    ("node agentName eq dsc", "bare"),
    ("node agentName eq quarterdeck", "web relay"),
    # facts in memory: exact case, plain negation
    ("node nodeId eq web", "web"),
    ("node nodeId eq WEB", ""),
    ("node nodeId notEq web", "db bare relay"),
    ("node nodeHostname regex web.*", "web"),
    ("node nodeHostname regex web", ""),
    ("node nodeHostname notRegex web.*", "db bare relay"),
    ("node nodeHostname regex (?!web|db).*", "bare relay"),
    ("node nodeHostname notRegex (?!web|db).*", "web db"),
    ("node nodeHostname regex \\bdb\\b.*", "db"),
    ("node nodeHostname notRegex \\bdb\\b.*", "web bare relay"),
    ("node ipHostNumber eq 10.0.0.1", "web"),
    ("node ipHostNumber notEq 10.0.0.1", "db bare relay"),
    ("node ipHostNumber regex 10[.].*", "web db"),
    ("node ipHostNumber regex 10\\.(?=0).*", "web db"),
    ("node ipHostNumber regex 10\\.0++.*", "web db"),
    ("node ipHostNumber notRegex 10[.].*", "bare relay"),
    ("node ipHostNumber exists", "web db"),
    ("node ipHostNumber notExists", "bare relay"),
    ("node policyServerId eq relay", "db"),
    ("node localAdministratorAccountName eq root", "web db bare relay"),
    ("node localAdministratorAccountName eq ROOT", ""),
    # directory attributes: any case, notEq also when absent, notRegex only when present
    ("node osVersion eq 12.5", "web"),
    ("node osFullName eq debian gnu/linux 12", "web"),
    ("node osVersion notEq 7", "web bare relay"),
    ("node osVersion regex 1.*", "web"),
    ("node osFullName regex debian.*", ""),
    ("node osVersion notRegex 1.*", "db"),
    ("node osVersion notRegex 1++.*", "db"),
    ("node osVersion exists", "web db"),
    ("node osVersion notExists", "bare relay"),
    ("node osVersion lt 2", "web"),
    ("node osVersion gteq 12.5", "web db"),
    ("node osArchitectureType eq X86_64", "web"),
    ("node localAccountName eq deploy", "web"),
    ("node localAccountName notEq deploy", "db bare relay"),
    ("node localAccountName notRegex D.*", ""),
    ("node localAccountName notRegex x.*", "web"),
    # sizes and days
    ("node ram eq 2 GB", "web"),
    ("node ram notEq 2 GB", "db bare relay"),
    ("node ram gt 512 MB", "web"),
    ("node ram gteq 512 MB", "web db"),
    ("node ram lt 1 Yo", "web db"),
    ("node swap eq 0", "web"),
    ("node swap exists", "web"),
    ("node ram regex 2147.*", "web"),
    ("node inventoryDate eq 01/03/2026", "web"),
    ("node inventoryDate gt 01/03/2026", "db"),
    ("node inventoryDate lteq 01/03/2026", "web"),
    ("node inventoryDate notEq 01/03/2026", "db bare relay"),
    ("node inventoryDate exists", "web db"),
    # the machine: there has to be one
    ("machine machineType eq Virtual", "web"),
    ("machine machineType notEq Virtual", "db"),
    ("machine provider eq virtualBox", "web"),
    ("machine provider eq virtualMachine", "web"),
    ("machine provider notEq virtualMachine", "db"),
    ("machine provider notEq virtualBox", "db"),
    ("machine machineId eq m-1", "web"),
    ("machine manufacturer notExists", "db"),
    ("machine componentSerialNumber eq s1", "db"),
    ("machine motherBoardUuid exists", ""),
    # groups
    ("group nodeGroupId eq g", "web bare"),
    ("group nodeGroupId eq nobody", ""),
    # software: negations ask for some other software
    ("software cn eq NGINX", "web"),
    ("software cn eq bash", "web db"),
    ("software cn notEq bash", "web"),
    ("software cn notEq nginx", "web db"),
    ("software cn regex b.+h", "web db"),
    ("software cn regex B.+h", ""),
    ("software cn notRegex b.+h", "web"),
    ("software cn regex b.++h", ""),
    ("software cn regex b.+h\\z", "web db"),
    ("software softwareVersion eq 4.4", "db"),
    ("software editor eq debian", "web"),
    ("software editor notExists", "web db"),
    ("software editor notEq debian", "web db"),
    ("software editor notRegex x", "web"),
    ("software releaseDate eq 01/03/2024", "web"),
    ("software releaseDate lt 01/03/2024", ""),
    ("software licenseName eq bsd", "web"),
    ("software licenseExpirationDate gt 30/01/2030", "web"),
    # other sub-objects
    ("fileSystemLogicalElement mountPoint eq /TMP", "web"),
    ("fileSystemLogicalElement mountPoint notEq /", "web"),
    ("fileSystemLogicalElement fileSystemFreeSpace lt 2 MB", "web"),
    ("fileSystemLogicalElement fileSystemFreeSpace gt 2 GB", ""),
    ("fileSystemLogicalElement fileCount eq 5", "web"),
    ("fileSystemLogicalElement fileCount notExists", "web"),
    ("networkInterfaceLogicalElement ipHostNumber eq FE80::1", "web"),
    ("networkInterfaceLogicalElement ipHostNumber notRegex 127.*", "web"),
    ("networkInterfaceLogicalElement ipHostNumber regex fe.*\\z", "web"),
    ("networkInterfaceLogicalElement networkInterfaceMask notExists", "web"),
    ("networkInterfaceLogicalElement networkInterfaceMacAddress eq aa:bb", "web"),
    ("networkInterfaceLogicalElement networkInterface regex (?i)ETH\\d", "web"),
    ("memoryPhysicalElement memoryCapacity eq 8 GB", "web"),
    ("memoryPhysicalElement memorySpeed gteq 2400", "web"),
    ("memoryPhysicalElement memorySpeed gt 2400", ""),
    ("process commandName eq /usr/sbin/NGINX", "web"),
    ("process pid lt 13", "web"),
    ("process virtualMemory eq 2048", "web"),
    ("processorPhysicalElement quantity eq 1", "web"),
    ("processorPhysicalElement quantity gt 1", "web"),
    ("biosPhysicalElement releaseDate eq 03/04/2020", "web"),
    ("biosPhysicalElement releaseDate regex .*2020", "web"),
    ("videoCardPhysicalElement videoCardName notEq x", ""),
    # environment
    ("environmentVariable name.value eq LANG=C.UTF-8", "web"),
    ("environmentVariable name.value eq lang=c.utf-8", "web"),
    ("environmentVariable name.value notEq LANG=C.UTF-8", "db bare relay"),
    ("environmentVariable name.value regex HOME=/r.*", "web"),
    ("environmentVariable name.value notRegex HOME=/r.*", ""),
    ("environmentVariable name.value hasKey LANG", "web"),
    ("environmentVariable name.value exists", "web"),
    # properties: own ones, exact case
    ("serializedNodeProperty name.value eq env=prod", "web"),
    ("serializedNodeProperty name.value eq env=PROD", ""),
    ("serializedNodeProperty name.value notEq env=prod", "db bare relay"),
    ("serializedNodeProperty name.value eq count=3", "web"),
    ("serializedNodeProperty name.value eq on=true", "web"),
    ('serializedNodeProperty name.value eq nested={"a":null,"b":[1,{"x":"y"}]}', "web"),
    ('serializedNodeProperty name.value eq nested={"a":null}', ""),
    ('serializedNodeProperty name.value eq ENV=["a","b"]', "db"),
    ('serializedNodeProperty name.value eq ENV=["a"]', ""),
    ("serializedNodeProperty name.value regex env=.*", "web db"),
    ("serializedNodeProperty name.value regex count=\\d", "web"),
    ("serializedNodeProperty name.value regex count=3|env=dev", "web db"),
    ("serializedNodeProperty name.value regex count=?[=3]+", "web"),
    ("serializedNodeProperty name.value regex (?i)ENV=PROD", "web"),
    ("serializedNodeProperty name.value regex ENV=\\[.*", "db"),
    ("serializedNodeProperty name.value regex env=(?!dev).*", "web"),
    ("serializedNodeProperty name.value notRegex env=.*", "bare relay"),
    ('serializedNodeProperty name.value regex nested=.*"b":\\[1,.*', "web"),
    ("serializedNodeProperty name.value hasKey env", "web db"),
    ("serializedNodeProperty name.value hasKey Env", ""),
    ("serializedNodeProperty name.value exists", "web db"),
    ("serializedNodeProperty name.value notExists", "bare relay"),
    ("serializedNodeProperty name.value jsonSelect nested:$.b", "web"),
    ("serializedNodeProperty name.value jsonSelect nested:$.a", "web"),
    ("serializedNodeProperty name.value jsonSelect nested:$.c", ""),
    ("serializedNodeProperty name.value jsonSelect nested:$.b[?(@.x=='y')]", "web"),
    ("serializedNodeProperty name.value jsonSelect nested:$.b[?(@.x=='z')]", ""),
    ("serializedNodeProperty name.value jsonSelect ENV:$[1]", "db"),
    ("serializedNodeProperty name.value jsonSelect ENV:$[2]", ""),
    ("serializedNodeProperty name.value jsonSelect env:$", "web db"),
    ("serializedNodeProperty name.value jsonSelect env:$.x", ""),
]


@pytest.mark.parametrize(("criterion", "names"), CASES, ids=[case[0] for case in CASES])
def test_a_criterion_finds_its_nodes(fleet: Connection, criterion: str, names: str) -> None:
    object_type, attribute, comparator, *value = criterion.split(" ", 3)
    query = asked((object_type, attribute, comparator, value[0] if value else ""))

    assert node_queries.match(fleet, query) == set(names.split())


def test_every_criterion_of_the_catalogue_can_be_asked(fleet: Connection) -> None:
    for object_type, attributes in CATALOGUE.items():
        for attribute in attributes.values():
            for comparator in attribute.kind.comparators:
                value = "" if comparator in EXISTENCE else "1" if not attribute.choices else attribute.choices[-1]
                if attribute.kind.name == "DATE" and value:
                    value = "01/01/2026"
                if attribute.name == "name.value" and value:
                    value = "1:$.a" if comparator == "jsonSelect" else "1=1"

                assert node_queries.match(fleet, asked((object_type, attribute.name, comparator, value))) <= SELECTED


LINUX = ("node", "OS", "eq", "Linux")
BIG = ("node", "ram", "gt", "1 GB")
GROUPED = ("group", "nodeGroupId", "eq", "g")
ABSENT = ("node", "osVersion", "lt", "2")


@pytest.mark.parametrize(
    ("criteria", "more", "names"),
    [
        ([LINUX, BIG], {}, {"web"}),
        ([BIG, GROUPED], {"composition": "or"}, {"web", "bare"}),
        ([LINUX], {"select": "nodeAndPolicyServer"}, {"web", "db", "relay", "root"}),
        ([LINUX], {"transform": "invert"}, {"bare"}),
        ([GROUPED], {"transform": "invert", "select": "nodeAndPolicyServer"}, {"db", "relay"}),
        ([ABSENT], {"transform": "invert"}, {"db", "bare", "relay"}),
        ([("software", "cn", "notEq", "bash")], {"transform": "invert"}, {"db", "bare", "relay"}),
        ([], {}, set()),
        ([], {"transform": "invert"}, set()),
    ],
)
def test_criteria_are_put_together(
    fleet: Connection, criteria: list[tuple[str, str, str, str]], more: dict[str, Any], names: set[str]
) -> None:
    assert node_queries.match(fleet, asked(*criteria, **more)) == names


def test_only_some_nodes_can_be_asked_about(fleet: Connection) -> None:
    assert node_queries.match(fleet, asked(LINUX), only=["web", "bare", "unheard of"]) == {"web"}
    assert node_queries.match(fleet, asked(LINUX), only=[]) == set()


@pytest.mark.parametrize("value", ["' OR 1=1 --", "%", "_", "\\", "\"'$$", ":x", "%(a)s", "{", "é\u2028"])
def test_values_are_never_read_as_sql(fleet: Connection, value: str) -> None:
    for comparator in ("eq", "notEq"):
        for object_type, attribute in [("node", "nodeId"), ("software", "cn"), ("fileSystemLogicalElement", "cn")]:
            node_queries.match(fleet, asked((object_type, attribute, comparator, value)))
        node_queries.match(fleet, asked(("serializedNodeProperty", "name.value", comparator, f"{value}={value}")))
        node_queries.match(fleet, asked(("environmentVariable", "name.value", comparator, f"{value}={value}")))

    assert node_queries.match(fleet, asked(("node", "nodeId", "eq", value))) == set()


def test_a_bad_json_path_is_refused(fleet: Connection) -> None:
    with pytest.raises(Invalid, match="The JSONPath 'b\\[' is not valid"):
        node_queries.match(fleet, asked(("serializedNodeProperty", "name.value", "jsonSelect", "a:b[")))


def test_a_regex_that_only_postgresql_refuses_is_refused_clearly(fleet: Connection) -> None:
    with pytest.raises(Invalid, match="cannot be evaluated"):
        node_queries.match(fleet, asked(("node", "nodeId", "regex", "[a-c-e]")))


ATOMS = some.sampled_from(
    [
        "a",
        "b",
        "-",
        ".",
        r"\d",
        r"\w",
        r"\s",
        r"\W",
        r"\S",
        "[ab]",
        "[^a]",
        "[a-c1]",
        r"[\d-]",
        r"[\w.]",
        r"\.",
        "é",
        r"\Qa.b\E",
    ]
)


def lookaround(two: tuple[str, str]) -> str:
    """Ahead of the second; behind, it has a pattern of its own: Python wants those of one length."""
    return f"({two[0]}){two[1]}" if two[0].startswith("?<") else f"({two[0]}{two[1]})(?:{two[1]})?"


REGEXES = some.recursive(
    ATOMS,
    lambda inner: (
        some.tuples(inner, inner).map("".join)
        | some.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})")
        | some.tuples(some.sampled_from(["?=", "?!", "?<!(?:a|-)", "?<=[ab]"]), inner).map(lookaround)
        | some.tuples(inner, some.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,3}?", "*?"])).map(
            lambda two: f"({two[0]}){two[1]}"
        )
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    pattern=REGEXES,
    flags=some.sampled_from(["", "(?i)"]),
    values=some.lists(some.text("abcAB1.- é\n_", max_size=5), min_size=1, max_size=8),
)
def test_postgresql_and_python_agree_on_regexes(
    fleet: Connection,
    pattern: str,
    flags: str,
    values: list[str],
) -> None:
    regex = java_regexes.parse(flags + pattern)
    assert regex.postgres is not None
    # Beyond ASCII, Java ignores no case unless asked to; PostgreSQL's choice depends on the database.
    texts = [value.replace("é", "") for value in values] if flags else values
    sql = sqlalchemy.text(f"SELECT v {'~*' if flags else '~'} :pattern FROM unnest(CAST(:texts AS text[])) AS v")

    rows = fleet.execute(sql, {"pattern": regex.postgres, "texts": texts}).scalars().all()

    assert rows == [regex.python.fullmatch(text) is not None for text in texts]
