# SPDX-License-Identifier: Apache-2.0
"""Job definitions: the words that stand for their steps, and what is wrong with options and times."""

from __future__ import annotations

import pytest

from quarterdeck.core import job_checks, jobs
from quarterdeck.core.jobs import Exec, Job, JobRef, Option, Script, ScriptFile, ScriptUrl, Sequence, Step


@pytest.mark.parametrize(
    ("step", "summary"),
    [
        (Exec("uptime -p"), "uptime -p"),
        (Script("#!/bin/sh\ndate"), "#!/bin/sh\ndate"),
        (Script("date", "-u"), "date -- -u"),
        (ScriptFile("/a.sh", "1"), "/a.sh -- 1"),
        (ScriptUrl("http://x/a.sh"), "http://x/a.sh"),
        (JobRef("n"), "job: n"),
        (JobRef("n", "g/h", "-a b"), "job: g/h/n -- -a b"),
    ],
)
def test_a_step_in_words(step: Step, summary: str) -> None:
    assert jobs.summary(step) == summary


def test_a_sequence_in_words_is_its_first_step_and_how_many_there_are() -> None:
    assert jobs.summary_of(Sequence()) == "[Empty workflow]"
    assert jobs.summary_of(Sequence(steps=(Exec("a"),))) == "a"
    assert jobs.summary_of(Sequence(steps=(Exec("a"), JobRef("b"), Exec("c")))) == "a [... 3 steps]"


def test_the_full_name_of_a_job_has_its_group() -> None:
    assert Job("n", "p").full_name == "n"
    assert Job("n", "p", group="a/b").full_name == "a/b/n"


LIST = ("a", "b")


@pytest.mark.parametrize(
    ("option", "problems"),
    [
        (Option(name="a.B_1-2"), []),
        (Option(name=""), ["Option name is letters, digits and _ . -"]),
        (Option(name="a b"), ["Option name is letters, digits and _ . -"]),
        (
            Option(name="o", value="c", values=LIST, enforced=True),
            ["Default Value was not in the allowed values list, and values are enforced"],
        ),
        (Option(name="o", value="a", values=LIST, enforced=True), []),
        (
            Option(name="o", enforced=True),
            ["Allowed values (list or remote URL) must be specified if values are enforced"],
        ),
        (Option(name="o", enforced=True, values_url="http://x"), []),
        (Option(name="o", regex="("), ["Invalid Regular Expression: ("]),
        (Option(name="o", regex="b", values=("a", "abc")), ['Allowed value "a" does not match the regex: b']),
        (Option(name="o", regex="^b", value="ab"), ['Default value "ab" does not match the regex: ^b']),
        (Option(name="o", multivalued=True), ["You must specify a delimiter for multivalued options"]),
        (Option(name="o", multivalued=True, delimiter=" "), []),
        (Option(name="o", multivalued=True, delimiter=",", secure=True), ["A secure option takes one value only"]),
        (
            Option(name="o", enforced=True, multivalued=True),
            [
                "Allowed values (list or remote URL) must be specified if values are enforced",
                "You must specify a delimiter for multivalued options",
            ],
        ),
    ],
)
def test_what_is_wrong_with_an_option(option: Option, problems: list[str]) -> None:
    assert job_checks.of_option(option) == problems


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0),
        ("90", 90),
        ("90s", 90),
        ("1h 30m", 5400),
        ("1d2h3m4s", 93784),
        ("2D", 172800),
        ("1x", None),
        ("-1", None),
    ],
)
def test_a_timeout_in_seconds(text: str, seconds: int | None) -> None:
    assert job_checks.timeout_seconds(text) == seconds


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Exec(""), "A Remote command, inline script, or script file must be specified"),
        (ScriptFile(""), "A Remote command, inline script, or script file must be specified"),
        (JobRef(""), "Job Name must be specified"),
        (ScriptUrl("http://x"), ""),
    ],
)
def test_what_is_wrong_with_a_step(step: Step, problem: str) -> None:
    assert job_checks.of_step(step) == problem
