# SPDX-License-Identifier: Apache-2.0
"""Which part of an execution's output a client asks for: told in one short look, so that reading it needs no more.

Reading is `services/execution_output.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from quarterdeck.core import logs
from quarterdeck.core.executions import Execution
from quarterdeck.services import execution_output, executions
from quarterdeck.services.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `begin` to `end`, in bytes of text, of the `size` that there are now. `modified`: None without output."""

    execution: Execution
    begin: int
    end: int
    size: int
    modified: datetime | None

    @property
    def is_complete(self) -> bool:
        """Whether nothing comes behind it, now or later."""
        return self.execution.ended is not None and self.end >= self.size


def find(
    ctx: Context, execution_id: str, *, offset: int = 0, last_lines: int | None = None, most_lines: int | None = None
) -> Window:
    """The part behind an offset, or the last lines; cut after so many lines. Raises NotFound, Forbidden."""
    # The execution first: what it had written before it ended is there when the end is seen.
    execution = executions.readable(ctx, execution_id).execution
    extent = execution_output.extent(ctx, execution.id)
    begin = min(offset, extent.size)
    if last_lines:
        begin = execution_output.last_offset(ctx, execution.id, last_lines)
    end = extent.size if not most_lines else _behind_lines(ctx, execution.id, begin, most_lines)
    return Window(execution=execution, begin=begin, end=end, size=extent.size, modified=extent.modified)


def _behind_lines(ctx: Context, execution_id: int, offset: int, lines: int) -> int:
    """The offset behind so many lines, or at the end."""
    while True:
        page = execution_output.read(ctx, execution_id, offset=offset)
        if not page.entries:
            return page.next_offset
        for entry in page.entries:
            count = logs.count_lines(entry.text)
            if count >= lines:
                kept = zip(logs.lines(entry), range(lines), strict=False)
                return offset + sum(len(line.text) for line, _ in kept)
            lines -= count
            offset += len(entry.text)
