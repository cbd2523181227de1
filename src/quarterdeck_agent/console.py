# SPDX-License-Identifier: Apache-2.0
"""What a person reads after a run: one marked line per component that is not simply fine, then a summary."""

from __future__ import annotations

import sys
from typing import Dict, Iterable, List, Mapping

from quarterdeck_agent.documents import Report
from quarterdeck_agent.run import RunResult

#: status -> (mark, mark where the terminal knows only ASCII, word, shown without --verbose)
_MARKS = {
    "result_success": ("✓", "ok", "compliant", False),
    "audit_compliant": ("✓", "ok", "compliant", False),
    "result_repaired": ("●", "**", "repaired", True),
    "result_na": ("·", "--", "not applicable", False),
    "audit_na": ("·", "--", "not applicable", False),
    "audit_noncompliant": ("✗", "!!", "not compliant", True),
    "result_error": ("✗", "!!", "error", True),
    "audit_error": ("✗", "!!", "error", True),
}
_COLOURS = {"repaired": "33", "not compliant": "31", "error": "31;1", "compliant": "32", "not applicable": "2"}


class Lines:
    """Prints components as the run comes to them, as long as somebody reads: nobody who does not ends a run."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._read = True

    def show(self, report: Report, names: Mapping[str, str]) -> None:
        """Print one component, if it is to be shown."""
        if not self._read or not (self._verbose or _MARKS[report["status"]][3]):
            return
        try:
            print(line(report, names), flush=True)
        except OSError:
            self._read = False


def show_end(result: RunResult, *, audit_only: bool) -> None:
    """Print what a run came to, for people; its warnings go to standard error."""
    for entry in result.log:
        print(f"quarterdeck-agent: {entry['message']}", file=sys.stderr)
    if result.waiting:
        print("There is no policy for this node yet; nothing was applied.")
        return
    print(summary(result))
    if audit_only:
        print("Audit only: nothing was changed and no report was sent.")
    elif result.queued:
        print(f"{result.queued} parcel(s) wait for the server and will be sent again.")


def line(report: Report, names: Mapping[str, str]) -> str:
    """One component: mark, directive, component, value, and the message below it when it has several lines."""
    mark, plain, word, _ = _MARKS[report["status"]]
    directive = names.get(report["directive"], report["directive"])
    value = f" [{report['value']}]" if report["value"] not in ("", report["component"]) else ""
    first, *rest = report["message"].splitlines() or [""]
    shown = f"{_safe(mark, plain)} {word}: {directive} / {report['component']}{value}: {first}"
    return "\n".join([_coloured(shown, word), *(f"    {part}" for part in rest)])


def summary(result: RunResult) -> str:
    """The counts of a run in one line."""
    counts: Dict[str, int] = {}
    for status, number in result.counts().items():
        word = _MARKS[status][2]
        counts[word] = counts.get(word, 0) + number
    parts = [f"{counts[word]} {word}" for word in _order(counts)]
    total = len(result.reports)
    return f"{total} component(s): {', '.join(parts) or 'nothing to do'}; {result.end - result.start:.2f} s"


def _order(words: Iterable[str]) -> List[str]:
    known = list(words)
    return [word for word in _COLOURS if word in known]


def _safe(mark: str, plain: str) -> str:
    try:
        mark.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return plain
    return mark


def _coloured(text: str, word: str) -> str:
    return f"\033[{_COLOURS[word]}m{text}\033[0m" if sys.stdout.isatty() else text
