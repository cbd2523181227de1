# SPDX-License-Identifier: Apache-2.0
"""A file's content as lines that keep their own line ends, and methods that are one edit of such lines.

An edit is a pure function from the lines found to the lines wanted; `register_edit` makes audit (is
there a difference?) and enforcement (write the difference) of it. Any bytes survive unchanged:
what is not UTF-8 travels as surrogate escapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from quarterdeck_agent import outcome
from quarterdeck_agent.methods import contents, registration
from quarterdeck_agent.methods.system import UnableError
from quarterdeck_agent.outcome import Finding, MethodCall


class Line(NamedTuple):
    """One line: its text and the line end it had, empty at the end of a file without one."""

    body: str
    end: str


@dataclass(frozen=True)
class Text:
    """The lines of a file, in order, and the line end that new lines get."""

    lines: Tuple[Line, ...] = ()
    end: str = "\n"

    def bodies(self) -> List[str]:
        """The lines without their line ends."""
        return [line.body for line in self.lines]

    def with_lines(self, lines: Iterable[Line]) -> Text:
        """The same text with other lines; a line that is no longer last gets a line end."""
        complete = list(lines)
        ended = [Line(line.body, line.end or self.end) for line in complete[:-1]]
        return Text(tuple(ended + complete[-1:]), self.end)

    def inserted(self, position: int, bodies: Sequence[str]) -> Text:
        """The text with new lines before line `position`."""
        new = [Line(body, self.end) for body in bodies]
        return self.with_lines([*self.lines[:position], *new, *self.lines[position:]])

    def appended(self, bodies: Sequence[str]) -> Text:
        """The text with new lines at its end."""
        return self.inserted(len(self.lines), bodies)

    def changed(self, change: Callable[[str], str]) -> Text:
        """The text with `change` applied to the text of each line."""
        return Text(tuple(Line(change(line.body), line.end) for line in self.lines), self.end)

    def kept(self, wanted: Callable[[str], bool]) -> Text:
        """The text with only the lines that are `wanted`."""
        return Text(tuple(line for line in self.lines if wanted(line.body)), self.end)


def parse(data: bytes) -> Text:
    """Take a file's content apart; new lines will end like most of the lines found."""
    *ended, last = data.decode("utf-8", "surrogateescape").split("\n")
    found = [Line(piece[:-1], "\r\n") if piece.endswith("\r") else Line(piece, "\n") for piece in ended]
    lines = (*found, Line(last, "")) if last else tuple(found)
    dos = sum(line.end == "\r\n" for line in lines)
    return Text(lines, "\r\n" if dos * 2 > len(lines) else "\n")


def render(text: Text) -> bytes:
    """The content that has these lines."""
    return "".join(line.body + line.end for line in text.lines).encode("utf-8", "surrogateescape")


def given(parameter: str) -> List[str]:
    """The lines of a parameter; one line end at its end does not count as a further, empty line."""
    lines = parameter.replace("\r\n", "\n").split("\n")
    return lines[:-1] if len(lines) > 1 and lines[-1] == "" else lines


#: From the lines found (None: there is no file) to the lines wanted (None: no file needed).
Edit = Callable[[MethodCall, Optional[Text]], Optional[Text]]


def register_edit(name: str, parameters: str, edit: Edit, *, prefix: str = "", mode: int = contents.PRIVATE) -> None:
    """Register a method that is one edit of the file in its parameter `path`."""

    def audit(call: MethodCall) -> Finding:
        return judge(call["path"], *_edited(call["path"], call, edit))

    def enforce(call: MethodCall) -> Finding:
        return put(call, call["path"], *_edited(call["path"], call, edit), mode=mode)

    registration.register(name, parameters, audit, enforce, value="path", prefix=prefix)


def judge(path: str, before: Optional[bytes], after: Optional[bytes]) -> Finding:
    """Compliant when the content found is the content wanted, else drift with a diff."""
    if before == after or after is None:
        return outcome.compliant(f"{path} has the expected content." if before is not None else f"{path} is absent.")
    if before is None:
        return outcome.drift(f"{path} does not exist and would be created.\n{contents.diff(path, b'', after)}")
    return outcome.drift(f"{path} differs from what is expected.\n{contents.diff(path, before, after)}")


def put(
    call: MethodCall, path: str, before: Optional[bytes], after: Optional[bytes], mode: int = contents.PRIVATE
) -> Finding:
    """Write the content wanted when it is not the one found."""
    if before == after or after is None:
        return judge(path, before, after)
    contents.write(path, after, call.backups, mode)
    # The audit has shown the difference already.
    return outcome.compliant(f"{path} was created." if before is None else f"{path} was changed.")


def _edited(path: str, call: MethodCall, edit: Edit) -> Tuple[Optional[bytes], Optional[bytes]]:
    before = contents.read(path)
    text = edit(call, None if before is None else parse(before))
    return before, None if text is None else render(text)


def required(text: Optional[Text], path: str) -> Text:
    """The text of a file that must exist already. Raises UnableError."""
    if text is None:
        raise UnableError(f"{path} does not exist.")
    return text
