# SPDX-License-Identifier: Apache-2.0
"""How values of a run reach command lines, scripts and the environment; real shells say whether a value got loose."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quarterdeck.core import job_context
from quarterdeck.core.errors import Invalid
from quarterdeck.core.resources import Resource

SHELLS = sorted({path for path in map(shutil.which, ("dash", "bash")) if path})
HOSTILE = st.text(st.sampled_from("a 'b\"$`\\;&|()<>{}[]!#*?~=-\n%@é"), max_size=12)


def line(text: str, value: str) -> str:
    return str(job_context.command_line(text, {"option": {"x": value}}))


def output(shell: str, text: str) -> str:
    # An empty PATH: what got loose finds nothing to run.
    done = subprocess.run([shell, "-c", text], capture_output=True, env={"PATH": "/nowhere"}, check=False, timeout=10)
    assert done.stderr == b"", text
    return done.stdout.decode()


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("echo ${option.x}", "plain-1.2/a:b,c@d", "echo plain-1.2/a:b,c@d"),
        ("echo ${option.x}", "two words", "echo 'two words'"),
        ("echo ${option.x}", "", "echo ''"),
        ("echo ${option.x}", "a=b", "echo 'a=b'"),
        ("echo ${option.x}; date | wc", "a;b", "echo 'a;b'; date | wc"),
        ('echo "a ${option.x} b"', 'say "$HOME"', 'echo "a say \\"\\$HOME\\" b"'),
        ("echo 'a ${option.x} b'", "it's", "echo 'a it'\\''s b'"),
        ("echo ${option.unknown} ${nothing.x}", "v", "echo ${option.unknown} ${nothing.x}"),
        ("echo \\${option.x} '\\'${option.x}", "a b", "echo \\${option.x} '\\''a b'"),
        ("echo   ${option.x}   $HOME", "v", "echo   v   $HOME"),
        ("echo ${option.x}>out", "2", "echo '2'>out"),
        ("echo $(cat ${option.x})", "a b", "_rd_value_1='a b'; echo $(cat \"${_rd_value_1}\")"),
        ('echo "$(cat "${option.x}")"', "a b", '_rd_value_1=\'a b\'; echo "$(cat "${_rd_value_1}")"'),
        ("true # ${option.x}", "a\nb", "true # ${option.x}"),
        ("echo $((1 + ${option.x}))", "-7", "echo $((1 + -7))"),
    ],
)
def test_a_line_stays_as_the_author_wrote_it(text: str, value: str, expected: str) -> None:
    assert line(text, value) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("echo ${option.x}", "a\0b"),
        ("echo $((1 + ${option.x}))", "a[$(id)]"),
        ("((${option.x}))", "a[$(id)]"),
        ("[[ ${option.x} -eq 1 ]]", "a[$(id)]"),
        ("echo ${a[${option.x}]}", "a[`id`]"),
        ("cat <<EOF\n${option.x}\nEOF\n", "$(id)"),
    ],
)
def test_a_value_that_no_quoting_holds_is_refused(text: str, value: str) -> None:
    with pytest.raises(Invalid, match=r"^The value of \$\{option\.x\} "):
        line(text, value)


#: Each prints the value and nothing else.
PLACES = [
    "printf %s ${option.x}",
    'printf %s "${option.x}"',
    "printf %s '${option.x}'",
    'a=${option.x}; printf %s "$a"',
    'printf %s "$(printf %s ${option.x}; printf .)" | while IFS= read -r l; do :; done; printf %s ${option.x}',
    'printf %s "${nothing:-${option.x}}"',
    "printf %s ''${option.x}\"\"",
    "true \\' # it's ${option.x}\nprintf %s ${option.x}",
    "(printf %s ${option.x})",
    "printf '%s' \"$(:)\"${option.x}",
    "case x in x) printf %s ${option.x};; esac",
    "false || { printf %s ${option.x}; }",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=15, deadline=None)
@given(value=HOSTILE)
def test_no_value_gets_loose_in_a_shell(shell: str, place: str, value: str) -> None:
    assume("[" not in value or "{nothing" not in place)  # refused, as it may be arithmetic

    assert output(shell, line(place, value)) == value


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "place",
    [
        "printf %s `printf %s ${option.x}`",
        "printf %s $${option.x}",
        'printf %s "$(case x in a) ;; x) : "${option.x}" ;; esac)"',
        'printf %s "`printf %s "${option.x}"`"',
        "printf %s $'it\\'s ${option.x}'",
    ],
)
@pytest.mark.parametrize(
    "value", ["$(echo loose >&2)", "`echo loose >&2`", "'; echo loose >&2; '", '"; echo loose >&2; "']
)
def test_even_where_the_line_is_read_wrongly_nothing_runs(shell: str, place: str, value: str) -> None:
    done = subprocess.run([shell, "-c", line(place, value)], capture_output=True, check=False, timeout=10)

    assert b"loose\n" not in done.stderr.replace(value.encode(), b"")


def test_scripts_get_their_tokens_and_one_line_end() -> None:
    values = {"option": {"x": "a 'b'"}, "node": {"name": "n1"}}

    text = job_context.script("echo @option.x@ @node.name@ @option.y@ ${option.x} me@host.org@x\n\n", values)

    assert text == "echo a 'b' n1 @option.y@ ${option.x} me@host.org@x\n"


def test_the_context_of_a_run_and_its_environment() -> None:
    node = Resource("n1", hostname="h", tags=frozenset({"b", "a"}), os_family="unix", attributes={"my-attr": "1"})

    values = job_context.context({"my.opt": "v", "empty": ""}, {"name": "j", "group": ""}, node)

    assert values["job"] == {"name": "j"}
    assert values["node"]["tags"] == "a,b"
    assert job_context.environment(values) == {
        "RD_OPTION_MY_OPT": "v",
        "RD_JOB_NAME": "j",
        "RD_NODE_NAME": "n1",
        "RD_NODE_HOSTNAME": "h",
        "RD_NODE_TAGS": "a,b",
        "RD_NODE_OS_FAMILY": "unix",
        "RD_NODE_MY_ATTR": "1",
    }
    assert job_context.replaced("${node.name}-${node.os-family}-${node.nope}", values) == "n1-unix-${node.nope}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-d ${DATE:yyyy-MM-dd}", "-d 2026-03-04"),
        ("-d '${DATE:yyyy-MM-dd HH:mm:ss.SSS}'", "-d '2026-03-04 05:06:07.089'"),
        ("${DATE:d.M.yy 'at' h 'o''clock' ''a}", "4.3.26 at 5 o'clock 'AM"),
        ("${DATE:EEE, d MMM}${DATE:DDD}", "Wed, 4 Mar063"),
        ("${DATE:ww} ${DATE:}", "${DATE:ww} ${DATE:}"),  # not known here
    ],
)
def test_the_date_of_the_start_in_arguments(text: str, expected: str) -> None:
    assert job_context.dated(text, datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)) == expected


def test_values_in_addresses_are_encoded() -> None:
    values = {"job": {"name": "a b/c&d", "id": "7"}}

    found = job_context.url("http://h/${job.id}?n=${job.name}&x=${nothing.x}", values)

    assert found == "http://h/7?n=a%20b%2Fc%26d&x=${nothing.x}"
