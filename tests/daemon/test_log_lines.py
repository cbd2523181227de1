# SPDX-License-Identifier: Apache-2.0
"""Which lines a process writes, by level, by part of the program, and by the node that a line names."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import config, log_lines
from quarterdeck.daemon.config import Log

NODE = "1a000000-0000-4000-8000-000000000001"
PARTS = ("quarterdeck", "quarterdeck.relaying", "quarterdeck.relaying.mirror", "quarterdeck.web", "alembic", "uvicorn")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Levels as they were before."""
    loggers = [logging.getLogger(), *map(logging.getLogger, PARTS)]
    before, handlers = [logger.level for logger in loggers], list(logging.getLogger().handlers)
    yield
    for handler in logging.getLogger().handlers[:]:
        if handler not in handlers:
            logging.getLogger().removeHandler(handler)
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What each part of the program says at each level, as far as it is written: level and part."""
    capsys.readouterr()
    for name in ("quarterdeck.relaying.mirror", "quarterdeck.web"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "about nobody")
    return [" ".join(line.split()[2:4]) for line in capsys.readouterr().err.splitlines()]


def test_a_line_has_time_level_place_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.start(Log())
    logging.getLogger("quarterdeck.web").info("Node %s came", NODE)

    line = capsys.readouterr().err

    assert line.endswith(f" INFO quarterdeck.web: Node {NODE} came\n")
    assert line[:4].isdigit()


def test_a_line_that_cannot_be_put_together_ends_nobodys_work(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.start(Log(nodes=[NODE]))

    ours = logging.getLogger().handlers[-1]
    ours.handle(logging.LogRecord("quarterdeck.web", logging.DEBUG, __file__, 1, "%d nodes", ("several",), None))

    assert "--- Logging error ---" in capsys.readouterr().err


def test_statement_67_levels_change_while_the_process_runs(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.start(Log(level="error"))
    first = written(capsys)
    log_lines.choose(Log(level="error", levels={"quarterdeck.relaying": "debug", "quarterdeck.web": "warning"}))
    second = written(capsys)
    log_lines.choose(Log(level="warning"))
    third = written(capsys)

    mirror, web = "quarterdeck.relaying.mirror:", "quarterdeck.web:"
    assert first == [f"ERROR {mirror}", f"ERROR {web}"]
    assert second == [
        *(f"{level} {mirror}" for level in ("DEBUG", "INFO", "WARNING", "ERROR")),
        *(f"{level} {web}" for level in ("WARNING", "ERROR")),
    ]
    assert third == [f"{level} {part}" for part in (mirror, web) for level in ("WARNING", "ERROR")]


def test_statement_67_lines_about_watched_nodes_are_written_whatever_their_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_lines.start(Log(level="error", nodes=["root", NODE]))
    others = written(capsys)
    web = logging.getLogger("quarterdeck.web")
    for text in (f"Node {NODE} came", f"{NODE}0 came", f"x-{NODE} came", "(root)", "rooted", "root-2"):
        web.debug("%s", text)
    watched = [line.partition("quarterdeck.web: ")[2] for line in capsys.readouterr().err.splitlines()]
    log_lines.choose(Log(level="error"))
    web.debug("Node %s came again", NODE)

    assert others == ["ERROR quarterdeck.relaying.mirror:", "ERROR quarterdeck.web:"]
    assert watched == [f"Node {NODE} came", "(root)"]
    assert capsys.readouterr().err == ""


def test_watched_nodes_leave_the_levels_of_parts_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    log_lines.start(Log(level="error", levels={"quarterdeck.relaying": "info"}, nodes=[NODE]))

    assert written(capsys) == [
        *(f"{level} quarterdeck.relaying.mirror:" for level in ("INFO", "WARNING", "ERROR")),
        "ERROR quarterdeck.web:",
    ]


def test_levels_are_written_as_a_table_and_in_the_environment() -> None:
    expected = {"quarterdeck.relaying": "debug", "quarterdeck.web": "error"}
    nested = {"log.levels": {"quarterdeck": {"relaying": "debug", "web": "error"}}}
    text = "quarterdeck.relaying=debug, quarterdeck.web=error"

    assert config.load({"data_dir": "/nowhere", **nested}, {}).log.levels == expected
    assert config.load({"data_dir": "/nowhere", "log.levels": expected}, {}).log.levels == expected
    assert config.load({"data_dir": "/nowhere"}, {"QUARTERDECK_LOG_LEVELS": text}).log.levels == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("quarterdeck.relaying", "'quarterdeck.relaying' is not NAME=VALUE"),
        ("quarterdeck.relaying=loud", "invalid enum value 'loud'"),
        ("sqlalchemy.engine=debug", "'sqlalchemy.engine' is no part of this program"),
    ],
)
def test_levels_that_are_none_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        config.load({"data_dir": "/nowhere"}, {"QUARTERDECK_LOG_LEVELS": text})
