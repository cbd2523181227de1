# SPDX-License-Identifier: Apache-2.0
"""Where settings come from, and the sentence each mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quarterdeck.core.errors import Invalid
from quarterdeck.core.ids import NodeId
from quarterdeck.daemon import config

LOOPBACK = {"listen": "127.0.0.1:8443"}


def load(tmp_path: Path, text: str = "", environment: dict[str, str] | None = None, **given: Any) -> config.Config:
    """The settings of a data directory whose file says `text`."""
    (tmp_path / "quarterdeck.toml").write_text(text)
    return config.load({"data_dir": str(tmp_path), **LOOPBACK, **given}, environment or {})


def test_the_documentation_lists_every_setting_as_the_code_has_it() -> None:
    assert (Path(__file__).parents[2] / "docs" / "settings.md").read_text() == config.documentation()


def test_every_setting_says_what_it_does() -> None:
    assert all(len(setting.description) > 20 and setting.description.endswith(".") for setting in config.settings())


def test_defaults_are_complete(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert loaded.threads == 16
    assert loaded.workers.count == 1
    assert loaded.limits.body_bytes == 10 * 1024 * 1024
    assert loaded.public_url == "https://127.0.0.1:8443"
    assert loaded.data == tmp_path


def test_the_command_line_beats_the_environment_and_that_the_file(tmp_path: Path) -> None:
    text = "threads = 2\n[workers]\ncount = 2\n[log]\nlevel = 'debug'\n"
    environment = {"QUARTERDECK_THREADS": "3", "QUARTERDECK_WORKERS_COUNT": "3"}

    loaded = load(tmp_path, text, environment, threads=4)

    assert (loaded.threads, loaded.workers.count, loaded.log.level) == (4, 3, "debug")


def test_a_value_may_stand_in_a_file_or_come_from_a_command(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://db/quarterdeck\n")
    text = f"database_url = 'file:{secret}'\nthreads = 'exec:echo 5'\n"

    loaded = load(tmp_path, text)

    assert (loaded.database_url, loaded.threads) == ("postgresql://db/quarterdeck", 5)


def test_a_list_in_the_environment_is_separated_by_commas(tmp_path: Path) -> None:
    loaded = load(tmp_path, environment={"QUARTERDECK_TRUSTED_PROXIES": "10.0.0.1, 192.0.2.0/24"})

    assert loaded.trusted_proxies == ["10.0.0.1", "192.0.2.0/24"]


def test_plain_http_is_fine_behind_a_named_proxy(tmp_path: Path) -> None:
    loaded = load(tmp_path, "tls = false\ntrusted_proxies = ['10.0.0.1']\n", listen="0.0.0.0:8080")

    assert not loaded.tls


def test_variables_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, environment={"QUARTERDECK_TOKEN": "x"}).threads == 16


@pytest.mark.parametrize(
    ("text", "environment", "given", "sentence"),
    [
        ("threds = 4", {}, {}, r"no setting 'threds' in .*; did you mean 'threads'\?"),
        ("[worker]\ncount = 4", {}, {}, r"no setting 'worker.count' in .*; did you mean 'workers.count'\?"),
        ("workers = 4", {}, {}, r"no setting 'workers' in "),
        ("data_dir = '/x'", {}, {}, r"no setting 'data_dir' in "),
        ("threads = ", {}, {}, r"is not valid TOML"),
        ("threads = 0", {}, {}, r"The setting threads is wrong: expected `int` >= 1"),
        ("threads = 'many'", {}, {}, r"The setting threads is wrong: expected `int`"),
        ("[log]\nlevel = 'loud'", {}, {}, r"The setting log.level is wrong: invalid enum value 'loud'"),
        ("", {"QUARTERDECK_LISTENS": "x"}, {}, r"did you mean QUARTERDECK_LISTEN\?"),
        ("", {"QUARTERDECK_TLS": "perhaps"}, {}, r"The setting tls is wrong: expected `bool`"),
        ("", {}, {"listen": "8443"}, r"'8443' is not ADDRESS:PORT"),
        ("", {}, {"listen": "::1:8443"}, r"'::1:8443' is not ADDRESS:PORT"),
        ("", {}, {"listen": "localhost:0"}, r"'localhost:0' is not ADDRESS:PORT"),
        ("", {}, {"listen": "localhost:65536"}, r"'localhost:65536' is not ADDRESS:PORT"),
        ("", {}, {"public_url": "quarterdeck.example.org"}, r"public_url is wrong"),
        ("", {}, {"public_url": "https://a/path"}, r"public_url is wrong"),
        ("", {}, {"public_url": "https://bad_name"}, r"public_url is wrong"),
        ("", {}, {"public_url": "https://a:99999"}, r"public_url is wrong"),
        ("", {}, {"public_url": "ftp://a"}, r"public_url is wrong"),
        ("", {}, {"tls": False, "listen": "0.0.0.0:80"}, r"listens on loopback only and 0.0.0.0 is not"),
        ("", {}, {"database_url": "mysql://x"}, r"must begin with postgresql://"),
        ("trusted_proxies = ['proxy']", {}, {}, r"'proxy' is no address or network"),
        ("database_url = 'file:/nowhere'", {}, {}, r"database_url refers to file:… and that failed: No such file"),
        ("database_url = 'exec:false'", {}, {}, r"database_url refers to exec:… and that failed: CalledProcessError"),
    ],
)
def test_a_mistake_gets_a_sentence(
    tmp_path: Path, text: str, environment: dict[str, str], given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        load(tmp_path, text, environment, **given)


def test_statement_61_an_empty_file_yields_every_default(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    given = {"data_dir", "listen", "public_url"}
    for setting in config.settings():
        value: Any = loaded
        for part in setting.name.split("."):
            value = getattr(value, part)
        if setting.name not in given:
            assert value == setting.default, setting.name
    assert loaded.relay.cleanup_seconds == 600
    assert loaded.relay.retention_seconds == 7 * 86400
    assert loaded.relay.remote_run
    assert loaded.relay.remote_run_commands == []
    assert loaded.log.level == "info"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("90.5", 90.5), ("'90'", 90), ("'10 min'", 600), ("'1 d'", 86400), ("'1h 30m'", 5400), ("'2m'", 120)],
)
def test_statement_61_durations_are_whole_seconds_or_as_people_write_them(
    tmp_path: Path, written: str, seconds: float
) -> None:
    loaded = load(tmp_path, f"relay.retention_seconds = {written}\n")
    environed = load(tmp_path, "", {"QUARTERDECK_RELAY_RETENTION_SECONDS": written.strip("'")})

    assert loaded.relay.retention_seconds == seconds
    assert environed.relay.retention_seconds == seconds


@pytest.mark.parametrize("written", ["913j", "10 minuten", "", "1.5 h", "-1 d"])
def test_statement_61_what_is_no_duration_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(Invalid, match=r"The setting relay.retention_seconds is wrong: '.*' is no duration"):
        load(tmp_path, f"relay.retention_seconds = '{written}'\n")


def test_statement_61_names_that_are_no_setting_are_refused_here(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no setting 'relay.retention' in .*; did you mean 'relay.retention_seconds'"):
        load(tmp_path, "[relay]\nretention = 90\n")


COMMANDS = """\
[[relay.remote_run_commands]]
name = "ssh"
command = ["ssh", "-o", "BatchMode=yes", "--", "{hostname}", "quarterdeck-agent", "run", ["-D", "{conditions}"]]

