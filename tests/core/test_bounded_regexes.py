# SPDX-License-Identifier: Apache-2.0
"""Patterns of callers: they mean what Python's matcher says, and never take for ever."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quarterdeck.core import bounded_regexes, java_regexes
from quarterdeck.core.errors import Invalid

PIECES = [
    "a",
    "b",
    ".",
    "[ab]",
    "[^a]",
    "\\w",
    "\\.",
    "^",
    "$",
    "\\b",
    "\\B",
    "\\z",
    "(a|b)",
    "(?:ab|a)",
    "(?i:A)",
    "(a?)",
]
REPEATS = ["", "*", "+", "?", "*?", "{2}", "{1,3}", "{0,2}", "{2,}"]
PATTERNS = st.recursive(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(REPEATS)).map("".join), max_size=4).map("".join),
    lambda inner: st.tuples(inner, inner, st.sampled_from(REPEATS)).map(
        lambda found: f"({found[0]}|{found[1]}){found[2]}"
    ),
    max_leaves=4,
)


@given(pattern=PATTERNS, value=st.text("abA. \n", max_size=7))
def test_the_automaton_means_what_the_matcher_means(pattern: str, value: str) -> None:
    try:
        bounded = bounded_regexes.Bounded(pattern)
    except Invalid:
        assume(False)  # hypothesis' own way
        raise
    python = java_regexes.parse(pattern).python

    assert bounded._run(value, anywhere=False) == (python.fullmatch(value) is not None)
    assert bounded._run(value, anywhere=True) == (python.search(value) is not None)
    assert bounded.fullmatch(value) == (python.fullmatch(value) is not None)
    assert bounded.search(value) == (python.search(value) is not None)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("(a+)+b", "a" * 5000, False),
        ("(a|a)*b", "a" * 5000, False),
        ("(a?){40}a{40}", "a" * 39, False),
        ("a?" * 30 + "a" * 30, "a" * 29, False),
        (".*.*.*.*=x", "=" * 5000, False),
        ("([a-z0-9]+\\.)*[a-z]+", "a." * 2000 + "b", True),
        ("([a-z0-9]+\\.)*[a-z]+", "a." * 2000, False),
        (".*a.*b", "a" * 20000, False),
    ],
)
def test_no_pattern_takes_for_ever(pattern: str, value: str, fits: bool) -> None:
    begun = time.monotonic()

    assert bounded_regexes.compiled(pattern).fullmatch(value) is fits
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "pattern", ["(?=(a+)+b)a*", "(a*)*\\1", "(?>a+)+b?c?(x+)+", "((a{1,99}){1,99}){1,99}", "(x++)+(a*)*"]
)
def test_what_cannot_be_bounded_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="too l"):
        bounded_regexes.compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "value"), [("(?=a)a.*", "ab"), ("(a)\\1", "aa"), ("(?!x)\\p{Lower}+", "abc"), ("a++b", "aab")]
)
def test_look_around_and_references_work_where_they_are_cheap(pattern: str, value: str) -> None:
    assert bounded_regexes.compiled(pattern).fullmatch(value)


@pytest.mark.parametrize("pattern", ["(", "(" * 400 + "a" + ")" * 400])
def test_a_wrong_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match=re.escape(f"'{pattern}' is not valid")):
        bounded_regexes.compiled(pattern)
