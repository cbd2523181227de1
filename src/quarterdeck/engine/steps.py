# SPDX-License-Identifier: Apache-2.0
"""Steps of a job as commands for a transport, remote or local.

A script travels as the input of one command: a line for the node's shell that keeps it in a private file, runs that,
removes it and ends as the script did. Where values go in lines and scripts is decided in `core/job_context.py`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from quarterdeck.core import job_context
from quarterdeck.core.errors import Invalid
from quarterdeck.core.job_context import Line
from quarterdeck.core.jobs import Exec, Script
from quarterdeck.engine.transports import Command

#: The exit status when the script could not be brought to the node.
NOT_COPIED = 125

# Costs three forks: the subshell, the script and `rm`. The interpreter reads the file: a noexec mount does not matter.
# The subshell makes the file, so that the script gets the node's own umask and noclobber.
_PROGRAM = (
    "_rd_dir={directory}; _rd_file={file}; "
    """trap 'rm -f -- "$_rd_file"' EXIT; trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM; """
    """(umask 077; set -C; {copy}) || {{ """
    """_rd_why="the script could not be written to"; """
    """[ -w "$_rd_dir" ] || _rd_why="the script cannot be brought to the node, it must not write to"; """
    """[ -d "$_rd_dir" ] || _rd_why="the script cannot be brought to the node, there is no directory"; """
    """echo "quarterdeck: $_rd_why $_rd_dir" >&2; exit {not_copied}; }}; """
    "{prepare}eval {run} </dev/null; exit"
)
_COPY = """exec cat >"$_rd_file\""""
#: The same for a short text by the shell alone: a quarter of the cost.
_COPY_LINES = """while IFS= read -r _rd_line; do printf "%s\\n" "$_rd_line" || exit; done >"$_rd_file\""""
_SHORT = 4096
_EXECUTABLE = (
    """chmod 700 "$_rd_file"; [ -x "$_rd_file" ] || {{ """
    """echo "quarterdeck: programs must not run from $_rd_dir (noexec?)" >&2; exit {not_copied}; }}; """
)
#: What a login shell may not leave alone between apostrophes: csh the first two, fish the others.
_HIDDEN = frozenset("\n!\\'")
_SHEBANG = re.compile(rb"#![ \t]*([^ \t\r\n\0]+)(?:[ \t]+([^\r\n\0]*?))?[ \t]*\r?(?:\n|\Z)")
_ELF = b"\x7fELF"


def command_of(step: Exec | Script, values: job_context.Context, *, copy_directory: str) -> Command:
    """A command line, or a script whose text is in the job. Raises Invalid where a value has no safe place."""
    environment = job_context.environment(values)
    match step:
        case Exec(command):
            return Command(line=str(job_context.command_line(command, values)), environment=environment)
        case Script(text, args):
            content = job_context.script(text, values).encode()
            arguments = job_context.command_line(args, values)
            return script_command(content, arguments, environment, copy_directory=copy_directory)


def script_command(script: bytes, arguments: Line, environment: Mapping[str, str], *, copy_directory: str) -> Command:
    """A script as it is, and the shell text of its arguments.

    It is run by the program that its first line names, else by /bin/sh. Raises Invalid when that line is not text.
    """
    if "\0" in copy_directory or "\0" in str(arguments):
        raise Invalid("The arguments of a script or the directory for it hold a NUL character.")
    file = f"{copy_directory.rstrip('/')}/.quarterdeck-{secrets.token_hex(16)}"
    executable = script.startswith(_ELF)
    start = '"$_rd_file"' if executable else f'{_interpreter(script)} "$_rd_file"'
    run = Line(arguments.assignments, f"{start} {arguments.text}")
    program = _PROGRAM.format(
        directory=_word(copy_directory or "/"),
        file=_word(file),
        copy=_COPY_LINES if _is_short_text(script) else _COPY,
        not_copied=NOT_COPIED,
        prepare=_EXECUTABLE.format(not_copied=NOT_COPIED) if executable else "",
        run=_word(str(run)),
    )
    return Command(line=f"exec /bin/sh -c {_quoted(program)}", stdin=script, environment=environment)


def _is_short_text(script: bytes) -> bool:
    return len(script) <= _SHORT and script.isascii() and script.endswith(b"\n") and b"\0" not in script


def _interpreter(script: bytes) -> str:
    """What runs the script, as shell words: as the kernel reads a first line `#!PROGRAM ARGUMENT`."""
    match = _SHEBANG.match(script)
    if match is None:
        return "/bin/sh"
    try:
        program, argument = match[1].decode(), (match[2] or b"").decode()
    except UnicodeDecodeError:
        raise Invalid("The first line of the script names a program that is not text.") from None
    return f"{_word(program)} {_word(argument)}" if argument else _word(program)


def _word(text: str) -> str:
    """A word of the program that is this text, without a newline at its end."""
    if _HIDDEN.isdisjoint(text):
        return _quoted(text)
    hidden = "".join(f"\\0{ord(character):03o}" if character in _HIDDEN else character for character in text)
    return f'"$(printf %b {_quoted(hidden)})"'


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
