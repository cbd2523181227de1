# SPDX-License-Identifier: Apache-2.0
"""What an administrator types, while the server runs or not."""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.daemon.servers import here, quarterdeckd, serving
from tests.postgres import temporary_directory

from quarterdeck.core.errors import Invalid
from quarterdeck.daemon import commands, config, first_start
from quarterdeck.storage import embedded


@pytest.fixture(scope="module")
def running() -> Iterator[Path]:
    """The data directory of a server that runs while this module's tests do."""
    with temporary_directory() as directory, serving(directory / "data", "--no-worker") as server:
        yield server.data_dir


@pytest.fixture(scope="module")
def stopped() -> Iterator[Path]:
    """The data directory of a server that does not run, as its first start leaves it."""
    with temporary_directory() as directory:
        data = directory / "data"
        with embedded.running(data) as url:
            values = {"data_dir": str(data), "database_url": url, "listen": "127.0.0.1:8443"}
            first_start.prepare(config.load(values, {}), migrate=True)
        yield data


@pytest.fixture(params=["running", "stopped"])
def data(request: pytest.FixtureRequest) -> Path:
    """A data directory whose server runs, or does not."""
    place = request.getfixturevalue(request.param)
    assert isinstance(place, Path)
    return place


def test_a_token_is_made_listed_and_revoked(data: Path) -> None:
    place = ("--data-dir", str(data))
    made = quarterdeckd("token", "create", "ci", "--access", "write", "--role", "operator", "--expires", "30d", *place)
    listed = here("token", "list", *place)
    revoked = here("token", "revoke", "ci", *place)
    left = here("token", "list", *place)

    assert re.fullmatch(r"\w{32}\n", made.stdout), made.stderr
    assert re.search(r"^ci +write +operator +20\d\d-\d\d-\d\d \d\d:\d\d UTC +enabled$", listed.stdout, re.MULTILINE)
    assert made.stdout.strip() not in listed.stdout
    assert revoked.returncode == 0
    assert "ci " not in left.stdout


def test_a_user_is_made_with_a_password_from_standard_input(stopped: Path) -> None:
    place = ("--data-dir", str(stopped))
    made = here("user", "create", "ann", "--role", "admin", "--password-stdin", *place, text="long enough\n")
    short = here("user", "create", "bob", "--role", "admin", "--password-stdin", *place, text="short\n")
    listed = here("user", "list", *place)

    assert made.returncode == 0, made.stderr
    assert short.returncode == 1
    assert short.stderr == "quarterdeckd: A password has at least 8 characters.\n"
    assert re.search(r"^ann +admin +enabled$", listed.stdout, re.MULTILINE)
    assert "bob" not in listed.stdout


def test_enrolment_tokens_are_made_and_listed(running: Path) -> None:
    place = ("--data-dir", str(running))
    made = here("enrolment", "create", "rack 7", "--uses", "5", "--accept", *place)
    line = here("enrolment", "create", "rack 8", "--line", *place)
    listed = here("enrolment", "list", *place)

    assert re.fullmatch(r"\w{32}\n", made.stdout), made.stderr
    assert line.stdout.count("\n") == 1
    assert "enroll --server https://127.0.0.1:" in line.stdout, "what `serve` was told holds for other commands"
    assert re.search(r"rack 7 +at once +5 ", listed.stdout)


def test_check_is_content_with_a_good_server(data: Path) -> None:
    done = here("check", "--data-dir", str(data))

    assert done.returncode == 0, done.stdout + done.stderr
    subjects = " ".join(line.split()[1] for line in done.stdout.splitlines())
    assert subjects == "configuration: user: disk: keys: database: port: name: clock: local-node: policies:"


