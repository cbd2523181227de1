# SPDX-License-Identifier: Apache-2.0
"""Cases of the methods on commands, conditions, variables and dictionaries."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable

from tests.agent.methods.casebook import COMPLIANT, ERROR, REPAIRED, Case, Scratch

from quarterdeck_agent.methods import markers

F = "{work}/f"
ME = pwd.getpwuid(os.getuid()).pw_name


def has(content: str | bytes) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.file("f", content)


def knows(**variables: object) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.facts.variables.update({f"p.{name}": value for name, value in variables.items()})


def holding(*names: str) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.facts.conditions.update(names)


def ran(name: str) -> Callable[[Scratch], object]:
    return lambda scratch: markers.put(scratch.call(), "commands", name, "2026-01-01")


def once(scratch: Scratch) -> None:
    markers.put(scratch.call(), "once", "c_d", "1")


def remembered(seconds: int) -> Callable[[Scratch], object]:
    return lambda scratch: markers.put(scratch.call(), "conditions", "c_d", f"{time.time() + seconds:.0f}")


TOUCH = "echo x > {work}/f"

COMMANDS = [
    Case("audit_from_command", {"command": "exit 3", "compliant_codes": "0,3"}, COMPLIANT, says="returned 3"),
    Case("audit_from_command", {"command": "echo no; exit 1", "compliant_codes": "0"}, says="no"),
    Case("audit_from_command", {"command": "true", "compliant_codes": "ok"}, ERROR, says="not an exit code"),
    Case("audit_from_command", {"command": "kill -9 $$", "compliant_codes": "137"}, COMPLIANT),
    Case("command_execution", {"command": TOUCH}, then=REPAIRED, files={"f": "x\n"}),
    Case("command_execution", {"command": "exit 1"}, then=ERROR),
    Case(
        "command_execution_result",
        {"command": "exit 1", "kept_codes": "1", "repaired_codes": "0"},
        then=COMPLIANT,
    ),
    Case("command_execution_result", {"command": TOUCH, "kept_codes": "1", "repaired_codes": "0"}, then=REPAIRED),
    Case("command_execution_result", {"command": "exit 2", "kept_codes": "1", "repaired_codes": "0"}, then=ERROR),
    Case("command_execution_once", {"command": TOUCH}, then=REPAIRED, files={"f": "x\n"}),
    Case("command_execution_once", {"command": TOUCH}, then=REPAIRED, prepare=ran("another"), files={"f": "x\n"}),
    Case(
        "command_execution_once",
        {"command": TOUCH, "unique_id": "one"},
        then=COMPLIANT,
        prepare=ran("one"),
        files={"f": None},
    ),
    Case("command_execution_once", {"command": "exit 1", "until": "never"}, then=ERROR),
    Case("command_execution_as_user", {"command": f"test $(/usr/bin/id -un) = {ME}", "user": ME}, then=REPAIRED),
    Case("command_execution_as_user", {"command": "true", "user": "no-such-user"}, then=ERROR),
]


def command(text: str) -> dict[str, str]:
    return {"condition": "c-d", "command": text, "true_codes": "0", "false_codes": "1,2"}


def expression(text: str, **more: str) -> dict[str, str]:
    return {"condition": "c-d", "expression": text, **more}


TRUE, FALSE = {"c_d_true"}, {"c_d_false"}

CONDITIONS = [
    Case("condition_from_command", command("exit 0"), COMPLIANT, conditions=TRUE),
    Case("condition_from_command", command("exit 2"), COMPLIANT, conditions=FALSE),
    Case("condition_from_command", command("exit 7"), ERROR, says="neither"),
    Case("condition_from_expression", expression("a.!b"), COMPLIANT, prepare=holding("a"), conditions=TRUE),
    Case("condition_from_expression", expression("a"), COMPLIANT, prepare=holding("c_d_true"), conditions=FALSE),
    Case("condition_from_expression", expression("a.("), ERROR, says="cannot be read"),
    Case(
        "condition_from_expression_persistent",
        expression("a", duration="5"),
        then=REPAIRED,
        prepare=holding("a"),
        conditions=TRUE,
    ),
    Case("condition_from_expression_persistent", expression("a", duration="5"), conditions=FALSE),
    Case(
        "condition_from_expression_persistent", expression("a", duration="5"), prepare=remembered(60), conditions=TRUE
    ),
    Case(
        "condition_from_expression_persistent", expression("a", duration="5"), prepare=remembered(-60), conditions=FALSE
    ),
    Case("condition_from_expression_persistent", expression("a", duration="x"), then=ERROR),
    Case(
        "condition_from_string_match",
        {"condition": "c-d", "value": "a1", "regex": r"a\d"},
        COMPLIANT,
        conditions=TRUE,
    ),
    Case(
        "condition_from_string_match",
        {"condition": "c-d", "value": "a12", "regex": r"a\d"},
        COMPLIANT,
        conditions=FALSE,
    ),
    Case("condition_from_string_match", {"condition": "c", "value": "a", "regex": "("}, ERROR, says="not a valid"),
    Case(
        "condition_from_variable_existence",
        {"condition": "c-d", "variable_name": "p.x"},
        COMPLIANT,
        prepare=knows(x=""),
        conditions=TRUE,
    ),
    Case(
        "condition_from_variable_existence",
        {"condition": "c-d", "variable_name": "p.x"},
        COMPLIANT,
        conditions=FALSE,
    ),
    Case(
        "condition_from_variable_match",
        {"condition": "c-d", "variable_name": "p.x", "expected_match": "a.*"},
        COMPLIANT,
        prepare=knows(x="abc"),
        conditions=TRUE,
    ),
    Case(
        "condition_from_variable_match",
        {"condition": "c-d", "variable_name": "p.x", "expected_match": "a"},
        ERROR,
        conditions=FALSE,
    ),
    Case("condition_once", {"condition": "c-d"}, then=REPAIRED, conditions=TRUE),
    Case("condition_once", {"condition": "c-d"}, prepare=once, conditions=FALSE),
    Case("report_if_condition", {"report_message": "ok?", "condition": "a"}, COMPLIANT, prepare=holding("a")),
    Case("report_if_condition", {"report_message": "ok?", "condition": "a"}, says="a is not met"),
]


def variable(**more: str) -> dict[str, str]:
    return {"prefix": "p", "name": "x", **more}


def from_file(content: str | bytes, kind: str = "") -> tuple[dict[str, str], Callable[[Scratch], object]]:
    return variable(file_name=F, **({"file_type": kind} if kind else {})), has(content)


def osquery(answer: str) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.tool("osqueryi", f"echo '{answer}'\n")


VARIABLES = [
    Case("variable_string", variable(value="a b"), COMPLIANT, variables={"p.x": "a b"}),
    Case(
        "variable_string",
        {"variable_prefix": "p", "variable_name": "x", "value": "1"},
        COMPLIANT,
        variables={"p.x": "1"},
    ),
    Case("variable_string", variable(value=""), ERROR, says="value must not be empty"),
    Case(
        "variable_string_default",
        variable(source_variable="p.y", default_value="d"),
        COMPLIANT,
        variables={"p.x": "d"},
    ),
    Case(
        "variable_string_default",
        variable(source_variable="p.y", default_value="d"),
        COMPLIANT,
        prepare=knows(y="s"),
        variables={"p.x": "s"},
    ),
    Case(
        "variable_string_escaped",
        {"name": "p.x"},
        COMPLIANT,
        prepare=knows(x="a.b"),
        variables={"p.x_escaped": r"a\.b"},
    ),
    Case("variable_string_escaped", {"name": "p.x"}, ERROR, says="undefined"),
    Case(
        "variable_string_from_file", variable(file_name=F), COMPLIANT, prepare=has("a\nb\n"), variables={"p.x": "a\nb"}
    ),
    Case("variable_string_from_file", variable(file_name=F), ERROR, says="does not exist"),
    Case("variable_string_from_file", variable(file_name="/etc/shadow"), ERROR, says="secrets"),
    Case("variable_string_from_command", variable(command="echo a; echo b"), COMPLIANT, variables={"p.x": "a\nb"}),
    Case("variable_string_from_command", variable(command="echo why >&2; exit 4"), ERROR, says="why"),
    Case(
        "variable_string_from_math_expression",
        variable(expression="3 * (2 + 1) ^ 2", format="%d"),
        COMPLIANT,
        variables={"p.x": "27"},
    ),
    Case(
        "variable_string_from_math_expression",
        variable(expression="sqrt(2) + 1k", format="%.2f MB"),
        COMPLIANT,
        variables={"p.x": "1001.41 MB"},
    ),
    Case("variable_string_from_math_expression", variable(expression="9^9^9^9", format="%d"), ERROR),
    Case("variable_string_from_math_expression", variable(expression="1/0", format="%d"), ERROR),
    Case("variable_string_from_math_expression", variable(expression="open('/x')", format="%d"), ERROR),
    Case("variable_string_from_math_expression", variable(expression="1", format="%s"), ERROR, says="not a format"),
    Case("variable_string_match", {"name": "p.x", "expected_match": "a+"}, COMPLIANT, prepare=knows(x="aa")),
    Case("variable_string_match", {"name": "p.x", "expected_match": "a+"}, prepare=knows(x="ab")),
    Case("variable_iterator", variable(value="a, b", separator=", "), COMPLIANT, variables={"p.x": ["a", "b"]}),
    Case(
        "variable_iterator_from_file",
        variable(file_name=F, separator_regex=r"\n", comments_regex="#.*"),
        COMPLIANT,
        prepare=has("a#1\n#2\nb\n"),
        variables={"p.x": ["a", "b"]},
    ),
]

FORMS = [("JSON", '{"a": 1}', {"a": 1}), ("auto", "[1]", [1]), ("CSV", 'a,"b,c"\r\n\n', [["a", "b,c"]])]

DICTIONARIES = [
    Case("variable_dict", variable(value='{"a": [1]}'), COMPLIANT, variables={"p.x": {"a": [1]}}),
    Case("variable_dict", variable(value="{"), ERROR, says="not valid JSON"),
    Case("variable_dict", variable(value="1"), ERROR, says="neither an object nor a list"),
    Case(
        "variable_dict_from_file",
        variable(file_name=F),
        COMPLIANT,
        prepare=has('{"a": "é"}'),
        variables={"p.x": {"a": "é"}},
    ),
    *(
        Case(
            "variable_dict_from_file_type",
            variable(file_name=F, file_type=kind),
            COMPLIANT,
            prepare=has(content),
            variables={"p.x": value},
        )
        for kind, content, value in FORMS
    ),
    Case("variable_dict_from_file_type", variable(file_name=F, file_type="XML"), ERROR, prepare=has("")),
    Case(
        "variable_dict_merge",
        variable(first_variable="p.a", second_variable="p.b"),
        COMPLIANT,
        prepare=knows(a={"k": 1, "l": 1}, b={"l": 2}),
        variables={"p.x": {"k": 1, "l": 2}},
    ),
    Case("variable_dict_merge", variable(first_variable="p.a", second_variable="p.b"), ERROR, says="p.a is undefined"),
    Case(
        "variable_dict_merge_tolerant",
        variable(first_variable="p.a", second_variable="p.b"),
        COMPLIANT,
        prepare=knows(b={"l": 2}),
        variables={"p.x": {"l": 2}},
    ),
    Case(
        "variable_dict_from_osquery",
        variable(query="select 1"),
        COMPLIANT,
        prepare=osquery('[{"a": "1"}]'),
        variables={"p.x": [{"a": "1"}]},
    ),
    Case("audit_from_osquery", {"query": "q", "value": "1"}, COMPLIANT, prepare=osquery('[{"a": "1"}]')),
    Case("audit_from_osquery", {"query": "q", "value": "1", "comparator": "!="}, prepare=osquery('[{"a": "1"}]')),
    Case(
        "audit_from_osquery",
        {"query": "q", "value": r"\d", "comparator": "~"},
        COMPLIANT,
        prepare=osquery('[{"a": "1"}]'),
    ),
    Case("audit_from_osquery", {"query": "q", "value": "1"}, ERROR, says="no osqueryi program"),
]

CASES = [*COMMANDS, *CONDITIONS, *VARIABLES, *DICTIONARIES]