[[relay.remote_run_commands]]
name = "rudder"
command = ["sudo", "/opt/rudder/bin/rudder", "remote", "run", ["-D", "{conditions}"], "--", "{hostname}"]
unreached = [1]
"""


def test_commands_for_nodes_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    ssh, rudder = load(tmp_path, COMMANDS).relay.commands()

    assert (ssh.name, ssh.unreached, rudder.name, rudder.unreached) == ("ssh", (255,), "rudder", (1,))
    assert rudder.argv(NodeId("n1"), "host", ["a", "b"]) == (
        ["sudo", "/opt/rudder/bin/rudder", "remote", "run", "-D", "a,b", "--", "host"]
    )
    assert ssh.argv(NodeId("n1"), "host", []) == (
        ["ssh", "-o", "BatchMode=yes", "--", "host", "quarterdeck-agent", "run"]
    )


def test_commands_for_nodes_may_stand_in_the_environment_as_json(tmp_path: Path) -> None:
    variable = "QUARTERDECK_RELAY_REMOTE_RUN_COMMANDS"
    text = '[{"name": "ssh", "command": ["ssh", "{hostname}"]}]'

    assert [one.name for one in load(tmp_path, "", {variable: text}).relay.commands()] == ["ssh"]
    with pytest.raises(Invalid, match="begins like JSON and is none"):
        load(tmp_path, "", {variable: text[:-1]})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (COMMANDS.replace('"rudder"', '"ssh"'), "two commands are called 'ssh'"),
        (COMMANDS.replace('"{hostname}"', '"{host}"'), r"The setting relay.remote_run_commands is wrong: .*\{host\}"),
        (COMMANDS.replace("unreached", "unreachable"), r"The setting relay.remote_run_commands.* is wrong: "),
    ],
)
def test_wrong_commands_for_nodes_are_refused_at_the_start(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        load(tmp_path, text)


def test_a_named_configuration_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        config.load(LOOPBACK, {}, tmp_path / "missing.toml")


def test_the_file_that_is_checked_is_the_one_that_was_named(tmp_path: Path) -> None:
    named = tmp_path / "elsewhere.toml"
    named.write_text("threads = 3")
    (tmp_path / config.FILE_NAME).write_text("this one is none of ours")
    known = config.load({"data_dir": str(tmp_path), **LOOPBACK}, {}, named)
    config.check_file(known)

    named.write_text("threats = 3")
    with pytest.raises(Invalid, match=r"threats.*elsewhere\.toml"):
        config.check_file(known)
    named.unlink()
    with pytest.raises(Invalid, match=r"elsewhere\.toml does not exist"):
        config.check_file(known)


def test_without_a_named_file_there_need_be_none(tmp_path: Path) -> None:
    known = load(tmp_path)
    (tmp_path / config.FILE_NAME).unlink()
    config.check_file(known)

    (tmp_path / config.FILE_NAME).write_text("listen =")

    with pytest.raises(Invalid, match="TOML"):
        config.check_file(known)


def test_where_settings_come_from_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no setting 'config_file'"):
        load(tmp_path, 'config_file = "/etc/other.toml"')


@pytest.mark.parametrize(
    ("listen", "expected"),
    [("0.0.0.0:8443", ("0.0.0.0", 8443)), ("[::]:443", ("::", 443)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_is_split(listen: str, expected: tuple[str, int]) -> None:
    assert config.split_address(listen) == expected


def test_the_default_url_follows_the_address(tmp_path: Path) -> None:
    assert load(tmp_path, listen="[::1]:9443").public_url == "https://[::1]:9443"
    assert load(tmp_path, listen="127.0.0.1:80", tls=False).public_url == "http://127.0.0.1:80"
    assert load(tmp_path, listen="0.0.0.0:9443").public_url.endswith(":9443")
