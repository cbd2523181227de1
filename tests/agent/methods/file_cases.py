# SPDX-License-Identifier: Apache-2.0
"""Cases of the methods on files, lines, keys, sections, links and directories."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from tests.agent.methods.casebook import COMPLIANT, DRIFT, ERROR, Case, Scratch

F = "{work}/f"


def has(content: str | bytes) -> Callable[[Scratch], object]:
    return lambda scratch: scratch.file("f", content)


def directory(*names: str) -> Callable[[Scratch], object]:
    """Directories, and files where the name has a dot."""

    def prepare(scratch: Scratch) -> None:
        for name in names:
            if "." in name:
                scratch.file(name)
            else:
                (scratch.work / name).mkdir()

    return prepare


def link(target: str) -> Callable[[Scratch], object]:
    return lambda scratch: (scratch.work / "f").symlink_to(scratch.filled(target))


def pipe(scratch: Scratch) -> None:
    os.mkfifo(scratch.work / "f")


def hard_link(scratch: Scratch) -> None:
    scratch.file("f", "x")
    (scratch.work / "g").hardlink_to(scratch.work / "f")


def unix_socket(scratch: Scratch) -> None:
    # Bound by a relative name: a test's directory may be too deep for an address.
    with contextlib.chdir(scratch.work), socket.socket(socket.AF_UNIX) as bound:
        bound.bind("f")


WHOLE = [
    Case("file_present", {"path": F}, files={"f": ""}),
    Case("file_present", {"path": F}, COMPLIANT, prepare=has("x"), files={"f": "x"}),
    Case("file_present", {"path": F}, ERROR, prepare=pipe, says="is not a file"),
    Case("file_present", {"path": "f"}, ERROR, says="must be absolute"),
    Case("file_present", {"path": "{work}/none/f"}, then=ERROR),
    Case("file_present", {"path": F}, prepare=link("{work}/target"), files={"target": ""}),
    Case("file_absent", {"path": F}, COMPLIANT),
    Case("file_absent", {"path": F}, prepare=has("x"), files={"f": None}),
    Case("file_absent", {"path": F}, prepare=link("/nowhere"), files={"f": None}),
    Case("file_absent", {"path": F}, ERROR, prepare=directory("f"), says="is a directory"),
    Case("file_content", {"path": F, "lines": "a\nb", "enforce": "true"}, files={"f": "a\nb\n"}),
    Case("file_content", {"path": F, "lines": "a\nb", "enforce": "true"}, prepare=has("b\na"), files={"f": "a\nb\n"}),
    Case("file_content", {"path": F, "lines": "a", "enforce": "true"}, prepare=has("a"), files={"f": "a\n"}),
    Case("file_content", {"path": F, "lines": "a", "enforce": "true"}, COMPLIANT, prepare=has("a\r\n")),
    Case("file_content", {"path": F, "lines": "b", "enforce": "true"}, prepare=has("a\r\n"), files={"f": "b\r\n"}),
    Case("file_content", {"path": F, "lines": "c", "enforce": "false"}, prepare=has("a\n"), files={"f": "a\nc\n"}),
    Case("file_content", {"path": F, "lines": "c", "enforce": "maybe"}, ERROR, says="true or false"),
    Case("file_content", {"path": F, "lines": "a", "enforce": "true"}, ERROR, prepare=directory("f")),
    Case("file_lines_present", {"path": F, "lines": "b\nc"}, prepare=has("a\nb"), files={"f": "a\nb\nc\n"}),
    Case("file_lines_present", {"path": F, "lines": "b"}, files={"f": "b\n"}),
    Case("file_lines_present", {"path": F, "lines": "a.*[b"}, prepare=has("a.xb\n"), files={"f": "a.xb\na.*[b\n"}),
    Case("file_lines_present", {"path": F, "lines": "b"}, COMPLIANT, prepare=has("a\r\nb\r\n")),
    Case("file_lines_present", {"path": F, "lines": "b"}, prepare=has("a\r\n"), files={"f": "a\r\nb\r\n"}),
    Case("file_lines_present", {"path": F, "lines": "b"}, prepare=has(b"\xff\0a"), files={"f": "\udcff\0a\nb\n"}),
    Case("file_lines_present", {"path": F, "lines": ""}, ERROR, says="must not be empty"),
    Case("file_lines_absent", {"path": F, "lines": "b.*"}, prepare=has("a\nbc\nxb\n"), files={"f": "a\nxb\n"}),
    Case("file_lines_absent", {"path": F, "lines": "b"}, COMPLIANT, files={"f": None}),
    Case("file_lines_absent", {"path": F, "lines": "("}, ERROR, prepare=has("a"), says="not a valid regular"),
    Case("file_lines_absent", {"path": F, "lines": "b\nc"}, prepare=has("a\nb\nc"), files={"f": "a\n"}),
    Case(
        "file_replace_lines",
        {"path": F, "line": r"^#?Port (\d+)$", "replacement": "Listen ${match.1}"},
        prepare=has("#Port 22\nx\n"),
        files={"f": "Listen 22\nx\n"},
    ),
    Case("file_replace_lines", {"path": F, "line": "a", "replacement": "b"}, COMPLIANT, prepare=has("x\n")),
    Case("file_replace_lines", {"path": F, "line": "a", "replacement": r"\1$"}, prepare=has("a"), files={"f": r"\1$"}),
    Case("file_replace_lines", {"path": F, "line": "a", "replacement": "aa"}, ERROR, prepare=has("a"), says="again"),
    Case("file_replace_lines", {"path": F, "line": "a", "replacement": "${match.3}"}, ERROR, prepare=has("a")),
    Case("file_replace_lines", {"path": F, "line": "a", "replacement": "b"}, ERROR, says="does not exist"),
    Case("file_block_present", {"path": F, "block": "a\nb"}, prepare=has("a\nc\nb"), files={"f": "a\nc\nb\na\nb\n"}),
    Case("file_block_present", {"path": F, "block": "a\nb"}, COMPLIANT, prepare=has("x\na\nb\ny\n")),
    Case("file_block_present", {"path": F, "block": "a"}, files={"f": "a\n"}),
]


def key_value(value: str, separator: str, **more: str) -> dict[str, str]:
    return {"path": F, "key": "k.x", "value": value, "separator": separator, **more}


def in_list(**more: str) -> dict[str, str]:
    return {"path": F, "key": "K", "key_value_separator": "=", "parameter_separator": " ", **more}


QUOTED = {"leading_char_separator": '"', "closing_char_separator": '"'}


def dictionary(scratch: Scratch) -> None:
    scratch.facts.variables["v.d"] = {"a": "1", "b": 2}
    scratch.file("f", "a=0\n")


KEYS = [
    Case("file_key_value_present", key_value("1", "="), prepare=has("kyx=0\n"), files={"f": "kyx=0\nk.x=1\n"}),
    Case("file_key_value_present", key_value("1", "="), prepare=has("#k.x=0\nk.x=0"), files={"f": "#k.x=0\nk.x=1"}),
    Case("file_key_value_present", key_value("1", "="), prepare=has("k.x = 1\n"), files={"f": "k.x=1\n"}),
    Case("file_key_value_present", key_value(r"a\1", " "), prepare=has("k.x\t0\n"), files={"f": "k.x a\\1\n"}),
    Case("file_key_value_present", key_value("1", " "), COMPLIANT, prepare=has("k.x 1\n")),
    Case("file_key_value_present", key_value("1", " = "), files={"f": "k.x = 1\n"}),
    Case("file_key_value_present_option", key_value("1", "=", option="lax"), COMPLIANT, prepare=has("k.x =  1\n")),
    Case(
        "file_key_value_present_option",
        key_value("2", "=", option="lax"),
        prepare=has("k.x =  1\n"),
        files={"f": "k.x =  2\n"},
    ),
    Case(
        "file_key_value_present_option",
        key_value("1", "=", option="strict"),
        prepare=has("k.x = 1\n"),
        files={"f": "k.x=1\n"},
    ),
    Case("file_key_value_present_option", key_value("1", "=", option="loose"), ERROR, says="strict or lax"),
    Case(
        "file_keys_values_present",
        {"path": F, "keys": "v.d", "separator": "="},
        prepare=dictionary,
        files={"f": "a=1\nb=2\n"},
    ),
    Case("file_keys_values_present", {"path": F, "keys": '{"a": "x"}', "separator": " "}, files={"f": "a x\n"}),
    Case("file_keys_values_present", {"path": F, "keys": "v.none", "separator": " "}, ERROR, says="v.none is none"),
    Case(
        "file_key_value_parameter_present_in_list",
        in_list(parameter="b", **QUOTED),
        prepare=has('x\nK="a"\n'),
        files={"f": 'x\nK="a b"\n'},
    ),
    Case("file_key_value_parameter_present_in_list", in_list(parameter="b"), files={"f": "K=b\n"}),
    Case("file_key_value_parameter_present_in_list", in_list(parameter="b"), COMPLIANT, prepare=has("K=a  b c")),
    Case(
        "file_key_value_parameter_present_in_list",
        in_list(parameter="b", **QUOTED),
        ERROR,
        prepare=has("K=a\n"),
        says="not between",
    ),
    Case(
        "file_key_value_parameter_absent_in_list",
        in_list(parameter_regex="b.*", **QUOTED),
        prepare=has('K="a bc b d"\n'),
        files={"f": 'K="a d"\n'},
    ),
    Case("file_key_value_parameter_absent_in_list", in_list(parameter_regex="b"), COMPLIANT),
]

XML = "<a>\n  <b c='d'>\n    x\n  </b>\n</a>\n"


def ini(name: str = "k", value: str = "v") -> dict[str, str]:
    return {"path": F, "section": "s", "name": name, "value": value}


def marked(block: str) -> dict[str, str]:
    return {"path": F, "section_start": "# (", "section_end": "# )", "block": block}


SECTIONS = [
    Case("file_key_value_present_in_ini_section", ini(), files={"f": "[s]\nk=v\n"}),
    Case(
        "file_key_value_present_in_ini_section",
        ini(),
        prepare=has("[t]\nk = 1\n[s]\n;k=1\nk = 1\n\n[u]\nk=2"),
        files={"f": "[t]\nk = 1\n[s]\n;k=1\nk = v\n\n[u]\nk=2"},
    ),
    Case(
        "file_key_value_present_in_ini_section",
        ini(),
        prepare=has("[s]\nx=1\n\n[u]\n"),
        files={"f": "[s]\nx=1\nk=v\n\n[u]\n"},
    ),
    Case("file_key_value_present_in_ini_section", ini(), COMPLIANT, prepare=has("[ s ] # yes\r\nk =v\r\n")),
    Case(
        "file_line_present_in_ini_section",
        {"path": F, "section": "s", "line": "x"},
        prepare=has("[s]\n[t]\nx\n"),
        files={"f": "[s]\nx\n[t]\nx\n"},
    ),
    Case("file_line_present_in_ini_section", {"path": F, "section": "s", "line": "x"}, files={"f": "[s]\nx\n"}),
    Case(
        "file_line_present_in_xml_tag",
        {"path": F, "tag": "b", "line": "    y"},
        prepare=has(XML),
        files={"f": XML.replace("x\n", "x\n    y\n")},
    ),
    Case("file_line_present_in_xml_tag", {"path": F, "tag": "b", "line": "x"}, COMPLIANT, prepare=has(XML)),
    Case("file_line_present_in_xml_tag", {"path": F, "tag": "c", "line": "x"}, ERROR, prepare=has(XML), says="no tag"),
    Case("file_line_present_in_xml_tag", {"path": F, "tag": "c", "line": "x"}, ERROR, prepare=has("<c></c>\n")),
    Case("file_line_present_in_xml_tag", {"path": F, "tag": "c", "line": "x"}, ERROR, prepare=has("<c>\n")),
    Case("file_line_present_in_xml_tag", {"path": F, "tag": "c", "line": "x"}, ERROR, says="does not exist"),
    Case("file_block_present_in_section", marked("x\ny"), prepare=has("a"), files={"f": "a\n# (\nx\ny\n# )\n"}),
    Case(
        "file_block_present_in_section",
        marked("x"),
        prepare=has("a\n# (\nold\n# )\nb\n"),
        files={"f": "a\n# (\nx\n# )\nb\n"},
    ),
    Case("file_block_present_in_section", marked("x"), COMPLIANT, prepare=has("# (\nx\n# )")),
    Case("file_block_present_in_section", marked("x"), ERROR, prepare=has("# (\nx\n"), says="no line # )"),
]

CHECKS = [
    Case("file_check_exists", {"path": F}, COMPLIANT, prepare=link("/nowhere")),
    Case("file_check_exists", {"path": F}, DRIFT),
    Case("file_check_regular", {"path": F}, COMPLIANT, prepare=has("")),
    Case("file_check_regular", {"path": F}, prepare=pipe, says="is a named pipe"),
    Case("file_check_block_device", {"path": F}, prepare=has("")),
    Case("file_check_character_device", {"path": "/dev/null"}, COMPLIANT),
    Case("file_check_FIFO_pipe", {"path": F}, COMPLIANT, prepare=pipe),
    Case("file_check_socket", {"path": F}, COMPLIANT, prepare=unix_socket),
    Case("file_check_symlink", {"path": F}, COMPLIANT, prepare=link("/nowhere")),
    Case("file_check_symlink", {"path": F}, prepare=has("")),
    Case("file_check_symlinkto", {"path": F, "target": "/x"}, COMPLIANT, prepare=link("/x")),
    Case("file_check_symlinkto", {"path": F, "target": "/x"}, prepare=link("/y"), says="points to /y"),
    Case("file_check_hardlink", {"path": F, "path_2": "{work}/g"}, COMPLIANT, prepare=hard_link),
    Case("file_check_hardlink", {"path": F, "path_2": "{work}/g"}, prepare=has("")),
    Case("directory_check_exists", {"path": F}, COMPLIANT, prepare=directory("f")),
    Case("directory_check_exists", {"path": F}),
    Case("file_report_content", {"path": F}, COMPLIANT, prepare=has("a\nb\n"), says="a\nb"),
    Case("file_report_content", {"path": F, "regex": "c", "context": "1"}, COMPLIANT, prepare=has("a\nb\nc\nd\ne\n")),
    Case("file_report_content", {"path": F}, ERROR, says="does not exist"),
    Case("file_report_content", {"path": "/etc/shadow"}, ERROR, says="holds secrets"),
    Case("file_report_content_head", {"path": F, "limit": "1"}, COMPLIANT, prepare=has("a\nb\n"), says=":\na"),
    Case("file_report_content_tail", {"path": F, "limit": "1"}, COMPLIANT, prepare=has("a\nb\n"), says=":\nb"),
    Case("file_report_content_tail", {"path": F, "limit": "few"}, ERROR, prepare=has("a\n")),
]

LINK = {"path": F, "source": "/x"}

LINKS = [
    Case("file_symlink_present", LINK),
    Case("file_symlink_present", LINK, COMPLIANT, prepare=link("/x")),
    Case("file_symlink_present", LINK, then=ERROR, prepare=has("x"), files={"f": "x"}),
    Case("file_symlink_present_force", LINK, prepare=has("x")),
    Case("file_symlink_present_force", LINK, prepare=link("/y")),
    Case("file_symlink_present_force", LINK, then=ERROR, prepare=directory("f")),
    Case("file_symlink_present_option", {**LINK, "enforce": "true"}, prepare=has("x")),
    Case("file_symlink_present_option", {**LINK, "enforce": "false"}, then=ERROR, prepare=link("/y")),
    Case("directory_present", {"path": "{work}/a/b"}),
    Case("directory_present", {"path": F}, COMPLIANT, prepare=directory("f")),
    Case("directory_present", {"path": F}, ERROR, prepare=has("")),
    Case("directory_absent", {"path": F}, COMPLIANT),
    Case("directory_absent", {"path": F}, prepare=directory("f")),
    Case("directory_absent", {"path": F}, then=ERROR, prepare=directory("f", "f/x.y")),
    Case("directory_absent", {"path": F, "recursive": "true"}, prepare=directory("f", "f/x.y"), files={"f": None}),
    Case("directory_absent", {"path": F, "recursive": "true"}, ERROR, prepare=link("/"), says="not a directory"),
]

CASES = [*WHOLE, *KEYS, *SECTIONS, *CHECKS, *LINKS]
