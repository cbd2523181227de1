# SPDX-License-Identifier: Apache-2.0
"""The grammar of node queries: what is read, how it is printed again, and what is refused with which words."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quarterdeck.core import java_regexes, node_queries
from quarterdeck.core.errors import Invalid
from quarterdeck.core.node_attributes import CATALOGUE, EXISTENCE, Kind
from quarterdeck.core.node_queries import Criterion, NodeQuery


def criterion(object_type: str, attribute: str, comparator: str, value: Any = None) -> dict[str, Any]:
    document = {"objectType": object_type, "attribute": attribute, "comparator": comparator}
    return document if value is None else document | {"value": value}


def test_names_are_read_in_any_case_and_printed_canonically() -> None:
    document = {
        "select": "NODEandPolicyServer",
        "composition": "OR",
        "transform": "Invert",
        "where": [
            criterion("NODE", "os", "EQ", "linux"),
            criterion("FILESYSTEMlogicalElement", "MOUNTpoint", "NOTregex", "/.*"),
        ],
    }

    query = node_queries.parse(document)

    assert node_queries.show(query) == {
        "select": "nodeAndPolicyServer",
        "composition": "or",
        "transform": "invert",
        "where": [
            criterion("node", "OS", "eq", "Linux"),
            criterion("fileSystemLogicalElement", "mountPoint", "notRegex", "/.*"),
        ],
    }


def test_everything_but_criteria_has_a_default() -> None:
    assert node_queries.parse({}) == NodeQuery()
    assert node_queries.parse({"select": None, "composition": "", "where": []}) == NodeQuery()
    assert node_queries.show(NodeQuery()) == {"select": "node", "composition": "and", "where": []}


def test_the_selection_has_an_older_name() -> None:
    assert node_queries.parse({"returnType": "nodeAndPolicyServer"}).with_policy_servers


def test_existence_needs_no_value_and_keeps_none() -> None:
    query = node_queries.parse({"where": [criterion("node", "ram", "exists", "ignored")]})

    assert query.criteria == (Criterion(object_type="node", attribute="ram", comparator="exists"),)
    assert node_queries.show(query)["where"][0]["value"] == ""


VALUES = {
    Kind.STRING: "a",
    Kind.ORDERED_STRING: "a",
    Kind.LONG: "3",
    Kind.MEMORY: "3 MB",
    Kind.DATE: "01/02/2026",
    Kind.GROUP: "id",
    Kind.ENVIRONMENT: "k=v",
    Kind.PROPERTY: "k=v",
}


@pytest.mark.parametrize("object_type", CATALOGUE)
def test_every_row_of_the_catalogue_goes_in_and_out(object_type: str) -> None:
    where = []
    for known in CATALOGUE[object_type].values():
        for comparator in known.kind.comparators:
            value = "" if comparator in EXISTENCE else known.choices[0] if known.choices else VALUES[known.kind]
            value = "k:$.a" if comparator == "jsonSelect" else value
            where.append(criterion(object_type, known.name, comparator, value))
    document = {"select": "node", "composition": "and", "where": where}

    assert node_queries.show(node_queries.parse(document)) == document


@pytest.mark.parametrize(
    ("document", "refusal"),
    [
        (
            criterion("disk", "name", "eq", "x"),
            "The object type 'disk' is unknown in criterion 'disk.name'. Possible object types: [node, machine,",
        ),
        (
            criterion("node", "name", "eq", "x"),
            "The attribute 'name' is unknown for type 'node' in criterion 'node.name'. Possible attributes: [OS, nodeId,",
        ),
        (
            criterion("node", "nodeId", "lt", "x"),
            "The comparator 'lt' is unknown for attribute 'nodeId' in criterion 'node.nodeId'. Possible comparators: [exists, notExists, eq, notEq, regex, notRegex]",
        ),
        (criterion("node", "OS", "regex", "x"), "The comparator 'regex' is unknown for attribute 'OS'"),
        (
            criterion("group", "nodeGroupId", "notEq", "x"),
            "The comparator 'notEq' is unknown for attribute 'nodeGroupId'",
        ),
        (
            criterion("node", "inventoryDate", "regex", "x"),
            "The comparator 'regex' is unknown for attribute 'inventoryDate'",
        ),
        (criterion("environmentVariable", "name.value", "jsonSelect", "x"), "The comparator 'jsonSelect' is unknown"),
        (criterion("node", "nodeId", "eq"), "Missing required value for comparator 'eq' in criterion 'node.nodeId'"),
        (criterion("node", "nodeId", "eq", ""), "Empty string not allowed"),
        (criterion("node", "nodeId", "eq", 3), "'value' must be a string but was: '3'"),
        (criterion("node", "nodeId", "eq", "a\x00"), "The value of criterion 'node.nodeId' has a character"),
        (criterion("node", "nodeHostname", "regex", "a("), "The regular expression 'a(' is not valid"),
        (
            criterion("node", "OS", "eq", "Plan9"),
            "Invalid value 'Plan9' for attribute 'OS'. Possible values: [Linux, Windows, AIX, BSD, Solaris]",
        ),
        (criterion("node", "ram", "gt", "much"), "Invalid memory size: 'much'"),
        (criterion("process", "pid", "eq", "1.5"), "Invalid number: '1.5'"),
        (
            criterion("node", "inventoryDate", "gt", "2026-01-01"),
            "Invalid date: '2026-01-01'. Expected format is: 'dd/MM/yyyy'",
        ),
        (criterion("node", "inventoryDate", "gt", "31/02/2026"), "Invalid date: '31/02/2026'"),
        (
            criterion("serializedNodeProperty", "name.value", "eq", "k"),
            "When looking for 'key=value', the '=' is mandatory",
        ),
        (
            criterion("serializedNodeProperty", "name.value", "jsonSelect", "k"),
            "When looking for 'key:jsonpath', the ':' is mandatory",
        ),
        (
            criterion("environmentVariable", "name.value", "notEq", "k"),
            "When looking for 'key=value', the '=' is mandatory",
        ),
        ({"attribute": "nodeId", "comparator": "eq", "value": "x"}, "Missing expected 'objectType' query parameter"),
        ("text", "A criterion must be an object but was: 'text'"),
    ],
)
def test_a_wrong_criterion_is_refused(document: Any, refusal: str) -> None:
    with pytest.raises(Invalid) as caught:
        node_queries.parse({"where": [document]})

    assert caught.value.message.startswith(refusal)


@pytest.mark.parametrize(
    "document",
    [{"select": "all"}, {"composition": "xor"}, {"transform": "reverse"}, {"where": "x"}, {"where": {}}, {"select": 3}],
)
def test_a_wrong_query_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        node_queries.parse(document)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512 MB", 512 * 1024**2),
        ("2Go", 2 * 1024**3),
        ("2g", 2 * 1024**3),
        ("100", 100),
        ("100 b", 100),
        ("100 o", 100),
        ("1 000_000 kb", 1_000_000 * 1024),
        ("1 Y", 1024**8),
        ("3 e", 3 * 1024**6),
        ("MB", None),
        ("1.5 GB", None),
        ("1 X", None),
        ("-1 MB", None),
        ("", None),
    ],
)
def test_sizes_are_powers_of_1024(text: str, size: int | None) -> None:
    assert node_queries.parse_memory(text) == size


def test_days_are_read() -> None:
    assert node_queries.parse_date("1/2/2026") == date(2026, 2, 1)


# -- Java's regular expressions --------------------------------------------------------

#: (pattern, values that match, values that do not, PostgreSQL can do it)
REGEXES: list[tuple[str, list[str], list[str], bool]] = [
    (r"web-\d+", ["web-1", "web-22"], ["web-", "xweb-1", "web-1x", "web-٣"], True),
    (r"web", ["web"], ["web1", "aweb", "WEB"], True),
    (r"(?i)web.*", ["WEB1", "web"], ["a web"], True),
    (r"a|bc", ["a", "bc"], ["abc", "ac"], True),
    (r"^a.c$", ["abc"], ["a\nc", "abcd"], True),
    (r"(?s)a.c", ["a\nc"], ["ac"], True),
    (r"[a-c_.-]+", ["a.b-c_"], ["d", ""], True),
    (r"[^\d\s]*", ["ab"], ["a1", "a b"], True),
    (r"[]a]+", ["]a"], ["b"], True),
    (r"a{2,3}?", ["aa", "aaa"], ["a", "aaaa"], True),
    (r"a{300}", ["a" * 300], ["a" * 299], False),
    (r"\Q1.2(x)\E.*", ["1.2(x)y"], ["1a2(x)"], True),
    (r"\p{Alpha}+\P{Digit}", ["ab-"], ["ab1", "é-"], True),
    (r"\x41\u0042\t", ["AB\t"], ["ab"], True),
    (r"\$\{x\}", ["${x}"], ["x"], True),
    (r"a++b", ["aab"], ["a"], False),
    (r"(a)\1", ["aa"], ["a"], False),
    (r"(?<x>a|b)\k<x>", ["aa", "bb"], ["ab"], False),
    (r"(?!x).*", ["abc", ""], ["xa"], True),
    (r".*(?<=a)", ["ba"], ["ab"], True),
    (r"(?>a*)b", ["aab"], ["a"], False),
    (r"a(?i:b)c", ["aBc"], ["ABc"], False),
    (r"\bweb\b.*", ["web server"], ["webserver"], False),
    (r"(?:a|b)*\z", ["abab"], ["abc"], False),
    (r"a\h\v", ["a \n"], ["a  "], True),
    (r"été|\w", ["été", "e"], ["é"], True),
]


@pytest.mark.parametrize(("pattern", "fits", "others", "native"), REGEXES)
def test_a_java_regex_matches_whole_values(pattern: str, fits: list[str], others: list[str], *, native: bool) -> None:
    regex = java_regexes.parse(pattern)

    assert [value for value in (*fits, *others) if regex.python.fullmatch(value)] == fits
    assert (regex.postgres is not None) is native


@pytest.mark.parametrize(
    "pattern",
    [
        "a(",
        "a)",
        "[a",
        "*a",
        "a{",
        "{2}",
        r"\y",
        r"\p{L}",
        "[a&&b]",
        "[a[b]]",
        "(?x)a",
        "a(?i)b",
        "\\",
        r"\k",
        r"\u12",
        r"(?<a>b)(?<a>c)",
        "(?P<a>b)",
    ],
)
def test_what_java_or_we_cannot_say_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="is not valid"):
        java_regexes.parse(pattern)


@given(some.text(max_size=12))
def test_no_text_breaks_the_reading_of_regexes(text: str) -> None:
    try:
        regex = java_regexes.parse(text)
    except Invalid:
        return
    assert regex.python.pattern is not None


@given(some.text(some.characters(exclude_characters="\\", exclude_categories=["Cs"]), max_size=12))
def test_quoted_text_matches_itself_only(text: str) -> None:
    regex = java_regexes.parse(f"\\Q{text}\\E")

    assert regex.python.fullmatch(text)
    assert not regex.python.fullmatch(text + "x")
