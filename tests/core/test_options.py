# SPDX-License-Identifier: Apache-2.0
"""Argument strings, defaults, checks of values, and secrets that stay hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core import options
from quarterdeck.core.errors import Invalid
from quarterdeck.core.jobs import Option

NAMES = st.text("abc_.-1", min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("argstring", "expected"),
    [
        ("", {}),
        ("-a b", {"a": "b"}),
        ("-a b -c", {"a": "b", "c": "true"}),
        ("-a -b c", {"a": "true", "b": "c"}),
        ("-opt value -opt2 'two words'", {"opt": "value", "opt2": "two words"}),
        (r"-a 'it\'s \\ \n'", {"a": r"it's \ \n"}),
        ('-a "two words"', {"a": '"two'}),  # double quotes are ordinary characters
        ("stray -a b stray", {"a": "b"}),
        ("-a - -b c", {"a": "-", "b": "c"}),
        ("-a '-b'", {"a": "-b"}),
        ("-a ''", {"a": ""}),
        ("-a x -a y", {"a": "y"}),
        ("--a b", {"-a": "b"}),
        ("-a it's", {"a": "it's"}),
        ("-a 'open end", {"a": "'open"}),
        ("  -a\t b\n", {"a": "b"}),
    ],
)
def test_argument_strings_are_read(argstring: str, expected: dict[str, str]) -> None:
    assert options.parse(argstring) == expected


def test_what_is_replaced_in_a_value_stays_one_value() -> None:
    values = {"${option.x}": "a -b 'c'"}

    assert options.parse("-y ${option.x} -z", lambda word: values.get(word, word)) == {"y": "a -b 'c'", "z": "true"}


def test_argument_strings_are_written_by_name_with_apostrophes_only_where_needed() -> None:
    values = {"b": "two words", "a": "x", "c": "it's", "d": "", "e": "-1", "f": r"a b'\c"}

    assert options.written(values) == r"-a x -b 'two words' -c it's -d '' -e '-1' -f 'a b\'\\c'"


@given(st.dictionaries(NAMES, st.text(max_size=8), max_size=5))
def test_what_was_written_is_read_back(values: dict[str, str]) -> None:
    assert options.parse(options.written(values)) == values


def test_only_required_options_get_their_default() -> None:
    known = [Option(name="a", value="1", required=True), Option(name="b", value="2"), Option(name="c", required=True)]

    assert options.with_defaults(known, {"x": "y"}) == {"a": "1", "x": "y"}
    assert options.with_defaults(known, {"a": "3"}) == {"a": "3"}
    assert options.with_defaults(known, {"a": ""}) == {"a": "1"}


LIST = ("a", "b")


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        (Option(name="N", required=True), "", "Option 'N' is required."),
        (Option(name="N"), "", ""),
        (Option(name="N", regex="a+"), "ab", "Option 'N' doesn't match regular expression: 'a+', value: ab"),
        (Option(name="N", regex="a+"), "aa", ""),
        (
            Option(name="N", values=LIST, enforced=True),
            "c",
            "Option 'N' value: c was not in the allowed values: [a, b]",
        ),
        (Option(name="N", values=LIST, enforced=True, regex="x"), "a", ""),
        (Option(name="N", values=LIST), "c", ""),
        (Option(name="N", values_url="http://x", enforced=True), "c", ""),
        (
            Option(name="N", regex="a+", multivalued=True, delimiter="+"),
            "a+b",
            "Option 'N' values: [a, b] did not all match regular expression: 'a+'",
        ),
        (
            Option(name="N", values=LIST, enforced=True, multivalued=True, delimiter=", "),
            "a, c",
            "Option 'N' values: [a, c] were not all in the allowed values: [a, b]",
        ),
        (Option(name="N", values=LIST, enforced=True, multivalued=True, delimiter=","), "b,a", ""),
        (
            Option(name="N", regex="a+", secure=True),
            "geheim",
            "Option 'N' doesn't match regular expression: 'a+', value: *****",
        ),
    ],
)
def test_a_value_is_checked_against_its_option(option: Option, value: str, line: str) -> None:
    assert options.problems([option], {"N": value}) == ([line] if line else [])


def test_all_problems_come_in_one_message_in_order_of_names() -> None:
    with pytest.raises(Invalid) as told:
        options.check([Option(name="b", required=True), Option(name="a", required=True)], {})

    assert told.value.message == "Option 'a' is required.\nOption 'b' is required.\n"


def test_values_of_secure_options_are_hidden_where_they_are_shown() -> None:
    known = [Option(name="pw", secure=True), Option(name="user")]
    values = {"pw": "geheim", "user": "u"}

    assert options.shown(known, values) == "-pw ***** -user u"
    assert options.secrets(known, values) == ["geheim"]


def test_a_secret_is_hidden_in_text() -> None:
    mask = options.Mask(["geheim", "geheimnis", "line one\n}\nline two"])

    assert mask.text("das geheimnis ist geheim") == "das ***** ist *****"
    assert mask.text("a line one b } line two") == "a ***** b } *****"
    assert options.Mask([]).text("nothing") == "nothing"


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), st.lists(st.text("abc", max_size=5), max_size=6))
def test_a_secret_is_hidden_wherever_the_pieces_are_cut(secrets: list[str], pieces: list[str]) -> None:
    mask = options.Mask(secrets)

    shown = b"".join(mask.feed(piece.encode()) for piece in pieces) + mask.end()

    assert shown == options.Mask(secrets).whole("".join(pieces).encode())