def test_check_names_what_is_wrong(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_PUBLIC_URL", "https://no-such-name.invalid:8443")
    (stopped / "keys" / "policy.key").chmod(0o644)
    try:
        done = here("check", "--data-dir", str(stopped))
    finally:
        (stopped / "keys" / "policy.key").chmod(0o600)

    assert done.returncode == 1
    assert f"FAILED keys: others may read {stopped}/keys/policy.key; run `chmod 600 " in done.stdout
    assert "FAILED name: no-such-name.invalid has no address here; correct --public-url" in done.stdout


@pytest.mark.parametrize("made_before", [False, True])
def test_a_backup_restores_into_a_new_directory(stopped: Path, reachable_dir: Path, *, made_before: bool) -> None:
    place = ("--data-dir", str(stopped))
    here("token", "create", "kept", "--access", "read", *place)
    target, fresh = reachable_dir / "backup.tar", reachable_dir / "restored"
    if made_before:
        fresh.mkdir(mode=0o700)
    policy = "description: nobody\ncontext: {project: ops}\nfor: {job: [{allow: read}]}\nby: {group: nobody}\n"
    (stopped / "acl").mkdir(exist_ok=True)
    (stopped / "acl" / "ops.aclpolicy").write_text(policy)

    written = here("backup", str(target), *place)
    restored = here("restore", str(target), "--data-dir", str(fresh))

    assert written.returncode == 0, written.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert restored.returncode == 0, restored.stderr
    assert sorted(path.name for path in fresh.iterdir()) == ["acl", "keys", "pg"]
    assert (fresh / "acl" / "ops.aclpolicy").read_text() == policy
    assert "kept" in here("token", "list", "--data-dir", str(fresh)).stdout
    for name in ("server.key", "secret.key", "policy.key"):
        assert (fresh / "keys" / name).read_bytes() == (stopped / "keys" / name).read_bytes()


def test_a_backup_is_never_overwritten_nor_restored_over_anything(stopped: Path, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar"
    target.write_text("precious")

    again = here("backup", str(target), "--data-dir", str(stopped))
    over = here("restore", str(target), "--data-dir", str(stopped))

    assert (again.returncode, over.returncode) == (1, 1)
    assert "exists already" in again.stderr
    assert "is not empty" in over.stderr
    assert target.read_text() == "precious"


def test_what_is_no_backup_leaves_no_directory(reachable_dir: Path) -> None:
    rubbish, evil, missing = (reachable_dir / name for name in ("rubbish.tar", "evil.tar", "missing.tar"))
    rubbish.write_text("rubbish")
    with tarfile.open(evil, "w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"))

    sentences = [
        here("restore", str(path), "--data-dir", str(reachable_dir / "data")).stderr
        for path in (rubbish, evil, missing)
    ]

    assert "is no readable backup" in sentences[0]
    assert "is no backup of quarterdeckd" in sentences[1]
    assert "There is no backup" in sentences[2]
    assert sorted(path.name for path in reachable_dir.iterdir()) == ["evil.tar", "rubbish.tar"]


@pytest.mark.parametrize("command", [("token", "list"), ("backup", "x.tar"), ("migrate",)])
def test_a_directory_without_a_server_gets_a_sentence(reachable_dir: Path, command: tuple[str, ...]) -> None:
    done = here(*command, "--data-dir", str(reachable_dir / "nothing"))

    assert done.returncode == 1
    assert f"There is no server in {reachable_dir}/nothing yet" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("text", "days"), [("30d", 30.0), ("12h", 0.5), ("1d", 1.0)])
def test_a_time_is_understood(text: str, days: float) -> None:
    found = commands.moment(text)

    assert found is not None
    assert abs((found - datetime.now(UTC)) - timedelta(days=days)) < timedelta(minutes=5)


@pytest.mark.parametrize("text", ["soon", "30", "30w", "-1d", "2027-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is no time"):
        commands.moment(text)


def test_a_date_without_zone_is_in_utc() -> None:
    assert commands.moment("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_data_directory_of_a_user_without_account_gets_a_sentence(tmp_path: Path) -> None:
    os.chown(tmp_path, 54321, 54321)

    done = quarterdeckd("token", "list", "--data-dir", str(tmp_path))

    assert done.returncode != 0
    assert "belongs to user id 54321, which this machine has no account for" in done.stderr
    assert "Traceback" not in done.stderr
